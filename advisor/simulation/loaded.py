"""An architecture whose load can be put at any rate, with steps as projected, quick and slow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from numpy.typing import NDArray

from advisor.catalog import Catalog
from advisor.decide.recommendation import Chosen, Role
from advisor.quality.estimate import Z_90
from advisor.records import Record
from advisor.serving.cascade import CascadeReport, Route, RouteReport, SelfHosted
from advisor.serving.metrics import Percentiles
from advisor.serving.workload import Requests, workload_of
from advisor.simulation.results import ranges_of
from advisor.simulation.simulate import architecture_system
from advisor.simulation.system import Run, System
from advisor.simulation.tiers import DeployedTier
from advisor.simulation.what_if import WhatIf, arrivals_at
from advisor.task import TaskProfile

METRICS = ("ttft", "tpot", "e2e", "queue")
"""Time to first token, time per output token, whole request, waiting in queues."""

SHOWN = ("p50", "p95", "p99")

FEWER = 4_000
"""Most requests of a run whose latency level is itself at one end of what is plausible."""

MOST_GIVEN_UP = 0.05

Level = Literal["quick", "projected", "slow"]
DEVIATIONS: Mapping[Level, float] = {"quick": -Z_90, "projected": 0.0, "slow": Z_90}
"""How far the step times lie from the projected ones, in standard deviations: a 90 % interval."""


class Figure(Record):
    """Milliseconds with their 90 % interval; no upper end where that may be overload."""

    value_ms: float
    low_ms: float
    high_ms: float | None


Figures = dict[str, dict[str, Figure]]
"""By metric (`METRICS`) and percentile (`SHOWN`)."""


@dataclass(frozen=True, eq=False)
class Runs:
    """One rate, with steps as projected, as quick, and as slow as is plausible."""

    rate_per_s: float
    by_level: Mapping[Level, Run]

    @property
    def projected(self) -> Run:
        """The run whose figures count."""
        return self.by_level["projected"]

    def sustainable_per_s(self, level: Level) -> float | None:
        """Highest rate that can be served for ever; None where none is known."""
        return self.by_level[level].report.sustainable_rate_per_s

    def stable(self, level: Level = "projected") -> bool:
        """Whether the busiest hour's rate can be served for ever."""
        return _stable(self.by_level[level], self.rate_per_s)

    def figures(self, route: Route | None = None) -> Figures:
        """Of all requests, or of those that took one route."""
        return {metric: self._figures(metric, route) for metric in METRICS}

    def routes(self) -> Mapping[Route, RouteReport]:
        """The routes taken; none where there is one tier without a cache."""
        report = self.projected.report
        return report.by_route if isinstance(report, CascadeReport) else {}

    def _figures(self, metric: str, route: Route | None) -> dict[str, Figure]:
        own = _percentiles(self.projected, metric, route)
        assert own is not None
        slow = _percentiles(self.by_level["slow"], metric, route)
        ranges = ranges_of(
            own,
            quick=_percentiles(self.by_level["quick"], metric, route) or own,
            slow=slow if self.stable("slow") else None,
        )
        return {
            name: Figure(
                value_ms=1e3 * getattr(own, name),
                low_ms=ranges[name].low,
                high_ms=ranges[name].high,
            )
            for name in SHOWN
        }


@dataclass(frozen=True, eq=False)
class Loaded:
    """An architecture under a what-if's load."""

    system: System
    task: TaskProfile
    what_if: WhatIf
    seed: int
    count: int
    """Requests where steps take as long as projected."""

    @property
    def fewer(self) -> int:
        """Requests where they take less or more: only a p95 is wanted then."""
        return min(FEWER, self.count // 2)

    @property
    def peak_rate_per_s(self) -> float:
        """Rate of the task's busiest hour."""
        return self.task.traffic.peak_rate_per_s

    @cached_property
    def bounds_s(self) -> dict[str, float]:
        """Bounds on 95th percentiles by metric."""
        bounds = self.task.latency.bounds.items()
        return {name.removesuffix("_p95_ms"): 1e-3 * bound_ms for name, bound_ms in bounds}

    def runs(self, rate_per_s: float) -> Runs:
        """The load at a rate, at each level of the step times."""
        found = {
            level: self._run(
                rate_per_s, level, count=self._count(level), intervals=level == "projected"
            )
            for level in DEVIATIONS
        }
        return Runs(rate_per_s, found)

    def missed(self, rate_per_s: float, level: Level) -> str | None:
        """The first bound missed at a rate, as `missed_by`."""
        run = self._run(rate_per_s, level, count=self._count(level))
        return self.missed_by(run, rate_per_s)

    def missed_by(self, run: Run, rate_per_s: float) -> str | None:
        """The first bound a run misses; None: none.

        `stable` where its queue only grows, `given_up` where more than 5 % of the clients leave:
        theirs are no latencies, but no 95th percentile of all requests is within a bound then.
        """
        if not _stable(run, rate_per_s):
            return "stable"
        if given_up_share(run) > MOST_GIVEN_UP:
            return "given_up"
        for metric, bound_s in self.bounds_s.items():
            figures: Percentiles = getattr(run.report, metric)
            if figures.p95 > bound_s:
                return metric
        return None

    def _count(self, level: Level) -> int:
        return self.count if level == "projected" else self.fewer

    def _run(self, rate_per_s: float, level: Level, *, count: int, intervals: bool = False) -> Run:
        arrivals = arrivals_at(self.task, self.what_if, rate_per_s, count=count)
        workload = replace(workload_of(self.task), arrivals=arrivals)
        arrival_s = workload.draw(count=count, seed=self.seed).arrival_s
        loads = {
            role: self._arriving(tier.load.select(slice(0, count)), arrival_s)
            for role, tier in self.system.tiers.items()
        }
        return self.system.serve(DEVIATIONS[level], loads=loads, intervals=intervals)

    def _arriving(self, load: Requests, arrival_s: NDArray[Any]) -> Requests:
        moved = replace(load, arrival_s=arrival_s)
        timeout_s = self.what_if.timeout_s
        return moved if timeout_s is None else moved.with_timeout(timeout_s)


def loaded_architecture(
    chosen: Chosen,
    task: TaskProfile,
    *,
    catalog: Catalog,
    escalation_rate: float | None,
    what_if: WhatIf,
    seed: int,
    count: int,
) -> Loaded:
    """An architecture (already changed) under a what-if's load.

    Raises:
        InputError, DoesNotFitError: as `architecture_system`.
    """
    drawn = workload_of(task).draw(count=count, seed=seed)
    system = architecture_system(
        chosen, task, catalog, drawn, escalation_rate=escalation_rate, seed=seed
    )
    tiers = {role: _balanced(tier, role, what_if) for role, tier in system.tiers.items()}
    return Loaded(replace(system, tiers=tiers), task, what_if, seed, count)


def _balanced(tier: DeployedTier, role: Role, what_if: WhatIf) -> DeployedTier:
    change = what_if.tiers.get(role)
    if change is None or change.balancing is None or not isinstance(tier.serving, SelfHosted):
        return tier
    return replace(tier, serving=replace(tier.serving, balancing=change.balancing))


def given_up_share(run: Run) -> float:
    """Requests whose client left before the answer, over all."""
    report = run.report
    return report.cancelled / max(report.requests + report.cancelled, 1)


def _stable(run: Run, rate_per_s: float) -> bool:
    # A day's mean says nothing of its busiest hour, so the rate of that is looked at as well.
    limit = run.report.sustainable_rate_per_s
    return run.stable and (limit is None or rate_per_s <= limit)


def _percentiles(run: Run, metric: str, route: Route | None) -> Percentiles | None:
    """None where no request took the route."""
    part: object = run.report
    if route is not None:
        by_route = run.report.by_route if isinstance(run.report, CascadeReport) else {}
        part = by_route.get(route)
    found: Percentiles | None = getattr(part, metric, None)
    return found
