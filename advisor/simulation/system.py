"""What serves a load: one deployment, or the tiers of an architecture with gate and cache."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from advisor.decide.recommendation import Role
from advisor.serving.cascade import (
    AnswerCache,
    CascadeReport,
    CascadeTimeline,
    Gate,
    SelfHosted,
    Tier,
    cascade_report,
    simulate_cascade,
)
from advisor.serving.metrics import LoadReport, report
from advisor.serving.simulate import Timeline, simulate_fleet
from advisor.serving.workload import Requests
from advisor.simulation.tiers import DeployedTier


@dataclass(frozen=True, eq=False)
class Run:
    """One simulation of a system."""

    report: LoadReport | CascadeReport
    tiers: Mapping[Role, LoadReport | None]
    """Each tier as its engines see it; None for hosted and idle ones."""
    timelines: Mapping[Role, Timeline]
    """What those engines did."""
    wall_s: float
    """Seconds the simulation took, percentiles apart."""

    @property
    def stable(self) -> bool:
        """Whether the load can be served for ever."""
        limit = self.report.sustainable_rate_per_s
        return self.report.stable and (limit is None or self.report.offered_rate_per_s <= limit)

    @property
    def escalation_rate(self) -> float | None:
        """Share of the requests beside cached ones that reach the large model of two."""
        if isinstance(self.report, LoadReport):
            return None
        cached = self.report.by_route.get("cache")
        return self.report.large_share / (1 - (cached.share if cached else 0.0))


@dataclass(frozen=True, eq=False)
class System:
    """Tiers, and how requests pass between them."""

    tiers: Mapping[Role, DeployedTier]
    title: str
    seed: int
    gate: Gate = field(default_factory=Gate)
    high_risk_share: float = 0.0
    """Share of requests that skip the small tier."""
    cache: AnswerCache | None = None
    """Answers repeats before any tier; engines by themselves have none."""

    def serve(
        self,
        deviation: float = 0.0,
        *,
        loads: Mapping[Role, Requests] | None = None,
        intervals: bool = True,
    ) -> Run:
        """Simulate the load.

        Args:
            deviation: of every tier's times from the projected ones, in standard deviations of
                what is known about their level.
            loads: what each tier may get, instead of its own; as many for every tier.
            intervals: whether confidence intervals of chance are wanted.
        """
        loads = loads or {role: tier.load for role, tier in self.tiers.items()}
        factors = {role: math.exp(deviation * tier.log_sd) for role, tier in self.tiers.items()}
        tiers = {role: tier.taking(factors[role]) for role, tier in self.tiers.items()}
        limits = {
            role: None if tier.sustainable_per_s is None else tier.sustainable_per_s / factors[role]
            for role, tier in self.tiers.items()
        }
        (role, only), *others = tiers.items()
        if not others and isinstance(only, SelfHosted) and self.cache is None:
            return _engines(role, only, loads[role], limits[role], intervals)
        return self._cascade(tiers, loads, limits, intervals)

    def _cascade(
        self,
        tiers: Mapping[Role, Tier],
        loads: Mapping[Role, Requests],
        limits: Mapping[Role, float | None],
        intervals: bool,
    ) -> Run:
        # One tier behind a cache, or behind an API, is the large one of a cascade that skips the
        # small one.
        below: Role = "slm" if "slm" in tiers else "llm"
        above: Role = "llm" if "llm" in tiers else "slm"
        alone = below == above
        begin = time.perf_counter()
        timeline = simulate_cascade(
            tiers[below],
            tiers[above],
            self.gate,
            loads[below],
            seed=self.seed,
            large_requests=loads[above],
            cache=self.cache,
            high_risk_share=1.0 if alone else self.high_risk_share,
        )
        wall_s = time.perf_counter() - begin
        found = cascade_report(
            timeline,
            small_sustainable_per_s=None if alone else limits[below],
            large_sustainable_per_s=limits[above],
            intervals=intervals,
        )
        reports = {below: found.small, above: found.large}
        return Run(found, reports, _timelines(timeline, below, above), wall_s)


def _engines(
    role: Role, tier: SelfHosted, load: Requests, limit: float | None, intervals: bool
) -> Run:
    begin = time.perf_counter()
    timeline = simulate_fleet(
        tier.step,
        tier.engine,
        kv_blocks=tier.kv_blocks,
        requests=load,
        replicas=tier.replicas,
        balancing=tier.balancing,
        scaling=tier.scaling,
    )
    wall_s = time.perf_counter() - begin
    found = report(
        timeline,
        request_overhead_s=tier.request_overhead_s,
        sustainable_rate_per_s=limit,
        intervals=intervals,
    )
    return Run(found, {role: found}, {role: timeline}, wall_s)


def _timelines(timeline: CascadeTimeline, below: Role, above: Role) -> dict[Role, Timeline]:
    parts = ((below, timeline.small), (above, timeline.large))
    return {role: tier.engine for role, tier in parts if tier.engine is not None}
