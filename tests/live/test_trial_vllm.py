"""The sandbox's trial on two real vLLM servers, one core each: the short form of
`advisor trial … --sandbox --engine vllm`, one command whose report all tests here read.

Needs the environment that `make vllm-cpu` builds. What else a machine does shows in every time and
in a projection of it, so those are printed; asserted is what no other work changes.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from advisor.calibrate.bench.local import find_python
from advisor.errors import InputError

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

TASK = "profiles/tasks/sandbox-service-desk.yaml"
ROOT = Path(__file__).parents[2]
REQUESTS = 60
KEY = "sk-of-nobody-at-all"

LIMIT_S = 720.0
"""Of the command: it gives vLLM 420 s to start, which takes it 40 s alone on two cores and was seen
to take 220 s beside other work; the trial itself is a minute."""

ENDING_S = 30.0
"""For the processes of a command that has ended to be gone."""


@pytest.fixture(scope="module", autouse=True)
def _vllm() -> None:
    try:
        find_python()
    except InputError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("vllm")
    records = folder / "trials.sqlite"
    command = [sys.executable, "-m", "advisor", "trial", TASK, "--sandbox", "--engine", "vllm"]
    command += ["--requests", str(REQUESTS), "--load", "0.3", "--json", "--otlp", "0"]
    code, output, said, took_s = ended(
        [*command, "--records", str(records)],
        {**os.environ, "ADVISOR_SLM_API_KEY": KEY, "OPENBLAS_NUM_THREADS": "1"},
    )
    print(f"\nsandbox trial on vLLM: {took_s:.0f} s")
    assert code in (0, 1), said[-2000:]
    for file in folder.iterdir():
        assert KEY.encode() not in file.read_bytes()
    found: dict[str, Any] = json.loads(output)
    return found


def ended(command: list[str], environment: dict[str, str]) -> tuple[int, str, str, float]:
    """A command in a session of its own: exit code, output, error output and seconds. It fails
    where it does not end, or leaves a process behind; none is left then either."""
    begin_s = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    ) as running:
        try:
            output, said = running.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            end_all(running.pid)
            _, said = running.communicate(timeout=ENDING_S)
            pytest.fail(f"it did not end within {LIMIT_S:.0f} s; it said: {said[-2000:]}")
        except BaseException:
            end_all(running.pid)
            raise
        took_s = time.monotonic() - begin_s
        left = end_all(running.pid, patience_s=ENDING_S)
    assert not left, f"left behind: {left}"
    return running.returncode, output, said, took_s


def end_all(session: int, *, patience_s: float = 0.0) -> list[str]:
    """End every process of a session; the names of those that had to be."""
    give_up_s = time.monotonic() + patience_s
    while (left := living(session)) and time.monotonic() < give_up_s:
        time.sleep(0.2)
    for process in left:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return list(left.values())


def living(session: int) -> dict[int, str]:
    """Processes of a session that have not ended, with their names. vLLM renames its own and starts
    them in groups of their own; none begins another session."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            before, _, after = entry.read_text(errors="replace").rpartition(") ")
        except OSError:
            continue
        fields = after.split()
        if int(fields[3]) == session and fields[0] != "Z":
            found[int(entry.parent.name)] = before.partition(" (")[2]
    return found


def test_every_request_is_accounted_for(report: dict[str, Any]) -> None:
    counts = {arm: one["requests"] for arm, one in report["measurements"].items()}
    assert sum(counts["router"].values()) == REQUESTS
    for arm in ("router", "slm_only", "llm_only"):
        assert counts[arm]["planned"] == 0
        assert counts[arm]["completed"] > 0.9 * sum(counts[arm].values()) > 0


def test_both_models_are_served_as_they_were_trained(report: dict[str, Any]) -> None:
    """Decoding is greedy, so that what they say hangs on no other work."""
    slm, llm = report["calibration"]["slm"], report["calibration"]["llm"]
    assert (slm["queue"], llm["queue"]) == ("sharing", "sharing")
    assert 0.8 < slm["quality"] < llm["quality"]
    print(f"quality in calibration: small {slm['quality']:.1%}, large {llm['quality']:.1%}")


def test_the_projection_is_from_a_calibration_of_this_engine(report: dict[str, Any]) -> None:
    """A figure and its projection lie within a factor that no stall of a second makes of a time of
    tenths; escalation, which no stall changes, within its interval."""
    assert report["projection_written_epoch_s"] < report["load_began_epoch_s"]
    assert set(report["calibration"]["slm"]["slowdown"]) == {"1", "2", "4", "8", "16"}
    compared = {(one["arm"], one["measure"]): one for one in report["comparisons"]}
    for (arm, measure), one in compared.items():
        share = one["unit"] == "share"
        error = f"{one['error']:+.3f}" if share else f"{one['error']:+.1%}"
        print(f"{arm} {measure}: {one['projected']:.4g}, measured {one['measured']:.4g}: {error}")
        assert one["projected_low"] <= one["projected"] <= one["projected_high"]
        assert math.isfinite(one["error"])
        if one["unit"] == "ms":
            assert 0.02 < one["projected"] / one["measured"] < 50
    arms = ("router", "slm_only", "llm_only")
    assert {(arm, "e2e_p95_ms") for arm in arms} <= compared.keys()
    assert {("router", name) for name in ("ttft_p95_ms", "quality", "cost_usd_per_request")} <= (
        compared.keys()
    )
    escalation = compared["router", "escalation_rate"]
    assert 0 < escalation["measured"] < 0.7, "confidence is read"
    assert escalation["measured_low"] <= escalation["projected_high"]
    assert escalation["projected_low"] <= escalation["measured_high"]


def test_vllm_counts_the_same_requests(report: dict[str, Any]) -> None:
    """Its own figures stand beside the client's; the small model is asked almost every time."""
    small = report["servers"]["slm"]
    assert 0.8 * REQUESTS <= small["requests"] <= REQUESTS
    assert 0 < small["ttft_s"] <= small["e2e_s"]
    assert small["cpu_s"] > 0, "core-seconds of all of its processes"


def test_vllm_traces_the_same_requests(report: dict[str, Any]) -> None:
    """A span for each request of each model's own arm; the client waits a little longer. vLLM sends
    its spans every five seconds: a report that does not wait for ever may lack the last."""
    for arm, role in (("slm_only", "slm"), ("llm_only", "llm")):
        (own,) = (one for one in report["traces"][arm] if one["witness"] == "server")
        client = report["measurements"][arm]
        assert own["role"] == role
        assert 0 < own["requests"] <= client["requests"]["completed"]
        assert 0 < own["ttft_p50_ms"] <= own["e2e_p50_ms"]
        if own["requests"] == client["requests"]["completed"]:
            assert own["e2e_p50_ms"] <= client["e2e_p50_ms"]["value"]
        print(
            f"{arm} E2E p50: vLLM's spans {own['e2e_p50_ms']:.1f} ms, client "
            f"{client['e2e_p50_ms']['value']:.1f} ms"
        )
