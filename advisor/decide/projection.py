"""From a candidate to what is printed: its tiers, and each projected figure with its interval."""

from __future__ import annotations

import math

from advisor.catalog import HostedModel
from advisor.decide.assessment import METRIC_TITLES
from advisor.decide.candidates import Candidate, Outlook, SizedTier
from advisor.decide.recommendation import (
    Alternative,
    Chosen,
    EngineArguments,
    HostedModelReference,
    HostedTier,
    Policy,
    Projected,
    Projection,
    SelfHostedTier,
)
from advisor.decide.search import Search
from advisor.quality.estimate import QualityEstimate

POLICIES: dict[str, Policy] = {"slm": "slm_only", "llm": "llm_only", "hybrid": "cascade"}


def chosen_of(candidate: Candidate) -> Chosen:
    """The deployable part of a candidate."""
    threshold = candidate.hybrid.threshold if candidate.hybrid else None
    return Chosen(
        tiers={role: _tier(tier) for role, tier in candidate.tiers.items()},
        policy=POLICIES[candidate.architecture],
        threshold=threshold if threshold is None or math.isfinite(threshold) else None,
    )


def _tier(tier: SizedTier) -> SelfHostedTier | HostedTier:
    option = tier.choice.option
    if isinstance(option, HostedModel):
        return HostedTier(
            hosted=HostedModelReference(provider=option.provider, model=option.id),
            adaptation=tier.choice.adaptation,
        )
    own, engine = option.deployment, option.engine
    return SelfHostedTier(
        model=own.model.id,
        weights_dtype=own.weights_dtype,
        kv_dtype=own.kv_dtype,
        adaptation=tier.choice.adaptation,
        accelerator=own.accelerator.id,
        tensor_parallel=own.tensor_parallel,
        replicas=tier.replicas,
        engine=EngineArguments(
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            gpu_memory_utilization=engine.gpu_memory_utilization,
            max_model_len=engine.max_model_len or own.model.context_window,
            enable_prefix_caching=engine.enable_prefix_caching,
            enable_chunked_prefill=engine.enable_chunked_prefill,
        ),
        provider=option.price.provider,
        usd_per_accelerator_hour=option.price.usd.value,
        calibration=option.calibration.label,
    )


def projection_of(search: Search, candidate: Candidate) -> Projection:
    """Every projected figure of a candidate."""
    requests = search.task.traffic.requests_per_month
    cost, quality = candidate.cost, candidate.quality
    charged = cost_basis(candidate)
    per_million = cost.times(1e6 / requests)
    correct: Projected | None = None
    if search.task.quality.says_right_or_wrong:
        right = quality if search.task.quality.pass_at is None else None
        correct = _per_correct(search, candidate, right or quality)
    latency = latency_basis(candidate)
    shown = {metric: _milliseconds(candidate.latency[metric], latency) for metric in METRIC_TITLES}
    return Projection(
        quality=Projected(
            value=quality.median, low=quality.low, high=quality.high, basis=quality_basis(quality)
        ),
        ttft_p95_ms=shown["ttft"],
        e2e_p95_ms=shown["e2e"],
        tpot_p95_ms=shown["tpot"] if search.task.traffic.output_tokens.high_tokens > 1 else None,
        cost_usd_per_month=Projected(value=cost.value, low=cost.low, high=cost.high, basis=charged),
        cost_usd_per_million_requests=Projected(
            value=per_million.value, low=per_million.low, high=per_million.high, basis=charged
        ),
        cost_usd_per_correct_answer=correct,
        escalation_rate=_escalation(search, candidate),
    )


def alternative_of(search: Search, candidate: Candidate, label: str) -> Alternative:
    """A candidate as it is shown beside the chosen one."""
    return Alternative(
        architecture=candidate.architecture,
        label=label,
        feasible=candidate.feasible,
        probability=candidate.probability,
        misses=tuple(f"{miss.requirement} ({miss.by})" for miss in candidate.misses),
        chosen=chosen_of(candidate),
        projection=projection_of(search, candidate),
    )


def quality_basis(quality: QualityEstimate) -> str:
    """What a quality rests on, in a line."""
    rows = len(quality.evidence_ids)
    kind = {
        "assumed": "assumed: little published evidence of this kind",
        "prior": f"published evidence, {rows} rows nearest",
        "labels": f"{quality.labels:,} labelled rows",
        "mixed": f"{quality.labels:,} labelled rows and published evidence",
    }[quality.basis]
    return f"{kind}; {quality.note}" if quality.note and quality.basis != "prior" else kind


def latency_basis(candidate: Candidate) -> str:
    """What the latencies rest on, in a line."""
    bases = []
    for role, tier in candidate.tiers.items():
        option = tier.choice.option
        if isinstance(option, HostedModel):
            bases.append(f"{role}: assumed latency of hosted APIs")
        else:
            bases.append(f"{role}: {option.calibration.basis}")
    return "simulated; " + "; ".join(bases)


def cost_basis(candidate: Candidate) -> str:
    """What the cost rests on, in a line."""
    bases = []
    for role, tier in candidate.tiers.items():
        option = tier.choice.option
        if isinstance(option, HostedModel):
            bases.append(f"{role}: {option.source}, {option.as_of}")
        else:
            bases.append(f"{role}: {option.price.basis}")
        if tier.choice.once.value:
            bases.append(f"{role}: {tier.choice.adaptation} spread over months (assumed)")
    return "; ".join(bases)


def _milliseconds(outlook: Outlook, basis: str) -> Projected:
    if math.isinf(outlook.value_s):
        low = 0.0 if math.isinf(outlook.low_s) else 1e3 * outlook.low_s
        return Projected(value=low, low=low, high=None, basis=f"overloaded; {basis}")
    high = None if outlook.high_s is None else 1e3 * outlook.high_s
    return Projected(value=1e3 * outlook.value_s, low=1e3 * outlook.low_s, high=high, basis=basis)


def _per_correct(search: Search, candidate: Candidate, quality: QualityEstimate) -> Projected:
    """USD per correct answer: cost per request over the share that is right."""
    requests = search.task.traffic.requests_per_month
    cost = candidate.cost
    return Projected(
        value=cost.value / requests / max(quality.median, 1e-9),
        low=cost.low / requests / max(quality.high, 1e-9),
        high=cost.high / requests / max(quality.low, 1e-9),
        basis="cost per request over projected quality",
    )


def _escalation(search: Search, candidate: Candidate) -> Projected | None:
    """Share that reaches the large model; it grows with the small model's errors."""
    plan = candidate.hybrid
    if plan is None:
        return None
    small = candidate.tiers["slm"].choice.quality
    risky = search.task.constraints.high_risk_share
    own, errors = plan.escalation_rate - risky, max(1 - small.median, 1e-9)
    return Projected(
        value=plan.escalation_rate,
        low=min(risky + own * (1 - small.high) / errors, 1.0),
        high=min(risky + own * (1 - small.low) / errors, 1.0),
        basis=f"threshold on {search.confidence.basis} confidence; "
        "the range follows the small model's error rate",
    )
