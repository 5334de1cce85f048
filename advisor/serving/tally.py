"""Compiled counting of served requests into fine histograms, section by section of a run."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from advisor.serving.compiled import compiled, inlined

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

BINS_PER_OCTAVE = 512
LOWEST_EXPONENT = -20
OCTAVES = 44
BINS = OCTAVES * BINS_PER_OCTAVE + 1
"""From 1 µs to half a year; the first bin is for 0 and less than 1 µs."""

TTFT, TPOT, E2E, QUEUE, DURATIONS = range(5)


def empty_tallies(sections: int = 1) -> tuple[IntArray, FloatArray]:
    """Counts and sums as `tally` adds to them."""
    return np.zeros((DURATIONS, sections, BINS), dtype=np.int64), np.zeros((DURATIONS, sections))


@inlined
def _bin(seconds: float) -> int:
    if seconds <= 0.0:
        return 0
    mantissa, exponent = math.frexp(seconds)
    octave = exponent - 1 - LOWEST_EXPONENT
    if octave < 0:
        return 0
    if octave >= OCTAVES:
        return BINS - 1
    return 1 + octave * BINS_PER_OCTAVE + int((mantissa - 0.5) * (2 * BINS_PER_OCTAVE))


def bin_middle(index: int) -> float:
    """Middle of a bin, seconds."""
    if index == 0:
        return 0.0
    octave, within = divmod(index - 1, BINS_PER_OCTAVE)
    return math.ldexp(1 + (within + 0.5) / BINS_PER_OCTAVE, octave + LOWEST_EXPONENT)


@compiled
def tally(
    place: int,
    warmup: int,
    total: int,
    arrival_s: FloatArray,
    scheduled_s: FloatArray,
    first_s: FloatArray,
    finish_s: FloatArray,
    outputs: IntArray,
    counts: IntArray,
    sums_s: FloatArray,
) -> int:
    """Count a chunk of requests; returns how many of them have not ended.

    Args:
        place: of the first request of the chunk, in the whole run.
        warmup: place of the first request that counts.
        total: requests of the whole run.
        counts, sums_s: shapes (DURATIONS, sections, BINS) and (DURATIONS, sections), added to.
    """
    sections = counts.shape[1]
    unfinished = 0
    for index in range(len(finish_s)):
        if math.isnan(finish_s[index]):
            unfinished += 1
            continue
        if place + index < warmup:
            continue
        section = (place + index - warmup) * sections // (total - warmup)
        seconds = first_s[index] - arrival_s[index]
        counts[TTFT, section, _bin(seconds)] += 1
        sums_s[TTFT, section] += seconds
        seconds = finish_s[index] - arrival_s[index]
        counts[E2E, section, _bin(seconds)] += 1
        sums_s[E2E, section] += seconds
        seconds = scheduled_s[index] - arrival_s[index]
        counts[QUEUE, section, _bin(seconds)] += 1
        sums_s[QUEUE, section] += seconds
        if outputs[index] > 1:
            seconds = (finish_s[index] - first_s[index]) / (outputs[index] - 1)
            counts[TPOT, section, _bin(seconds)] += 1
            sums_s[TPOT, section] += seconds
    return unfinished
