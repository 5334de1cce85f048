"""One candidate: tiers sized for the peak hour, and what the curves say of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from scipy.special import ndtr

from advisor.catalog import HostedModel
from advisor.decide.curves import TierCurve
from advisor.decide.load import Load
from advisor.decide.options import SelfHostedOption
from advisor.decide.recommendation import Architecture, Role, short_name
from advisor.economics import Amount
from advisor.quality.escalation import HybridProjection
from advisor.quality.estimate import Z_90, QualityEstimate
from advisor.task import Adaptation

Z_RANGE = 4.0
BISECTIONS = 11
"""Halvings of ∓4: to 0.004 standard deviations."""


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
    def risk_adjusted_usd(self) -> float:
        """USD a month over the chance that every requirement holds."""
        return self.cost.value / max(self.probability, 1e-6)

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
        probability = float(ndtr(_last_inside(at, bound_s)))
    return Outlook(value, low if low is not None else value, high, probability)


def _last_inside(at: Callable[[float], float | None], bound_s: float) -> float:
    """The z up to which a rising figure keeps its bound, between ∓Z_RANGE; by bisection."""

    def inside(z: float) -> bool:
        found = at(z)
        return found is not None and found <= bound_s

    low, high = -Z_RANGE, Z_RANGE
    if inside(high):
        return math.inf
    if not inside(low):
        return -math.inf
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return (low + high) / 2
