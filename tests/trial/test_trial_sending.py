"""Every scheduled request is on record, whatever became of it: real sockets, a real child."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from endpoint_fake import FakeEndpoint, event, serving, wait_until

from advisor.errors import InputError
from advisor.serving.arrivals import ClosedLoop, Constant, Poisson
from advisor.trial.load.driver import ArmResult, Judge, Watch, run_arm
from advisor.trial.load.plan import LoadPlan, PlannedRequest
from advisor.trial.load.schedules import scheduled
from advisor.trial.records import RequestRecord
from advisor.trial.store import TrialStore

pytestmark = pytest.mark.live

KEY = "sk-secret-0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TrialStore]:
    with TrialStore(tmp_path / "trials.sqlite") as store:
        yield store


def plan_of(base_url: str, *, count: int = 20, rate_per_s: float = 200.0, **given: Any) -> LoadPlan:
    times = scheduled(Constant(rate_per_s), count, seed=0)
    requests = [
        PlannedRequest(
            number=number,
            row_id=f"row-{number}",
            body={"messages": [{"role": "user", "content": f"say {number} now"}]},
            scheduled_s=time_s,
        )
        for number, time_s in enumerate(times)
    ]
    return LoadPlan(base_url=base_url, model="fake", requests=requests, **given)


def unjudged(outcome: Any) -> RequestRecord:
    record: RequestRecord = outcome.record
    return record


def send(
    store: TrialStore,
    plan: LoadPlan,
    *,
    judge: Judge = unjudged,
    watch: Watch | None = None,
    keys: dict[str, str] | None = None,
) -> ArmResult:
    trial = store.begin("test", {})
    return run_arm(store, trial, "router", plan, judge=judge, watch=watch, keys=keys)


def statuses(result: ArmResult) -> Counter[str]:
    return Counter(record.status for record in result.records)


def test_an_open_loop_is_sent_on_time_and_read_to_its_last_token(store: TrialStore) -> None:
    with serving(FakeEndpoint()) as endpoint:
        result = send(store, plan_of(endpoint.base_url))

    assert statuses(result) == {"completed": 20}
    assert result.stopped is None
    first = result.records[0]
    assert (first.scheduled_s, first.row_id) == (0.005, "row-0")
    assert (first.answer, first.input_tokens, first.output_tokens) == ("say 0 now", 3, 3)
    assert first.sent_s is not None and first.end_s is not None
    assert first.scheduled_s is not None
    assert first.scheduled_s <= first.sent_s <= first.end_s
    assert all(record.ttft_s <= record.e2e_s for record in result.records)
    assert all(body["stream_options"] == {"include_usage": True} for body in endpoint.seen)


async def at_once(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    """A validated answer, as a router releases it: all of it in one piece, then its end."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await event(response, {"choices": [{"index": 0, "delta": {"content": "all of it"}}]})
    await asyncio.sleep(0.02)
    await event(response, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    await event(response, {"choices": [], "usage": {"completion_tokens": 4}})
    await response.write(b"data: [DONE]\n\n")
    return response


def test_an_answer_released_whole_has_no_time_per_token(store: TrialStore) -> None:
    """Four tokens in one piece are there at once: the 20 ms until the stream says so are none of
    the answer's. Word by word they stream."""
    with serving(FakeEndpoint(behaviour=at_once)) as endpoint:
        whole = send(store, plan_of(endpoint.base_url)).records
    with serving(FakeEndpoint()) as endpoint:
        streamed = send(store, plan_of(endpoint.base_url)).records

    assert all(one.tpot_s is None and one.ttft_s == one.e2e_s for one in whole)
    assert all(one.tpot_s is not None and one.tpot_s > 0 for one in streamed)


def test_an_open_loop_does_not_wait_for_answers(store: TrialStore) -> None:
    """Twenty answers that take 0.2 s each, sent within 0.1 s: they overlap."""

    async def slow(
        endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return await endpoint.reply(request, body)

    with serving(FakeEndpoint(behaviour=slow)) as endpoint:
        result = send(store, plan_of(endpoint.base_url))

    assert statuses(result) == {"completed": 20}
    first_end = min(record.end_s or 0 for record in result.records)
    last_sent = max(record.sent_s or 0 for record in result.records)
    assert last_sent < first_end


def test_a_closed_loop_keeps_its_users_busy_and_no_more(store: TrialStore) -> None:
    with serving(FakeEndpoint(service_s=0.005)) as endpoint:
        plan = plan_of(endpoint.base_url, count=12, concurrency=3)
        result = send(store, plan)

    assert statuses(result) == {"completed": 12}
    edges = sorted(
        [(record.sent_s, 1) for record in result.records]
        + [(record.end_s, -1) for record in result.records]
    )
    running = most = 0
    for _, change in edges:
        running += change
        most = max(most, running)
    assert most == 3


async def too_many(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    """A storm of 429s: two requests of three."""
    if len(endpoint.seen) % 3:
        error = {"error": {"message": "slow down", "type": "rate_limit"}}
        return web.json_response(error, status=429, headers={"retry-after": "7"})
    return await endpoint.reply(request, body)


async def reset(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    """Half a stream, and then the connection is gone."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n')
    assert request.transport is not None
    request.transport.abort()
    return response


async def ends_early(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n')
    return response


async def garbage(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    return web.Response(body=b"\x00\xff<html>", content_type="text/event-stream")


async def no_choices(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    return web.json_response({"object": "list"})


async def hang(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


@pytest.mark.parametrize(
    ("behaviour", "expected", "words"),
    [
        (too_many, {"failed": 14, "completed": 6}, "HTTP 429 (retry after 7): slow down"),
        (reset, {"failed": 20}, "connection"),
        (cut, {"failed": 20}, "in the middle of the answer"),
        (ends_early, {"failed": 20}, "the stream ended before its end"),
        (garbage, {"failed": 20}, "no event"),
        (no_choices, {"failed": 20}, "it has no choices"),
        (hang, {"timed_out": 20}, "no whole answer within 0.4 s"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_every_failure_is_a_record_with_one_line_of_reason(
    store: TrialStore, behaviour: Any, expected: dict[str, int], words: str
) -> None:
    with serving(FakeEndpoint(behaviour=behaviour)) as endpoint:
        result = send(store, plan_of(endpoint.base_url, timeout_s=0.4))

    assert statuses(result) == expected
    for record in result.records:
        if record.status != "completed":
            assert record.error is not None
            assert words in record.error
            assert "\n" not in record.error


def test_a_name_that_does_not_exist_and_a_port_nobody_listens_on(store: TrialStore) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    nobody = send(store, plan_of(f"http://127.0.0.1:{port}/v1", count=3))
    nowhere = send(store, plan_of("http://no-such-host.invalid/v1", count=3))

    assert statuses(nobody) == {"failed": 3}
    assert "no connection to 127.0.0.1" in str(nobody.records[0].error)
    assert statuses(nowhere) == {"failed": 3}
    assert nowhere.records[0].error == "the name no-such-host.invalid cannot be resolved"


def test_an_endpoint_killed_in_the_middle_fails_the_rest_and_loses_nothing(
    store: TrialStore,
) -> None:
    killed = []

    async def dies(
        endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        if len(endpoint.seen) > 8:
            killed.append(1)
            assert request.transport is not None
            request.transport.abort()
        return await endpoint.reply(request, body)

    with serving(FakeEndpoint(behaviour=dies)) as endpoint:
        result = send(store, plan_of(endpoint.base_url))

    assert statuses(result) == {"completed": 8, "failed": 12}
    assert len(killed) == 12


def test_a_watch_ends_the_load_and_the_rest_is_cancelled(store: TrialStore) -> None:
    spent = 0.0

    def judge(outcome: Any) -> RequestRecord:
        return replace(outcome.record, cost_usd=0.01)

    def watch(records: Sequence[RequestRecord]) -> str | None:
        nonlocal spent
        spent += sum(record.cost_usd or 0 for record in records)
        return "the cap of $0.05 is spent" if spent >= 0.05 else None

    with serving(FakeEndpoint()) as endpoint:
        plan = plan_of(endpoint.base_url, count=40, rate_per_s=20)
        result = send(store, plan, judge=judge, watch=watch)

    assert result.stopped == "the cap of $0.05 is spent"
    counts = statuses(result)
    assert 5 <= counts["completed"] < 40
    assert counts["completed"] + counts["cancelled"] == 40


def test_the_sender_killed_leaves_a_cancelled_record_for_each_request(store: TrialStore) -> None:
    killed = []

    def watch(records: Sequence[RequestRecord]) -> str | None:
        if records and not killed:
            killed.append(os.kill(child_of(os.getpid()), signal.SIGKILL))
        return None

    with serving(FakeEndpoint()) as endpoint:
        plan = plan_of(endpoint.base_url, count=50, rate_per_s=50)
        result = send(store, plan, watch=watch)

    counts = statuses(result)
    assert result.stopped == "the load sender ended with signal 9"
    assert counts["completed"] >= 1
    assert counts["completed"] + counts["cancelled"] == 50


def child_of(parent: int) -> int:
    """The sender among a process's children."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent_id = int(entry.read_text().rsplit(") ", 1)[1].split()[1])
            command = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent_id == parent and b"advisor.trial.load.sender" in command:
            return int(entry.parent.name)
    raise AssertionError("no sender is running")


APP = """
import sys
from pathlib import Path
from advisor.trial.load.driver import run_arm
from advisor.trial.load.plan import LoadPlan
from advisor.trial.store import TrialStore

store = TrialStore(Path(sys.argv[1]))
trial = store.begin("killed", {})
plan = LoadPlan.read(Path(sys.argv[2]))
run_arm(store, trial, "router", plan, judge=lambda outcome: outcome.record)
"""


def test_the_app_killed_leaves_what_it_has_and_no_sender_behind(tmp_path: Path) -> None:
    path = tmp_path / "trials.sqlite"
    with serving(FakeEndpoint()) as endpoint:
        plan_of(endpoint.base_url, count=400, rate_per_s=20).write(tmp_path / "plan.json")
        app = subprocess.Popen([sys.executable, "-c", APP, str(path), str(tmp_path / "plan.json")])
        wait_until(lambda: len(endpoint.seen) >= 5)
        sender = child_of(app.pid)
        app.kill()
        app.wait()
        wait_until(lambda: not Path(f"/proc/{sender}/cmdline").exists())

    with TrialStore(path) as store:
        (trial,) = store.trials()
        (arm,) = trial.arms
        assert trial.state == "interrupted"
        assert arm.requests.planned == 0
        assert arm.requests.completed >= 1
        assert arm.requests.total == 400
        reopened = store.reopen_arm(trial.id, "router")
        assert reopened == arm.requests.cancelled
        assert store.summary(trial.id).arms[0].requests.planned == reopened


def test_a_full_disk_ends_the_trial_in_one_line_and_keeps_what_was_written(
    store: TrialStore,
) -> None:
    trial = store.begin("full", {})
    written = []

    def watch(records: Sequence[RequestRecord]) -> str | None:
        written.extend(records)
        if len(written) >= 3:
            pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
            store._connection.execute(f"PRAGMA max_page_count = {pages}")
        return None

    with (
        serving(FakeEndpoint(answer=lambda text: text * 500)) as endpoint,
        pytest.raises(InputError, match="full"),
    ):
        plan = plan_of(endpoint.base_url, count=200, rate_per_s=100)
        run_arm(store, trial, "router", plan, judge=unjudged, watch=watch)
    store._connection.execute("PRAGMA max_page_count = 1000000")
    store.finish(trial, "interrupted", "the disk was full")

    (arm,) = store.summary(trial).arms
    assert (arm.requests.total, arm.requests.planned) == (200, 0)
    assert arm.requests.completed >= 3


def test_the_key_is_sent_and_never_written(store: TrialStore, tmp_path: Path) -> None:
    async def repeats_the_key(
        endpoint: FakeEndpoint, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        error = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
        return web.json_response(error, status=401)

    with serving(FakeEndpoint(behaviour=repeats_the_key)) as endpoint:
        plan = plan_of(endpoint.base_url, count=3, api_key_env="ADVISOR_SLM_API_KEY")
        result = send(store, plan, keys={"ADVISOR_SLM_API_KEY": KEY})

    assert endpoint.seen_headers[0]["Authorization"] == f"Bearer {KEY}"
    assert result.records[0].error == "HTTP 401: Incorrect API key provided: [key]"
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()


def test_schedules_are_drawn_by_the_simulator_own_arrivals() -> None:
    times = scheduled(Poisson(10.0), 2000, seed=3)

    assert times == scheduled(Poisson(10.0), 2000, seed=3)
    assert times[-1] == pytest.approx(200, rel=0.1)
    assert scheduled(ClosedLoop(4), 3, seed=0) == [None, None, None]
    with pytest.raises(InputError, match="at least 1"):
        scheduled(Constant(1.0), 0, seed=0)


def test_a_plan_reads_back_as_it_was_written(tmp_path: Path) -> None:
    plan = plan_of("http://127.0.0.1:1/v1", count=2, api_key_env="NAME_OF_A_VARIABLE")
    plan.write(tmp_path / "plan.json")

    assert LoadPlan.read(tmp_path / "plan.json") == plan
    assert json.loads((tmp_path / "plan.json").read_text())["api_key_env"] == "NAME_OF_A_VARIABLE"
