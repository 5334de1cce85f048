"""How much load a deployment can take: for ever, and within latency objectives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import PositiveFloat

from advisor.physics.step_cost import StepCost
from advisor.records import Record
from advisor.serving.engine import EngineSettings
from advisor.serving.metrics import LoadReport, report
from advisor.serving.simulate import simulate_engine, simulate_fleet
from advisor.serving.workload import Burst, Requests, Workload

LEAST_REQUESTS = 2000
"""Requests in a saturation run; more where the batch is large."""


class Objective(Record):
    """Bounds on 95th percentiles, seconds; None does not bind."""

    ttft_p95_s: PositiveFloat | None = None
    e2e_p95_s: PositiveFloat | None = None
    tpot_p95_s: PositiveFloat | None = None

    def met_by(self, load: LoadReport) -> bool:
        """Whether a load is stable and within every bound."""
        pairs = (
            (load.ttft.p95, self.ttft_p95_s),
            (load.e2e.p95, self.e2e_p95_s),
            (load.tpot.p95, self.tpot_p95_s),
        )
        return load.stable and all(bound is None or value <= bound for value, bound in pairs)


def saturation_bound(
    step: StepCost, engine: EngineSettings, kv_blocks: int, workload: Workload
) -> float:
    """Requests per second that the mean request would allow at best: an upper estimate.

    In the best case d requests decode at a time, all of mean length, in steps shared with the
    prefill that keeps them coming: per step d/(o − 1) prompts of i new tokens each, o the mean
    output. A batch that spends a step on every d·(1 + i/(o − 1)) tokens completes d/(o − 1)
    requests a step. d is what seats and KV blocks admit; the budget may stretch the step.
    """
    inputs, outputs = workload.input_lengths.mean, max(workload.output_lengths.mean, 1.0)
    hit = 0.0
    if engine.enable_prefix_caching:
        hit = workload.shared_prefix_tokens // engine.block_size * engine.block_size
    context = inputs + outputs / 2
    room = (kv_blocks * engine.block_size - hit) / max(context - hit, 1.0)
    seats = max(min(float(engine.max_num_seqs), room), 1.0)
    # Of its o steps a request spends one prefilling; prompts beyond the budget take more.
    new = max(inputs - hit, 1.0)
    decoding = seats * (outputs - 1) / outputs
    completions = seats / outputs
    tokens = decoding + completions * new
    stretch = max(tokens / engine.max_num_batched_tokens, 1.0)
    pairs = completions * (new * hit + new * (new + 1) / 2)
    size = min(tokens, engine.max_num_batched_tokens)
    step_s = (
        float(np.interp(size, np.arange(len(step.token_s)), step.token_s))
        + float(
            np.interp(
                min(seats, len(step.sample_s) - 1), np.arange(len(step.sample_s)), step.sample_s
            )
        )
        + step.mixed_s
        + (step.kv_s * context + step.window_kv_s * min(context, step.window)) * decoding / stretch
        + step.prefill_s * pairs / stretch
    )
    return completions / (stretch * step_s)


def sustainable_rate(
    step: StepCost,
    engine: EngineSettings,
    kv_blocks: int,
    workload: Workload,
    *,
    replicas: int = 1,
    seed: int = 0,
) -> float:
    """Highest rate (requests/s) that can be served for ever: the throughput of a full queue.

    All requests wait from the start; the rate is that of completions in the middle third, when the
    batch is neither filling nor draining.
    """
    sample = workload.draw(
        count=LEAST_REQUESTS,
        seed=seed,
        prefix_caching=engine.enable_prefix_caching,
        block_size=engine.block_size,
    )
    own = sample.input_tokens - sample.cached_tokens + sample.output_tokens / 2
    batch = min(engine.max_num_seqs, kv_blocks * engine.block_size / float(own.mean()))
    count = max(LEAST_REQUESTS, int(12 * batch))
    requests = Workload(
        arrivals=Burst(),
        input_lengths=workload.input_lengths,
        output_lengths=workload.output_lengths,
        shared_prefix_tokens=workload.shared_prefix_tokens,
        correlation=workload.correlation,
    ).draw(
        count=count,
        seed=seed,
        prefix_caching=engine.enable_prefix_caching,
        block_size=engine.block_size,
    )
    return replicas * saturated_throughput(step, engine, kv_blocks, requests)


def saturated_throughput(
    step: StepCost, engine: EngineSettings, kv_blocks: int, burst: Requests
) -> float:
    """Completions per second in the middle third of a burst."""
    finish = np.sort(simulate_engine(step, engine, kv_blocks=kv_blocks, requests=burst).finish_s)
    low, high = len(finish) // 3, 2 * len(finish) // 3
    span = float(finish[high] - finish[low])
    if span > 0:
        return (high - low) / span
    return len(finish) / float(finish[-1])


def assess(
    step: StepCost,
    engine: EngineSettings,
    kv_blocks: int,
    workload: Workload,
    *,
    count: int,
    seed: int,
    replicas: int = 1,
    request_overhead_s: float = 0.0,
    sustainable_rate_per_s: float | None = None,
    intervals: bool = True,
) -> LoadReport:
    """Draw a load, simulate it and report, stability judged against the sustainable rate."""
    if sustainable_rate_per_s is None:
        sustainable_rate_per_s = sustainable_rate(
            step, engine, kv_blocks, workload, replicas=replicas, seed=seed
        )
    requests = workload.draw(
        count=count,
        seed=seed,
        prefix_caching=engine.enable_prefix_caching,
        block_size=engine.block_size,
    )
    timeline = simulate_fleet(
        step, engine, kv_blocks=kv_blocks, requests=requests, replicas=replicas
    )
    return report(
        timeline,
        request_overhead_s=request_overhead_s,
        sustainable_rate_per_s=sustainable_rate_per_s,
        intervals=intervals,
    )


def highest_rate(
    step: StepCost,
    engine: EngineSettings,
    kv_blocks: int,
    workload: Workload,
    *,
    meets: Callable[[LoadReport], bool],
    replicas: int = 1,
    count: int = 4000,
    seed: int = 0,
    request_overhead_s: float = 0.0,
    tolerance: float = 0.01,
) -> float:
    """Highest rate (requests/s) at which the report meets an objective; 0 where none does.

    Bisection between nothing and the sustainable rate, with the same prompts, answers and gaps
    (scaled) at every rate, so that latency grows with the rate and one boundary is found.

    Args:
        meets: the objective, e.g. `lambda load: load.e2e.p95 <= 0.08`; an unstable load never
            meets it.
        tolerance: relative width of the bracket at the end.
    """
    most = sustainable_rate(step, engine, kv_blocks, workload, replicas=replicas, seed=seed)

    def holds(rate_per_s: float) -> bool:
        load = assess(
            step,
            engine,
            kv_blocks,
            workload.at_rate(rate_per_s),
            count=count,
            seed=seed,
            replicas=replicas,
            request_overhead_s=request_overhead_s,
            sustainable_rate_per_s=most,
            intervals=False,
        )
        return load.stable and meets(load)

    low, high = 0.0, most
    if not holds(1e-3 * most):
        return 0.0
    low = 1e-3 * most
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
