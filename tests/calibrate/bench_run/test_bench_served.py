"""A server measured from outside: real HTTP, streams, and the requests a user allows."""

from itertools import pairwise
from pathlib import Path

import pytest
from bench_points import CHIP
from stand_in_engine import write_model
from stand_in_server import FIRST_S, TOKEN_S, serving

from advisor.calibrate.bench.outputs import accelerator_text
from advisor.calibrate.bench.remote import RemoteRun, run_remote
from advisor.calibrate.bench.served import Sent, Server, statistics
from advisor.calibrate.bench.session import Session
from advisor.catalog import load_catalog
from advisor.errors import InputError

pytestmark = pytest.mark.live


def test_statistics_of_known_requests() -> None:
    sent = [
        Sent(0.0, 0.0, 0.1, 0.5, 5),
        Sent(1.0, 1.0, 1.2, 1.8, 4),
        Sent(2.0, 2.1, 2.1, 2.1, 0, "HTTP 500: no"),
    ]
    found = statistics(sent)

    assert (found["requests"], found["failed"]) == (3, 1)
    assert found["ttft_p50_ms"] == pytest.approx(150)
    assert found["tpot_mean_ms"] == pytest.approx((100 + 200) / 2)
    assert found["e2e_mean_ms"] == pytest.approx((500 + 800) / 2)
    assert found["output_tokens_per_s"] == pytest.approx(9 / 1.8)


def test_streams_are_timed_token_by_token() -> None:
    with serving() as running:
        server = Server(running.url, vocabulary=100)
        told = server.describe()
        before = server.metrics()
        sent = server.load(due_s=[0.0, 0.05, 0.1], prompt_tokens=[8] * 3, output_tokens=[6] * 3)
        after = server.metrics()

    assert (told.model, told.version, told.max_model_len) == ("m", "0.32.0", 2048)
    assert [one.tokens for one in sent] == [6, 6, 6]
    assert after["generation_tokens_total"] - before["generation_tokens_total"] == 18
    for one, due in zip(sent, (0.0, 0.05, 0.1), strict=True):
        assert one.sent_s >= due, "an open loop waits for no answer, and never hurries"
        assert one.first_s - one.sent_s >= FIRST_S
        assert one.last_s - one.sent_s >= FIRST_S + 5 * TOKEN_S
        assert one.first_s < one.last_s


def test_no_more_places_than_asked_for() -> None:
    with serving() as running:
        server = Server(running.url, vocabulary=100)
        server.describe()
        sent = server.load(
            due_s=[0.0] * 4, prompt_tokens=[8] * 4, output_tokens=[3] * 4, concurrency=1
        )

    ordered = sorted(sent, key=lambda one: one.sent_s)
    assert all(later.sent_s >= earlier.last_s for earlier, later in pairwise(ordered))


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://user:pw@host"])
def test_addresses_that_are_none_are_refused_without_their_secrets(url: str) -> None:
    with pytest.raises(InputError, match="http://host:port is expected") as found:
        Server(url)

    assert "pw" not in str(found.value)


def test_a_dead_endpoint_is_one_line() -> None:
    with pytest.raises(InputError, match=r"--url http://127\.0\.0\.1:9: nothing answers") as found:
        Server("http://127.0.0.1:9").describe()

    assert "\n" not in str(found.value)


def test_an_engine_that_dies_behind_its_server_is_told() -> None:
    with serving() as running:
        server = Server(running.url, vocabulary=100)
        server.describe()
        running.broken = True
        with pytest.raises(InputError, match=r"every request failed: HTTP 500: .*engine is dead"):
            server.load(due_s=[0.0], prompt_tokens=[8], output_tokens=[2])


def test_a_running_server_is_measured_within_its_requests(tmp_path: Path) -> None:
    chip = tmp_path / "chip.yaml"
    chip.write_text(accelerator_text(CHIP), encoding="utf-8")
    with serving() as running:
        run = RemoteRun(
            url=running.url + "/v1",
            model=str(write_model(tmp_path / "model")),
            accelerator=str(chip),
            requests=60,
            arguments={"max_num_seqs": 32},
            api_key="sk-secret",
        )
        session = Session(output=tmp_path / "remote.jsonl", budget_s=60)
        outcome = run_remote(run, session, load_catalog())
        assert 20 < running.requests <= 60
        assert running.keys == {"Bearer sk-secret"}

    assert outcome is not None
    assert len(outcome.loads) == 2
    assert outcome.request_overhead_ms is not None
    assert outcome.median_error < 0.2
    text = (tmp_path / "remote.jsonl").read_text(encoding="utf-8")
    assert "sk-secret" not in text
    for point in session.points:
        if point.shape.kind == "load":
            assert point.predicted["tpot_p50_ms"] > 0
            assert point.results["server_generation_tokens_total"] > 0
