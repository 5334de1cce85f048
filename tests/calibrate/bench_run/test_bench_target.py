"""The load that a run is for: its p95, and how that answers to coefficients."""

from dataclasses import replace

import numpy as np
import pytest
from bench_points import FACTS, GRID, LAW, point, shape

from advisor.calibrate.bench.law import Steps, updated
from advisor.calibrate.bench.prior import prior_belief
from advisor.calibrate.bench.target import (
    LOADED,
    plain_lengths,
    sustainable_per_s,
    target_of,
    within,
)
from advisor.catalog.fits import load_fits
from advisor.catalog.locations import PROFILES
from advisor.errors import DoesNotFitError
from advisor.physics.own_steps import Behind
from advisor.task import TaskProfile

PRIOR = prior_belief(LAW, load_fits())
BELIEF = updated(PRIOR, [point(one) for one in GRID])
TARGET = target_of(None, FACTS, BELIEF)


def test_a_plain_load_runs_at_a_share_of_what_the_engine_sustains() -> None:
    cost = BELIEF.step_cost(max_tokens=2048, max_seqs=32)
    sustained = sustainable_per_s(TARGET.requests, cost, TARGET.settings, TARGET.kv_blocks)

    assert TARGET.title.startswith("256 tokens in, 64 out at ")
    assert TARGET.rate_per_s == pytest.approx(LOADED * sustained, rel=0.02)


def test_what_its_server_cannot_sustain_is_not_sent_to_it() -> None:
    """Twice the step is 1.2 of the capacity where 0.6 was meant: a queue without end."""
    cost = BELIEF.step_cost(max_tokens=2048, max_seqs=32)
    crowded = TARGET.with_overhead(0.0, 0.0, behind=Behind(factor=2.0))
    eased = crowded.sustained(cost)

    assert eased.rate_per_s == pytest.approx(TARGET.rate_per_s / 2, rel=0.02)
    assert f"at {eased.rate_per_s:.3g} requests/s" in eased.title
    assert eased.p95_s(eased.served(cost)) == pytest.approx(2 * TARGET.p95_s(cost), rel=0.05)
    assert crowded.p95_s(crowded.served(cost)) > 5 * TARGET.p95_s(cost)
    assert TARGET.sustained(cost) is TARGET


def test_a_lone_request_s_p95_is_its_prefill_and_its_steps() -> None:
    alone = replace(
        TARGET, requests=replace(TARGET.requests, arrival_s=TARGET.requests.arrival_s * 1e4)
    )
    cost = BELIEF.step_cost(max_tokens=2048, max_seqs=32)
    prefill = BELIEF.seconds(Steps.of_shapes([shape("prefill", prompt=256)]))[0]
    contexts = np.arange(257.0, 257 + 63)
    steps = Steps(np.ones(63), contexts, np.zeros(63))

    assert alone.p95_s(cost) == pytest.approx(prefill + BELIEF.seconds(steps).sum(), rel=1e-3)


def test_slopes_by_parts_are_those_of_the_whole() -> None:
    alone = replace(
        TARGET, requests=replace(TARGET.requests, arrival_s=TARGET.requests.arrival_s * 1e4)
    )
    base, slopes, elasticity = alone.slopes(BELIEF)
    assert elasticity == pytest.approx(1.0, abs=0.02), "nobody waits"
    assert TARGET.slopes(BELIEF)[2] > 1.2, "under load they do"
    for place, index in enumerate(BELIEF.active):
        moved = BELIEF.logs.copy()
        moved[index] -= 0.02
        cost = BELIEF.cost_at(moved, max_tokens=2048, max_seqs=32)
        whole = np.log(base / alone.p95_s(cost)) / 0.02
        assert slopes[place] == pytest.approx(whole, abs=0.03)


def test_points_narrow_the_interval_and_an_overhead_widens_it() -> None:
    before, after = TARGET.interval(PRIOR), TARGET.interval(BELIEF)
    served = TARGET.with_overhead(after.value_s, 0.5).interval(BELIEF)

    assert after.log_sd < 0.25 * before.log_sd
    assert after.low_s < after.value_s < after.high_s
    assert served.value_s == pytest.approx(2 * after.value_s)
    assert served.log_sd > after.log_sd


def test_a_task_beyond_the_context_is_refused() -> None:
    task = TaskProfile.load(
        PROFILES / "tasks" / "intent-classification.yaml",
        overrides={"traffic.input_tokens": 5000},
    )
    with pytest.raises(DoesNotFitError, match="longer than the engine's context of 2,048"):
        target_of(task, FACTS, BELIEF)

    assert within(TARGET.requests, 2048).input_tokens.max() == 256


@pytest.mark.parametrize("length", [8, 64, 300, 2048, 100_000])
def test_a_plain_load_fits_every_context(length: int) -> None:
    prompt, answer = plain_lengths(length)

    assert prompt >= 1
    assert answer >= 2
    assert prompt + answer <= max(length, 4)
