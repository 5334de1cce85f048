"""The whole deployment simulated once more, with every replica and coupled queues.

The search reads one replica's curve and pairs tiers as if independent; what it proposes is then
simulated as it would run. Projections are scaled by what that shows, and fleets grow where it shows
that they are too small.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from advisor.catalog import HostedModel
from advisor.decide.assessment import METRICS
from advisor.decide.candidates import Candidate, Outlook, SizedTier
from advisor.decide.curves import step_of
from advisor.decide.hosted import HostedLatency
from advisor.decide.load import SEED, load_of
from advisor.decide.recommendation import Role
from advisor.decide.search import Search
from advisor.decide.sizing import ESCALATION_MARGIN
from advisor.serving.cascade import simulate_cascade
from advisor.serving.routes import CACHE, SMALL
from advisor.serving.simulate import simulate_fleet
from advisor.serving.tiers import Gate, Hosted, SelfHosted
from advisor.serving.workload import Requests, with_examples
from advisor.task import TaskProfile

LEAST_REQUESTS = 3000
REQUESTS_A_REPLICA = 150
MOST_REQUESTS = 20_000

GROWTH = 1.15
"""Factor by which fleets grow while the simulation of the whole misses a bound."""

TRIES = 4
WARMUP = 0.1


def confirm(search: Search, candidate: Candidate) -> Candidate:
    """The candidate with latencies of the whole deployment, its fleets grown where they must be."""
    for _ in range(TRIES):
        measured = simulate(search, candidate)
        confirmed = _scaled(search, candidate, measured)
        grown = _grown(search, candidate)
        if confirmed.feasible or not candidate.feasible or grown is None:
            return confirmed
        candidate = grown
    return confirmed


def simulate(search: Search, candidate: Candidate) -> dict[str, float | None]:
    """p95 of each metric in seconds, from one run of the whole deployment; None in overload."""
    if all(tier.choice.hosted for tier in candidate.tiers.values()) and len(candidate.tiers) == 1:
        return {metric: candidate.latency[metric].value_s for metric in METRICS}
    replicas = sum(tier.replicas for tier in candidate.tiers.values())
    count = min(max(LEAST_REQUESTS, REQUESTS_A_REPLICA * replicas), MOST_REQUESTS)
    if len(candidate.tiers) == 1:
        return _alone(search, next(iter(candidate.tiers.values())), count)
    return _cascade(search, candidate, count)


def _requests(task: TaskProfile, tier: SizedTier, rate_per_s: float, count: int) -> Requests:
    """More requests of the same kind; none longer than the deployment was planned for."""
    option = tier.choice.option
    return with_examples(
        load_of(task, count=count).at_rate(rate_per_s),
        task,
        tokens=tier.choice.load.extra_prompt_tokens,
        longest_tokens=None if isinstance(option, HostedModel) else option.engine.max_model_len,
    )


def _alone(search: Search, tier: SizedTier, count: int) -> dict[str, float | None]:
    option = tier.choice.option
    assert not isinstance(option, HostedModel)
    timeline = simulate_fleet(
        step_of(option),
        option.engine,
        kv_blocks=option.kv_blocks,
        requests=_requests(search.task, tier, tier.rate_per_s, count),
        replicas=tier.replicas,
    )
    kept = slice(int(WARMUP * count), None)
    ttft = timeline.first_token_s[kept] - timeline.arrival_s[kept]
    e2e = timeline.finish_s[kept] - timeline.arrival_s[kept]
    gaps = np.maximum(timeline.output_tokens[kept] - 1, 1)
    overhead = tier.curve.overhead_s
    return {
        "ttft": _p95(ttft) + overhead,
        "e2e": _p95(e2e) + overhead,
        "tpot": _p95((e2e - ttft) / gaps),
    }


def _cascade(search: Search, candidate: Candidate, count: int) -> dict[str, float | None]:
    small, large = candidate.tiers["slm"], candidate.tiers["llm"]
    risky = search.task.constraints.high_risk_share
    plan = candidate.hybrid
    assert plan is not None
    rate = search.sizing.rate_per_s
    tried = max(1 - risky, 1e-9)
    timeline = simulate_cascade(
        _serving(search, small),
        _serving(search, large),
        Gate(
            validation_s=search.sizing.validation_s,
            escalation_rate=min(
                ESCALATION_MARGIN * max(plan.escalation_rate - risky, 0.0) / tried, 1.0
            ),
        ),
        _requests(search.task, small, rate, count),
        large_requests=_requests(search.task, large, rate, count),
        seed=SEED,
        high_risk_share=risky,
    )
    kept = slice(int(WARMUP * count), None)
    ttft = (timeline.first_token_s - timeline.arrival_s)[kept]
    e2e = (timeline.finish_s - timeline.arrival_s)[kept]
    gaps = timeline.output_tokens[kept] - 1
    # Accepted answers are released whole.
    streamed = (gaps > 0) & ~np.isin(timeline.route[kept], (SMALL, CACHE))
    return {
        "ttft": _p95(ttft),
        "e2e": _p95(e2e),
        "tpot": _p95((e2e - ttft)[streamed] / gaps[streamed]) if streamed.any() else None,
    }


def _serving(search: Search, tier: SizedTier) -> SelfHosted | Hosted:
    """A sized tier as the cascade's simulator takes it."""
    option = tier.choice.option
    if not isinstance(option, HostedModel):
        return SelfHosted(
            step=step_of(option),
            engine=option.engine,
            kv_blocks=option.kv_blocks,
            replicas=tier.replicas,
            request_overhead_s=tier.curve.overhead_s,
        )
    limit = max(search.assumptions.hosted_rate_limit_per_s.value, 2 * tier.rate_per_s)
    latency = HostedLatency.of(option, search.assumptions)
    return latency.tier(tier.choice.load.requests, rate_limit_per_s=limit)


def _p95(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.95))


def _scaled(search: Search, candidate: Candidate, measured: dict[str, float | None]) -> Candidate:
    """The candidate with its outlooks moved by what the run of the whole showed."""
    latency: dict[str, Outlook] = {}
    for metric, old in candidate.latency.items():
        found = measured[metric]
        if found is None or math.isinf(old.value_s) or old.value_s <= 0:
            latency[metric] = old if found is None else replace(old, value_s=found)
            continue
        latency[metric] = search.outlook_scaled(candidate, metric, found / old.value_s)
    return search.assessment.candidate(
        candidate.architecture,
        candidate.tiers,
        candidate.quality,
        candidate.hybrid,
        latency,
        candidate.cost,
    )


def _grown(search: Search, candidate: Candidate) -> Candidate | None:
    """The same with larger fleets; None where accelerators are limited or rented by the token."""
    tiers: dict[Role, SizedTier] = {
        role: replace(tier, replicas=math.ceil(tier.replicas * GROWTH + 0.01))
        if tier.replicas
        else tier
        for role, tier in candidate.tiers.items()
    }
    if not any(tier.replicas for tier in tiers.values()):
        return None
    if not search.sizing.allows(sum(tier.accelerators for tier in tiers.values())):
        return None
    return search.assessed(candidate.architecture, tiers, candidate.quality, candidate.hybrid)
