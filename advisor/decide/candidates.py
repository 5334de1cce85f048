"""One candidate: tiers sized for the peak hour, and what the curves say of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from advisor.catalog import HostedModel
from advisor.decide.curves import QUANTILES, TierCurve
from advisor.decide.options import Load, SelfHostedOption
from advisor.decide.recommendation import Architecture, Role, short_name
from advisor.economics import Amount
from advisor.quality.escalation import HybridProjection
from advisor.quality.estimate import QualityEstimate
from advisor.task import Adaptation, TaskProfile

FloatArray = NDArray[np.float64]

Z_90 = 1.6448536269514722

SIZING_Z = (1.2815515655446004, 0.6744897501960817, 0.0)
"""Quantiles of the step time that a fleet is sized for: 90 % if any fleet can, else less."""

FLEET_SIZES = 12
"""Numbers of replicas tried for each tier of a hybrid, from the fewest to eight times as many."""

Z_GRID: FloatArray = np.linspace(-3.0, 3.0, 61)

PAIRING = np.random.default_rng(7).permutation(len(QUANTILES))
"""Fixed pairing of the small and the large model's quantiles, as if they were independent."""


@dataclass(frozen=True, eq=False)
class TierChoice:
    """A model, adapted and deployed somewhere, before it is sized."""

    role: Role
    option: SelfHostedOption | HostedModel
    adaptation: Adaptation
    quality: QualityEstimate
    load: Load
    once: Amount
    """One-off USD of the adaptation."""
    once_month: Amount
    """The same by the month."""
    request_usd: Amount
    """Tokens of one request to a hosted API; nothing for accelerators."""
    rank_usd: float
    """Rough USD of a request at full load."""

    @property
    def hosted(self) -> bool:
        """Whether somebody else runs it."""
        return isinstance(self.option, HostedModel)

    @property
    def ranks(self) -> int:
        """Accelerators of one replica; 0 for a hosted API."""
        return 0 if isinstance(self.option, HostedModel) else self.option.deployment.ranks

    @property
    def usd_per_month(self) -> float:
        """One replica for a month; 0 for a hosted API, which is paid by the token."""
        return 0.0 if isinstance(self.option, HostedModel) else self.option.usd_per_month

    @cached_property
    def title(self) -> str:
        """Name in tables."""
        if isinstance(self.option, HostedModel):
            return f"{self.option.id} ({self.option.provider} API), {self.adaptation}"
        own = self.option.deployment
        parallel = f"{own.tensor_parallel}×" if own.tensor_parallel > 1 else ""
        return (
            f"{short_name(own.model.id)} {own.weights_dtype} {self.adaptation} "
            f"on {parallel}{own.accelerator.id}"
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """What it is, wherever it runs."""
        if isinstance(self.option, HostedModel):
            return (self.option.provider, self.option.id, self.adaptation)
        return (
            self.option.deployment.model.id,
            self.option.deployment.weights_dtype,
            self.adaptation,
        )


@dataclass(frozen=True, eq=False)
class SizedTier:
    """A tier with as many replicas as its share of the load needs."""

    choice: TierChoice
    curve: TierCurve
    replicas: int
    """0 for a hosted API."""
    rate_per_s: float
    """Requests per second that reach the tier in the peak hour."""

    @property
    def rate_per_replica(self) -> float:
        """Requests per second of one replica in the peak hour."""
        return self.rate_per_s / max(self.replicas, 1)

    @property
    def accelerators(self) -> int:
        """Accelerators in all."""
        return self.replicas * self.choice.ranks


@dataclass(frozen=True)
class Outlook:
    """One latency percentile of a candidate."""

    value_s: float
    low_s: float
    high_s: float | None
    probability: float
    """That the bound holds; 1 where there is none."""


@dataclass(frozen=True)
class Miss:
    """A requirement that the median estimate does not meet."""

    requirement: str
    by: str
    admitted_if: str


@dataclass(frozen=True, eq=False)
class Candidate:
    """An architecture that could be deployed, with what is expected of it."""

    architecture: Architecture
    tiers: dict[Role, SizedTier]
    quality: QualityEstimate
    hybrid: HybridProjection | None
    latency: dict[str, Outlook]
    """By metric: ttft, e2e and tpot p95."""
    cost: Amount
    """USD a month."""
    misses: tuple[Miss, ...]
    probability: float
    """That every requirement holds, taken as independent."""

    @property
    def feasible(self) -> bool:
        """Whether the median estimate meets every requirement."""
        return not self.misses

    @property
    def accelerators(self) -> int:
        """Accelerators in all."""
        return sum(tier.accelerators for tier in self.tiers.values())

    @property
    def title(self) -> str:
        """Name in tables."""
        return " → ".join(
            self.tiers[role].choice.title for role in ("slm", "llm") if role in self.tiers
        )


@dataclass(frozen=True)
class Sizing:
    """What a fleet has to do, in the peak hour."""

    bounds_s: dict[str, float]
    """p95 bounds by metric."""
    rate_per_s: float
    reserve: float
    minimum: int
    most_accelerators: int | None
    validation_s: float

    @classmethod
    def of(cls, task: TaskProfile, *, reserve: float, minimum: int, validation_s: float) -> Sizing:
        """What a task asks for; repeats are answered from the cache of validated answers."""
        return cls(
            bounds_s=bounds_of(task),
            rate_per_s=task.traffic.peak_rate_per_s * (1 - task.traffic.repeat_share),
            reserve=reserve,
            minimum=minimum,
            most_accelerators=task.constraints.max_accelerators,
            validation_s=validation_s,
        )

    def allows(self, accelerators: int) -> bool:
        """Whether so many accelerators may be used."""
        return self.most_accelerators is None or accelerators <= self.most_accelerators

    def least_replicas(self, ranks: int) -> int:
        """Replicas for availability, as far as the accelerators allow them."""
        if self.most_accelerators is None:
            return self.minimum
        return max(1, min(self.minimum, self.most_accelerators // ranks))


def bounds_of(task: TaskProfile) -> dict[str, float]:
    """Bounds on p95 in seconds, by metric."""
    return {name.removesuffix("_p95_ms"): ms / 1e3 for name, ms in task.latency.bounds.items()}


def replicas_for(curve: TierCurve, sizing: Sizing, *, ranks: int, rate_per_s: float) -> int:
    """Fewest replicas that keep the bounds, at the most cautious step time that any number can.

    Where no number keeps them, so many that queueing adds little: half of saturation.
    """
    least = sizing.least_replicas(ranks)
    needed = 0
    for z in SIZING_Z:
        factor = math.exp(z * curve.log_sd)
        usable = min(
            curve.usable_rate(sizing.bounds_s, factor),
            curve.saturation_per_s * (1 - sizing.reserve) / factor,
        )
        if usable > 0:
            needed = max(least, math.ceil(rate_per_s / usable - 1e-9))
            if sizing.allows(needed * ranks):
                return needed
    return needed or max(least, math.ceil(rate_per_s / (curve.saturation_per_s / 2) - 1e-9))


def outlook(at: Callable[[float], float | None], bound_s: float | None) -> Outlook:
    """A figure as a function of the standard score z of the uncertain step time.

    Args:
        at: seconds at z, rising; None where the system is overloaded.
        bound_s: what it must not exceed.
    """
    value, low, high = at(0.0), at(-Z_90), at(Z_90)
    if value is None:
        return Outlook(math.inf, low if low is not None else math.inf, None, 0.0)
    probability = 1.0
    if bound_s is not None:
        inside = [z for z in Z_GRID if (found := at(float(z))) is not None and found <= bound_s]
        probability = float(ndtr(max(inside))) if inside else 0.0
    return Outlook(value, low if low is not None else value, high, probability)


@dataclass(frozen=True, eq=False)
class Mixture:
    """A hybrid's requests by route: accepted, escalated and direct, with weights that sum to 1."""

    small: TierCurve
    large: TierCurve
    large_share: float
    """Requests that the large model answers."""
    direct_share: float
    """Requests that go to it straight away; part of `large_share`."""
    validation_s: float

    def p95_s(
        self,
        metric: str,
        *,
        small_rate: float,
        large_rate: float,
        factors: tuple[float, float] = (1.0, 1.0),
    ) -> float | None:
        """95th percentile of a metric over all requests; None where a tier is overloaded.

        The first token of an accepted answer comes with its last, after validation; an escalated
        request waits for that and then for the large model.
        """
        small = _at(self.small, "e2e", small_rate, factors[0])
        large = _at(self.large, metric, large_rate, factors[1])
        if small is None or large is None:
            return None
        checked = small + self.validation_s
        escalated = self.large_share - self.direct_share
        if metric == "tpot":
            values = np.concatenate([np.zeros_like(large), large])
            weights = np.repeat([1 - self.large_share, self.large_share], len(large))
        else:
            values = np.concatenate([checked, checked[PAIRING] + large, large])
            weights = np.repeat([1 - self.large_share, escalated, self.direct_share], len(large))
        return weighted_quantile(values, weights, 0.95)


def weighted_quantile(values: FloatArray, weights: FloatArray, q: float) -> float:
    """Smallest value below which at least a share q of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, q * reached[-1] * (1 - 1e-12))])


def _at(curve: TierCurve, metric: str, rate: float, factor: float) -> FloatArray | None:
    """Quantiles of a metric at a rate per replica, overhead included."""
    if rate * factor > curve.rates_per_s[-1] * 1.02:
        return None
    values: FloatArray = getattr(curve, f"{metric}_s")
    if curve.levels == 1:
        found = values[0]
    else:
        rates = curve.rates_per_s
        above = min(max(int(rates.searchsorted(rate * factor)), 1), curve.levels - 1)
        lower, upper = float(rates[above - 1]), float(rates[above])
        weight = min(max((rate * factor - lower) / (upper - lower), 0.0), 1.0)
        found = (1 - weight) * values[above - 1] + weight * values[above]
    scaled_up: FloatArray = found * factor
    return scaled_up if metric == "tpot" else scaled_up + curve.overhead_s


def hybrid_replicas(
    mixture: Mixture, sizing: Sizing, *, small: TierChoice, large: TierChoice
) -> tuple[int, int]:
    """Replicas of both tiers: the cheapest pair that keeps the bounds at a cautious step time.

    Where no pair keeps them, each tier runs at half of saturation.
    """
    small_rate = sizing.rate_per_s * (1 - mixture.direct_share)
    large_rate = sizing.rate_per_s * mixture.large_share

    def holds(s: int, big: int, factors: tuple[float, float]) -> bool:
        for metric, bound in sizing.bounds_s.items():
            p95 = mixture.p95_s(
                metric,
                small_rate=small_rate / max(s, 1),
                large_rate=large_rate / max(big, 1),
                factors=factors,
            )
            if p95 is None or p95 > bound:
                return False
        return sizing.allows(s * small.ranks + big * large.ranks)

    for z in SIZING_Z:
        factors = (math.exp(z * mixture.small.log_sd), math.exp(z * mixture.large.log_sd))
        smalls = _fleet_sizes(mixture.small, small, sizing, small_rate, factors[0])
        larges = _fleet_sizes(mixture.large, large, sizing, large_rate, factors[1])
        best: tuple[float, int, int] | None = None
        at = len(larges) - 1
        # More small replicas never need more large ones, so one walk along the edge finds all.
        for s in smalls:
            if not holds(s, larges[at], factors):
                continue
            while at > 0 and holds(s, larges[at - 1], factors):
                at -= 1
            usd = s * small.usd_per_month + larges[at] * large.usd_per_month
            if best is None or usd < best[0]:
                best = (usd, s, larges[at])
        if best:
            return best[1], best[2]
    return (
        _half_loaded(mixture.small, small, sizing, small_rate),
        _half_loaded(mixture.large, large, sizing, large_rate),
    )


def _fleet_sizes(
    curve: TierCurve, choice: TierChoice, sizing: Sizing, rate_per_s: float, factor: float
) -> list[int]:
    """Numbers of replicas worth trying, rising."""
    if choice.hosted:
        return [0]
    most = min(curve.saturation_per_s * (1 - sizing.reserve), float(curve.rates_per_s[-1]))
    fewest = max(sizing.least_replicas(choice.ranks), math.ceil(rate_per_s * factor / most - 1e-9))
    return sorted({math.ceil(fewest * s - 1e-9) for s in np.geomspace(1, 8, FLEET_SIZES)})


def _half_loaded(curve: TierCurve, choice: TierChoice, sizing: Sizing, rate_per_s: float) -> int:
    if choice.hosted:
        return 0
    least = sizing.least_replicas(choice.ranks)
    return max(least, math.ceil(rate_per_s / (curve.saturation_per_s / 2)))
