"""What endpoints say of each request themselves: OpenTelemetry spans, received while a trial runs.

A small OTLP/HTTP receiver takes protobuf and JSON, gzipped or not. Each endpoint is told a path of
its own, since the spans of vLLM name no model:

    vllm serve … --otlp-traces-endpoint http://HOST:PORT/slm/v1/traces
    (with OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf)

Read are the attributes `gen_ai.latency.time_to_first_token`, `.e2e` and `.time_in_queue` that vLLM
writes; the duration of a span stands for a missing `.e2e`. The router of the trial sends its own
spans to /v1/traces: an attempt at an endpoint carries `advisor.tier`, and is the endpoint as the
router saw it. Spans are counted to the stretch of load in which they began, so clocks of other
machines must agree with this one's (NTP).
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any, Literal, Self, cast

import numpy as np

from advisor.decide.recommendation import Role
from advisor.errors import InputError
from advisor.records import Record

Witness = Literal["server", "router"]
"""Who timed a request: the endpoint itself, or the router that asked it."""

MAX_BODY_BYTES = 32_000_000
MAX_SPANS = 1_000_000
SETTLE_S = 6.5
"""OpenTelemetry's exporters send every 5 s unless told otherwise."""

POLL_S = 0.05

FIRST_TOKEN = "gen_ai.latency.time_to_first_token"
WHOLE = "gen_ai.latency.e2e"
QUEUED = "gen_ai.latency.time_in_queue"
TIER = "advisor.tier"
ROLES: tuple[Role, ...] = ("slm", "llm")
WITNESSES: tuple[Witness, ...] = ("server", "router")

_PATH = re.compile(r"(?:/(slm|llm))?/v1/(traces|metrics|logs)/?")


@dataclass(frozen=True, slots=True)
class RequestSpan:
    """One request at one endpoint."""

    role: Role
    witness: Witness
    begin_epoch_s: float
    e2e_s: float
    ttft_s: float | None = None
    queue_s: float | None = None


class TracedFigures(Record):
    """One endpoint during a stretch of load, by its spans; milliseconds, None: they do not say."""

    role: Role
    witness: Witness
    requests: int
    e2e_p50_ms: float
    e2e_p95_ms: float
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    queue_p95_ms: float | None


class SpanReceiver:
    """Listens for spans; a context manager.

    Args:
        host, port: where; port 0: one that is free.

    Raises:
        InputError: the port cannot be had, or the packages to read spans are not installed.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        _message_type()
        receiver = self

        class Handler(_Handler):
            spans = receiver

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"--otlp {host}:{port}: cannot listen there: {error}") from None
        self._server.daemon_threads = True
        self._lock = threading.Lock()
        self._found: list[RequestSpan] = []
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def root_url(self) -> str:
        """Where the router sends its spans: exporters add /v1/traces."""
        return f"http://{self.host}:{self.port}"

    def url(self, role: Role) -> str:
        """What an endpoint is to be given as its OTLP traces endpoint."""
        return f"{self.root_url}/{role}/v1/traces"

    def take(self, spans: Sequence[RequestSpan]) -> None:
        """Keep spans, up to `MAX_SPANS` in all."""
        with self._lock:
            self._found += spans[: MAX_SPANS - len(self._found)]

    def spans(self) -> tuple[RequestSpan, ...]:
        """Everything so far."""
        with self._lock:
            return tuple(self._found)

    def settle(self, timeout_s: float = SETTLE_S) -> None:
        """Wait for what exporters still hold; not at all where no span ever came."""
        give_up_s = time.monotonic() + timeout_s
        while self.spans() and time.monotonic() < give_up_s:
            time.sleep(0.1)


def traced(
    spans: Sequence[RequestSpan], *, begin_epoch_s: float, end_epoch_s: float
) -> tuple[TracedFigures, ...]:
    """The figures of each endpoint over the spans that began in a stretch of time."""
    within = [span for span in spans if begin_epoch_s <= span.begin_epoch_s <= end_epoch_s]
    found = []
    for role in ROLES:
        for witness in WITNESSES:
            same = [span for span in within if (span.role, span.witness) == (role, witness)]
            if same:
                found.append(_figures(role, witness, same))
    return tuple(found)


def _figures(role: Role, witness: Witness, spans: Sequence[RequestSpan]) -> TracedFigures:
    first = [span.ttft_s for span in spans if span.ttft_s is not None]
    queued = [span.queue_s for span in spans if span.queue_s is not None]
    whole = [span.e2e_s for span in spans]
    return TracedFigures(
        role=role,
        witness=witness,
        requests=len(spans),
        e2e_p50_ms=1e3 * float(np.median(whole)),
        e2e_p95_ms=1e3 * float(np.quantile(whole, 0.95)),
        ttft_p50_ms=1e3 * float(np.median(first)) if first else None,
        ttft_p95_ms=1e3 * float(np.quantile(first, 0.95)) if first else None,
        queue_p95_ms=1e3 * float(np.quantile(queued, 0.95)) if queued else None,
    )


class _Handler(BaseHTTPRequestHandler):
    """POST [/slm | /llm]/v1/traces; metrics are taken and left unread."""

    spans: SpanReceiver
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        found = _PATH.fullmatch(self.path)
        if found is None:
            self._reply(404)
            return
        role, signal = found.groups()
        try:
            body = self._body()
            if signal == "traces":
                is_json = "json" in self.headers.get("content-type", "")
                document = json.loads(body) if is_json else _document(body)
                self.spans.take(list(_request_spans(document, cast(Role | None, role))))
        except (ValueError, TypeError, AttributeError, RecursionError):
            self._reply(400)
            return
        self._reply(200)

    def _body(self) -> bytes:
        length = int(self.headers.get("content-length") or 0)
        if not 0 <= length <= MAX_BODY_BYTES:
            self.close_connection = True
            raise ValueError("too long")
        body = self.rfile.read(length)
        if self.headers.get("content-encoding") == "gzip":
            reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            try:
                body = reader.decompress(body, MAX_BODY_BYTES)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            if reader.unconsumed_tail:
                raise ValueError("too long")
        return body

    def _reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: what is received is not logged."""


def _request_spans(document: Mapping[str, Any], role: Role | None) -> Iterator[RequestSpan]:
    """Spans of requests to endpoints, from OTLP in JSON form; others are left out."""
    for resource in document.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                found = _request_span(span, role)
                if found is not None:
                    yield found


def _request_span(span: Mapping[str, Any], role: Role | None) -> RequestSpan | None:
    attributes = {one["key"]: _value(one.get("value", {})) for one in span.get("attributes", ())}
    tier = attributes.get(TIER)
    begin_s = int(span.get("startTimeUnixNano", 0)) / 1e9
    lasted_s = int(span.get("endTimeUnixNano", 0)) / 1e9 - begin_s
    if role is not None:
        whole_s = _seconds(attributes.get(WHOLE))
        if whole_s is None and not any(name.startswith("gen_ai.") for name in attributes):
            return None
        return RequestSpan(
            role,
            "server",
            begin_s,
            lasted_s if whole_s is None else whole_s,
            _seconds(attributes.get(FIRST_TOKEN)),
            _seconds(attributes.get(QUEUED)),
        )
    if tier in ROLES and "error.type" not in attributes:
        return RequestSpan(cast(Role, tier), "router", begin_s, lasted_s)
    return None


def _value(value: Mapping[str, Any]) -> Any:
    """OTLP's AnyValue, scalars only; integers come as text in JSON."""
    if "intValue" in value:
        return int(value["intValue"])
    return next((given for key, given in value.items() if key != "arrayValue"), None)


def _seconds(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6
    return float(value) if usable else None


def _message_type() -> Any:
    try:
        module = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    except ImportError:
        raise InputError("--otlp needs the extra: pip install 'advisor[telemetry]'") from None
    return module.ExportTraceServiceRequest


def _document(body: bytes) -> dict[str, Any]:
    """An export request in protobuf, in JSON form.

    Raises:
        ValueError: it is none.
    """
    json_format: Any = import_module("google.protobuf.json_format")
    message: Any = import_module("google.protobuf.message")
    try:
        return cast(dict[str, Any], json_format.MessageToDict(_message_type().FromString(body)))
    except message.DecodeError as error:
        raise ValueError(str(error)) from None
