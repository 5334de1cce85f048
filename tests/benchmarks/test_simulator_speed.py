"""How fast the simulator is. Printed, not asserted: the figures depend on the machine."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from advisor.physics.step_cost import StepCost
from advisor.serving.capacity import sustainable_rate
from advisor.serving.cascade import Gate, SelfHosted, simulate_cascade
from advisor.serving.engine import EngineSettings
from advisor.serving.lengths import Lengths, Lognormal
from advisor.serving.reference import ReferenceEngine
from advisor.serving.simulate import compile_kernel, simulate_engine
from advisor.serving.workload import Fixed, Poisson, Workload

pytestmark = pytest.mark.benchmark

STEP = StepCost(
    token_s=np.maximum(5.5e-3, 2.4e-5 * np.arange(8193)) + 8e-4,
    sample_s=1e-5 * np.arange(1025),
    kv_s=3.5e-8,
    prefill_s=2e-9,
    mixed_s=2e-4,
)
ENGINE = EngineSettings(max_num_seqs=1024, max_num_batched_tokens=8192)
KV_BLOCKS = 30_000
DEPLOYMENT = SelfHosted(STEP, ENGINE, KV_BLOCKS)
COUNT = 500_000


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Least wall time of some repeats, seconds: what the work costs, not what disturbed it."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("1024 in, 256 out", Fixed(1024), Fixed(256)),
        ("lognormal of those means", Lognormal(1024, 2500), Lognormal(256, 700)),
    ],
)
def test_requests_per_second_of_one_deployment(
    name: str, inputs: Lengths, outputs: Lengths, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_kernel()
    load = Workload(Poisson(1.0), inputs, outputs)
    limit = sustainable_rate(STEP, ENGINE, KV_BLOCKS, load)
    requests = load.at_rate(0.6 * limit).draw(count=COUNT, seed=1)
    for scheduling in (False, True):
        engine = ENGINE.model_copy(update={"async_scheduling": scheduling})
        serve = partial(simulate_engine, STEP, engine, kv_blocks=KV_BLOCKS, requests=requests)
        wall_s = best_of(5, serve)
        rate = COUNT / wall_s
        with capsys.disabled():
            kind = "asynchronous" if scheduling else "synchronous"
            print(
                f"\n{name}, 60 % load, {kind}: {rate / 1e6:.2f} million requests/s, "
                f"{rate / 3e6:.2f} x the goal of 3 million"
            )


def test_requests_per_second_of_a_cascade(capsys: pytest.CaptureFixture[str]) -> None:
    small = SelfHosted(STEP.scaled(0.25), ENGINE, KV_BLOCKS)
    load = Workload(Poisson(1.0), Fixed(1024), Fixed(256))
    limit = sustainable_rate(small.step, ENGINE, KV_BLOCKS, load)
    requests = load.at_rate(0.6 * limit).draw(count=COUNT, seed=1)
    gate = Gate(validation_s=0.005, escalation_rate=0.2)
    wall_s = best_of(5, lambda: simulate_cascade(small, DEPLOYMENT, gate, requests, seed=1))
    with capsys.disabled():
        rate = COUNT / wall_s
        print(
            f"\ncascade, 20 % escalated: {rate / 1e6:.2f} million requests/s, "
            f"{rate / 1e6:.2f} x the goal of 1 million"
        )


def test_cost_of_a_request_against_the_batch(capsys: pytest.CaptureFixture[str]) -> None:
    """Answers of 256 tokens at rates that keep 4 … 512 decoding, steps of constant length."""
    step = StepCost(token_s=np.full(8193, 0.01), sample_s=np.zeros(1025), kv_s=0.0, prefill_s=0.0)
    costs = {}
    for batch in (4, 16, 64, 256, 512):
        requests = Workload(Poisson(batch / 2.56), Fixed(256), Lognormal(256, 700)).draw(
            count=COUNT, seed=1
        )
        serve = partial(simulate_engine, step, ENGINE, kv_blocks=KV_BLOCKS, requests=requests)
        wall_s = best_of(5, serve)
        costs[batch] = 1e9 * wall_s / COUNT
    with capsys.disabled():
        listed = ", ".join(f"{batch}: {cost:.0f} ns" for batch, cost in costs.items())
        ratio = costs[512] / costs[4]
        print(f"\ncost of a request by batch: {listed}; x{ratio:.2f} where log2 grows x4.5")


def test_the_step_by_step_reference_for_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    load = Workload(Poisson(15.0), Fixed(1024), Fixed(256))
    requests = load.draw(count=200, seed=1)

    def slow() -> object:
        return ReferenceEngine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=requests).run()

    fast = load.draw(count=COUNT, seed=1)
    slow_s = best_of(1, slow) / 200
    fast_s = (
        best_of(3, lambda: simulate_engine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=fast))
        / COUNT
    )
    with capsys.disabled():
        print(f"\nevent jumps against single steps in Python: x{slow_s / fast_s:,.0f} per request")


def test_ten_million_requests_in_a_gigabyte(capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, whose peak memory is measured."""
    program = """
        import resource, time
        import numpy as np
        from advisor.physics.step_cost import StepCost
        from advisor.serving.engine import EngineSettings
        from advisor.serving.streaming import simulate_stream
        from advisor.serving.workload import Lognormal, Poisson, Workload
        step = StepCost(
            token_s=np.maximum(5.5e-3, 2.4e-5 * np.arange(8193)) + 8e-4,
            sample_s=1e-5 * np.arange(1025), kv_s=3.5e-8, prefill_s=2e-9, mixed_s=2e-4,
        )
        engine = EngineSettings(max_num_seqs=1024, max_num_batched_tokens=8192)
        load = Workload(Poisson(12.0), Lognormal(1024, 2500), Lognormal(256, 700))
        begin = time.perf_counter()
        told = simulate_stream(
            step, engine, kv_blocks=30_000, workload=load, count=10_000_000, seed=1
        )
        print(told.requests, time.perf_counter() - begin)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    requests, wall_s, peak_kib = (float(word) for word in done.stdout.split())
    with capsys.disabled():
        print(
            f"\n10 million requests: {wall_s:.1f} s with drawing and percentiles, "
            f"{peak_kib / 2**20:.2f} GiB at most"
        )
    assert requests == 9_000_000
    assert peak_kib * 1024 < 1e9
