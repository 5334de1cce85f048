"""How much load a deployment can take: for ever, and within a latency objective."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.metrics import LoadReport, report
from advisor.serving.simulate import simulate_engine, simulate_fleet
from advisor.serving.workload import Burst, Requests, Workload

LEAST_REQUESTS = 2000
"""Requests in a saturation run; more where the batch is large."""


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
    tokens = float((sample.input_tokens + sample.output_tokens / 2).mean())
    batch = min(engine.max_num_seqs, kv_blocks * engine.block_size / tokens)
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
