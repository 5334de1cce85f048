"""Which point next: the one that narrows the target's interval most for its seconds.

Bayesian linear design (Chaloner and Verdinelli 1995, doi 10.1214/ss/1177009939): with covariance Σ
of the log-coefficients, g = ∂ln(target)/∂ln c, a point with h = ∂ln T/∂ln c and noise r takes

    (gᵀΣh)²/(hᵀΣh + r²)

off the target's variance gᵀΣg.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.bench.law import SHAPE_LOG_SD, Belief, Steps
from advisor.calibrate.bench.points import EngineFacts, Shape

FloatArray = NDArray[np.float64]

EXPECTED_NOISE = 0.03
"""1-sd of ln of a point that is yet to be measured."""

STEPS, REPEATS = 12, 2
"""Decode steps that are timed in one go, and how often."""

MOST_TIMES = 3
"""How often a shape may be measured, at different moments of the run."""

LEAST_GAIN = 0.002
"""Share of the target's variance below which a point is not worth its time."""

REFERENCE_STEPS = 18
"""Short decodes before and after a point on a GPU, warm-up of both included."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A point to measure, and what it should bring."""

    shape: Shape
    expected_s: float
    """Seconds that it takes."""
    gain: float
    """Share of the target's variance that it takes away."""


def repetitions(shape: Shape) -> int:
    """How often a shape is timed."""
    return REPEATS if shape.kind == "decode" else REPEATS + 1


def first_shapes(facts: EngineFacts) -> list[Shape]:
    """Points that fix the law's level and slopes before it can choose for itself.

    On a processor also batches of two and four: products of two and three rows may take longer than
    those of four, and nothing else shows it.
    """
    most = batches(facts)
    room = facts.max_model_len - 64
    wide = most[min(len(most) - 1, 3)]
    few = [batch for batch in (2, 4) if facts.device == "cpu" and batch < wide]
    return [
        Shape(kind="decode", batch=1, context_tokens=min(64, room)),
        Shape(kind="prefill", prompt_tokens=min(64, room)),
        Shape(kind="decode", batch=wide, context_tokens=min(64, room)),
        Shape(kind="prefill", prompt_tokens=min(512, room)),
        *(Shape(kind="decode", batch=batch, context_tokens=min(64, room)) for batch in few),
    ]


def candidates(facts: EngineFacts, *, max_batch: int | None = None) -> list[Shape]:
    """Shapes that the engine can take: doublings of batch, context and prompt."""
    room = facts.max_model_len - 64
    contexts = [64 * 4**power for power in range(8) if 64 * 4**power <= room] or [max(1, room)]
    lengths = [16 * 2**power for power in range(14) if 16 * 2**power <= room] or [max(1, room)]
    shapes = [Shape(kind="prefill", prompt_tokens=tokens) for tokens in lengths]
    for batch in batches(facts, max_batch=max_batch):
        for context in contexts:
            if facts.kv_tokens and batch * (context + 64) > 0.9 * facts.kv_tokens:
                continue
            shapes.append(Shape(kind="decode", batch=batch, context_tokens=context))
            for tokens in (64, 512):
                fits = batch + tokens <= facts.max_num_batched_tokens and tokens <= room
                if fits and batch in (4, 16, 64) and batch < facts.max_num_seqs and context <= 1024:
                    shapes.append(
                        Shape(
                            kind="mixed",
                            batch=batch,
                            context_tokens=context,
                            prompt_tokens=tokens,
                        )
                    )
    return shapes


def batches(facts: EngineFacts, *, max_batch: int | None = None) -> list[int]:
    """Batch sizes up to what the engine runs at a time: 1, 2, 4, 8, 12, 16, 24, 32 …"""
    most = min(facts.max_num_seqs, facts.max_num_batched_tokens, max_batch or 256)
    sizes = {2**power for power in range(10)} | {3 * 2**power for power in range(2, 7)}
    return sorted(size for size in sizes if size <= most)


def cost_s(belief: Belief, shape: Shape) -> float:
    """Seconds that a point will take: filling the batch, the steps timed, the reference."""
    one = Shape(kind="decode", batch=1, context_tokens=16)
    reference = float(belief.seconds(Steps.of_shapes([one]))[0])
    # A processor is watched by probes that take next to nothing.
    on_gpu = belief.law.deployment.accelerator.vendor != "cpu"
    spent = REFERENCE_STEPS * reference if on_gpu else 0.0
    alone = Shape(kind="prefill", prompt_tokens=max(1, shape.prompt_tokens))
    step, prefill = belief.seconds(Steps.of_shapes([shape, alone]))
    if shape.kind == "prefill":
        return spent + repetitions(shape) * float(prefill)
    filling = Shape(kind="prefill", prompt_tokens=max(1, shape.context_tokens))
    fill = shape.batch * float(belief.seconds(Steps.of_shapes([filling]))[0])
    timed = STEPS + 2 if shape.kind == "decode" else 8
    return spent + repetitions(shape) * (fill + timed * float(step))


def next_point(
    belief: Belief,
    gradient: FloatArray,
    shapes: Sequence[Shape],
    *,
    done: Collection[Shape],
    remaining_s: float,
    pace: float = 1.0,
) -> Choice | None:
    """The shape whose point takes most off the target's variance per second.

    Args:
        gradient: g, by active coefficient.
        done: shapes that have a point; each may be chosen `MOST_TIMES` in all.
        remaining_s: what may still be spent.
        pace: seconds that points really took over those expected of them.

    Returns:
        None where nothing that is left fits the time or gains anything.
    """
    left = [one for shape in shapes if (one := _not_yet(shape, done)) is not None]
    total = float(gradient @ belief.covariance @ gradient)
    if not left or total <= 0:
        return None
    slopes = belief.law.slopes(belief.logs, Steps.of_shapes(left), belief.active)
    shared = slopes @ belief.covariance @ gradient
    own = np.einsum("ij,jk,ik->i", slopes, belief.covariance, slopes)
    gains = shared**2 / (own + (belief.scatter * math.hypot(EXPECTED_NOISE, SHAPE_LOG_SD)) ** 2)
    choices = [
        Choice(shape, pace * cost_s(belief, shape), float(gain) / total)
        for shape, gain in zip(left, gains, strict=True)
    ]
    useful = [one for one in choices if one.expected_s <= remaining_s and one.gain >= LEAST_GAIN]
    return max(useful, key=lambda one: one.gain / one.expected_s, default=None)


def _not_yet(shape: Shape, done: Collection[Shape]) -> Shape | None:
    """The shape, or its next repetition; None once there are enough."""
    for repeat in range(MOST_TIMES):
        again = shape.model_copy(update={"repeat": repeat})
        if again not in done:
            return again
    return None
