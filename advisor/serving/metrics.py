"""How a deployment served a load: the report on a timeline, and the verdict on stability."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from advisor.records import Record
from advisor.serving.percentiles import (
    LEVELS,
    SECTIONS,
    Interval,
    Percentiles,
    histogram_percentiles,
    percentiles,
    quantile,
    quantiles,
)
from advisor.serving.simulate import Timeline

__all__ = [
    "LEVELS",
    "SECTIONS",
    "Goodput",
    "Interval",
    "LoadReport",
    "Percentiles",
    "gap_percentiles",
    "goodput",
    "is_drifting",
    "percentiles",
    "quantile",
    "quantiles",
    "rate_of",
    "report",
]

FloatArray = NDArray[np.float64]


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
    span = _span(timeline)
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


class Goodput(Record):
    """Requests that met every objective given."""

    share: float
    """Of all requests; cancelled ones count as misses."""
    rate_per_s: float
    """Per second, from the first arrival to the last finish."""


class Served(Protocol):
    """A timeline of one deployment, or of a cascade."""

    @property
    def arrival_s(self) -> FloatArray: ...

    @property
    def first_token_s(self) -> FloatArray: ...

    @property
    def finish_s(self) -> FloatArray: ...

    @property
    def output_tokens(self) -> NDArray[np.int64]: ...


def goodput(
    timeline: Served,
    *,
    ttft_s: float = math.inf,
    tpot_s: float = math.inf,
    e2e_s: float = math.inf,
    request_overhead_s: float = 0.0,
) -> Goodput:
    """Requests that met their objectives, as `vllm bench serve --goodput` counts them.

    Args:
        ttft_s, tpot_s, e2e_s: bounds; requests of one token have no TPOT and meet any.
        request_overhead_s: added to TTFT and E2E.
    """
    later = timeline.output_tokens > 1
    tpot = (timeline.finish_s - timeline.first_token_s) / np.maximum(timeline.output_tokens - 1, 1)
    met = timeline.first_token_s - timeline.arrival_s + request_overhead_s <= ttft_s
    met &= timeline.finish_s - timeline.arrival_s + request_overhead_s <= e2e_s
    met &= (tpot <= tpot_s) | (~later & ~np.isnan(timeline.finish_s))
    good = int(np.count_nonzero(met))
    return Goodput(share=good / len(met), rate_per_s=good / _span(timeline))


def _span(timeline: Served) -> float:
    """Seconds from the first arrival to the last finish."""
    finish = timeline.finish_s[~np.isnan(timeline.finish_s)]
    end = float(finish.max()) if len(finish) else float(timeline.arrival_s[-1])
    return max(end - float(timeline.arrival_s[0]), 1e-300)


def gap_percentiles(timeline: Timeline) -> Percentiles:
    """Percentiles of the gaps between tokens, from the histogram (within 0.4 %); the mean is exact.

    All gaps count, warm-up and drain included.
    """
    return histogram_percentiles(timeline.gap_histogram, mean=_mean_gap(timeline))


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
    stays = (timeline.finish_s - timeline.arrival_s)[count // 2 :]
    stays = stays[~np.isnan(stays)]
    stay = float(np.median(stays)) if len(stays) else 0.0
    last = int(np.searchsorted(timeline.arrival_s, timeline.arrival_s[-1] - stay))
    return slice(warmup, max(last, count - warmup, warmup + 1))


DRIFT_SECTIONS = 8
DRIFT_LEAST = 10
"""Requests a section needs before anything is said of a trend."""
DRIFT_GROWTH = 0.5
"""Growth of the stay over the run, relative to its mean, from which a trend is called drift."""


def is_drifting(e2e_s: FloatArray) -> bool:
    """Whether requests in order of arrival stay longer and longer: a queue that only grows.

    Over 8 sections: the least-squares trend explains over 80 % of the variance of their means, and
    the growth along it exceeds half the mean. In a stable queue sections scatter around a level.
    """
    length = len(e2e_s) // DRIFT_SECTIONS
    if length < DRIFT_LEAST:
        return False
    means = e2e_s[: length * DRIFT_SECTIONS].reshape(DRIFT_SECTIONS, length).mean(axis=1)
    place = np.arange(DRIFT_SECTIONS) - (DRIFT_SECTIONS - 1) / 2
    deviation = means - means.mean()
    total = float(deviation @ deviation)
    slope = float(place @ means) / float(place @ place)
    explained = slope * slope * float(place @ place)
    growth = slope * (DRIFT_SECTIONS - 1)
    return explained > 0.8 * total > 0 and growth > DRIFT_GROWTH * float(means.mean())
