"""Latency of an architecture against the rate of requests, and the rate it can take.

At every rate the same prompts and answers are served, as projected and once with every step as
quick and as slow as is plausible; the intervals join what those show and what chance does
(`results.ranges_of`). The capacity is the highest rate at which every latency bound holds, found
by bisection on the simulator between the rates of the curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from advisor.catalog import Catalog
from advisor.decide.recommendation import Chosen, Role, SelfHostedTier
from advisor.records import Record
from advisor.serving.compilation import ensure_compiled
from advisor.serving.routes import Route
from advisor.serving.series import LoadSeries, series
from advisor.serving.timeline import Timeline
from advisor.simulation.loaded import (
    DEVIATIONS,
    Figures,
    Level,
    Loaded,
    Runs,
    given_up_share,
    loaded_architecture,
)
from advisor.simulation.what_if import WhatIf, changed
from advisor.task import HOURS_PER_MONTH, TaskProfile

FRACTIONS = (0.04, 0.15, 0.3, 0.45, 0.58, 0.68, 0.76, 0.83, 0.89, 0.93, 0.96, 0.985)
"""Rates of the curve over the sustainable one."""

MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Rates of the curve over the busiest hour's, where no rate is known that could not be served."""

COUNT = 12_000
"""Requests at each rate: nearer to saturation than some 80 % it takes more to know chance well."""

COUNT_CACHED = 5_000
"""Where answers are cached: each rate is then simulated several times over."""

BISECTIONS = 5

SERIES_POINTS = 160
SERIES_S = 3600.0
"""Longest part of a run that is shown over time."""
WARMUP = 0.1


class CurvePoint(Record):
    """Percentiles at one rate."""

    rate_per_s: float
    figures: Figures


class RateRange(Record):
    """Requests a second with their 90 % interval; None: no limit is known."""

    value: float | None
    low: float | None
    high: float | None


class RouteFigures(Record):
    """The requests of a hybrid that took one route."""

    share: float
    figures: Figures


class PeakHour(Record):
    """What the busiest hour is like."""

    stable: bool
    """Whether its load can be served for ever; there are no figures otherwise, nor where every
    client gives up."""
    figures: Figures
    routes: dict[Route, RouteFigures]
    """Of a hybrid, and of answers from a cache; empty where all requests take one route."""
    series: dict[Role, LoadSeries]
    """Queue, batch and KV use over time of each tier that has engines, after the warm-up."""
    given_up_share: float
    """Requests whose client left before the answer."""
    preemptions: int


class LoadStudy(Record):
    """An architecture against its load."""

    title: str
    peak_rate_per_s: float
    """Rate of the task's busiest hour."""
    points: tuple[CurvePoint, ...]
    """At rising rates, as far as they can be served for ever."""
    sustainable: RateRange
    """Highest rate that can be served for ever."""
    capacity: RateRange
    """Highest rate at which every latency bound of the task holds; 0 where none does."""
    binding: str | None
    """The bound that is missed first (`e2e`, …), `given_up` where over 5 % of the clients leave;
    None: what can be sustained."""
    peak: PeakHour
    fleet_usd_per_month: float
    """Accelerators of all replicas at their price; what is paid by the token is not in it."""
    notes: tuple[str, ...] = ()

    @property
    def headroom(self) -> float | None:
        """Capacity over the busiest hour's rate; None where no limit is known."""
        value = self.capacity.value
        return None if value is None else value / self.peak_rate_per_s


def study_load(
    chosen: Chosen,
    task: TaskProfile,
    *,
    catalog: Catalog,
    escalation_rate: float | None = None,
    what_if: WhatIf | None = None,
    seed: int = 0,
    count: int | None = None,
) -> LoadStudy:
    """Percentiles against the rate, the capacity, and the busiest hour in detail.

    Args:
        escalation_rate: share that a hybrid's large model gets, high-risk requests included; None:
            as follows from the threshold.
        what_if: changes of the architecture and of the load.
        count: requests at each rate; None: 12,000, and 5,000 where answers are cached.

    Raises:
        InputError, DoesNotFitError: as `changed` and `architecture_system`.
    """
    what_if = what_if or WhatIf()
    altered = changed(chosen, what_if)
    if count is None:
        count = COUNT_CACHED if task.traffic.repeat_share else COUNT
    ensure_compiled()
    loaded = loaded_architecture(
        altered,
        task,
        catalog=catalog,
        escalation_rate=escalation_rate,
        what_if=what_if,
        seed=seed,
        count=count,
    )
    peak = loaded.runs(loaded.peak_rate_per_s)
    rates = _rates(loaded.peak_rate_per_s, peak.sustainable_per_s("projected"))
    curve = [peak if rate == peak.rate_per_s else loaded.runs(rate) for rate in rates]
    capacity, binding = _capacity(loaded, curve, peak)
    return LoadStudy(
        title=altered.title,
        peak_rate_per_s=loaded.peak_rate_per_s,
        points=tuple(
            CurvePoint(rate_per_s=runs.rate_per_s, figures=runs.figures())
            for runs in curve
            if runs.stable()
        ),
        sustainable=RateRange(
            low=peak.sustainable_per_s("slow"),
            value=peak.sustainable_per_s("projected"),
            high=peak.sustainable_per_s("quick"),
        ),
        capacity=capacity,
        binding=binding,
        peak=_peak_hour(peak, whole=what_if.shape == "day"),
        fleet_usd_per_month=fleet_usd_per_month(altered),
        notes=tuple(note for tier in loaded.system.tiers.values() for note in tier.notes),
    )


def fleet_usd_per_month(chosen: Chosen) -> float:
    """Accelerators of all replicas for a month: accelerators·USD an hour·730.5 hours."""
    return sum(
        tier.accelerators * tier.usd_per_accelerator_hour * HOURS_PER_MONTH
        for tier in chosen.tiers.values()
        if isinstance(tier, SelfHostedTier)
    )


def _rates(peak_per_s: float, sustainable_per_s: float | None) -> list[float]:
    """The rates of the curve, rising, the busiest hour's among them where it can be served."""
    if sustainable_per_s is None:
        return [multiple * peak_per_s for multiple in MULTIPLES]
    rates = {fraction * sustainable_per_s for fraction in FRACTIONS}
    if peak_per_s < sustainable_per_s:
        rates.add(peak_per_s)
    return sorted(rates)


def _capacity(loaded: Loaded, curve: Sequence[Runs], peak: Runs) -> tuple[RateRange, str | None]:
    """The highest rate within every bound, at each level, and the bound that is missed first."""
    found: dict[Level, float | None] = {}
    binding: str | None = None
    for level in DEVIATIONS:
        verdicts = [
            (runs.rate_per_s, loaded.missed_by(runs.by_level[level], runs.rate_per_s))
            for runs in curve
        ]
        low, high = _bracket(verdicts)
        high = peak.sustainable_per_s(level) if high is None else high
        if high is None:
            found[level] = None
            continue

        def missed(rate_per_s: float, level: Level = level) -> str | None:
            return loaded.missed(rate_per_s, level)

        found[level], bound = _bisected(low, high, missed)
        if level == "projected":
            binding = None if bound == "stable" else bound
    value, ends = found["projected"], (found["slow"], found["quick"])
    return RateRange(low=_least(value, ends[0]), value=value, high=_most(value, ends[1])), binding


def _bracket(verdicts: Sequence[tuple[float, str | None]]) -> tuple[float, float | None]:
    """(rate up to which nothing is missed, the next one; None: nothing is missed at any)."""
    if verdicts[0][1] is not None:
        return 0.0, verdicts[0][0]
    for (rate, _), (following, missed) in pairwise(verdicts):
        if missed is not None:
            return rate, following
    return verdicts[-1][0], None


def _bisected(
    low: float, high: float, missed: Callable[[float], str | None]
) -> tuple[float, str | None]:
    """The highest rate at which nothing is missed, and what is missed just above it."""
    first = missed(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = missed(middle)
        if found is None:
            low = middle
        else:
            high, first = middle, found
    return low, first


def _peak_hour(runs: Runs, *, whole: bool) -> PeakHour:
    run = runs.projected
    told = runs.stable() and run.report.requests > 0
    routes = {
        route: RouteFigures(share=part.share, figures=runs.figures(route))
        for route, part in runs.routes().items()
    }
    return PeakHour(
        stable=runs.stable(),
        figures=runs.figures() if told else {},
        routes=routes if told and len(routes) > 1 else {},
        series={role: _series(timeline, whole) for role, timeline in run.timelines.items()},
        given_up_share=given_up_share(run),
        preemptions=sum(tier.preemptions for tier in run.tiers.values() if tier),
    )


def _series(timeline: Timeline, whole: bool) -> LoadSeries:
    """A timeline between warm-up and the last arrival, at most an hour of it unless `whole`."""
    begin, end = float(timeline.arrival_s[0]), float(timeline.arrival_s[-1])
    first = begin + (0.0 if whole else WARMUP * (end - begin))
    last = end if whole else min(end, first + SERIES_S)
    found = series(timeline, resolution_s=max(last - first, 1e-6) / SERIES_POINTS)
    kept = [at for at, time_s in enumerate(found.time_s) if first < time_s <= last * (1 + 1e-9)]
    return LoadSeries(**{name: tuple(values[at] for at in kept) for name, values in found})


def _least(value: float | None, other: float | None) -> float | None:
    return value if other is None or value is None else min(value, other)


def _most(value: float | None, other: float | None) -> float | None:
    return None if other is None or value is None else max(value, other)
