"""When requests arrive: open loops at a rate, closed loops, bursts, traces and whole days."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError

FloatArray = NDArray[np.float64]

SECONDS_PER_HOUR = 3600.0


class Arrivals(Protocol):
    """A process that says when `count` requests arrive."""

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        """Arrival times in seconds, ascending, shape (count,)."""
        ...


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals: exponential gaps of mean 1/rate."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        return np.cumsum(rng.standard_exponential(count)) / self.rate_per_s

    def at_rate(self, rate_per_s: float) -> Poisson:
        return replace(self, rate_per_s=rate_per_s)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gamma-distributed gaps; `burstiness` is their shape, as in `vllm bench serve`.

    The squared coefficient of variation of the gaps is 1/burstiness: 1 is Poisson, less is
    burstier, more is smoother. Unlike vLLM's, the gaps are not rescaled to an exact total.
    """

    rate_per_s: float
    burstiness: float

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)
        if not (np.isfinite(self.burstiness) and self.burstiness > 0):
            raise InputError(f"burstiness = {self.burstiness:g}: a positive number is expected")

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        return np.cumsum(_gaps(rng, count, self.burstiness)) / self.rate_per_s

    def at_rate(self, rate_per_s: float) -> Gamma:
        return replace(self, rate_per_s=rate_per_s)


@dataclass(frozen=True, slots=True)
class Constant:
    """One request every 1/rate seconds, the first at 1/rate."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        return np.arange(1, count + 1, dtype=np.float64) / self.rate_per_s

    def at_rate(self, rate_per_s: float) -> Constant:
        return replace(self, rate_per_s=rate_per_s)


@dataclass(frozen=True, slots=True)
class Burst:
    """All requests at second 0: a static batch."""

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        return np.zeros(count)


@dataclass(frozen=True, slots=True)
class Batches:
    """`size` requests at the same moment; the moments are Poisson at rate/size."""

    rate_per_s: float
    size: int

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)
        if self.size < 1:
            raise InputError(f"size = {self.size}: at least 1 request is expected in a batch")

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        moments = np.cumsum(rng.standard_exponential(-(-count // self.size)))
        times: FloatArray = np.repeat(moments * (self.size / self.rate_per_s), self.size)
        return times[:count]

    def at_rate(self, rate_per_s: float) -> Batches:
        return replace(self, rate_per_s=rate_per_s)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`concurrency` users, each sending its next request `think_s` after its last one ends.

    Arrival times come out of the simulation; only the first `concurrency` (at second 0) are known
    beforehand. Equal output lengths make the users march in step, which real ones do not: give
    the lengths some spread.
    """

    concurrency: int
    think_s: float = 0.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InputError(f"concurrency = {self.concurrency}: at least 1 user is expected")
        if not (np.isfinite(self.think_s) and self.think_s >= 0):
            raise InputError(f"think_s = {self.think_s:g}: seconds of at least 0 are expected")

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        times = np.full(count, np.nan)
        times[: self.concurrency] = 0.0
        return times


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Recorded arrival times, repeated end to end where more requests are asked for."""

    arrival_s: FloatArray

    def __post_init__(self) -> None:
        times = np.ascontiguousarray(self.arrival_s, dtype=np.float64)
        if times.ndim != 1 or len(times) == 0 or not np.all(np.isfinite(times)):
            raise InputError("a trace needs at least one finite arrival time")
        if np.any(np.diff(times) < 0):
            raise InputError("the arrival times of a trace must not decrease")
        object.__setattr__(self, "arrival_s", times - times[0])

    @property
    def rate_per_s(self) -> float:
        """Mean rate, requests per second."""
        span = float(self.arrival_s[-1])
        return (len(self.arrival_s) - 1) / span if span > 0 else float("inf")

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        rounds, length = -(-count // len(self.arrival_s)), len(self.arrival_s)
        mean_gap = self.arrival_s[-1] / max(length - 1, 1)
        period = self.arrival_s[-1] + mean_gap
        repeated: FloatArray = np.arange(rounds)[:, None] * period + self.arrival_s
        return repeated.ravel()[:count]

    def at_rate(self, rate_per_s: float) -> Trace:
        """The same pattern, stretched or compressed to another mean rate."""
        _check_rate(rate_per_s)
        return Trace(self.arrival_s * (self.rate_per_s / rate_per_s))


@dataclass(frozen=True, slots=True)
class Stepped:
    """Rates one after another, each for `step_s` seconds, over and over, with gamma gaps.

    A renewal process of unit rate on the clock Λ(t) = ∫ rate: the gaps keep their burstiness
    while the rate steps.
    """

    rates_per_s: tuple[float, ...]
    step_s: float
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        rates = self.rates_per_s
        if not rates or min(rates) < 0 or not 0 < sum(rates) < np.inf:
            raise InputError("stepped rates must be at least 0, and not all of them 0")
        if not (np.isfinite(self.step_s) and self.step_s > 0):
            raise InputError(f"step_s = {self.step_s:g}: a positive number of seconds is expected")
        if not self.burstiness > 0:
            raise InputError(f"burstiness = {self.burstiness:g}: a positive number is expected")

    @property
    def rate_per_s(self) -> float:
        """Mean rate, requests per second."""
        return sum(self.rates_per_s) / len(self.rates_per_s)

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        operational = np.cumsum(_gaps(rng, count, self.burstiness))
        edges = np.arange(len(self.rates_per_s) + 1) * self.step_s
        cumulated = np.concatenate([[0.0], np.cumsum(self.rates_per_s)]) * self.step_s
        rounds, rest = np.divmod(operational, cumulated[-1])
        times: FloatArray = rounds * edges[-1] + np.interp(rest, cumulated, edges)
        return times

    def at_rate(self, rate_per_s: float) -> Stepped:
        """The same shape with another mean rate."""
        _check_rate(rate_per_s)
        factor = rate_per_s / self.rate_per_s
        return replace(self, rates_per_s=tuple(rate * factor for rate in self.rates_per_s))


@dataclass(frozen=True, slots=True)
class DayProfile:
    """24 hourly rates, repeated day after day, with gamma gaps in between (`Stepped`)."""

    hourly_rates_per_s: tuple[float, ...]
    burstiness: float = 1.0

    HOURS: ClassVar[int] = 24

    def __post_init__(self) -> None:
        rates = self.hourly_rates_per_s
        if len(rates) != self.HOURS or min(rates) < 0 or not 0 < sum(rates) < np.inf:
            raise InputError("a day profile has 24 rates of at least 0, not all of them 0")
        if not self.burstiness > 0:
            raise InputError(f"burstiness = {self.burstiness:g}: a positive number is expected")

    @property
    def rate_per_s(self) -> float:
        """Mean rate over the day, requests per second."""
        return sum(self.hourly_rates_per_s) / self.HOURS

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        steps = Stepped(self.hourly_rates_per_s, SECONDS_PER_HOUR, self.burstiness)
        return steps.draw(rng, count)

    def at_rate(self, rate_per_s: float) -> DayProfile:
        """The same shape with another mean rate."""
        _check_rate(rate_per_s)
        factor = rate_per_s / self.rate_per_s
        return replace(
            self, hourly_rates_per_s=tuple(rate * factor for rate in self.hourly_rates_per_s)
        )


def _gaps(rng: np.random.Generator, count: int, burstiness: float) -> FloatArray:
    """Gaps of mean 1 and squared coefficient of variation 1/burstiness."""
    if burstiness == 1.0:
        return rng.standard_exponential(count)
    return rng.standard_gamma(burstiness, count) / burstiness


def _check_rate(rate_per_s: float) -> None:
    if not (np.isfinite(rate_per_s) and rate_per_s > 0):
        raise InputError(f"rate = {rate_per_s:g} requests/s: a positive number is expected")
