"""The sandbox trial from the command line, as a newcomer runs it: both models, the real router."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live

TASK = "profiles/tasks/sandbox-service-desk.yaml"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    records = tmp_path_factory.mktemp("sandbox") / "trials.sqlite"
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "advisor", "trial", TASK, "--sandbox", "--load", "0.3",
         "--json", "--records", str(records)],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "ADVISOR_SLM_API_KEY": "sk-of-nobody", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )  # fmt: skip
    print(f"sandbox trial: {time.monotonic() - begin:.0f} s")
    assert done.returncode in (0, 1), done.stderr
    for file in records.parent.iterdir():
        assert b"sk-of-nobody" not in file.read_bytes()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_request_is_accounted_for(report: dict[str, Any]) -> None:
    for arm in report["measurements"].values():
        counts = arm["requests"]
        assert counts["planned"] == 0
        assert sum(counts.values()) > 0
        assert counts["completed"] == sum(counts.values()), "loopback, and nothing was killed"


def test_the_hybrid_is_better_than_the_small_model_and_cheaper_than_the_large(
    report: dict[str, Any],
) -> None:
    small, large, router = (
        report["measurements"][arm] for arm in ("slm_only", "llm_only", "router")
    )
    assert router["quality"]["value"] > small["quality"]["value"]
    assert router["cost_usd_per_request"]["value"] < large["cost_usd_per_request"]["value"]


def test_the_projection_was_written_first_and_of_escalation_it_is_near(
    report: dict[str, Any],
) -> None:
    """Of latency the error is printed: what else this machine does is in it."""
    assert report["projection_written_epoch_s"] < report["load_began_epoch_s"]
    errors = {(one["arm"], one["measure"]): one["error"] for one in report["comparisons"]}
    assert abs(errors["router", "escalation_rate"]) < 0.05
    assert abs(errors["router", "quality"]) < 0.05
    print(f"E2E p95: projected {errors['router', 'e2e_p95_ms']:+.0%} of measured")


def test_both_accuracies_are_told_apart(report: dict[str, Any]) -> None:
    splits = {one["split"]: one for one in report["splits"]}
    assert splits["held-out combinations"]["llm"] > splits["held-out combinations"]["slm"]
    assert splits["unseen wording"]["llm"] > splits["unseen wording"]["slm"]
