"""How much a recommended hybrid escalates, where only its threshold is known."""

from __future__ import annotations

import numpy as np

from advisor.catalog import Catalog
from advisor.catalog.models import Precision
from advisor.decide.answer import quality_model
from advisor.decide.recommendation import Chosen, HostedTier, SelfHostedTier
from advisor.decide.sizing import ESCALATION_MARGIN
from advisor.errors import InputError
from advisor.physics.parameters import parameter_count
from advisor.quality.escalation import ConfidencePrior, hybrid_curve
from advisor.quality.estimate import QualityEstimate
from advisor.quality.prior import QualityModel
from advisor.task import TaskProfile

RATES = np.linspace(0.0, 1.0, 401)


def escalation_rate_at(chosen: Chosen, task: TaskProfile, catalog: Catalog) -> float:
    """Share of requests that reach the large model, projected from published evidence.

    The threshold is a probability of being right, so the small model's projected quality and the
    assumed sharpness of its confidence say how many answers fall below it.

    Raises:
        InputError: an architecture without a threshold.
    """
    if chosen.threshold is None:
        raise InputError("architecture: a hybrid without a threshold; state its escalation rate")
    model = quality_model(catalog)
    slm, llm = (_quality(chosen.tiers[role], task, catalog, model) for role in ("slm", "llm"))
    curve = hybrid_curve(
        slm,
        llm,
        escalation_rates=RATES,
        confidence=ConfidencePrior.for_task(task.task.type),
        high_risk_share=task.constraints.high_risk_share,
    )
    return float(np.interp(chosen.threshold, curve.threshold, curve.escalation_rate))


def sized_escalation_rate(projected: float, *, high_risk_share: float) -> float:
    """The share of requests for the large model that fleets are sized for.

    A tenth more of the answers than projected is handed up: r + min(1.1·(e − r), 1 − r) for the
    projected rate e and the share r of high-risk requests, which skip the small model.
    """
    handed_up = ESCALATION_MARGIN * max(projected - high_risk_share, 0.0)
    return high_risk_share + min(handed_up, 1 - high_risk_share)


def _quality(
    tier: SelfHostedTier | HostedTier, task: TaskProfile, catalog: Catalog, model: QualityModel
) -> QualityEstimate:
    shape = task.task
    params_b = active_b = hosted = None
    precision: Precision = "bf16"
    if isinstance(tier, SelfHostedTier):
        spec = catalog.known_model(tier.model)
        count = parameter_count(spec)
        params_b = count.total / 1e9
        active_b = count.active / 1e9 if spec.moe else None
        # A format the maker publishes was trained for; only conversions cost quality.
        if tier.weights_dtype not in (spec.published_precision, spec.expert_precision):
            precision = tier.weights_dtype
    else:
        hosted = tier.hosted.model
    return model.project(
        task_type=shape.type,
        metric=task.quality.metric,
        output=shape.output,
        label_count=shape.label_count,
        params_b=params_b,
        active_params_b=active_b,
        adaptation=tier.adaptation,
        precision=precision,
        hosted_model=hosted,
    )
