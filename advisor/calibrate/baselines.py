"""Two models of latency to beat: the datasheet bound, and a straight line through it."""

from __future__ import annotations

from advisor.calibrate.conditions import Condition
from advisor.physics.flops import request_flops
from advisor.physics.step_time import roofline
from advisor.physics.work import work_of

AFFINE_SHARE = 1.55
AFFINE_OFFSET_S = 5.0e-3
"""5.0 ms + 1.55 × roofline: fitted to the TPOT of the public table (25 % mean error there)."""


def naive_step_s(condition: Condition) -> float:
    """Datasheet bound of a decode step at the load's nominal batch, seconds."""
    setup = condition.setup
    size = setup.batch_size or setup.concurrency or 1
    batch = max(1, round(size / condition.parts))
    context = condition.input_tokens + condition.output_tokens / 2
    return roofline(condition.deployment, batch=batch, context_tokens=context)


def naive_latency_s(condition: Condition, quantity: str) -> float:
    """TTFT, TPOT, ITL or E2E by the datasheet alone: prompt operations at peak, then steps."""
    step = naive_step_s(condition)
    if quantity in ("tpot", "itl"):
        return step
    deployment, setup = condition.deployment, condition.setup
    prompts = setup.batch_size if setup.load == "static_batch" and setup.batch_size else 1
    prompt = request_flops(deployment.model, max(1, round(condition.input_tokens)), 1).total
    peak = float(work_of(deployment).linear_peak) * deployment.tensor_parallel
    first = prompts * prompt / peak
    return first if quantity == "ttft" else first + (condition.output_tokens - 1) * step


def affine_latency_s(condition: Condition, quantity: str) -> float:
    """The same with every step 5.0 ms + 1.55 × its bound."""
    step = AFFINE_OFFSET_S + AFFINE_SHARE * naive_step_s(condition)
    if quantity in ("tpot", "itl"):
        return step
    first = AFFINE_OFFSET_S + AFFINE_SHARE * naive_latency_s(condition, "ttft")
    return first if quantity == "ttft" else first + (condition.output_tokens - 1) * step
