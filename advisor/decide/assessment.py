"""What a candidate comes to: its cost, the requirements its median misses, and its chances."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from scipy.special import ndtr

from advisor.catalog import Assumptions
from advisor.decide.candidates import Candidate, Miss, Outlook, SizedTier
from advisor.decide.options import SelfHostedOption
from advisor.decide.recommendation import Architecture, Role
from advisor.decide.sizing import Sizing, bounds_of
from advisor.economics import NOTHING, Amount, fleet_month
from advisor.figures import dollars, percent, seconds
from advisor.quality.escalation import HybridProjection
from advisor.quality.estimate import Z_90, QualityEstimate
from advisor.task import TaskProfile

METRICS = ("ttft", "e2e", "tpot")
METRIC_TITLES = {"ttft": "TTFT p95", "e2e": "E2E p95", "tpot": "TPOT p95"}


@dataclass(frozen=True, eq=False)
class Assessment:
    """Holds candidates against one task."""

    task: TaskProfile
    assumptions: Assumptions
    sizing: Sizing

    @property
    def requests_per_month(self) -> float:
        """Requests that reach a model: repeats are answered from the cache."""
        traffic = self.task.traffic
        return traffic.requests_per_month * (1 - traffic.repeat_share)

    def cost(self, tiers: dict[Role, SizedTier]) -> Amount:
        """USD a month: accelerators, tokens, adaptations by the month, and a hybrid's router."""
        amount = NOTHING
        hours = self.requests_per_month / max(self.sizing.rate_per_s, 1e-12)
        for tier in tiers.values():
            choice = tier.choice
            if isinstance(choice.option, SelfHostedOption):
                amount += self._fleet_cost(tier)
            else:
                amount += choice.request_usd.times(tier.rate_per_s * hours)
            amount += choice.once_month
        if len(tiers) > 1:
            router = self.assumptions.router_usd_per_month
            amount += Amount(value=router.value, low=router.low, high=router.high)
        return amount

    def _fleet_cost(self, tier: SizedTier) -> Amount:
        """Cost of the replicas, with ends for a step time faster or slower than projected."""
        option = tier.choice.option
        assert isinstance(option, SelfHostedOption)
        ranks = option.deployment.ranks
        least = self.sizing.least_replicas(ranks)
        width = math.exp(Z_90 * tier.curve.log_sd)

        def month(replicas: float) -> Amount:
            return fleet_month(option.price, math.ceil(replicas - 1e-9) * ranks)

        return Amount(
            value=month(tier.replicas).value,
            low=month(max(least, tier.replicas / width)).low,
            high=month(max(least, tier.replicas * width)).high,
        )

    def candidate(
        self,
        architecture: Architecture,
        tiers: dict[Role, SizedTier],
        quality: QualityEstimate,
        plan: HybridProjection | None,
        latency: dict[str, Outlook],
        cost: Amount,
    ) -> Candidate:
        """A candidate with its misses and the chance that every requirement holds."""
        probability = quality.probability_at_least(self.task.quality.threshold)
        for metric in self.sizing.bounds_s:
            probability *= latency[metric].probability
        budget = self.task.constraints.budget_usd_per_month
        if budget is not None:
            probability *= budget_probability(cost, budget)
        return Candidate(
            architecture=architecture,
            tiers=tiers,
            quality=quality,
            hybrid=plan,
            latency=latency,
            cost=cost,
            misses=tuple(self._misses(architecture, tiers, quality, latency, cost)),
            probability=probability,
        )

    def _misses(
        self,
        architecture: Architecture,
        tiers: dict[Role, SizedTier],
        quality: QualityEstimate,
        latency: dict[str, Outlook],
        cost: Amount,
    ) -> Iterable[Miss]:
        task = self.task
        if quality.median < task.quality.threshold - 1e-6:
            yield Miss(
                f"quality ≥ {percent(task.quality.threshold)}",
                f"{100 * (task.quality.threshold - quality.median):.1f} points short",
                f"the threshold is at most {percent(quality.median)}, or labels show better",
            )
        for metric, bound in bounds_of(task).items():
            value = latency[metric].value_s
            if value > bound:
                title = METRIC_TITLES[metric]
                by = "overloaded" if math.isinf(value) else f"{seconds(value - bound)} too long"
                admitted = "" if math.isinf(value) else f"{title} up to {seconds(value)} is allowed"
                yield Miss(f"{title} ≤ {seconds(bound)}", by, admitted)
        budget = task.constraints.budget_usd_per_month
        if budget is not None and cost.value > budget:
            yield Miss(
                f"cost ≤ {dollars(budget)} a month",
                f"{dollars(cost.value - budget)} a month too much",
                f"the budget is {dollars(cost.value)} a month",
            )
        most = task.constraints.max_accelerators
        needed = sum(tier.accelerators for tier in tiers.values())
        if most is not None and needed > most:
            yield Miss(
                f"at most {most} accelerators", f"{needed - most} more", f"{needed} are allowed"
            )
        if architecture == "slm" and task.constraints.high_risk_share > 0:
            yield Miss(
                "high-risk requests go to a large model",
                "it has none",
                "high_risk_share is 0",
            )
        yield from self._rate_limits(tiers)

    def _rate_limits(self, tiers: dict[Role, SizedTier]) -> Iterable[Miss]:
        limit = self.assumptions.hosted_rate_limit_per_s.value
        for tier in tiers.values():
            if tier.choice.hosted and tier.rate_per_s > limit:
                yield Miss(
                    f"hosted rate limit {limit:,.0f}/s (assumed)",
                    f"{rate_shown(tier.rate_per_s - limit)} too many",
                    f"the account's limit is {rate_shown(tier.rate_per_s)}",
                )


def rate_shown(rate_per_s: float) -> str:
    """A rate of requests, by the second, minute or hour: as it is at least one of them."""
    for unit, length_s in (("s", 1), ("min", 60), ("h", 3600)):
        rate = rate_per_s * length_s
        if rate >= 1 or unit == "h":
            break
    digits = ",.0f" if rate >= 10 else ",.1f" if rate >= 1 else ".2g"
    return f"{rate:{digits}} requests/{unit}"


def budget_probability(cost: Amount, budget: float) -> float:
    """P(cost ≤ budget), the cost taken as lognormal with its 90 % range."""
    if cost.value <= 0:
        return 1.0
    width = math.log(max(cost.high, cost.value) / max(min(cost.low, cost.value), 1e-9)) / 3.29
    if width <= 1e-9:
        return float(cost.value <= budget)
    return float(ndtr(math.log(budget / cost.value) / width))
