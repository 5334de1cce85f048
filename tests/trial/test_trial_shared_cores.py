"""Queues that share the cores of one machine: by hand, against theory, and against themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from advisor.trial.projecting.cascade import Pieces, Rows, play
from advisor.trial.projecting.service import MeasuredService, fifo_finish
from advisor.trial.projecting.shared_cores import (
    ANSWERED,
    ASK_LARGE,
    ASK_SMALL,
    QUEUES,
    STAGES,
    Machine,
    SharedCores,
    pass_through,
)

FloatArray = NDArray[np.float64]

MANY_CORES = Machine((1.0,) * QUEUES)
ONE_CORE = Machine.of_cores(1, 1.0)
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


def test_of_more_threads_than_cores_each_gets_its_share() -> None:
    """Two cores that lose a tenth when both are at work: 0.9 each; of three threads, 2/3 of 0.9."""
    machine = Machine.of_cores(2, 0.9)

    assert machine.pace[:4] == pytest.approx((1.0, 0.9, 0.6, 0.45))
    assert len(machine.pace) == QUEUES
    assert Machine.of_cores(16, 1.0) == MANY_CORES


def pieces(cores: SharedCores, escalate: list[bool], **given: float) -> Pieces:
    count = len(escalate)
    return Pieces(
        rows=Rows(
            small_s=np.full(count, 0.006),
            large_first_s=np.full(count, 0.010),
            large_s=np.full(count, 0.020),
            large_tokens=np.full(count, 4),
            escalate=np.array(escalate),
        ),
        small=ONE_AT_A_TIME,
        large=ONE_AT_A_TIME,
        router_hold_s=given.pop("router_hold_s", 0.003),
        cores=cores,
        **given,
    )


CORES = SharedCores(
    machine=MANY_CORES, client_s=0.001, records_s=0.5, small_http_s=0.002, large_http_s=0.004,
    rest_s=0.0005, rest_up_s=-0.001,
)  # fmt: skip


def test_one_request_takes_its_works_and_what_is_no_work() -> None:
    """Nobody else there. Kept: 1 ms of the sender, 3 of the router, 2 + 6 of the small server and
    0.5 without work: 12.5 ms. Handed up: 4 + 20 of the large server more, and 1 ms less because
    some of that comes after the answer. Records are written after it and are in neither."""
    kept = play(pieces(CORES, [False]), np.zeros(1), runs=1, seed=0)
    up = play(pieces(CORES, [True]), np.zeros(1), runs=1, seed=0)

    assert kept.e2e_s[0, 0] == pytest.approx(0.0125)
    assert up.e2e_s[0, 0] == pytest.approx(0.0125 + 0.024 - 0.001)
    # Half of the 20 ms of the large engine is after the first token; 3 gaps share it.
    assert up.e2e_s[0, 0] - up.ttft_s[0, 0] == pytest.approx(0.010)
    assert up.tpot_s[0, 0] == pytest.approx(0.010 / 3)
    rehearsed = replace(pieces(CORES, [True]), tpot_s=np.array([0.001]))
    again = play(rehearsed, np.zeros(1), runs=1, seed=0)
    assert again.tpot_s[0, 0] == pytest.approx(0.001)
    assert again.e2e_s[0, 0] == pytest.approx(up.e2e_s[0, 0])


def test_without_the_router_it_is_one_model_alone() -> None:
    """Small: 1 + 2 + 6 + 0.5 ms. All straight to the large one: 1 + 4 + 20 + 0.5 − 1 ms."""
    small = play(pieces(CORES, [False], router_hold_s=0.0), np.zeros(1), runs=1, seed=0)
    large = play(
        pieces(CORES, [False], router_hold_s=0.0, direct_share=1.0), np.zeros(1), runs=1, seed=0
    )

    assert small.e2e_s[0, 0] == pytest.approx(0.0095)
    assert large.e2e_s[0, 0] == pytest.approx(0.0245)


def test_the_http_of_one_request_goes_on_beside_the_engine_of_another() -> None:
    """Two at once with cores enough: the second waits for 1 ms of HTTP and is then behind the first
    at the engine for 6 − 1 ms: it leaves 6 ms later. In one queue of 8 ms it would be 8."""
    cores = replace(CORES, client_s=1e-12, records_s=0.0, rest_s=0.0)
    played = play(pieces(cores, [False], router_hold_s=0.0), np.zeros(2), runs=1, seed=0)

    assert sorted(played.e2e_s[0].tolist()) == pytest.approx([0.008, 0.014])


def test_fewer_cores_make_a_burst_slower() -> None:
    few = replace(CORES, machine=ONE_CORE, records_s=0.001)
    many = replace(CORES, records_s=0.001)
    sent = np.cumsum(np.random.default_rng(1).standard_exponential(300)) / 30
    rows = [False, False, False, True]

    slow = play(pieces(few, rows), sent, runs=2, seed=0).e2e_s
    fast = play(pieces(many, rows), sent, runs=2, seed=0).e2e_s

    assert (slow >= fast - 1e-12).all()
    assert np.quantile(slow, 0.95) > 1.2 * np.quantile(fast, 0.95)
