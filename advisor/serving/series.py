"""A timeline as it looks over time: rates, queue, batch, KV use and latency, at a resolution."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError
from advisor.records import Record
from advisor.serving.percentiles import quantile
from advisor.serving.simulate import Timeline

FloatArray = NDArray[np.float64]

MOST_POINTS = 100_000


class LoadSeries(Record):
    """Equally long sequences; entry i is about the interval that ends at `time_s[i]`."""

    time_s: tuple[float, ...]
    """End of each interval."""
    arrivals_per_s: tuple[float, ...]
    completions_per_s: tuple[float, ...]
    output_tokens_per_s: tuple[float, ...]
    """Of requests completed in the interval."""
    waiting: tuple[int, ...]
    """Requests that have arrived and were never scheduled, at the end of the interval."""
    running: tuple[int, ...]
    """Requests that were scheduled and have not ended; preempted ones included."""
    kv_share: tuple[float, ...]
    """Share of all replicas' KV capacity that running requests fill. Prompts are taken to fill
    evenly up to the first token, answers from then to the last; a shared prefix counts for each."""
    ttft_p95_s: tuple[float | None, ...]
    """Of the requests that arrived in the interval; None where there are none."""
    e2e_p95_s: tuple[float | None, ...]


def series(timeline: Timeline, *, resolution_s: float) -> LoadSeries:
    """A timeline at a resolution.

    Raises:
        InputError: a resolution that is not positive, or that gives over 100,000 points.
    """
    if not resolution_s > 0:
        raise InputError(f"resolution = {resolution_s:g} s: a positive number is expected")
    begin = float(timeline.arrival_s[0])
    left = left_at(timeline)
    count = int(np.ceil((float(left.max()) - begin) / resolution_s)) or 1
    if count > MOST_POINTS:
        raise InputError(
            f"resolution = {resolution_s:g} s gives {count:,} points; at most {MOST_POINTS:,}"
        )
    edges: FloatArray = begin + resolution_s * np.arange(count + 1, dtype=np.float64)
    ends = edges[1:]
    order = np.argsort(timeline.finish_s)  # cancelled requests, NaN, come last and are not reached
    completed = _reached(timeline.finish_s, ends)
    tokens = np.concatenate([[0], np.cumsum(timeline.output_tokens[order])])[completed]
    arrived = _reached(timeline.arrival_s, ends)
    entered = _reached(timeline.scheduled_s, ends)
    gone_unserved = _reached(left[np.isnan(timeline.scheduled_s)], ends)
    gone = _reached(left, ends)
    interval = np.clip(np.searchsorted(edges, timeline.arrival_s, side="left") - 1, 0, count - 1)
    return LoadSeries(
        time_s=_floats(ends),
        arrivals_per_s=_floats(_increments(arrived) / resolution_s),
        completions_per_s=_floats(_increments(completed) / resolution_s),
        output_tokens_per_s=_floats(_increments(tokens) / resolution_s),
        waiting=tuple((arrived - entered - gone_unserved).tolist()),
        running=tuple((entered - (gone - gone_unserved)).tolist()),
        kv_share=_floats(
            kv_tokens(timeline, ends) / (timeline.kv_capacity_tokens * timeline.replicas)
        ),
        ttft_p95_s=_by_interval(timeline.first_token_s - timeline.arrival_s, interval, count),
        e2e_p95_s=_by_interval(timeline.finish_s - timeline.arrival_s, interval, count),
    )


def left_at(timeline: Timeline) -> FloatArray:
    """When each request left: its finish, or when its client gave up."""
    if timeline.cancel_s is None:
        return timeline.finish_s
    return np.where(np.isnan(timeline.finish_s), timeline.cancel_s, timeline.finish_s)


def kv_tokens(timeline: Timeline, moments: FloatArray) -> FloatArray:
    """Tokens in the KV caches at some moments, summed over running requests.

    Each request is two ramps, so the sum at t is Σ (level + slope·t) over the ramps begun and not
    ended, which cumulated sums give for all moments at once.
    """
    served = ~np.isnan(timeline.first_token_s)
    begin, first = timeline.scheduled_s[served], timeline.first_token_s[served]
    end = left_at(timeline)[served]
    inputs = timeline.input_tokens[served].astype(np.float64)
    outputs = timeline.output_tokens[served].astype(np.float64)
    answering = np.maximum(end - first, 1e-12)
    rise, growth = inputs / (first - begin), outputs / answering
    times = np.concatenate([begin, first, end])
    slopes = np.concatenate([rise, growth - rise, -growth])
    levels = np.concatenate(
        [-rise * begin, (inputs - growth * first) + rise * begin, growth * first - inputs]
    )
    order = np.argsort(times, kind="stable")
    passed = np.searchsorted(times[order], moments, side="right")
    slope = np.concatenate([[0.0], np.cumsum(slopes[order])])[passed]
    level = np.concatenate([[0.0], np.cumsum(levels[order])])[passed]
    return np.maximum(level + slope * moments, 0.0)


def _reached(times: FloatArray, moments: FloatArray) -> NDArray[np.int64]:
    """How many of some times lie at or before each moment; NaN never does."""
    ordered = np.sort(times)
    return np.searchsorted(ordered, moments, side="right")


def _increments(counts: NDArray[np.int64]) -> FloatArray:
    """What each count adds to the one before, the first to none."""
    return np.diff(counts.astype(np.float64), prepend=0.0)


def _by_interval(
    values: FloatArray, interval: NDArray[np.int64], count: int
) -> tuple[float | None, ...]:
    """p95 of the values of each interval; the intervals ascend."""
    known = ~np.isnan(values)
    values, interval = values[known], interval[known]
    bounds = np.searchsorted(interval, np.arange(count + 1))
    return tuple(
        quantile(values[low:high], 0.95) if high > low else None
        for low, high in itertools.pairwise(bounds.tolist())
    )


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
