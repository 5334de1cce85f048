"""How long prompts and answers are: fixed, uniform, lognormal or as measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

Z95 = 1.6448536269514722
"""95th percentile of the standard normal distribution."""

MAX_P95_TO_MEAN = math.exp(Z95 * Z95 / 2)
"""Largest p95/mean that a lognormal distribution can have: 3.868, at σ = z95."""


class Lengths(Protocol):
    """A distribution of token counts, driven by standard normal numbers.

    One normal number makes one count, and more makes longer, so that input and output lengths
    are correlated by correlating the numbers (a Gaussian copula).
    """

    @property
    def mean(self) -> float:
        """Mean count, before rounding to whole tokens."""
        ...

    def from_normal(self, normal: FloatArray) -> IntArray:
        """Counts of at least 1 from standard normal numbers, same shape."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same count."""

    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InputError(f"tokens = {self.tokens}: at least 1 is expected")

    @property
    def mean(self) -> float:
        return float(self.tokens)

    def from_normal(self, normal: FloatArray) -> IntArray:
        return np.full(normal.shape, self.tokens, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every count from `low` to `high`, both included, equally often."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise InputError(f"uniform lengths from {self.low} to {self.high}: 1 ≤ low ≤ high")

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    def from_normal(self, normal: FloatArray) -> IntArray:
        width = self.high - self.low + 1
        return np.minimum(self.low + (_uniform(normal) * width).astype(np.int64), self.high)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """`floor` + a lognormal count; `mean` and `p95` are those of the whole.

    With σ the smaller root of ln(p95/mean) = z95·σ − σ²/2 and µ = ln(mean) − σ²/2, of the part
    above the floor.
    """

    mean: float
    p95: float
    floor: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.floor < self.mean <= self.p95 < math.inf):
            raise InputError(
                f"lognormal lengths with mean {self.mean:g}, p95 {self.p95:g}: "
                f"{self.floor} < mean ≤ p95 is expected"
            )
        if (self.p95 - self.floor) / (self.mean - self.floor) > MAX_P95_TO_MEAN:
            raise InputError(
                f"lognormal lengths with mean {self.mean:g}, p95 {self.p95:g}: p95 can be at most "
                f"{MAX_P95_TO_MEAN:.2f} times the mean; give samples instead"
            )

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        ratio = math.log((self.p95 - self.floor) / (self.mean - self.floor))
        return Z95 - math.sqrt(max(Z95 * Z95 - 2 * ratio, 0.0))

    @property
    def mu(self) -> float:
        """Mean of the logarithm."""
        return math.log(self.mean - self.floor) - self.sigma**2 / 2

    def from_normal(self, normal: FloatArray) -> IntArray:
        counts = np.rint(self.floor + np.exp(self.mu + self.sigma * normal))
        drawn: IntArray = np.maximum(counts, 1).astype(np.int64)
        return drawn


@dataclass(frozen=True, slots=True, eq=False)
class Empirical:
    """Measured counts, drawn with replacement."""

    samples: IntArray

    def __post_init__(self) -> None:
        samples = np.sort(np.asarray(self.samples).astype(np.int64))
        if samples.ndim != 1 or len(samples) == 0 or samples[0] < 1:
            raise InputError("sampled lengths need at least one count, each of at least 1")
        object.__setattr__(self, "samples", samples)

    @property
    def mean(self) -> float:
        return float(self.samples.mean())

    def from_normal(self, normal: FloatArray) -> IntArray:
        index = (_uniform(normal) * len(self.samples)).astype(np.int64)
        drawn: IntArray = self.samples[np.minimum(index, len(self.samples) - 1)]
        return drawn


@dataclass(frozen=True, slots=True)
class Tabulated:
    """Counts between given quantiles, linear in between: a measured shape without its samples."""

    levels: tuple[float, ...]
    """Probabilities, ascending from 0 to 1."""
    tokens: tuple[float, ...]
    """Tokens at each level, not descending."""

    def __post_init__(self) -> None:
        ordered = sorted(self.levels) == list(self.levels) and sorted(self.tokens) == list(
            self.tokens
        )
        if len(self.levels) != len(self.tokens) or not ordered or self.levels[0] != 0:
            raise InputError("tabulated lengths: ascending levels from 0 to 1, tokens beside them")
        if self.levels[-1] != 1 or self.tokens[0] < 0:
            raise InputError("tabulated lengths: ascending levels from 0 to 1, tokens beside them")

    @property
    def mean(self) -> float:
        widths, tokens = np.diff(self.levels), np.asarray(self.tokens)
        return float(widths @ (tokens[1:] + tokens[:-1]) / 2)

    def from_normal(self, normal: FloatArray) -> IntArray:
        counts = np.rint(np.interp(_uniform(normal), self.levels, self.tokens))
        drawn: IntArray = np.maximum(counts, 1).astype(np.int64)
        return drawn


def _uniform(normal: FloatArray) -> FloatArray:
    """Standard normal numbers to uniform ones on [0, 1]."""
    from scipy.special import ndtr

    result: FloatArray = ndtr(normal)
    return result
