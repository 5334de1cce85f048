"""Random serving cases, as the kernel and its reference are compared on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.simulate import Timeline, simulate_engine
from advisor.serving.workload import ClosedLoop, Requests, cached_prefix


@dataclass(frozen=True)
class Case:
    """One deployment and one load."""

    step: StepCost
    engine: EngineSettings
    kv_blocks: int
    requests: Requests

    def simulate(self) -> Timeline:
        return simulate_engine(
            self.step, self.engine, kv_blocks=self.kv_blocks, requests=self.requests
        )


def random_case(rng: np.random.Generator, *, dyadic: bool) -> Case | None:
    """A small case that is likely to be nasty; None where vLLM would refuse it.

    Tiny budgets, batches and caches, single tokens, windows that fill, overload, bursts, ties,
    closed loops, clients that give up and shared prefixes. Dyadic cases have only times that
    floating point adds up exactly, so that ties are ties.
    """
    seqs = int(rng.integers(1, 9))
    engine = EngineSettings(
        max_num_seqs=seqs,
        max_num_batched_tokens=int(seqs + rng.integers(0, 40)),
        block_size=int(rng.choice([1, 2, 4, 16])),
        enable_chunked_prefill=bool(rng.random() < 0.8),
        enable_prefix_caching=bool(rng.random() < 0.7),
        async_scheduling=bool(rng.random() < 0.5),
        scheduler_reserve_full_isl=bool(rng.random() < 0.5),
    )
    requests = _requests(rng, dyadic=dyadic, block_size=engine.block_size)
    longest = int((requests.input_tokens + requests.output_tokens).max()) - 1
    if not engine.enable_chunked_prefill and longest > engine.max_num_batched_tokens:
        return None
    shared = int(requests.cached_tokens.max()) // engine.block_size
    least_blocks = -(-longest // engine.block_size) + shared
    return Case(
        step=_step_cost(rng, engine, dyadic=dyadic),
        engine=engine,
        kv_blocks=least_blocks + int(rng.choice([0, 1, 3, 10, 1000])),
        requests=requests,
    )


def _step_cost(rng: np.random.Generator, engine: EngineSettings, *, dyadic: bool) -> StepCost:
    def seconds(exponent: int) -> float:
        """About 2^-exponent seconds, or nothing."""
        if dyadic:
            return int(rng.integers(0, 4)) * 2.0 ** -int(rng.integers(exponent, exponent + 4))
        return float(rng.random() * 2.0**-exponent)

    window = int(rng.choice([0, 0, 3, 8, 20]))
    return StepCost(
        token_s=2.0**-9 + seconds(9) + np.arange(engine.max_num_batched_tokens + 1) * seconds(12),
        sample_s=np.arange(engine.max_num_seqs + 1) * seconds(12),
        kv_s=seconds(16),
        prefill_s=seconds(18),
        mixed_s=seconds(9),
        window=window,
        window_kv_s=seconds(15) if window else 0.0,
        window_prefill_s=seconds(17) if window else 0.0,
    )


def _requests(rng: np.random.Generator, *, dyadic: bool, block_size: int) -> Requests:
    count = int(rng.integers(1, 25))
    prefix = int(rng.choice([0, 0, 4, 16]))
    inputs = rng.integers(1, int(rng.choice([3, 20, 60])) + 1, count)
    inputs = np.maximum(inputs, prefix + 1)
    outputs = rng.integers(1, int(rng.choice([1, 4, 30, 60])) + 1, count)
    arrivals = np.cumsum(rng.exponential(1 / rng.choice([1.0, 10.0, 50.0, 200.0]), count))
    if dyadic:
        arrivals = np.round(arrivals * 2**9) / 2**9
    loop = None
    match rng.integers(0, 4):
        case 1:
            arrivals = np.zeros(count)
        case 2:
            arrivals = np.sort(rng.choice(arrivals, count))
        case 3:
            # A think time shifts one user's step boundaries onto another's: ties, up to rounding.
            think_s = float(rng.choice([0.0, 2.0**-6, 0.25])) if dyadic else 0.0
            loop = ClosedLoop(int(rng.integers(1, 6)), think_s)
            arrivals = loop.draw(rng, count)
        case _:
            pass
    cancels = None
    if loop is None and rng.random() < 0.4:
        patience = rng.exponential(rng.choice([0.02, 0.2, 1.0]), count)
        patience[rng.random(count) < 0.3] = np.inf
        cancels = arrivals + (np.round(patience * 2**9) / 2**9 if dyadic else patience)
    cached = cached_prefix(inputs, prefix, block_size=block_size)
    return Requests(arrivals, inputs, outputs, cached, cancel_s=cancels, closed_loop=loop)


def random_cases(seed: int, count: int, *, dyadic: bool) -> list[Case]:
    """`count` cases that vLLM would accept."""
    rng = np.random.default_rng(seed)
    cases: list[Case] = []
    while len(cases) < count:
        case = random_case(rng, dyadic=dyadic)
        if case is not None:
            cases.append(case)
    return cases


__all__ = ["Case", "random_case", "random_cases"]
