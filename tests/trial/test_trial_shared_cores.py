"""Queues that share the cores of one machine: by hand, against theory, and against themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from advisor.errors import InputError
from advisor.trial.cascade import Pieces, Rows, play
from advisor.trial.service import MeasuredService, fifo_finish
from advisor.trial.shared_cores import (
    ANSWERED,
    ASK_LARGE,
    ASK_SMALL,
    STAGES,
    Machine,
    SharedCores,
    machine_of,
    measured_pace,
    pass_through,
)
from advisor.trial.together import lighter, mean_work_s, model_work, play_one, stretch

FloatArray = NDArray[np.float64]

MANY_CORES = Machine((1.0,) * 5)
ONE_CORE = Machine((1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5))
ONE_AT_A_TIME = MeasuredService.one_at_a_time(1.0)


def works(count: int, **stages: float) -> FloatArray:
    found = np.zeros((count, len(STAGES)))
    for name, seconds in stages.items():
        found[:, {"small": ASK_SMALL, "large": ASK_LARGE, "answer": ANSWERED}[name]] = seconds
    return found


def test_two_at_different_queues_share_one_core() -> None:
    """Both come at 0: one takes 1 s of the small model, the other 1 s of the large one. On one core
    each goes half as fast, and both end at 2 s; on two cores each ends at 1 s."""
    work = np.concatenate([works(1, small=1.0, answer=1e-9), works(1, large=1.0, answer=1e-9)])

    shared = pass_through(np.zeros(2), work, ONE_CORE)
    apart = pass_through(np.zeros(2), work, MANY_CORES)

    assert shared.answered_s == pytest.approx([2.0, 2.0])
    assert apart.answered_s == pytest.approx([1.0, 1.0])
    assert np.isnan(shared.small_end_s[1])


def test_who_is_alone_for_a_while_goes_on_at_full_speed() -> None:
    """A takes 1 s from 0. B comes to the other queue at 0.5 s with 0.25 s of work. From then on
    each has half the core: B ends at 1.0 s, when A has 0.25 s left, and A ends at 1.25 s."""
    work = np.concatenate([works(1, small=1.0, answer=1e-9), works(1, large=0.25, answer=1e-9)])

    found = pass_through(np.array([0.0, 0.5]), work, ONE_CORE)

    assert found.answered_s == pytest.approx([1.25, 1.0])


def test_one_queue_with_cores_enough_is_lindley() -> None:
    rng = np.random.default_rng(3)
    sent = np.cumsum(rng.standard_exponential(500))
    work = works(500, answer=1e-12)
    work[:, ASK_SMALL] = rng.exponential(0.8, 500)

    found = pass_through(sent, work, MANY_CORES)

    assert found.small_end_s == pytest.approx(fifo_finish(sent, work[:, ASK_SMALL]))


def test_two_queues_on_one_core_do_all_the_work_there_is() -> None:
    """Whoever is served when, one core that never rests has done its work when Lindley says, for
    both queues taken as one."""
    rng = np.random.default_rng(5)
    sent = np.cumsum(rng.standard_exponential(400))
    work = works(400)
    chosen = np.where(rng.random(400) < 0.5, ASK_SMALL, ASK_LARGE)
    work[np.arange(400), chosen] = rng.exponential(0.9, 400)

    found = pass_through(sent, work, ONE_CORE)

    last = np.fmax(found.small_end_s, found.large_end_s).max()
    assert last == pytest.approx(fifo_finish(sent, work.sum(axis=1))[-1])


def test_the_machine_is_read_from_what_processes_counted() -> None:
    """One alone makes 100 turns, two together 90 and 70: 0.8 each. Three or more of five queues get
    what two cores give: 1.6 among them."""
    machine = machine_of([[100, 90], [0, 70]])

    assert machine.pace == pytest.approx((1.0, 0.8, 1.6 / 3, 1.6 / 4, 1.6 / 5))
    assert machine.total == pytest.approx(1.6)
    with pytest.raises(InputError, match="did not count"):
        machine_of([[0]])


def test_this_machine_has_a_pace() -> None:
    pace = measured_pace().pace

    assert pace[0] == 1.0
    assert all(0 < late <= early for early, late in pairwise(pace))


def pieces(cores: SharedCores, escalate: list[bool]) -> Pieces:
    count = len(escalate)
    return Pieces(
        rows=Rows(
            small_s=np.full(count, 0.010),
            large_first_s=np.full(count, 0.015),
            large_s=np.full(count, 0.030),
            large_tokens=np.full(count, 4),
            escalate=np.array(escalate),
        ),
        small=ONE_AT_A_TIME,
        large=ONE_AT_A_TIME,
        router_hold_s=0.003,
        router_delay_s=-0.001,
        router_delay_up_s=0.002,
        cores=cores,
    )


CORES = SharedCores(
    machine=MANY_CORES, client_s=0.001, records_s=0.5,
    small_besides_s=0.002, large_besides_s=0.004,
)  # fmt: skip


def test_one_request_takes_what_it_took_in_calibration() -> None:
    """Nobody else there. Kept: 10 ms at the small model and 3 − 1 ms of the router: 12 ms. Handed
    up: 30 and 2 ms more. Records are written after the answer and are in neither."""
    kept = play(pieces(CORES, [False]), np.zeros(1), runs=1, seed=0)
    up = play(pieces(CORES, [True]), np.zeros(1), runs=1, seed=0)
    small, held = play_one(
        pieces(CORES, [False]).rows, CORES, np.zeros(1), small=True, runs=1, seed=0,
        speed_log_sd=0.0,
    )  # fmt: skip

    assert kept.e2e_s[0, 0] == pytest.approx(0.012)
    assert up.e2e_s[0, 0] == pytest.approx(0.044)
    # Half of the 26 ms of the large server's work is after the first token; 3 gaps share it.
    assert up.e2e_s[0, 0] - up.ttft_s[0, 0] == pytest.approx(0.013)
    assert up.tpot_s[0, 0] == pytest.approx(0.013 / 3)
    assert small.e2e_s[0, 0] == pytest.approx(0.010)
    assert held == 1.0


def test_fewer_cores_make_a_burst_slower_and_hold_the_engines_longer() -> None:
    few = replace(CORES, machine=ONE_CORE, records_s=0.001)
    many = replace(CORES, records_s=0.001)
    sent = np.cumsum(np.random.default_rng(1).standard_exponential(300)) / 30
    rows = [False, False, False, True]

    slow = play(pieces(few, rows), sent, runs=2, seed=0).e2e_s
    fast = play(pieces(many, rows), sent, runs=2, seed=0).e2e_s

    assert (slow >= fast - 1e-12).all()
    assert np.quantile(slow, 0.95) > 1.2 * np.quantile(fast, 0.95)
    alone, crowded = (stretch(pieces(one, rows), one, 30.0, seed=0) for one in (many, few))
    assert alone == pytest.approx((1.0, 1.0))
    assert crowded[0] > 1.05
    assert crowded[1] > 1.05


def test_lighter_works_leave_what_is_no_work() -> None:
    """Kept: 8 ms of the small server, 3 of the router, 1 of the sender, 500 of the records. Half of
    it: the small model's 10 ms become 2 + 4."""
    whole = pieces(CORES, [False])
    half = lighter(whole, CORES, 0.5)

    assert mean_work_s(whole, CORES) == pytest.approx(0.512)
    assert half.cores is not None
    assert mean_work_s(half, half.cores) == pytest.approx(0.256)
    assert half.rows.small_s == pytest.approx([0.006])
    assert half.rows.large_first_s / half.rows.large_s == pytest.approx([0.5])


def test_no_row_works_for_nothing() -> None:
    work = model_work(np.array([0.010, 0.011, 0.001]), 0.002)

    assert work[:2] == pytest.approx([0.008, 0.009])
    assert 0 < work[2] < 0.002
