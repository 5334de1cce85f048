"""From repeated timings to one figure: quantiles, neighbours, throttling.

On a processor that others share, wall time is theirs as much as the engine's, and even processor
time grows when they empty its caches. What they add is never negative, so the lower quartile of
processor time is nearest to the machine alone. On a GPU of one's own it is the median of wall time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from advisor.calibrate.bench.points import Times

STOLEN = 1.3
"""Wall over processor time from which somebody else had the core."""

DRIFTED = 1.15
"""Reference over its best from which the machine is slower than it can be."""

SHARED_SLOWDOWN = 0.7
"""Power of the reference's slowdown by which other steps are slower too. On two shared cores,
residuals of 5M and 50M parameters fell most between 0.5 and 1."""

FLOOR_LOG_SD = 0.01
"""Repeats closer than this say nothing about what another day would show."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What repetitions come to."""

    value_s: float
    log_sd: float
    basis: Literal["processor time", "wall time"]
    slowdown: float
    notes: tuple[str, ...]


@dataclass
class Steadiness:
    """Watches the reference decode through a run."""

    best_s: float = float("inf")
    readings: list[float] = field(default_factory=list)

    def slowdown(self, reference_s: Sequence[float]) -> float:
        """How much slower the machine is than it was at its best in this run."""
        if not reference_s:
            return 1.0
        now = float(np.median(reference_s))
        self.readings.append(now)
        self.best_s = min(self.best_s, now)
        return now / self.best_s


def times_of(seconds: Sequence[float]) -> Times:
    """Quantiles of some timings.

    Raises:
        ValueError: there are none.
    """
    if not seconds:
        raise ValueError("no timings")
    low, quarter, median, high = np.quantile(seconds, [0.1, 0.25, 0.5, 0.9])
    return Times(
        count=len(seconds),
        low_s=float(low),
        quarter_s=float(quarter),
        median_s=float(median),
        high_s=float(high),
    )


def reading_of(
    wall_s: Sequence[float], cpu_s: Sequence[float], *, on_gpu: bool, slowdown: float
) -> Reading:
    """The figure of a point, with its doubt.

    Args:
        wall_s, cpu_s: seconds of each repetition.
        on_gpu: the work is not the processor's.
        slowdown: `Steadiness.slowdown` around it.

    value = quartile/slowdown^0.7: what the machine would have taken as quick as at its best.
    log_sd = √(floor² + (ln(median/quartile)/2)² + (ln(slowdown)/3)²): shares of what the middle of
    the repetitions, and the reference, lie above their best.
    """
    wall = times_of(wall_s)
    cpu = times_of(cpu_s)
    notes = []
    quick = wall.median_s if on_gpu else cpu.quarter_s
    spread = np.log(wall.high_s / wall.low_s) / 2.56 if on_gpu else np.log(cpu.median_s / quick)
    if not on_gpu and wall.median_s > STOLEN * cpu.median_s:
        notes.append(
            f"others had the core: wall time {wall.median_s / cpu.median_s:.1f} × processor time"
        )
    if slowdown > DRIFTED:
        cause = "throttled or shared" if on_gpu else "caches or memory shared, or throttled"
        notes.append(f"reference {slowdown:.2f} × its best: {cause}")
    log_sd = float(np.sqrt(FLOOR_LOG_SD**2 + (spread / 2) ** 2 + (np.log(slowdown) / 3) ** 2))
    return Reading(
        value_s=quick / slowdown**SHARED_SLOWDOWN,
        log_sd=log_sd,
        basis="wall time" if on_gpu else "processor time",
        slowdown=slowdown,
        notes=tuple(notes),
    )
