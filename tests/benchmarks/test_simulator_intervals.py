"""Do 95 % confidence intervals hold the truth in 95 % of the runs, where requests share queues?"""

from __future__ import annotations

import numpy as np
import pytest

from advisor.physics.step_cost import StepCost
from advisor.serving.capacity import sustainable_rate
from advisor.serving.engine import EngineSettings
from advisor.serving.lengths import Lognormal
from advisor.serving.percentiles import LEVELS, percentiles
from advisor.serving.simulate import simulate_engine
from advisor.serving.streaming import simulate_stream
from advisor.serving.workload import Poisson, Workload

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
LOAD = Workload(Poisson(10.0), Lognormal(1024, 2500), Lognormal(256, 700))

RUNS, REQUESTS = 400, 20_000


@pytest.mark.parametrize("utilization", [0.3, 0.6, 0.8])
def test_intervals_cover_as_often_as_they_say(
    utilization: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """400 runs of 20,000 requests against a run of 12 million, for TTFT and E2E.

    Of one figure 400 runs tell the coverage within ±2 %; of all ten together, closer.
    """
    load = LOAD.at_rate(utilization * sustainable_rate(STEP, ENGINE, KV_BLOCKS, LOAD))
    truth = simulate_stream(
        STEP, ENGINE, kv_blocks=KV_BLOCKS, workload=load, count=12_000_000, seed=10_000
    )
    covered = {(what, name): 0 for what in ("ttft", "e2e") for name in ("mean", *LEVELS)}
    for seed in range(RUNS):
        timeline = simulate_engine(
            STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=load.draw(count=REQUESTS, seed=seed)
        )
        kept = slice(REQUESTS // 10, None)
        for what, times in (("ttft", timeline.first_token_s), ("e2e", timeline.finish_s)):
            found = percentiles((times - timeline.arrival_s)[kept]).intervals
            for name, interval in found.items():
                exact = getattr(getattr(truth, what), name)
                covered[what, name] += interval.low <= exact <= interval.high
    shares = {key: count / RUNS for key, count in covered.items()}
    with capsys.disabled():
        listed = ", ".join(f"{what} {name} {share:.3f}" for (what, name), share in shares.items())
        mean = np.mean(list(shares.values()))
        print(f"\ncoverage at {utilization:.0%} load: {listed}; mean {mean:.3f}")
    assert 0.93 <= np.mean(list(shares.values())) <= 0.97
    assert all(0.91 <= share <= 0.99 for share in shares.values())
