"""Whole trials of which something is killed with -9, or the disk is full: nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from endpoint_fake import FakeEndpoint, serving, wait_until
from test_trial_sending import child_of
from trial_pair import colour_rows, colour_task, large_endpoint, pair_of, small_endpoint, write_data

from advisor.cli import main
from advisor.task import TaskProfile
from advisor.trial.endpoints import Endpoint
from advisor.trial.run import run_trial
from advisor.trial.sandbox import start
from advisor.trial.setup import _rows, sandbox_rows
from advisor.trial.store import TrialStore

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
COUNT = 120


@pytest.fixture
def pair() -> Iterator[tuple[FakeEndpoint, FakeEndpoint]]:
    with serving(small_endpoint(0.001)) as small, serving(large_endpoint(0.002)) as large:
        yield small, large


def command(pair: tuple[FakeEndpoint, FakeEndpoint], folder: Path, *more: str) -> list[str]:
    """`advisor trial` on a pair, 120 requests at 30/s."""
    data, task = write_data(folder, 150)
    return [
        *(sys.executable, "-m", "advisor", "trial", str(task), "--data", str(data)),
        "--no-early-stop",
        *("--slm", pair[0].base_url, "--slm-model", "small", "--rate", "30"),
        *("--llm", pair[1].base_url, "--llm-model", "large", "--requests", str(COUNT)),
        *("--records", str(folder / "t.sqlite"), *more),
    ]


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except OSError:
        return True


def router_counts(path: Path) -> dict[str, int]:
    with TrialStore(path) as store:
        (trial,) = store.trials()
        return next(arm.requests for arm in trial.arms if arm.name == "router").model_dump()


def test_a_real_endpoint_killed_in_the_middle_of_a_trial(tmp_path: Path) -> None:
    """The sandbox's large model goes away: what is handed up fails or is served by the small one,
    every request ends on record, and the trial is judged all the same."""
    task = TaskProfile.from_yaml(
        (ROOT / "profiles" / "tasks" / "sandbox-service-desk.yaml").read_text(encoding="utf-8")
    )
    path = tmp_path / "t.sqlite"
    with start("small") as small, start("large") as large:

        def listen(message: str) -> None:
            if message.startswith("the router: "):
                threading.Timer(1.5, os.kill, (large.pid, signal.SIGKILL)).start()

        report = run_trial(
            task,
            slm=Endpoint("slm", small.base_url, small.model, queue="fifo"),
            llm=Endpoint("llm", large.base_url, large.model, queue="fifo"),
            data=_rows(sandbox_rows("held_out", 200, 5)),
            rate_per_s=40.0,
            requests=COUNT,
            early_stop=False,
            records=path,
            announce=listen,
        )
        assert not large.running

    counts = router_counts(path)
    assert counts["planned"] == 0
    assert sum(counts.values()) == COUNT
    assert counts["completed"] > COUNT // 4
    with TrialStore(path) as store:
        records = store.requests(report.trial, "router")
        alone = store.requests(report.trial, "llm_only")
    assert {record.status for record in alone} == {"failed"}
    assert all("no connection" in str(record.error) for record in alone)
    late = [record for record in records if (record.sent_s or 0) > 2.0]
    assert not any(record.route == "llm" for record in late), "nobody was there to answer"
    assert "llm_only" not in report.measurements
    assert report.measurements["router"].requests.total == COUNT


def test_the_sender_killed_ends_the_trial_and_says_so(
    pair: tuple[FakeEndpoint, FakeEndpoint], tmp_path: Path
) -> None:
    slm, llm = pair_of(*pair)

    def kill() -> None:
        os.kill(child_of(os.getpid()), signal.SIGKILL)

    def listen(message: str) -> None:
        if message.startswith("the router: "):
            threading.Timer(2.0, kill).start()

    report = run_trial(
        colour_task(),
        slm=slm,
        llm=llm,
        data=colour_rows(150),
        rate_per_s=30.0,
        requests=COUNT,
        early_stop=False,
        records=tmp_path / "t.sqlite",
        announce=listen,
    )

    assert (report.state, report.note) == ("stopped", "the load sender ended with signal 9")
    counts = router_counts(tmp_path / "t.sqlite")
    assert counts["planned"] == 0
    assert counts["completed"] + counts["cancelled"] == COUNT
    assert counts["cancelled"] > 0


def test_the_process_of_a_trial_killed_takes_its_children_along_and_is_resumed(
    pair: tuple[FakeEndpoint, FakeEndpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = subprocess.Popen(command(pair, tmp_path), stderr=subprocess.PIPE, text=True)
    assert trial.stderr is not None
    for line in trial.stderr:
        if line.startswith("the router: "):
            break
    wait_until(lambda: _completed(tmp_path / "t.sqlite") >= 20)
    children = children_of(trial.pid)
    assert len(children) == 2, "the router and the sender"
    trial.kill()
    trial.wait()
    trial.stderr.close()
    wait_until(lambda: all(gone(child) for child in children))

    counts = router_counts(tmp_path / "t.sqlite")
    assert counts["planned"] == 0
    assert counts["completed"] >= 20
    assert counts["completed"] + counts["cancelled"] == COUNT
    with TrialStore(tmp_path / "t.sqlite") as store:
        (summary,) = store.trials()
    assert summary.state == "interrupted"
    records = ["--records", str(tmp_path / "t.sqlite"), "--json"]
    assert main(["trials", "show", summary.id, *records]) in (0, 1)
    shown = json.loads(capsys.readouterr().out)
    assert shown["measurements"]["router"]["requests"] == counts
    assert main(["trials", "resume", summary.id, *records]) in (0, 1)
    resumed = json.loads(capsys.readouterr().out)
    assert resumed["measurements"]["router"]["requests"]["completed"] == COUNT


def _completed(path: Path) -> int:
    import sqlite3

    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        query = "SELECT count(*) FROM request WHERE arm = 'router' AND status = 'completed'"
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def test_a_full_disk_ends_the_command_in_one_line(
    pair: tuple[FakeEndpoint, FakeEndpoint], tmp_path: Path
) -> None:
    """No file may grow past 300 kB, as on a disk that is full then."""
    limit = 300_000

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        command(pair, tmp_path, "--json"), capture_output=True, text=True, preexec_fn=fill
    )

    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("advisor: trial records")
    assert "Traceback" not in done.stderr
    with TrialStore(tmp_path / "t.sqlite") as store:
        (summary,) = store.trials()
        assert summary.state == "interrupted"
        for arm in summary.arms:
            assert arm.requests.planned == 0
        assert any(arm.requests.completed for arm in summary.arms)


def test_a_storm_of_429s_is_in_the_verdict(
    pair: tuple[FakeEndpoint, FakeEndpoint], tmp_path: Path
) -> None:
    """After forty requests of the load both endpoints turn everything away: what failed counts
    against the quality asked for, and the counts add up."""
    before: list[int] = []

    async def storm(endpoint: FakeEndpoint, request: Any, body: dict[str, Any]) -> Any:
        if before and len(pair[0].seen) > before[0] + 40:
            error = {"error": {"message": "slow down", "type": "rate_limit"}}
            return web.json_response(error, status=429, headers={"retry-after": "1"})
        return await endpoint.reply(request, body)

    def listen(message: str) -> None:
        if message.startswith("the router: "):
            before.append(len(pair[0].seen))

    for endpoint in pair:
        endpoint.behaviour = storm
    slm, llm = pair_of(*pair)
    report = run_trial(
        colour_task(),
        slm=slm,
        llm=llm,
        data=colour_rows(400),
        rate_per_s=60.0,
        requests=200,
        early_stop=False,
        records=tmp_path / "t.sqlite",
        announce=listen,
    )

    counts = router_counts(tmp_path / "t.sqlite")
    assert counts["planned"] == 0
    assert sum(counts.values()) == 200
    assert counts["failed"] + counts["timed_out"] > 0
    states = {verdict.measure: verdict.state for verdict in report.verdicts}
    assert states["quality"] == "failed", (counts, report.measurements["router"].quality)
