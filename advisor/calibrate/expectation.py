"""Metrics of many conditions at once, in closed form: what the fit evaluates thousands of times.

Static batches and steady decoding are exact sums of steps. Loops and open loads are mean-value
approximations of continuous batching; the fit corrects each with the ratio of its simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.conditions import IN_PROCESS, Condition
from advisor.catalog.coefficients import Coefficients
from advisor.errors import AdvisorError
from advisor.physics.memory import plan_memory
from advisor.physics.rates import EngineFlags, Rates, rates_of
from advisor.physics.step_time import step_terms
from advisor.physics.work import Work, stack, work_of

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Loads:
    """Columns of the conditions' loads; per engine and data-parallel rank."""

    static: NDArray[np.bool_]
    """All start together; otherwise requests come and go."""
    steady: NDArray[np.bool_]
    """Decoding at a constant batch, without prefills."""
    concurrency: FloatArray
    """Requests in flight (a batch's size), capped by nothing yet."""
    rate_per_s: FloatArray
    """Arrivals a second of open loads; 0 otherwise."""
    capacity: FloatArray
    """Sequences that max_num_seqs and the KV pool admit at once."""
    input_tokens: FloatArray
    output_tokens: FloatArray
    window: FloatArray
    """Tokens of the sliding layers; infinite where there are none."""
    budget: FloatArray
    """Prefill tokens a step may take."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Everything the law needs about a list of conditions."""

    work: Work
    flags: EngineFlags
    loads: Loads


@dataclass(frozen=True, slots=True)
class Expected:
    """Engine-side means, seconds (without request overhead)."""

    ttft_s: FloatArray
    tpot_s: FloatArray
    e2e_s: FloatArray
    decoding: FloatArray
    """Mean number of sequences that decode in a step."""


def columns_of(conditions: list[Condition]) -> Columns:
    """Stack conditions into columns."""
    return Columns(
        work=stack([work_of(one.deployment) for one in conditions]),
        flags=EngineFlags(
            early=np.array([one.generation == "v0_early" for one in conditions]),
            v0=np.array([one.generation == "v0" for one in conditions]),
            recent=np.array([one.generation in ("v1_recent", "v1_latest") for one in conditions]),
            latest=np.array([one.generation == "v1_latest" for one in conditions]),
        ),
        loads=_loads(conditions),
    )


def capacity_of(condition: Condition) -> float:
    """Sequences of a condition's mean final length that fit one rank's KV pool (at least 1)."""
    context = int(condition.input_tokens + condition.output_tokens)
    try:
        plan = plan_memory(
            condition.deployment,
            context_tokens=max(1, context),
            max_num_batched_tokens=condition.engine.max_num_batched_tokens,
            gpu_memory_utilization=condition.engine.gpu_memory_utilization,
        )
    except (AdvisorError, ValueError):
        return 1.0
    return max(1.0, plan.kv_pool_bytes / plan.kv_bytes_per_sequence)


def _loads(conditions: list[Condition]) -> Loads:
    def column(values: list[float]) -> FloatArray:
        return np.array(values, dtype=np.float64)

    def in_flight(one: Condition) -> float:
        setup, share = one.setup, one.parts
        if setup.load in IN_PROCESS:
            return max(1.0, (setup.batch_size or 1) / share)
        if setup.load == "burst":
            return max(1.0, (setup.requests or 1) / share)
        return max(1.0, (setup.concurrency or 1) / share)

    def budget(one: Condition) -> float:
        engine = one.engine
        if engine.enable_chunked_prefill:
            return float(engine.max_num_batched_tokens)
        whole = engine.max_num_batched_tokens // one.input_tokens
        return float(max(1.0, whole) * one.input_tokens)

    windows = [one.deployment.model.sliding_window for one in conditions]
    return Loads(
        static=np.array([one.setup.load in ("static_batch", "burst") for one in conditions]),
        steady=np.array([one.setup.load == "steady_batch" for one in conditions]),
        concurrency=column([in_flight(one) for one in conditions]),
        rate_per_s=column(
            [(one.setup.request_rate_per_s or 0.0) / one.parts for one in conditions]
        ),
        capacity=column([min(one.engine.max_num_seqs, capacity_of(one)) for one in conditions]),
        input_tokens=column([one.input_tokens for one in conditions]),
        output_tokens=column([one.output_tokens for one in conditions]),
        window=column([window.size if window else np.inf for window in windows]),
        budget=column([budget(one) for one in conditions]),
    )


def expected(columns: Columns, coefficients: Coefficients) -> Expected:
    """Mean TTFT, TPOT and E2E of each condition (fields of the coefficients may be columns)."""
    rates = rates_of(coefficients, columns.work, columns.flags)
    batch = _static(columns, rates)
    loop = _loop(columns, rates)
    static = columns.loads.static

    def pick(of_batch: FloatArray, of_loop: FloatArray) -> FloatArray:
        return np.where(static, of_batch, of_loop)

    return Expected(
        ttft_s=pick(batch.ttft_s, loop.ttft_s),
        tpot_s=pick(batch.tpot_s, loop.tpot_s),
        e2e_s=pick(batch.e2e_s, loop.e2e_s),
        decoding=pick(batch.decoding, loop.decoding),
    )


def frontend_seconds(coefficients: Coefficients, input_tokens: FloatArray) -> FloatArray:
    """Serial time of client and API server for one request."""
    return np.asarray(
        coefficients.frontend_request_s + coefficients.frontend_token_s * input_tokens,
        dtype=np.float64,
    )


def mean_capped(low: FloatArray, high: FloatArray, cap: FloatArray) -> FloatArray:
    """Mean of min(x, cap) for x uniform on [low, high]."""
    low_in, high_in = np.minimum(low, cap), np.minimum(high, cap)
    area = (high_in**2 - low_in**2) / 2 + np.where(
        np.isfinite(cap), np.nan_to_num(cap, posinf=0.0) * (high - high_in - (low - low_in)), 0.0
    )
    span = high - low
    return np.where(span > 1e-9, area / np.maximum(span, 1e-9), np.minimum(low, cap))


def capped_pairs(tokens: FloatArray, past: FloatArray, cap: FloatArray) -> FloatArray:
    """Token pairs of a chunk after `past` tokens: q·mean(min(context, cap))."""
    return tokens * mean_capped(past + 0.5, past + tokens + 0.5, cap)


def _decode(columns: Columns, rates: Rates, decoding: FloatArray) -> FloatArray:
    """Mean seconds of a step that only decodes, over the life of its sequences."""
    loads = columns.loads
    first = loads.input_tokens + 1
    last = loads.input_tokens + np.maximum(loads.output_tokens - 1, 1)
    unlimited = np.full_like(first, np.inf)
    terms = step_terms(
        columns.work,
        rates,
        tokens=decoding,
        sampled=decoding,
        context=decoding * mean_capped(first, last, unlimited),
        window_context=decoding * mean_capped(first, last, loads.window),
    )
    return np.asarray(terms.total, dtype=np.float64)


def _static(columns: Columns, rates: Rates) -> Expected:
    """A batch prefilled in budget-sized steps, then decoded; in waves where it exceeds capacity."""
    loads = columns.loads
    batch = np.minimum(loads.concurrency, loads.capacity)
    waves = loads.concurrency / batch
    prompt = batch * loads.input_tokens
    steps = np.ceil(prompt / loads.budget)
    in_step, unlimited = prompt / steps, np.full_like(prompt, np.inf)
    zero = np.zeros_like(prompt)
    per_prompt = capped_pairs(loads.input_tokens, zero, unlimited)
    per_prompt_near = capped_pairs(loads.input_tokens, zero, loads.window)
    terms = step_terms(
        columns.work,
        rates,
        tokens=in_step,
        sampled=batch / steps,
        pairs=batch / steps * per_prompt,
        window_pairs=batch / steps * per_prompt_near,
        prefilling=True,
    )
    prefill = steps * np.asarray(terms.total, dtype=np.float64)
    decode = _decode(columns, rates, batch)
    e2e = waves * (prefill + (loads.output_tokens - 1) * decode)
    return Expected(ttft_s=prefill, tpot_s=decode, e2e_s=e2e, decoding=batch)


def _loop(columns: Columns, rates: Rates) -> Expected:
    """Mean-value continuous batching: d sequences decode, and each step carries its share of
    prefill chunks.

        TPOT = T(d) + (prompts a step)·chunks·[T(d + chunk) − T(d)]
        TTFT = half a step's wait + chunks·T(d + chunk)
        d = in flight · time spent decoding ÷ time in the engine (or rate · that time)
    """
    loads = columns.loads
    in_flight = np.minimum(np.maximum(loads.concurrency, 1.0), loads.capacity)
    outputs = np.maximum(loads.output_tokens - 1, 1.0)
    decoding = np.where(loads.rate_per_s > 0, 1.0, in_flight)
    ttft = tpot = e2e = np.zeros_like(decoding)
    for _ in range(4):
        base = _decode(columns, rates, decoding)
        mixed, chunks = _mixed(columns, rates, decoding)
        prompts = np.where(loads.steady, 0.0, decoding / outputs)
        tpot = base + prompts * chunks * (mixed - base)
        ttft = 0.5 * tpot + chunks * mixed
        e2e = ttft + outputs * tpot
        closed = in_flight * outputs * tpot / e2e
        opened = np.minimum(loads.capacity, loads.rate_per_s * outputs * tpot)
        following = np.where(loads.rate_per_s > 0, opened, closed)
        decoding = np.where(loads.steady, in_flight, np.maximum(following, 1e-3))
    return Expected(ttft_s=ttft, tpot_s=tpot, e2e_s=e2e, decoding=decoding)


def _mixed(columns: Columns, rates: Rates, decoding: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean seconds of a step with a prefill chunk beside the decodes, and chunks a prompt."""
    loads = columns.loads
    room = np.maximum(loads.budget - decoding, 16.0)
    chunks = np.ceil(loads.input_tokens / room)
    q = loads.input_tokens / chunks
    first = loads.input_tokens + 1
    last = loads.input_tokens + np.maximum(loads.output_tokens - 1, 1)
    unlimited, zero = np.full_like(q, np.inf), np.zeros_like(q)
    terms = step_terms(
        columns.work,
        rates,
        tokens=decoding + q,
        sampled=decoding + 1,
        context=decoding * mean_capped(first, last, unlimited),
        window_context=decoding * mean_capped(first, last, loads.window),
        pairs=capped_pairs(loads.input_tokens, zero, unlimited) / chunks,
        window_pairs=capped_pairs(loads.input_tokens, zero, loads.window) / chunks,
        prefilling=True,
    )
    return np.asarray(terms.total, dtype=np.float64), chunks
