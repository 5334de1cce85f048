"""Compiled small parts of the kernel: binary heaps of packed events, and the gap histogram.

A heap entry packs when and who into one integer, `when << 32 | who`, so that one comparison orders
by time and then by index. `when` counts steps and stays below 2^31, `who` is a request.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from advisor.serving.compiled import compiled, inlined

IntArray = NDArray[np.int64]

WHO_BITS = 32
WHO_MASK = (1 << WHO_BITS) - 1

GAP_OCTAVES = 34
"""The histogram reaches from 2^-20 s (1 µs) to 2^14 s (4.5 h)."""
GAP_LOWEST_EXPONENT = -20
GAP_BINS_PER_OCTAVE = 128
"""Bins of equal width within an octave: none is wider than 1/128 (0.8 %) of its lower edge."""
GAP_BINS = GAP_OCTAVES * GAP_BINS_PER_OCTAVE


@inlined
def heap_push(heap: IntArray, size: int, entry: int) -> int:
    """Add an entry; returns the new size."""
    child = size
    while child > 0:
        parent = (child - 1) >> 1
        if heap[parent] <= entry:
            break
        heap[child] = heap[parent]
        child = parent
    heap[child] = entry
    return size + 1


@compiled
def heap_sink(heap: IntArray, size: int, hole: int, entry: int) -> None:
    """Put an entry at or below a hole, moving smaller children up."""
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[hole] = heap[child]
        hole = child
    heap[hole] = entry


@inlined
def heap_pop(heap: IntArray, size: int) -> int:
    """Drop the smallest entry; returns the new size."""
    size -= 1
    if size > 0:
        heap_sink(heap, size, 0, heap[size])
    return size


@compiled
def heap_remove(heap: IntArray, size: int, who: int) -> int:
    """Drop the entry of one request, if it has one, by a search of the heap; the new size."""
    for position in range(size):
        if heap[position] & WHO_MASK == who:
            size -= 1
            entry = heap[size]
            if position == size:
                return size
            if position > 0 and heap[(position - 1) >> 1] > entry:
                child = position
                while child > 0 and heap[(child - 1) >> 1] > entry:
                    heap[child] = heap[(child - 1) >> 1]
                    child = (child - 1) >> 1
                heap[child] = entry
            else:
                heap_sink(heap, size, position, entry)
            return size
    return size


@inlined
def gap_bin(seconds: float) -> int:
    """Histogram bin of a gap between tokens; the first and last bin take what lies outside."""
    if seconds <= 0.0:
        return 0
    mantissa, exponent = math.frexp(seconds)  # mantissa in [0.5, 1)
    octave = exponent - 1 - GAP_LOWEST_EXPONENT
    if octave < 0:
        return 0
    if octave >= GAP_OCTAVES:
        return GAP_BINS - 1
    return octave * GAP_BINS_PER_OCTAVE + int((mantissa - 0.5) * (2 * GAP_BINS_PER_OCTAVE))


@inlined
def gap_edge(index: int) -> float:
    """Lower edge of a bin, seconds."""
    octave = index // GAP_BINS_PER_OCTAVE
    within = index - octave * GAP_BINS_PER_OCTAVE
    return math.ldexp(1.0 + within / GAP_BINS_PER_OCTAVE, octave + GAP_LOWEST_EXPONENT)


@compiled
def add_gaps(histogram: IntArray, first_s: float, slope_s: float, steps: int, weight: int) -> None:
    """Count `weight` gaps for each of `steps` durations first, first + slope, first + 2·slope …"""
    low = gap_bin(first_s)
    high = low if steps == 1 else gap_bin(first_s + slope_s * (steps - 1))
    if low == high:
        histogram[low] += steps * weight
        return
    counted = 0
    while low < high and counted < steps:
        below = math.ceil((gap_edge(low + 1) - first_s) / slope_s)
        below = min(max(int(below), counted), steps)
        histogram[low] += (below - counted) * weight
        counted = below
        low += 1
    histogram[high] += (steps - counted) * weight
