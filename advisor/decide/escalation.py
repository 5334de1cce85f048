"""How much of a hybrid's traffic to hand up: the few escalation rates that are worth sizing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logit

from advisor.quality.escalation import (
    ConfidencePrior,
    HybridCurve,
    HybridProjection,
    hybrid_curve,
    projection_at,
)
from advisor.quality.estimate import QualityEstimate
from advisor.task import TaskProfile

LEAST_ESCALATION = 0.02
"""A hybrid hands up at least this share: a gate that never fires makes no hybrid."""

PROVABLE_MARGIN = 0.2
"""Share of the allowed error left unused, so that labels can prove the rest: 96 % for 95 %."""

RATES = np.concatenate([np.arange(0, 0.3, 0.01), np.linspace(0.3, 1, 15)])


@dataclass(frozen=True)
class EscalationPlans:
    """Escalation rates for pairs of models on one task; each pair is worked out once."""

    task: TaskProfile
    confidence: ConfidencePrior
    curves: dict[tuple[QualityEstimate, QualityEstimate], HybridCurve] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Quality against escalation of the pairs that were worked out; no target enters it."""
    _known: dict[tuple[QualityEstimate, QualityEstimate], list[HybridProjection]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def for_task(self, task: TaskProfile) -> EscalationPlans:
        """The same for a task with other targets, with the curves that stay valid."""
        same = task.constraints.high_risk_share == self.task.constraints.high_risk_share
        return EscalationPlans(task, self.confidence, self.curves if same else {})

    def plans(self, small: QualityEstimate, large: QualityEstimate) -> list[HybridProjection]:
        """Rates worth sizing.

        The least whose median reaches the target, the least that reaches it with a margin that some
        thousand labels can prove, and the surest up to the task's limit.
        """
        key = (small, large)
        if key not in self._known:
            self._known[key] = self._work_out(small, large)
        return self._known[key]

    def _curve(self, small: QualityEstimate, large: QualityEstimate) -> HybridCurve:
        key = (small, large)
        if key not in self.curves:
            self.curves[key] = hybrid_curve(
                small,
                large,
                escalation_rates=RATES,
                confidence=self.confidence,
                high_risk_share=self.task.constraints.high_risk_share,
            )
        return self.curves[key]

    def _work_out(self, small: QualityEstimate, large: QualityEstimate) -> list[HybridProjection]:
        risky = self.task.constraints.high_risk_share
        target = min(max(self.task.quality.threshold, 1e-9), 1 - 1e-9)
        curve = self._curve(small, large)
        rates = curve.escalation_rate
        allowed = (rates >= LEAST_ESCALATION + risky - 1e-9) & (rates < 0.999)
        chosen: list[int] = []
        for aim in (target, target + PROVABLE_MARGIN * (1 - target)):
            reaching = allowed & (curve.quality >= aim)
            if reaching.any():
                chosen.append(int(reaching.argmax()))
        within = allowed & (rates <= self.task.constraints.max_escalation_rate + 1e-9)
        if within.any():
            score = (curve.logit_mean - float(logit(target))) / np.maximum(curve.logit_sd, 1e-9)
            chosen.append(int(np.where(within, score, -math.inf).argmax()))
        return [projection_at(curve, i, slm=small, llm=large) for i in dict.fromkeys(chosen)]
