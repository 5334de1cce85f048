"""The search: every admissible tier, pair and fleet, cheapest first, simulated as far as needed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from advisor.catalog import Assumptions, Catalog, HostedModel
from advisor.decide.assessment import METRICS, Assessment
from advisor.decide.candidates import (
    Candidate,
    Outlook,
    SizedTier,
    TierChoice,
    outlook,
)
from advisor.decide.choices import TierList
from advisor.decide.curves import TierCurve, hosted_curve, simulated_curve
from advisor.decide.escalation import EscalationPlans
from advisor.decide.load import shape_key
from advisor.decide.options import Misfit, SelfHostedOption
from advisor.decide.recommendation import Architecture, Role
from advisor.decide.sizing import Mixture, Sizing, hybrid_replicas, replicas_for
from advisor.quality.escalation import ConfidencePrior, HybridProjection
from advisor.quality.estimate import QualityEstimate
from advisor.quality.prior import QualityModel
from advisor.serving.deployed import overhead_s
from advisor.task import TaskProfile

CURVES_PER_ARCHITECTURE = 20
"""Deployments simulated for one architecture at the most."""

FRONT = 7
"""Choices kept for hybrids in each order: by cost and by speed, each better than the one before."""

VARIETY = 6
"""Deployments simulated for the Pareto front even where a better one is known already."""

PAIRS = 30
"""Pairs of small and large model that are sized."""

SLACK = 0.6
"""The search ends where the rough cost times this exceeds the best found: ranks are rough."""

NEAR = 0.01
"""Where nothing reaches the quality asked for, what comes this close to the best is sized."""

MISSES_SIZED = 6
"""Pairs too slow even without load that are sized all the same, to show by how much they miss."""

_CURVES: dict[tuple[object, ...], TierCurve] = {}
"""Curves simulated in this process: they depend on deployment and lengths, not on rates, bounds or
prices, so that one change of an input seldom needs a new one."""

MOST_CURVES = 2000


@dataclass(eq=False)
class Search:
    """One search over what may serve a task."""

    task: TaskProfile
    catalog: Catalog
    quality_model: QualityModel
    confidence: ConfidencePrior
    measured: Mapping[tuple[Role, str], tuple[float, int]] = field(default_factory=dict)
    """Labelled results: (right, rows) by role and model id, `*` for any model of the role."""
    may_simulate: bool = True
    """False: only deployments whose curves are known already are looked at."""
    progress: Callable[[str], None] | None = None
    certified: bool = False
    """Whether labelled pairs certify an escalation threshold for the task's target."""
    simulated: int = 0
    truncated: bool = False
    """Whether a limit ended the search before its bounds did."""
    choices: dict[Role, list[TierChoice]] = field(default_factory=dict)
    """What there is to choose from, by role."""
    candidates: list[Candidate] = field(default_factory=list)
    wall_s: float = 0.0
    assumptions: Assumptions = field(init=False)
    tiers: TierList = field(init=False)
    assessment: Assessment = field(init=False)
    escalation: EscalationPlans = field(init=False)

    def __post_init__(self) -> None:
        self.assumptions = self.catalog.assumptions.with_values(self.task.assumptions)
        self.tiers = TierList(
            self.task, self.catalog, self.assumptions, self.quality_model, self.measured
        )
        sizing = Sizing.of(
            self.task,
            reserve=self.assumptions.utilisation_reserve.value,
            minimum=max(1, round(self.assumptions.replicas_minimum.value)),
            validation_s=self.assumptions.validation_s.value,
        )
        self.assessment = Assessment(self.task, self.assumptions, sizing)
        self.escalation = EscalationPlans(self.task, self.confidence)

    @property
    def misfits(self) -> list[Misfit]:
        """What does not fit, with reasons."""
        return self.tiers.misfits

    @property
    def sizing(self) -> Sizing:
        """What fleets are sized for."""
        return self.assessment.sizing

    def run(self) -> Search:
        """Look at all three architectures."""
        start = time.perf_counter()
        self._say("listing what fits")
        small, large = self._choices("slm"), self._choices("llm")
        self._say("sizing small models")
        self.candidates += self._alone("slm", small)
        self._say("sizing large models")
        self.candidates += self._alone("llm", large)
        self._say("simulating hybrids")
        self.candidates += self._pairs(small, large)
        self.wall_s = time.perf_counter() - start
        return self

    def _choices(self, role: Role) -> list[TierChoice]:
        if role not in self.choices:
            self.choices[role] = self.tiers.choices(role)
        return self.choices[role]

    def reuse(self, other: Search) -> Search:
        """Take over what another search found, where the task's changes leave it valid."""
        if other.confidence == self.confidence:
            self.escalation = other.escalation.for_task(self.task)
        if choices_key(other.task) == choices_key(self.task):
            self.choices.update(other.choices)
            self.tiers.misfits.extend(other.misfits)
        return self

    def _say(self, what: str) -> None:
        if self.progress:
            self.progress(what)

    # Latency

    def curve(self, choice: TierChoice) -> TierCurve | None:
        """The latency curve of a choice; None where it would have to be simulated and may not."""
        if isinstance(choice.option, HostedModel):
            return hosted_curve(choice.option, self.assumptions, choice.load)
        option = choice.option
        overhead = overhead_s(option.calibration, self.assumptions.request_overhead_s.value)
        key = (
            option.key,
            option.calibration.as_of,
            option.calibration.label,
            shape_key(self.task),
            choice.load.extra_prompt_tokens,
            overhead,
        )
        if key not in _CURVES:
            if not self.may_simulate:
                return None
            if len(_CURVES) >= MOST_CURVES:
                _CURVES.clear()
            _CURVES[key] = simulated_curve(option, choice.load, overhead_s=overhead)
            self.simulated += 1
        return _CURVES[key]

    # One tier

    def _alone(self, role: Role, choices: Sequence[TierChoice]) -> list[Candidate]:
        """Candidates of one tier, cheapest first, until no other can be cheaper.

        Where none reaches the quality asked for, the best in quality are sized, to show by how
        much they miss.
        """
        target = self.task.quality.threshold
        good = [choice for choice in choices if choice.quality.median >= target]
        if not good:
            best = max((choice.quality.median for choice in choices), default=0.0)
            good = [choice for choice in choices if choice.quality.median >= best - NEAR]
        good.sort(key=lambda choice: (self._rough_month(choice), -choice.quality.median))
        found: list[Candidate] = []
        cheapest = math.inf
        looked_at: set[int] = set()
        for choice in good:
            if self._rough_month(choice) * SLACK > cheapest:
                break
            if len(looked_at) >= CURVES_PER_ARCHITECTURE:
                self.truncated = True
                break
            if len(looked_at) >= VARIETY and self._is_beaten(choice, found):
                continue
            curve = self.curve(choice)
            if curve is None:
                continue
            looked_at.add(id(curve))
            candidate = self._single(role, choice, curve)
            found.append(candidate)
            if candidate.feasible:
                cheapest = min(cheapest, candidate.risk_adjusted_usd)
        return found

    def _is_beaten(self, choice: TierChoice, found: Sequence[Candidate]) -> bool:
        """Whether something found is as good and no dearer than the choice is roughly."""
        rough = self._rough_month(choice)
        return any(
            one.feasible and one.cost.value <= rough and one.quality.median >= choice.quality.median
            for one in found
        )

    def _rough_month(self, choice: TierChoice) -> float:
        """Rough USD a month of serving everything, never less than the fewest replicas."""
        load = choice.rank_usd * self._requests_per_month
        if not choice.hosted:
            load *= self._peak_over_mean
        if isinstance(choice.option, SelfHostedOption):
            ranks = choice.option.deployment.ranks
            least = self.sizing.least_replicas(ranks) * choice.option.usd_per_month
            load = max(load, least)
        return load + choice.once_month.value

    @cached_property
    def _requests_per_month(self) -> float:
        return self.assessment.requests_per_month

    @cached_property
    def _peak_over_mean(self) -> float:
        """What a fleet has to be larger than the mean rate asks for."""
        return self.task.traffic.peak_rate_per_s / self.task.traffic.mean_rate_per_s

    def _single(self, role: Role, choice: TierChoice, curve: TierCurve) -> Candidate:
        rate = self.sizing.rate_per_s
        replicas = 0
        if isinstance(choice.option, SelfHostedOption):
            ranks = choice.option.deployment.ranks
            replicas = replicas_for(curve, self.sizing, ranks=ranks, rate_per_s=rate)
        tiers = {role: SizedTier(choice, curve, replicas, rate)}
        return self.assessed(role, tiers, choice.quality, None)

    def assessed(
        self,
        architecture: Architecture,
        tiers: dict[Role, SizedTier],
        quality: QualityEstimate,
        plan: HybridProjection | None,
    ) -> Candidate:
        """A candidate of tiers that are sized already, its latencies read off the curves."""
        latency = {
            metric: outlook(self._latency(tiers, plan, metric), self.sizing.bounds_s.get(metric))
            for metric in METRICS
        }
        return self.assessment.candidate(
            architecture, tiers, quality, plan, latency, self.assessment.cost(tiers)
        )

    def outlook_scaled(self, candidate: Candidate, metric: str, ratio: float) -> Outlook:
        """A candidate's outlook where every time is `ratio` times what the curves say."""
        at = self._latency(candidate.tiers, candidate.hybrid, metric)

        def scaled(z: float) -> float | None:
            found = at(z)
            return None if found is None else found * ratio

        return outlook(scaled, self.sizing.bounds_s.get(metric))

    def _latency(
        self, tiers: dict[Role, SizedTier], plan: HybridProjection | None, metric: str
    ) -> Callable[[float], float | None]:
        """p95 of a metric, seconds, as a function of the standard score of the step time."""
        if plan is None:
            (tier,) = tiers.values()
            return lambda z: tier.curve.at_rate(
                metric, tier.rate_per_replica, math.exp(z * tier.curve.log_sd)
            )
        small, large = tiers["slm"], tiers["llm"]
        mixture = self._mixture(small.curve, large.curve, plan)
        return lambda z: mixture.p95_s(
            metric,
            small_rate=small.rate_per_replica,
            large_rate=large.rate_per_replica,
            factors=(math.exp(z * small.curve.log_sd), math.exp(z * large.curve.log_sd)),
        )

    def _mixture(self, small: TierCurve, large: TierCurve, plan: HybridProjection) -> Mixture:
        return Mixture(
            small=small,
            large=large,
            large_share=plan.escalation_rate,
            direct_share=self.task.constraints.high_risk_share,
            validation_s=self.sizing.validation_s,
        )

    # Two tiers

    def _pairs(self, small: Sequence[TierChoice], large: Sequence[TierChoice]) -> list[Candidate]:
        """Hybrids: pairs of choices that none beats in rough cost and quality at once."""
        considered = {choice.identity for choice in self._front(large)}
        fronts = (
            self._front(small),
            # The large model's place decides whether escalated requests are in time.
            [choice for choice in large if choice.identity in considered],
        )
        plans: list[tuple[float, TierChoice, TierChoice, HybridProjection]] = []
        for little in fronts[0]:
            for big in fronts[1]:
                for plan in self.escalation.plans(little.quality, big.quality):
                    share = plan.escalation_rate
                    rough = self._rough_month(little) + max(
                        share * self._rough_month(big), self._least_month(big)
                    )
                    plans.append((rough, little, big, plan))
        reaching = [p for p in plans if p[3].quality.median >= self.task.quality.threshold - 1e-6]
        if not reaching and plans:
            best = max(p[3].quality.median for p in plans)
            reaching = [p for p in plans if p[3].quality.median >= best - NEAR]
        reaching.sort(key=lambda plan: plan[0])
        found: list[Candidate] = []
        cheapest, too_slow = math.inf, 0
        for rough, little, big, plan in reaching:
            if len(found) >= PAIRS:
                self.truncated = True
                break
            if rough * SLACK > cheapest:
                break
            curves = self.curve(little), self.curve(big)
            if curves[0] is None or curves[1] is None:
                continue
            quick = self._mixture(curves[0], curves[1], plan).keeps_idle(self.sizing.bounds_s)
            if not quick:
                too_slow += 1
                if too_slow > MISSES_SIZED:
                    continue
            candidate = self._hybrid(little, big, plan, curves[0], curves[1])
            found.append(candidate)
            if candidate.feasible:
                cheapest = min(cheapest, candidate.risk_adjusted_usd)
        return found

    def _least_month(self, choice: TierChoice) -> float:
        if isinstance(choice.option, SelfHostedOption):
            ranks = choice.option.deployment.ranks
            return self.sizing.least_replicas(ranks) * choice.option.usd_per_month
        return 0.0

    def _front(self, choices: Sequence[TierChoice]) -> list[TierChoice]:
        """Choices that no other beats in rough cost and quality, or in speed and quality."""
        kept: dict[int, TierChoice] = {}
        orders: tuple[Callable[[TierChoice], float], ...] = (self._rough_month, _alone_s)
        for order in orders:
            best, found = -math.inf, 0
            for choice in sorted(choices, key=lambda c: (order(c), -c.quality.median)):
                if choice.quality.median > best + 1e-3 and found < FRONT:
                    best, found = choice.quality.median, found + 1
                    kept[id(choice)] = choice
        return list(kept.values())

    def _hybrid(
        self,
        small: TierChoice,
        large: TierChoice,
        plan: HybridProjection,
        small_curve: TierCurve,
        large_curve: TierCurve,
    ) -> Candidate:
        risky = self.task.constraints.high_risk_share
        mixture = self._mixture(small_curve, large_curve, plan)
        replicas = hybrid_replicas(mixture, self.sizing, small=small, large=large)
        rate = self.sizing.rate_per_s
        tiers: dict[Role, SizedTier] = {
            "slm": SizedTier(small, small_curve, replicas[0], rate * (1 - risky)),
            "llm": SizedTier(large, large_curve, replicas[1], rate * plan.escalation_rate),
        }
        return self.assessed("hybrid", tiers, plan.quality, plan)

    def resized(self, candidate: Candidate, task: TaskProfile) -> list[Candidate]:
        """The same models under a changed task: another bound, threshold or volume, sized anew."""
        changed = Search(
            task, self.catalog, self.quality_model, self.confidence, self.measured, False
        )
        if candidate.architecture != "hybrid":
            (tier,) = candidate.tiers.values()
            return [changed._single(tier.choice.role, tier.choice, tier.curve)]
        small, large = candidate.tiers["slm"], candidate.tiers["llm"]
        plans = changed.escalation.plans(small.choice.quality, large.choice.quality)
        return [
            changed._hybrid(small.choice, large.choice, plan, small.curve, large.curve)
            for plan in plans
        ]


def choices_key(task: TaskProfile) -> tuple[object, ...]:
    """What the list of choices depends on: not on bounds, thresholds, volumes or the budget."""
    unbounded = {"budget_usd_per_month": None, "high_risk_share": 0.0, "max_escalation_rate": 1.0}
    constraints = task.constraints.model_copy(update=unbounded)
    return (
        shape_key(task),
        task.task,
        task.quality.metric,
        constraints,
        task.assumptions,
    )


def _alone_s(choice: TierChoice) -> float:
    """Rough seconds of a request served alone."""
    if isinstance(choice.option, SelfHostedOption):
        return choice.option.rank_s
    return 1.0
