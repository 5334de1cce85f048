"""How far the sandbox projection is from what its trial measures, at 30 % and 60 % load: three runs
each, printed. The machine should have nothing else to do."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from advisor.trial.run import run_trial
from advisor.trial.sandbox import sandbox_task

pytestmark = pytest.mark.benchmark

RUNS = 3
SHOWN = (
    ("router", "e2e_p95_ms"),
    ("router", "escalation_rate"),
    ("router", "quality"),
    ("slm_only", "e2e_p95_ms"),
    ("llm_only", "e2e_p95_ms"),
)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("load", [0.3, 0.6])
def test_projection_error(load: float, tmp_path: Path) -> None:
    errors: dict[tuple[str, str], list[float]] = {}
    for seed in range(RUNS):
        report = run_trial(
            sandbox_task(),
            sandbox=True,
            load=load,
            seed=seed,
            early_stop=False,
            records=tmp_path / "t.sqlite",
        )
        for one in report.comparisons:
            errors.setdefault((one.arm, one.measure), []).append(one.error)
            if (one.arm, one.measure) in SHOWN:
                print(f"\n{load:.0%} load, seed {seed}, {one.arm} {one.measure}: projected "
                      f"{one.projected:.4g} ({one.projected_low:.4g} to {one.projected_high:.4g}), "
                      f"measured {one.measured:.4g} {one.unit}")  # fmt: skip
    busy = os.getloadavg()[0]
    for key in SHOWN:
        found = errors[key]
        shown = ", ".join(f"{error:+.1%}" for error in found)
        print(f"\n{load:.0%} load, {key[0]} {key[1]}: {shown}; median of the sizes "
              f"{np.median(np.abs(found)):.1%} (load average {busy:.1f})")  # fmt: skip
    assert all(len(found) == RUNS for found in errors.values())
