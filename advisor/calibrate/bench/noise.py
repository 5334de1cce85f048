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

from advisor.calibrate.bench.points import Point, Times

STOLEN = 1.3
"""Wall over processor time from which somebody else had the core."""

DRIFTED = 1.15
"""Reference over its best from which the machine is slower than it can be."""

SHARED_SLOWDOWN = 0.85
"""Power of the probe's slowdown by which steps are slower too. On two restless virtual cores, with
probes up to 1.7 × their best, two visits of a shape differed (root mean square) by 31 and 19 % in
decode steps of 5M and 50M parameters and by 20 and 23 % in prefill; so corrected, by 16, 11, 9 and
8 %; with powers of 0.7 and 1 hardly less."""

DOUBT = 5.0
"""A visit's own share of that: 1-sd of its logarithm is ln(slowdown) over this."""

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
    """Watches through a run the work that never changes: probes, on a GPU a short decode."""

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

    def paces(self, probe_s: Sequence[float]) -> list[float]:
        """How much slower the machine was around each repetition."""
        return [max(1.0, one / self.best_s) for one in probe_s]


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
    wall_s: Sequence[float],
    cpu_s: Sequence[float],
    *,
    on_gpu: bool,
    slowdown: float,
    paces: Sequence[float] = (),
) -> Reading:
    """The figure of a point, with its doubt.

    Args:
        wall_s, cpu_s: seconds of each repetition.
        on_gpu: the work is not the processor's.
        slowdown: `Steadiness.slowdown` around it.
        paces: the same around each repetition, where that is known.

    value = quartile of seconds/pace^0.85: what the machine would have taken as quick as at its
    best. log_sd = √(floor² + (ln(median/quartile)/2)² + (ln(slowdown)/5)²): shares of what the
    middle of the repetitions, and the reference, lie above their best.
    """
    wall = times_of(wall_s)
    each = np.asarray(paces if len(paces) else [slowdown] * len(cpu_s))
    cpu = times_of((np.asarray(cpu_s) / each**SHARED_SLOWDOWN).tolist())
    notes = []
    quick = wall.median_s / slowdown**SHARED_SLOWDOWN if on_gpu else cpu.quarter_s
    spread = np.log(wall.high_s / wall.low_s) / 2.56 if on_gpu else np.log(cpu.median_s / quick)
    stolen = wall.median_s / float(np.median(cpu_s))
    if not on_gpu and stolen > STOLEN:
        notes.append(f"others had the core: wall time {stolen:.1f} × processor time")
    if slowdown > DRIFTED:
        cause = "throttled or shared" if on_gpu else "caches or memory shared, or throttled"
        notes.append(f"reference {slowdown:.2f} × its best: {cause}")
    log_sd = float(np.sqrt(FLOOR_LOG_SD**2 + (spread / 2) ** 2 + (np.log(slowdown) / DOUBT) ** 2))
    return Reading(
        value_s=quick,
        log_sd=log_sd,
        basis="wall time" if on_gpu else "processor time",
        slowdown=slowdown,
        notes=tuple(notes),
    )


def at_best(points: Sequence[Point]) -> list[Point]:
    """The points as if the best that the machine ever showed had been known from the first on."""
    known = [one.results["reference_s"] for one in points if "reference_s" in one.results]
    if not known:
        return list(points)
    return [_against(one, min(known)) for one in points]


def _against(point: Point, best_s: float) -> Point:
    if "reference_s" not in point.results:
        return point
    now = point.results["reference_s"] / best_s
    corrected = point.value_s * (point.slowdown / now) ** SHARED_SLOWDOWN
    return point.model_copy(update={"value_s": corrected, "slowdown": now})


def usual_pace(slowdowns: Sequence[float]) -> float:
    """How much longer steps usually take than at the machine's best."""
    return float(np.median(slowdowns)) ** SHARED_SLOWDOWN if len(slowdowns) else 1.0
