"""Locust and k6 send an exported load to the real router; what Locust wrote is judged.

The programs are those of `make live` (.venv-load-tools), or named by ADVISOR_LOCUST and ADVISOR_K6.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from endpoint_fake import FakeEndpoint, serving
from trial_pair import (
    colour_rows,
    colour_task,
    exported_load,
    large_endpoint,
    router_config,
    small_endpoint,
)

from advisor.calibrate.bench.server import free_port
from advisor.trial.importing import import_load
from advisor.trial.reporting.report import TrialReport
from advisor.trial.router_process import RouterProcess
from advisor.trial.store import TrialStore

pytestmark = pytest.mark.live

TOOLS = Path(__file__).parents[2] / ".venv-load-tools" / "bin"
COUNT = 60


def program(name: str) -> str:
    named = os.environ.get(f"ADVISOR_{name.upper()}")
    beside = TOOLS / name
    found = named or (str(beside) if beside.exists() else shutil.which(name))
    if found is None:
        pytest.skip(f"no {name} here (make live builds {TOOLS.parent.name})")
    return found


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[FakeEndpoint, FakeEndpoint]]:
    with serving(small_endpoint()) as small, serving(large_endpoint()) as large:
        yield small, large


@pytest.fixture(scope="module")
def router(pair: tuple[FakeEndpoint, FakeEndpoint]) -> Iterator[RouterProcess]:
    with RouterProcess(router_config(*pair)) as router:
        yield router


def judged(folder: Path, out: Path) -> TrialReport:
    with TrialStore(folder / "t.sqlite") as store:
        return import_load(store, colour_task(), colour_rows(COUNT), out)


def check(report: TrialReport, log: str) -> None:
    """All 60 on record, a tenth handed up, everything right."""
    router = report.measurements["router"]
    assert router.requests.completed == COUNT, log
    assert router.escalation_rate is not None
    assert router.escalation_rate.value == pytest.approx(0.1)
    assert router.quality is not None
    assert router.quality.value == 1.0
    assert router.lag is not None
    print(f"Locust's send lag: p50 {router.lag.p50_ms:.1f} ms, p99 {router.lag.p99_ms:.1f} ms")


def test_locust_sends_the_plan_to_the_router(router: RouterProcess, tmp_path: Path) -> None:
    locust = program("locust")
    out = exported_load(tmp_path, router.base_url, COUNT)
    done = subprocess.run(
        [locust, "-f", str(out / "locustfile.py"), "--headless", "--users", "20",
         "--spawn-rate", "20", "--run-time", "60s", "--only-summary"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip

    assert sorted(file.name for file in out.glob("records-*")) == ["records-0.jsonl"]
    check(judged(tmp_path, out), done.stderr[-2000:])


def test_a_master_and_two_workers_write_the_same_records(
    router: RouterProcess, tmp_path: Path
) -> None:
    """The master tells each worker its half of the schedule and one second 0 for both."""
    locust = program("locust")
    out = exported_load(tmp_path, router.base_url, COUNT)
    port = str(free_port())
    common = [locust, "-f", str(out / "locustfile.py"), "--only-summary"]
    master = subprocess.Popen(
        [*common, "--headless", "--master", "--expect-workers", "2", "--users", "20",
         "--spawn-rate", "20", "--run-time", "60s", "--master-bind-port", port],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path,
    )  # fmt: skip
    workers = [
        subprocess.Popen(
            [*common, "--worker", "--master-port", port],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=tmp_path,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        _, log = master.communicate(timeout=120)
        for worker in workers:
            worker.wait(timeout=30)
    finally:
        for process in (master, *workers):
            process.kill()
            process.wait()

    files = sorted(out.glob("records-*"))
    assert [file.name for file in files] == ["records-0.jsonl", "records-1.jsonl"], log[-2000:]
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert lines[0][0] == lines[1][0], "one second 0"
    assert [len(one) - 1 for one in lines] == [COUNT // 2, COUNT // 2]
    check(judged(tmp_path, out), log[-2000:])


def test_locust_records_what_fails_and_how(tmp_path: Path) -> None:
    """Nobody listens: every request is a failure on record, none is lost."""
    locust = program("locust")
    out = exported_load(tmp_path, f"http://127.0.0.1:{free_port()}/v1", COUNT)
    subprocess.run(
        [locust, "-f", str(out / "locustfile.py"), "--headless", "--users", "20",
         "--spawn-rate", "20", "--run-time", "60s", "--only-summary"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip

    with TrialStore(tmp_path / "t.sqlite") as store:
        report = import_load(store, colour_task(), colour_rows(COUNT), out)
        records = store.requests(report.trial, "router")
    assert {record.status for record in records} == {"failed"}
    assert all("NewConnectionError" in str(record.error) for record in records)


def test_k6_sends_the_plan_to_the_router(
    router: RouterProcess, pair: tuple[FakeEndpoint, FakeEndpoint], tmp_path: Path
) -> None:
    """Its summary counts every request as answered, and the escalations by the router's header."""
    k6 = program("k6")
    before = len(pair[0].seen)
    out = exported_load(tmp_path, router.base_url, COUNT)
    summary = tmp_path / "summary.json"
    done = subprocess.run(
        [k6, "run", "--quiet", "--no-usage-report", "--summary-export", str(summary),
         str(out / "k6.js")],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={**os.environ, "ADVISOR_USERS": "20", "K6_NO_USAGE_REPORT": "true"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads(summary.read_text())["metrics"]
    assert metrics["iterations"]["count"] == COUNT
    assert metrics["checks"]["fails"] == 0
    assert metrics["escalated"]["count"] == COUNT // 10
    assert len(pair[0].seen) - before == COUNT
