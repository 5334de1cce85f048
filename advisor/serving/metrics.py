"""Percentiles of a timeline, each with a confidence interval, and the verdict on stability.

Confidence intervals: sectioning (Asmussen & Glynn, Stochastic Simulation, 2007, III.5; Nakayama,
ACM TOMACS 24(4), 2014). The requests, in order of arrival, are cut into B = `SECTIONS` equal runs;
with q the figure over all and q_b over run b, the 95 % interval is

    q ± t(B − 1)·sqrt(Σ(q_b − q)²/(B − 1)/B)

Neighbouring requests share queues, so they are not independent; long runs nearly are.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from advisor.records import Record
from advisor.serving.heaps import (
    GAP_BINS,
    GAP_BINS_PER_OCTAVE,
    GAP_LOWEST_EXPONENT,
)
from advisor.serving.simulate import Timeline

FloatArray = NDArray[np.float64]

SECTIONS = 20
T_975 = 2.0930240544082634
"""97.5th percentile of Student's t with SECTIONS − 1 degrees of freedom."""

LEVELS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

LEAST_PER_SECTION = 10
"""Requests a section needs before an interval is given."""


class Interval(Record):
    """A 95 % confidence interval, seconds."""

    low: float
    high: float


class Percentiles(Record):
    """Mean and percentiles of a duration, seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """95 % confidence intervals by the names above; empty where the run is too short."""

    def milliseconds(self) -> dict[str, float]:
        """The figures in milliseconds, by name."""
        return {name: 1e3 * getattr(self, name) for name in ("mean", *LEVELS)}


class LoadReport(Record):
    """How a deployment served a load."""

    requests: int
    """Requests the figures are over, without warm-up."""
    stable: bool
    """False where more is asked than can be served: percentiles then only say how long it ran."""
    offered_rate_per_s: float
    throughput_per_s: float
    """Requests finished per second, from the first arrival to the last."""
    output_tokens_per_s: float
    sustainable_rate_per_s: float | None = None
    """Highest rate that can be served for ever, where it was determined."""
    ttft: Percentiles
    """Time to first token: from sending, request overhead included."""
    tpot: Percentiles
    """Time per output token after the first, of requests with more than one."""
    itl: Percentiles
    """Gap between two tokens, over all tokens; from a histogram with bins of 0.8 % width."""
    e2e: Percentiles
    """From sending to the last token, request overhead included."""
    queue: Percentiles
    """From arrival to the first step that works on the request."""
    busy_share: float
    """Share of the time that the replicas are stepping at all."""
    mean_running: float
    """Decoding requests at a time, per replica."""
    kv_mean_share: float
    kv_peak_share: float
    preemptions: int
    cancelled: int = 0

    @property
    def utilization(self) -> float | None:
        """Offered rate over the sustainable one, where that was determined."""
        if self.sustainable_rate_per_s is None:
            return None
        return self.offered_rate_per_s / self.sustainable_rate_per_s


def report(
    timeline: Timeline,
    *,
    warmup_share: float = 0.1,
    request_overhead_s: float = 0.0,
    sustainable_rate_per_s: float | None = None,
    intervals: bool = True,
) -> LoadReport:
    """Percentiles of a timeline.

    Args:
        warmup_share: share of the requests left out at the beginning, while queues fill. Where it
            is positive, those that arrive within a median stay of the last arrival are left out as
            well (at most the same share): they see the system drain. 0 for bursts and closed loops
            whose start belongs to the measurement.
        request_overhead_s: HTTP and tokenising, added to TTFT and E2E.
        sustainable_rate_per_s: of the deployment, where known; decides stability with the drift.
        intervals: whether confidence intervals are wanted (they cost as much as the percentiles).
    """
    kept = _steady_part(timeline, warmup_share)
    arrival, first, finish = (
        timeline.arrival_s[kept],
        timeline.first_token_s[kept],
        timeline.finish_s[kept],
    )
    answered = ~np.isnan(finish)
    cancelled = int(np.count_nonzero(~answered))
    outputs = timeline.output_tokens[kept]
    if cancelled:
        arrival, first, finish = arrival[answered], first[answered], finish[answered]
        outputs = outputs[answered]
    queue = timeline.scheduled_s[kept][answered] - arrival
    several = outputs > 1
    tpot = (finish - first)[several] / (outputs[several] - 1)
    e2e = finish - arrival
    offered = rate_of(timeline.arrival_s)
    span = max(float(np.nanmax(timeline.finish_s) - timeline.arrival_s[0]), 1e-300)
    engines = span * timeline.replicas
    drifting = is_drifting(e2e)
    overloaded = sustainable_rate_per_s is not None and offered > sustainable_rate_per_s
    return LoadReport(
        requests=len(e2e),
        stable=not (drifting or (overloaded and math.isfinite(offered))),
        offered_rate_per_s=offered,
        throughput_per_s=_throughput(timeline),
        output_tokens_per_s=float(timeline.output_tokens.sum()) / span,
        sustainable_rate_per_s=sustainable_rate_per_s,
        ttft=percentiles(first - arrival + request_overhead_s, intervals=intervals),
        tpot=percentiles(tpot, intervals=intervals),
        itl=gap_percentiles(timeline),
        e2e=percentiles(e2e + request_overhead_s, intervals=intervals),
        queue=percentiles(queue, intervals=intervals),
        busy_share=timeline.busy_s / engines,
        mean_running=timeline.decode_time_s / engines,
        kv_mean_share=timeline.kv_time_s / engines / timeline.kv_capacity_tokens,
        kv_peak_share=timeline.kv_peak_share,
        preemptions=int(timeline.preemptions.sum()),
        cancelled=cancelled,
    )


def percentiles(values: FloatArray, *, intervals: bool = True) -> Percentiles:
    """Mean and percentiles of durations in order of arrival; zeros where there are none."""
    if len(values) == 0:
        return Percentiles(mean=0.0, p50=0.0, p90=0.0, p95=0.0, p99=0.0)
    levels = list(LEVELS.values())
    figures = [float(values.mean()), *quantiles(values, levels)]
    names = ["mean", *LEVELS]
    found = {}
    if intervals and len(values) >= SECTIONS * LEAST_PER_SECTION:
        length = len(values) // SECTIONS
        runs = np.sort(values[: SECTIONS * length].reshape(SECTIONS, length), axis=1)
        by_run = [runs.mean(axis=1), *(_of_sorted(runs, level) for level in levels)]
        for name, figure, parts in zip(names, figures, by_run, strict=True):
            spread = math.sqrt(float(np.sum((parts - figure) ** 2)) / (SECTIONS - 1) / SECTIONS)
            half = T_975 * spread
            found[name] = Interval(low=max(figure - half, 0.0), high=figure + half)
    return Percentiles(**dict(zip(names, figures, strict=True)), intervals=found)


def quantiles(values: FloatArray, levels: list[float]) -> list[float]:
    """Quantiles of unordered values, linear between order statistics (as `numpy.quantile`)."""
    ordered = np.sort(values)
    return [float(_of_sorted(ordered, level)) for level in levels]


def quantile(values: FloatArray, level: float) -> float:
    """One quantile of unordered values; faster than sorting them all.

    Raises:
        ValueError: no values.
    """
    if len(values) == 0:
        raise ValueError("a quantile needs at least one value")
    position = level * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    parted = np.partition(values, (below, above))
    return float(parted[below] + (position - below) * (parted[above] - parted[below]))


def _of_sorted(ordered: FloatArray, level: float) -> FloatArray:
    """Quantiles along the last axis of sorted values."""
    position = level * (ordered.shape[-1] - 1)
    below = int(position)
    above = min(below + 1, ordered.shape[-1] - 1)
    low: FloatArray = ordered[..., below]
    between: FloatArray = low + (position - below) * (ordered[..., above] - low)
    return between


def gap_percentiles(timeline: Timeline) -> Percentiles:
    """Percentiles of the gaps between tokens, from the histogram (within 0.4 %); the mean is exact.

    All gaps count, warm-up and drain included.
    """
    return histogram_percentiles(timeline.gap_histogram, mean=_mean_gap(timeline))


def histogram_percentiles(counts: NDArray[np.int64], *, mean: float) -> Percentiles:
    """Percentiles of a gap histogram, at the middle of the bin that holds each."""
    total = int(counts.sum())
    if total == 0:
        return Percentiles(mean=0.0, p50=0.0, p90=0.0, p95=0.0, p99=0.0)
    reached = np.cumsum(counts)
    middles = gap_bin_middles()
    found = {
        name: float(middles[np.searchsorted(reached, level * total)])
        for name, level in LEVELS.items()
    }
    return Percentiles(mean=mean, **found)


def gap_bin_middles() -> FloatArray:
    """Middle of each histogram bin, seconds."""
    octave, within = np.divmod(np.arange(GAP_BINS), GAP_BINS_PER_OCTAVE)
    middles: FloatArray = np.ldexp(
        1.0 + (within + 0.5) / GAP_BINS_PER_OCTAVE, octave + GAP_LOWEST_EXPONENT
    )
    return middles


def _mean_gap(timeline: Timeline) -> float:
    answered = ~np.isnan(timeline.finish_s)
    gaps = int((timeline.output_tokens[answered] - 1).sum())
    spans = float((timeline.finish_s - timeline.first_token_s)[answered].sum())
    return spans / gaps if gaps else 0.0


def rate_of(arrival_s: FloatArray) -> float:
    """Arrivals per second; infinite for a burst."""
    span = float(arrival_s[-1] - arrival_s[0])
    return (len(arrival_s) - 1) / span if span > 0 else math.inf


def _throughput(timeline: Timeline) -> float:
    """Requests finished per second between the first arrival and the last (or all, in a burst)."""
    finish = timeline.finish_s[~np.isnan(timeline.finish_s)]
    begin, end = float(timeline.arrival_s[0]), float(timeline.arrival_s[-1])
    if end <= begin or len(finish) == 0:
        end = float(finish.max()) if len(finish) else begin
    span = end - begin
    return float(np.count_nonzero(finish <= end)) / span if span > 0 else math.inf


def _steady_part(timeline: Timeline, warmup_share: float) -> slice:
    """The requests between warm-up and drain."""
    count = len(timeline)
    warmup = int(warmup_share * count)
    if warmup == 0:
        return slice(0, count)
    stay = float(np.nanmedian((timeline.finish_s - timeline.arrival_s)[count // 2 :]))
    last = int(np.searchsorted(timeline.arrival_s, timeline.arrival_s[-1] - stay))
    return slice(warmup, max(last, count - warmup, warmup + 1))


DRIFT_SECTIONS = 8
DRIFT_GROWTH = 0.5
"""Growth of the stay over the run, relative to its mean, from which a trend is called drift."""


def is_drifting(e2e_s: FloatArray) -> bool:
    """Whether requests in order of arrival stay longer and longer: a queue that only grows.

    Over 8 sections: the least-squares trend explains over 80 % of the variance of their means, and
    the growth along it exceeds half the mean. In a stable queue sections scatter around a level.
    """
    length = len(e2e_s) // DRIFT_SECTIONS
    if length < LEAST_PER_SECTION:
        return False
    means = e2e_s[: length * DRIFT_SECTIONS].reshape(DRIFT_SECTIONS, length).mean(axis=1)
    place = np.arange(DRIFT_SECTIONS) - (DRIFT_SECTIONS - 1) / 2
    deviation = means - means.mean()
    total = float(deviation @ deviation)
    slope = float(place @ means) / float(place @ place)
    explained = slope * slope * float(place @ place)
    growth = slope * (DRIFT_SECTIONS - 1)
    return explained > 0.8 * total > 0 and growth > DRIFT_GROWTH * float(means.mean())
