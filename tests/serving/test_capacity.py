"""How much load a deployment takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from deployments import ENGINE, KV_BLOCKS, LOAD, STEP

from advisor.physics.step_cost import StepCost
from advisor.serving.capacity import (
    Objective,
    assess,
    highest_rate,
    saturation_bound,
    sustainable_rate,
)
from advisor.serving.engine import EngineSettings
from advisor.serving.metrics import LoadReport
from advisor.serving.workload import Fixed, Poisson, Workload

SECOND = StepCost(token_s=np.ones(1025), sample_s=np.zeros(17), kv_s=0.0, prefill_s=0.0)
SIXTEEN = EngineSettings(max_num_seqs=16, max_num_batched_tokens=1024, async_scheduling=False)


def test_throughput_of_a_full_batch_by_hand() -> None:
    """16 seats, steps of 1 s whatever is in them, 1 prefill and 7 decode steps: 16/8 a second."""
    load = Workload(Poisson(1.0), Fixed(16), Fixed(8))
    assert sustainable_rate(SECOND, SIXTEEN, 1000, load) == pytest.approx(2.0, rel=0.01)
    assert sustainable_rate(SECOND, SIXTEEN, 1000, load, replicas=3) == pytest.approx(6, rel=0.01)
    assert saturation_bound(SECOND, SIXTEEN, 1000, load) == pytest.approx(2.0)


def test_memory_bounds_the_batch() -> None:
    """The same with room for 4 requests of 17 + 8 tokens, 2 blocks each: 4/8 a second."""
    load = Workload(Poisson(1.0), Fixed(17), Fixed(8))
    assert sustainable_rate(SECOND, SIXTEEN, 8, load) == pytest.approx(0.5, rel=0.02)


def test_the_bound_lies_above_what_is_reached_and_near_it() -> None:
    reached = sustainable_rate(STEP, ENGINE, KV_BLOCKS, LOAD)
    bound = saturation_bound(STEP, ENGINE, KV_BLOCKS, LOAD)
    assert reached < bound < 1.35 * reached


def test_more_than_sustainable_is_unstable_and_less_is_not() -> None:
    limit = sustainable_rate(STEP, ENGINE, KV_BLOCKS, LOAD)

    def at(share: float) -> LoadReport:
        return assess(STEP, ENGINE, KV_BLOCKS, LOAD.at_rate(share * limit), count=3000, seed=3)

    assert at(0.8).stable
    assert not at(1.1).stable
    assert at(0.8).utilization == pytest.approx(0.8, rel=0.05)


def test_the_highest_rate_meets_the_objective_and_a_little_more_does_not() -> None:
    objective = Objective(ttft_p95_s=0.2)
    rate = highest_rate(STEP, ENGINE, KV_BLOCKS, LOAD, meets=objective.met_by, count=3000)
    limit = sustainable_rate(STEP, ENGINE, KV_BLOCKS, LOAD)
    assert 0 < rate < limit

    def p95(rate_per_s: float) -> float:
        load = LOAD.at_rate(rate_per_s)
        return assess(STEP, ENGINE, KV_BLOCKS, load, count=3000, seed=0).ttft.p95

    assert p95(rate) <= 0.2 < p95(1.03 * rate)


def test_an_objective_that_nothing_meets_gives_no_rate() -> None:
    never = Objective(e2e_p95_s=1e-6)
    assert highest_rate(STEP, ENGINE, KV_BLOCKS, LOAD, meets=never.met_by, count=500) == 0


def test_an_objective_checks_each_bound_it_has() -> None:
    load = assess(STEP, ENGINE, KV_BLOCKS, LOAD, count=1000, seed=0)
    within = {
        "ttft_p95_s": load.ttft.p95,
        "e2e_p95_s": load.e2e.p95,
        "tpot_p95_s": load.tpot.p95,
    }
    assert Objective(**within).met_by(load)
    for name, value in within.items():
        assert not Objective.model_validate(within | {name: 0.99 * value}).met_by(load)
    assert Objective().met_by(load)
    assert not Objective().met_by(load.model_copy(update={"stable": False}))


def test_replicas_take_as_many_times_the_load() -> None:
    short = dataclasses.replace(LOAD, output_lengths=Fixed(64))
    limit = sustainable_rate(STEP, ENGINE, KV_BLOCKS, short)
    two = assess(
        STEP, ENGINE, KV_BLOCKS, short.at_rate(1.6 * limit), count=4000, seed=1, replicas=2
    )
    assert two.stable
    assert not assess(
        STEP, ENGINE, KV_BLOCKS, short.at_rate(1.6 * limit), count=4000, seed=1
    ).stable
