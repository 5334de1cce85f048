"""What a deployment under engine settings has for its load: context, KV blocks, step times."""

from __future__ import annotations

import numpy as np

from advisor.catalog.fits import Calibration
from advisor.catalog.models import ModelSpec
from advisor.physics.deployment import Deployment
from advisor.physics.memory import MemoryPlan, plan_memory
from advisor.physics.own_steps import own_cost
from advisor.physics.step_cost import StepCost
from advisor.physics.step_time import step_cost
from advisor.serving.engine import EngineSettings
from advisor.serving.workload import Requests

LENGTH_STEP = 256
"""max_model_len is rounded up to a multiple of this many tokens."""


def longest_tokens(requests: Requests) -> int:
    """Longest prompt with its answer among some requests."""
    return int((requests.input_tokens + requests.output_tokens).max())


def context_for(requests: Requests) -> int:
    """The max_model_len that holds every one of some requests, in whole steps."""
    return -(-longest_tokens(requests) // LENGTH_STEP) * LENGTH_STEP


def memory_of(deployment: Deployment, engine: EngineSettings, *, context_tokens: int) -> MemoryPlan:
    """How an accelerator's memory is shared out under an engine's settings."""
    return plan_memory(
        deployment,
        context_tokens=context_tokens,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        gpu_memory_utilization=engine.gpu_memory_utilization,
    )


def steps_of(deployment: Deployment, calibration: Calibration, engine: EngineSettings) -> StepCost:
    """What its steps cost behind HTTP, up to the engine's token budget and batch."""
    cost = step_cost(
        deployment,
        calibration.coefficients,
        max_tokens=engine.max_num_batched_tokens,
        max_seqs=engine.max_num_seqs,
    )
    return own_cost(cost, calibration.own, in_process=False) if calibration.own else cost


def overhead_s(calibration: Calibration, assumed_s: float) -> float:
    """Seconds of a request outside the engine: measured of this deployment, or assumed."""
    own = calibration.own
    return own.served.request_s if own and own.served else assumed_s


def level_log_sd(
    step: StepCost,
    calibration: Calibration,
    model: ModelSpec,
    *,
    computed_tokens: float,
    output_tokens: float,
) -> float:
    """1-sd of ln(true/predicted) of a model's latencies on an accelerator.

    The spreads of decode and of prefill, weighted by the time that a request of `computed_tokens`
    (its prompt without what is cached) and `output_tokens` spends in each when it runs alone; of a
    deployment that was measured itself, what its points leave open.
    """
    if calibration.own:
        return calibration.own.log_sd
    prefill_s = float(np.interp(computed_tokens, np.arange(len(step.token_s)), step.token_s))
    decode_s = float(output_tokens * (step.token_s[1] + step.sample_s[1]))
    share = decode_s / (decode_s + prefill_s)
    decode, prefill = calibration.decode_log_sd(model), calibration.prefill_log_sd(model)
    return share * decode + (1 - share) * prefill
