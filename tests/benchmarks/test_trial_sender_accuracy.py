"""How late the load sender is at 200 requests a second, against a light server in a process of its
own: printed, with the share of the measured p95 that it may take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.serving.arrivals import Poisson
from advisor.trial.load.driver import run_arm
from advisor.trial.load.plan import LoadPlan, PlannedRequest
from advisor.trial.load.schedules import scheduled
from advisor.trial.reporting.measured import measure
from advisor.trial.store import TrialStore

pytestmark = pytest.mark.benchmark

RATE_PER_S = 200.0
REQUESTS = 4000

SERVER = """
import asyncio, json, sys
from aiohttp import web

EVENT = {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
BODY = b"".join(b"data: " + json.dumps(e).encode() + b"\\n\\n" for e in (EVENT, USAGE))

async def chat(request):
    await request.read()
    await asyncio.sleep(0.05)
    return web.Response(body=BODY + b"data: [DONE]\\n\\n", content_type="text/event-stream")

async def main():
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.communicate()


def test_send_lag_at_200_requests_a_second(server: str, tmp_path: Path) -> None:
    times = scheduled(Poisson(RATE_PER_S), REQUESTS, seed=1)
    body = {"messages": [{"role": "user", "content": "hello"}]}
    plan = LoadPlan(
        server,
        "light",
        [PlannedRequest(n, f"row-{n}", body, time_s) for n, time_s in enumerate(times)],
    )
    with TrialStore(tmp_path / "t.sqlite") as store:
        trial = store.begin("sender", {})
        result = run_arm(store, trial, "router", plan, judge=lambda outcome: outcome.record)
        counts = store.arms(trial)[0].requests

    found = measure("router", result.records, counts, cascade=False)
    assert counts.completed == REQUESTS
    assert found.lag is not None
    assert found.e2e_p95_ms is not None
    print(
        f"\nsender at {found.rate_per_s:.1f}/s: lag p50 {found.lag.p50_ms:.2f} ms, p99 "
        f"{found.lag.p99_ms:.2f} ms (limit 15 ms); E2E p50 {found.e2e_p50_ms.value:.1f} ms, p95 "
        f"{found.e2e_p95_ms.value:.1f} ms of a server that waits 50 ms; valid: {found.lag.is_small}"
    )
