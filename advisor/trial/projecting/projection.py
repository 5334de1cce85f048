"""What a trial is expected to measure, written down before the load."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from advisor.records import Record
from advisor.trial.projecting.cascade import Played

FloatArray = NDArray[np.float64]

RUNS = 100
"""Runs of the load that a projection is the spread of."""

INTERVAL = (0.05, 0.95)


class Figure(Record):
    """A projected figure: the median over runs of the same load, and where 90 % of them lie."""

    value: float
    low: float
    high: float


class LoadProjection(Record):
    """What one arm is expected to measure."""

    requests: int
    ttft_p95_ms: Figure
    tpot_p95_ms: Figure | None
    """Of answers with several tokens that stream; None: there are none."""
    e2e_p50_ms: Figure
    e2e_p95_ms: Figure
    escalation_rate: Figure | None = None
    quality: Figure | None = None
    """None: no row says what is expected."""
    cost_usd_per_request: Figure | None = None
    """None: no price is known."""
    accepted_e2e_p95_ms: Figure | None = None
    """Of the answers that the small model gave."""
    escalated_e2e_p95_ms: Figure | None = None


def summarize(played: Played, *, cascade: bool) -> LoadProjection:
    """The latency figures of a played load."""
    up = played.escalated | played.direct
    return LoadProjection(
        requests=played.e2e_s.shape[1],
        ttft_p95_ms=p95_ms(played.ttft_s),
        tpot_p95_ms=_masked_p95_ms(played.tpot_s, played.tpot_s > 0),
        e2e_p50_ms=_over_runs(1e3 * np.median(played.e2e_s, axis=1)),
        e2e_p95_ms=p95_ms(played.e2e_s),
        escalation_rate=_over_runs(played.escalation_rate) if cascade else None,
        accepted_e2e_p95_ms=_masked_p95_ms(played.e2e_s, ~up) if cascade else None,
        escalated_e2e_p95_ms=_masked_p95_ms(played.e2e_s, played.escalated) if cascade else None,
    )


def p95_ms(values_s: FloatArray) -> Figure:
    """p95 of each run, in milliseconds, over the runs."""
    return _over_runs(1e3 * np.quantile(values_s, 0.95, axis=1))


def resampled(values: FloatArray, *, count: int, seed: int, runs: int = 400) -> Figure:
    """Where the mean of `count` new draws lies, for values of which m were seen.

    Each run resamples the m values and draws `count` from them: the spread holds both what so few
    rows leave open and the chance of the new draw.
    """
    rng = np.random.default_rng(seed)
    seen = rng.choice(values, (runs, len(values)))
    means = [float(rng.choice(one, count).mean()) for one in seen]
    figure = _over_runs(np.array(means))
    mean = float(values.mean())
    return Figure(value=mean, low=min(figure.low, mean), high=max(figure.high, mean))


def _masked_p95_ms(values_s: FloatArray, chosen: NDArray[np.bool_]) -> Figure | None:
    found = [
        1e3 * float(np.quantile(one[mask], 0.95))
        for one, mask in zip(values_s, chosen, strict=True)
        if mask.any()
    ]
    return _over_runs(np.array(found)) if found else None


def _over_runs(values: Iterable[float] | FloatArray) -> Figure:
    low, middle, high = np.quantile(np.asarray(values), (INTERVAL[0], 0.5, INTERVAL[1]))
    return Figure(value=float(middle), low=float(low), high=float(high))
