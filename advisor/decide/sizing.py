"""How many replicas: for one tier, and for the two of a hybrid, whose requests are a mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.decide.candidates import TierChoice
from advisor.decide.curves import QUANTILES, TierCurve
from advisor.task import TaskProfile

FloatArray = NDArray[np.float64]

SIZING_Z = (1.2815515655446004, 0.6744897501960817, 0.0)
"""Quantiles of the step time that a fleet is sized for: 90 % if any fleet can, else less."""

ESCALATION_MARGIN = 1.1
"""Escalation over its plan that latency is judged with: a threshold hands up more on some days."""

FLEET_SIZES = np.geomspace(1, 8, 12).tolist()
"""Replicas tried for each tier of a hybrid, in multiples of the fewest."""

ROUNDING = 1 - 1e-12
"""What sums of weights may be short of because they are rounded."""

PAIRING = np.random.default_rng(7).permutation(len(QUANTILES))
"""Fixed pairing of the small and the large model's quantiles, as if they were independent."""


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

    def keeps_idle(self, bounds_s: dict[str, float]) -> bool:
        """Whether the bounds hold at least without load."""
        rates = (float(self.small.rates_per_s[0]), float(self.large.rates_per_s[0]))
        return self.keeps(bounds_s, small_rate=rates[0], large_rate=rates[1])

    def keeps(
        self,
        bounds_s: dict[str, float],
        *,
        small_rate: float,
        large_rate: float,
        factors: tuple[float, float] = (1.0, 1.0),
    ) -> bool:
        """Whether `p95_s` of every metric is within its bound; counts instead of sorting."""
        for metric, bound in bounds_s.items():
            parts = self._parts(metric, small_rate, large_rate, factors)
            if parts is None:
                return False
            total = sum(weight * len(values) for values, weight in parts)
            within = sum(weight * np.count_nonzero(values <= bound) for values, weight in parts)
            if within < 0.95 * total * ROUNDING:
                return False
        return True

    def p95_s(
        self,
        metric: str,
        *,
        small_rate: float,
        large_rate: float,
        factors: tuple[float, float] = (1.0, 1.0),
    ) -> float | None:
        """95th percentile of a metric over all requests; None where a tier is overloaded."""
        parts = self._parts(metric, small_rate, large_rate, factors)
        if parts is None:
            return None
        values = np.concatenate([values for values, _ in parts])
        weights = np.repeat([weight for _, weight in parts], [len(values) for values, _ in parts])
        return weighted_quantile(values, weights, 0.95)

    def _parts(
        self, metric: str, small_rate: float, large_rate: float, factors: tuple[float, float]
    ) -> tuple[tuple[FloatArray, float], ...] | None:
        """Values of a metric by route with the weight of each; None where a tier is overloaded.

        The first token of an accepted answer comes with its last, after validation, so that it has
        no TPOT; an escalated request waits for that and then for the large model.
        """
        small = _at(self.small, "e2e", small_rate, factors[0])
        large = _at(self.large, metric, large_rate, factors[1])
        if small is None or large is None:
            return None
        checked = small + self.validation_s
        escalated = min(ESCALATION_MARGIN * (self.large_share - self.direct_share), 1.0)
        share = min(escalated + self.direct_share, 1.0)
        if metric == "tpot":
            return ((large, 1.0),)
        return (
            (checked, 1 - share),
            (checked[PAIRING] + large, escalated),
            (large, self.direct_share),
        )


def weighted_quantile(values: FloatArray, weights: FloatArray, q: float) -> float:
    """Smallest value below which at least a share q of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, q * reached[-1] * ROUNDING)])


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
        rates = {"small_rate": small_rate / max(s, 1), "large_rate": large_rate / max(big, 1)}
        return mixture.keeps(sizing.bounds_s, **rates, factors=factors) and sizing.allows(
            s * small.ranks + big * large.ranks
        )

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
    return sorted({math.ceil(fewest * size - 1e-9) for size in FLEET_SIZES})


def _half_loaded(curve: TierCurve, choice: TierChoice, sizing: Sizing, rate_per_s: float) -> int:
    if choice.hosted:
        return 0
    least = sizing.least_replicas(choice.ranks)
    return max(least, math.ceil(rate_per_s / (curve.saturation_per_s / 2)))
