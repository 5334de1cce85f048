"""Spans of endpoints: received over real HTTP, from OpenTelemetry's own exporter and the router."""

from __future__ import annotations

import gzip
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from endpoint_fake import serving
from trial_pair import colour_rows, colour_task, large_endpoint, pair_of, small_endpoint

from advisor.cli.trial_text import trial_text
from advisor.errors import InputError
from advisor.trial.reporting.html_report import html_report
from advisor.trial.run import run_trial
from advisor.trial.watching.traces import MAX_BODY_BYTES, RequestSpan, SpanReceiver, traced


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as receiver:
        yield receiver


def attribute(key: str, value: float | int | str) -> dict[str, object]:
    kind = {float: "doubleValue", int: "intValue", str: "stringValue"}[type(value)]
    return {"key": key, "value": {kind: str(value) if kind == "intValue" else value}}


def document(*attributes: dict[str, object], lasted_s: float = 0.25) -> dict[str, object]:
    """One span that began at 1000 s, in the JSON form of OTLP."""
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "llm_request",
        "startTimeUnixNano": str(1000 * 10**9),
        "endTimeUnixNano": str(round((1000 + lasted_s) * 1e9)),
        "attributes": list(attributes),
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


VLLM = (
    attribute("gen_ai.latency.time_to_first_token", 0.04),
    attribute("gen_ai.latency.e2e", 0.2),
    attribute("gen_ai.latency.time_in_queue", 0.01),
    attribute("gen_ai.usage.completion_tokens", 9),
)


def post(url: str, body: bytes, **headers: str) -> int:
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def post_json(url: str, value: object, **headers: str) -> int:
    return post(url, json.dumps(value).encode(), **{"content-type": "application/json", **headers})


def test_what_vllm_says_of_a_request(receiver: SpanReceiver) -> None:
    assert post_json(receiver.url("llm"), document(*VLLM)) == 200
    assert receiver.spans() == (RequestSpan("llm", "server", 1000.0, 0.2, 0.04, 0.01),)


def test_a_span_without_latencies_has_its_own_duration(receiver: SpanReceiver) -> None:
    named = document(attribute("gen_ai.response.model", "m"), lasted_s=0.25)
    assert post_json(receiver.url("slm"), named) == 200
    (span,) = receiver.spans()
    assert (span.e2e_s, span.ttft_s) == (pytest.approx(0.25), None)


def test_spans_of_anything_else_are_left_out(receiver: SpanReceiver) -> None:
    assert post_json(receiver.url("slm"), document(attribute("http.route", "/v1"))) == 200
    assert post_json(f"{receiver.root_url}/v1/traces", document(*VLLM)) == 200
    failed = document(attribute("advisor.tier", "slm"), attribute("error.type", "timeout"))
    assert post_json(f"{receiver.root_url}/v1/traces", failed) == 200
    assert receiver.spans() == ()


def test_the_routers_attempts_are_told_by_their_tier(receiver: SpanReceiver) -> None:
    attempt = document(attribute("advisor.tier", "llm"), lasted_s=0.5)
    assert post_json(f"{receiver.root_url}/v1/traces", attempt) == 200
    assert receiver.spans() == (RequestSpan("llm", "router", 1000.0, 0.5),)


def test_bodies_may_be_gzipped_and_may_not_be_bombs(receiver: SpanReceiver) -> None:
    body = gzip.compress(json.dumps(document(*VLLM)).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    bomb = gzip.compress(b" " * (MAX_BODY_BYTES + 1))

    assert post(receiver.url("slm"), body, **headers) == 200
    assert post(receiver.url("slm"), bomb, **headers) == 400
    assert post(receiver.url("slm"), b"not gzip", **headers) == 400
    assert len(receiver.spans()) == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/traces", b"\xff\xff\xff", 400),
        ("/elsewhere", b"", 404),
        ("/large/v1/traces", b"", 404),
        ("/v1/metrics", b"", 200),
        ("/", b"", 404),
    ],
)
def test_other_paths_and_garbage(
    receiver: SpanReceiver, path: str, body: bytes, status: int
) -> None:
    assert post(receiver.root_url + path, body) == status
    assert receiver.spans() == ()


def test_the_exporter_of_opentelemetry_is_understood(receiver: SpanReceiver) -> None:
    """Protobuf, as vLLM sends it with OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=receiver.url("slm"))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("vllm.llm_engine").start_span(
        "llm_request",
        start_time=7 * 10**9,
        attributes={"gen_ai.latency.time_to_first_token": 0.04, "gen_ai.latency.e2e": 0.2},
    )
    span.end()
    provider.shutdown()

    assert receiver.spans() == (RequestSpan("slm", "server", 7.0, 0.2, 0.04, None),)


def test_figures_are_of_the_spans_that_began_in_the_stretch() -> None:
    """Of E2E 1, 2, …, 100 ms, the median is 50.5; the one from before does not count."""
    spans = [RequestSpan("slm", "server", 10.0 + n, n / 1000, n / 2000) for n in range(1, 101)]
    early = RequestSpan("slm", "server", 5.0, 9.0)
    other = RequestSpan("llm", "router", 20.0, 0.3)

    slm, llm = traced([early, *spans, other], begin_epoch_s=10.0, end_epoch_s=200.0)

    assert (slm.requests, slm.e2e_p50_ms) == (100, pytest.approx(50.5))
    assert slm.e2e_p95_ms == pytest.approx(95.05)
    assert slm.ttft_p50_ms == pytest.approx(25.25)
    assert slm.queue_p95_ms is None
    assert (llm.role, llm.witness, llm.e2e_p95_ms) == ("llm", "router", pytest.approx(300.0))


@pytest.mark.parametrize("given", ["nonsense", "127.0.0.1", "127.0.0.1:99999", "-1"])
def test_a_port_is_expected(given: str) -> None:
    with pytest.raises(InputError, match=r"\[HOST:\]PORT is expected"):
        run_trial(colour_task(), sandbox=True, otlp=given)


def test_a_port_that_is_taken_is_named(receiver: SpanReceiver) -> None:
    with pytest.raises(InputError, match=f"--otlp 127.0.0.1:{receiver.port}: cannot listen"):
        SpanReceiver(port=receiver.port)


@pytest.mark.live
def test_a_trial_shows_the_endpoints_as_the_router_traced_them(tmp_path: Path) -> None:
    """Each request of the load asks the small endpoint once, and a tenth of them the large one."""
    with serving(small_endpoint(0.002)) as small, serving(large_endpoint(0.004)) as large:
        slm, llm = pair_of(small, large)
        begin = time.time()
        report = run_trial(
            colour_task(),
            slm=slm,
            llm=llm,
            data=colour_rows(200),
            rate_per_s=40.0,
            requests=80,
            early_stop=False,
            records=tmp_path / "t.sqlite",
            otlp="0",
        )
    assert report.load_began_epoch_s is not None
    assert begin < report.load_began_epoch_s
    seen = {(one.role, one.witness): one for one in report.traces["router"]}
    router = report.measurements["router"]
    assert router.escalation_rate is not None
    assert seen["slm", "router"].requests == 80
    escalated = round(router.escalation_rate.value * 80)
    assert seen["llm", "router"].requests == escalated > 0
    assert router.e2e_p95_ms is not None
    assert 2.0 <= seen["slm", "router"].e2e_p50_ms <= router.e2e_p95_ms.value
    for text in (trial_text(report), html_report(report)):
        assert "as the router timed it" in " ".join(text.split())
        assert "(OpenTelemetry)" in text
