"""What one deployment's own points say beyond its accelerator's coefficients, put to use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from advisor.catalog.fits import Calibration, OwnSteps
from advisor.physics.deployment import Deployment
from advisor.physics.engine import CURRENT, Generation
from advisor.physics.step_cost import StepCost

FloatArray = NDArray[np.float64]

_PACES = np.array([NormalDist().inv_cdf((place + 0.5) / 24) for place in range(24)])


@dataclass(frozen=True, slots=True)
class Behind:
    """How a server's steps and requests differ from the engine's in process."""

    factor: float = 1.0
    """Of the engine's own step: others that compete for the core, the machine as it usually is."""
    step_s: float = 0.0
    """Added to a step: messages between the server's processes."""
    sequence_s: float = 0.0
    """Added for each sequence in it: a chunk of its stream."""
    newcomer_s: float = 0.0
    """Added to a step with prefill: a request is read while the engine works."""
    request_s: float = 0.0
    """Added to a request's time to first token alone."""

    def served(self, cost: StepCost) -> StepCost:
        """A step's cost behind HTTP."""
        cost = cost.scaled(self.factor)
        sequences = np.arange(len(cost.sample_s))
        return replace(
            cost,
            token_s=cost.token_s + self.step_s,
            sample_s=cost.sample_s + self.sequence_s * sequences,
            mixed_s=cost.mixed_s + self.newcomer_s,
        )


IN_PROCESS = Behind()
"""Nothing is different."""


def identity_of(one: Deployment, generation: Generation = CURRENT) -> str:
    """What a measured level belongs to: model, formats, accelerator, layout, engine generation."""
    parts = (
        one.model.id,
        one.weights_dtype,
        one.kv_dtype,
        one.accelerator.id,
        one.tensor_parallel,
        one.data_parallel,
        one.expert_parallel,
        one.pipeline_parallel,
        generation,
    )
    return "|".join(str(part) for part in parts)


def calibration_with_own(calibration: Calibration, one: Deployment) -> Calibration:
    """An accelerator's calibration, with what its fit holds of this very deployment."""
    own = calibration.deployments.get(identity_of(one))
    if own is None:
        return calibration
    basis = f"{own.points:,} points of this deployment of {calibration.as_of}"
    return calibration.model_copy(update={"label": "measured", "basis": basis, "own": own})


def in_unrest(seconds: FloatArray, log_sd: float) -> FloatArray:
    """Each of some durations at equally likely paces of a normal with this 1-sd of ln."""
    if log_sd <= 0 or not len(seconds):
        return seconds
    return np.asarray(np.outer(seconds, np.exp(log_sd * _PACES)).ravel())


def extra_s(own: OwnSteps, tokens: FloatArray) -> FloatArray:
    """Seconds that steps of so many tokens take beyond the law."""
    return np.asarray(np.interp(tokens, own.tokens, own.extra_s))


def own_cost(cost: StepCost, own: OwnSteps, *, in_process: bool) -> StepCost:
    """A deployment's steps: those of its coefficients, what they leave, and what HTTP adds."""
    tokens = np.arange(len(cost.token_s), dtype=np.float64)
    cost = replace(cost, token_s=cost.token_s + extra_s(own, tokens))
    if in_process or own.served is None:
        return cost
    served = own.served
    return Behind(
        served.factor, served.step_s, served.sequence_s, served.newcomer_s, served.request_s
    ).served(cost)
