"""What a cascade is made of: tiers that answer, a gate that decides, a cache and a pre-router."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError
from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.lengths import Z95
from advisor.serving.simulate import Balancing, Scaling, Timeline, simulate_fleet
from advisor.serving.workload import Requests

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SelfHosted:
    """A tier on accelerators: equal replicas of one deployment."""

    step: StepCost
    engine: EngineSettings
    kv_blocks: int
    replicas: int = 1
    request_overhead_s: float = 0.0
    """HTTP and tokenising, spent before the request reaches the engine."""
    balancing: Balancing = "round_robin"
    scaling: Scaling | None = None


@dataclass(frozen=True, slots=True)
class Hosted:
    """A tier behind a hosted API: a latency distribution, not a queue that we can see.

    Time to first token is lognormal with the given median and p95; the time each further token
    takes is lognormal by request. A rate limit delays what exceeds it, first come first served; a
    failed attempt costs its time to first token and is repeated.
    """

    ttft_median_s: float
    ttft_p95_s: float
    token_median_s: float
    token_p95_s: float
    rate_limit_per_s: float | None = None
    error_rate: float = 0.0
    """Share of attempts that fail and are repeated."""
    request_overhead_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.ttft_median_s <= self.ttft_p95_s < math.inf:
            raise InputError("hosted tier: 0 < ttft_median_s ≤ ttft_p95_s is expected")
        if not 0 < self.token_median_s <= self.token_p95_s < math.inf:
            raise InputError("hosted tier: 0 < token_median_s ≤ token_p95_s is expected")
        if self.rate_limit_per_s is not None and not self.rate_limit_per_s > 0:
            raise InputError("hosted tier: rate_limit_per_s must be positive")
        if not 0 <= self.error_rate < 1:
            raise InputError("hosted tier: error_rate must lie in [0, 1)")


Tier = SelfHosted | Hosted


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """What decides whether a small model's answer may leave."""

    validation_s: float = 0.0
    """Time the checks take."""
    escalation_rate: float = 0.0
    """Share of answers handed up, drawn at random, where `escalate` is not given."""
    escalate: BoolArray | None = None
    """For each request whether its small answer is handed up."""
    timeout_s: float | None = None
    """Time after sending at which an unfinished small answer is given up and handed up."""

    def __post_init__(self) -> None:
        if not 0 <= self.escalation_rate <= 1:
            raise InputError("gate: escalation_rate must lie in [0, 1]")
        if not 0 <= self.validation_s < math.inf:
            raise InputError("gate: validation_s must be at least 0")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise InputError("gate: timeout_s must be positive")


@dataclass(frozen=True, slots=True)
class AnswerCache:
    """Answers by exact prompt (`Requests.prompt_key`), kept once they were validated.

    A repeat that arrives while the first is still being answered misses.
    """

    lookup_s: float = 0.0
    """Time from arrival to a cached answer; a miss costs nothing beside its own work."""
    ttl_s: float = math.inf
    """How long an answer is kept."""


@dataclass(frozen=True, slots=True)
class PreRouter:
    """Sends requests whose small answer would fail straight to the large tier."""

    recall: float
    """Share of the failures it recognises."""
    false_alarm_rate: float
    """Share of the others that it sends up all the same."""
    decision_s: float = 0.0
    """Time it takes, of every request."""

    def __post_init__(self) -> None:
        if not (0 <= self.recall <= 1 and 0 <= self.false_alarm_rate <= 1):
            raise InputError("pre-router: recall and false_alarm_rate must lie in [0, 1]")


@dataclass(frozen=True, slots=True, eq=False)
class TierTimeline:
    """What one tier did: which requests it got, and when (indices into the cascade's requests)."""

    index: IntArray
    sent_s: FloatArray
    first_token_s: FloatArray
    """NaN where the request was cancelled before."""
    finish_s: FloatArray
    engine: Timeline | None
    """The tier's own timeline; None for a hosted API or an idle tier."""

    @property
    def waited_s(self) -> FloatArray:
        """Time in the tier's queue, by request; 0 behind an API, whose queue we do not see."""
        if self.engine is None:
            return np.zeros(len(self.index))
        waited: FloatArray = self.engine.scheduled_s - self.engine.arrival_s
        return np.nan_to_num(waited)


class Server:
    """A tier with its randomness drawn beforehand, request by request.

    What a request meets behind an API then does not depend on which others were sent there, so
    that two runs which differ in one decision stay comparable.
    """

    def __init__(self, tier: Tier, requests: Requests, rng: np.random.Generator) -> None:
        self.tier, self.requests = tier, requests
        if isinstance(tier, Hosted):
            count = len(requests)
            attempts = rng.geometric(1 - tier.error_rate, count) if tier.error_rate else 1
            self._ttft_s = attempts * _lognormal(rng, count, tier.ttft_median_s, tier.ttft_p95_s)
            self._token_s = _lognormal(rng, count, tier.token_median_s, tier.token_p95_s)

    def serve(
        self, index: IntArray, sent_s: FloatArray, cancel_s: FloatArray | None = None
    ) -> TierTimeline:
        """Send requests at ascending times; `cancel_s` says when each is no longer wanted."""
        if len(index) == 0:
            return TierTimeline(index, sent_s, sent_s, sent_s, None)
        tier = self.tier
        arrival_s = sent_s + tier.request_overhead_s
        if isinstance(tier, Hosted):
            first, finish = self._hosted(tier, index, arrival_s)
            if cancel_s is not None:
                first, finish = (np.where(t > cancel_s, np.nan, t) for t in (first, finish))
            return TierTimeline(index, sent_s, first, finish, None)
        if cancel_s is not None:
            cancel_s = np.maximum(cancel_s, arrival_s)
        timeline = simulate_fleet(
            tier.step,
            tier.engine,
            kv_blocks=tier.kv_blocks,
            requests=Requests(
                arrival_s=arrival_s,
                input_tokens=self.requests.input_tokens[index],
                output_tokens=self.requests.output_tokens[index],
                cached_tokens=self.requests.cached_tokens[index],
                cancel_s=cancel_s,
            ),
            replicas=tier.replicas,
            balancing=tier.balancing,
            scaling=tier.scaling,
        )
        return TierTimeline(index, sent_s, timeline.first_token_s, timeline.finish_s, timeline)

    def _hosted(
        self, tier: Hosted, index: IntArray, arrival_s: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """First-token and finish times behind an API.

        With a limit of r requests a second the i-th begins at max(arrival_j + (i − j)/r), j ≤ i.
        """
        start = arrival_s
        if tier.rate_limit_per_s is not None:
            pace = np.arange(len(index)) / tier.rate_limit_per_s
            start = np.maximum.accumulate(arrival_s - pace) + pace
        first = start + self._ttft_s[index]
        return first, first + (self.requests.output_tokens[index] - 1) * self._token_s[index]


def _lognormal(rng: np.random.Generator, count: int, median: float, p95: float) -> FloatArray:
    sigma = math.log(p95 / median) / Z95
    drawn: FloatArray = median * np.exp(sigma * rng.standard_normal(count))
    return drawn
