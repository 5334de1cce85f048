"""When the requests of a trial are sent: the simulator's own arrivals, in the trial's time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advisor.errors import InputError
from advisor.serving.arrivals import (
    Arrivals,
    ClosedLoop,
    Constant,
    DayProfile,
    Gamma,
    Poisson,
    Stepped,
)
from advisor.task import TaskProfile

PATTERN_S = 30.0
"""Length of a ramp, or of a day in the trial's time."""

DEFAULT_BURSTINESS = 0.5


def scheduled(arrivals: Arrivals, count: int, *, seed: int) -> list[float | None]:
    """When each of `count` requests is to be sent, seconds; None each for a closed loop.

    Raises:
        InputError: no request, or a schedule that is not finite.
    """
    if count < 1:
        raise InputError(f"requests = {count}: at least 1 is expected")
    if isinstance(arrivals, ClosedLoop):
        return [None] * count
    times = arrivals.draw(np.random.default_rng(seed), count)
    if not np.isfinite(times).all():
        raise InputError("a schedule has a finite time for every request")
    return [float(time) for time in times]


def ramp(
    *, from_per_s: float, to_per_s: float, lasts_s: float, steps: int = 20, burstiness: float = 1.0
) -> Stepped:
    """Rates that climb (or fall) in equal steps over `lasts_s` seconds, then start again.

    Raises:
        InputError: rates that are no rates, or no time.
    """
    rates = np.linspace(from_per_s, to_per_s, steps)
    return Stepped(tuple(float(rate) for rate in rates), lasts_s / steps, burstiness)


def compressed_day(task: TaskProfile, *, lasts_s: float) -> Stepped:
    """The hours of the task's day (a flat one without hourly rates), in `lasts_s` seconds.

    Raises:
        InputError: a duration that is none.
    """
    traffic = task.traffic
    hours = traffic.hourly_rates or (1.0,) * DayProfile.HOURS
    return Stepped(hours, lasts_s / DayProfile.HOURS, traffic.burstiness)


def named_arrivals(name: str, task: TaskProfile) -> Arrivals:
    """A process by its name, at any rate: the trial sets that.

    constant; gamma (the task's burstiness, or 0.5 where it states none); ramp (from a fifth of the
    rate to nine fifths of it within `PATTERN_S`); day (the task's hours within `PATTERN_S`).

    Raises:
        InputError: another name.
    """
    match name:
        case "poisson":
            return Poisson(1.0)
        case "constant":
            return Constant(1.0)
        case "gamma":
            own = task.traffic.burstiness
            return Gamma(1.0, own if own != 1 else DEFAULT_BURSTINESS)
        case "ramp":
            return ramp(from_per_s=0.2, to_per_s=1.8, lasts_s=PATTERN_S)
        case "day":
            return compressed_day(task, lasts_s=PATTERN_S)
    raise InputError(f"arrivals = {name}: poisson, constant, gamma, ramp or day is expected")


def beginning(times_s: Sequence[float], lasts_s: float) -> list[float]:
    """The first so many seconds of a schedule, at least its first request."""
    return [time_s for time_s in times_s if time_s <= lasts_s] or list(times_s[:1])
