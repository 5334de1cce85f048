"""The projection of a trial from measured pieces: by hand, against theory, and against itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trial_pair import colour_task

from advisor.trial.choice import PairedRows, choose_threshold
from advisor.trial.projecting.cascade import Pieces, Rows, Stalls, play, speeds, without_stalls
from advisor.trial.projecting.expectation import router_cost
from advisor.trial.projecting.projection import p95_ms, resampled, summarize
from advisor.trial.projecting.service import MeasuredService
from advisor.trial.records import RequestRecord

ONE_AT_A_TIME = MeasuredService.one_at_a_time(1.0)


def rows(escalate: list[bool], small_s: float = 0.010, large_s: float = 0.030) -> Rows:
    count = len(escalate)
    return Rows(
        small_s=np.full(count, small_s),
        large_first_s=np.full(count, large_s / 2),
        large_s=np.full(count, large_s),
        large_tokens=np.full(count, 4),
        escalate=np.array(escalate),
    )


def pieces(escalate: list[bool], **given: float) -> Pieces:
    return Pieces(rows(escalate), ONE_AT_A_TIME, ONE_AT_A_TIME, **given)


def test_one_request_by_hand() -> None:
    """Accepted: 1 ms of the router's core, 2 ms of its delay, 10 ms of the small model: 13 ms, all
    of it before anything is shown. Handed up: 4 ms and 30 ms more; its first token comes half of
    the large model's time before its last, and 3 gaps share that half."""
    router = {"router_hold_s": 0.001, "router_delay_s": 0.002, "router_delay_up_s": 0.003}

    kept = play(pieces([False], **router), np.zeros(1), runs=1, seed=0)
    up = play(pieces([True], **router), np.zeros(1), runs=1, seed=0)

    assert kept.e2e_s[0, 0] == pytest.approx(0.013)
    assert kept.ttft_s[0, 0] == pytest.approx(0.013)
    assert kept.tpot_s[0, 0] == 0
    assert up.e2e_s[0, 0] == pytest.approx(0.013 + 0.003 + 0.030)
    assert up.e2e_s[0, 0] - up.ttft_s[0, 0] == pytest.approx(0.015)
    assert up.tpot_s[0, 0] == pytest.approx(0.005)


def test_tokens_are_as_far_apart_as_in_the_rehearsal() -> None:
    """Three gaps of 1 ms each, whatever they took alone; E2E does not hang on it. Where one of
    twenty streams, the time per token is that one's: the others are released whole."""
    alone = pieces([True])
    rehearsed = replace(alone, tpot_s=np.array([0.001]))

    up = play(rehearsed, np.zeros(1), runs=1, seed=0)

    assert up.tpot_s[0, 0] == pytest.approx(0.001)
    assert up.e2e_s[0, 0] - up.ttft_s[0, 0] == pytest.approx(0.003)
    assert up.e2e_s == pytest.approx(play(alone, np.zeros(1), runs=1, seed=0).e2e_s)
    mostly_kept = replace(rehearsed, rows=rows([True] + [False] * 19))
    found = summarize(play(mostly_kept, np.arange(200.0), runs=5, seed=0), cascade=True)
    assert found.tpot_p95_ms is not None
    assert found.tpot_p95_ms.value == pytest.approx(1.0)
    none = summarize(play(pieces([False]), np.arange(9.0), runs=2, seed=0), cascade=True)
    assert none.tpot_p95_ms is None


def test_what_goes_straight_up_leaves_the_small_model_alone() -> None:
    """All of it direct: the large model alone, whatever the small one takes."""
    direct = play(
        replace(pieces([True], direct_share=1.0), rows=rows([True], small_s=9.0)),
        np.zeros(1),
        runs=1,
        seed=0,
    )

    assert direct.e2e_s[0, 0] == pytest.approx(0.030)
    assert direct.escalation_rate[0] == 0


def test_escalations_queue_at_the_large_model() -> None:
    """Three at once, all handed up: they leave the small model 10 ms apart and wait for the large
    one: 40, 70 and 100 ms."""
    played = play(pieces([True]), np.zeros(3), runs=1, seed=0)

    assert sorted(played.e2e_s[0].tolist()) == pytest.approx([0.040, 0.070, 0.100])


def test_a_queue_of_random_arrivals_is_pollaczek_and_khinchine() -> None:
    """M/D/1 at 60 %: mean wait ρ·s/(2(1 − ρ)) = 0.75·s."""
    rng = np.random.default_rng(2)
    sent = np.cumsum(rng.standard_exponential(40_000)) / 60
    played = play(pieces([False]), sent, runs=2, seed=0)

    assert played.e2e_s.mean() == pytest.approx(0.0175, rel=0.05)


def test_the_spread_of_the_runs_holds_what_few_rows_leave_open() -> None:
    """Escalation of 10 rows of 100: the 90 % interval of 1,000 new requests is that of the share
    itself, about ±1.645·sqrt(0.09·(1/100 + 1/1000))."""
    played = play(pieces([True] * 10 + [False] * 90), np.arange(1000.0), runs=400, seed=1)
    found = summarize(played, cascade=True).escalation_rate

    assert found is not None
    half = 1.645 * np.sqrt(0.1 * 0.9 * (1 / 100 + 1 / 1000))
    assert found.value == pytest.approx(0.1, abs=0.01)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    mean = resampled(np.array([1.0] * 10 + [0.0] * 90), count=1000, seed=0)
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.2)


def test_an_unsteady_machine_widens_the_interval() -> None:
    sent = np.arange(200.0)
    steady = play(pieces([False]), sent, runs=200, seed=3)
    unsteady = play(pieces([False], speed_log_sd=0.2), sent, runs=200, seed=3)

    found = p95_ms(unsteady.e2e_s)
    assert p95_ms(steady.e2e_s).high == pytest.approx(10.0)
    assert found.low == pytest.approx(10 * np.exp(-1.645 * 0.2), rel=0.1)
    assert found.high == pytest.approx(10 * np.exp(1.645 * 0.2), rel=0.1)


def answer(
    number: int, *, correct: float | None, confidence: float = 0.9, gate: str = ""
) -> RequestRecord:
    return RequestRecord(
        number=number, row_id=str(number), scheduled_s=None, status="completed", sent_s=0.0,
        first_token_s=0.01, last_token_s=0.01, correct=correct, confidence=confidence, gate=gate,
    )  # fmt: skip


def test_the_threshold_is_certified_where_the_labels_allow_it() -> None:
    """200 rows; the small model is wrong on 20 of them, and unsure of exactly those."""
    small = [
        answer(n, correct=float(n % 10 != 0), confidence=0.3 if n % 10 == 0 else 0.95)
        for n in range(200)
    ]
    paired = PairedRows(small, [answer(n, correct=1.0) for n in range(200)])

    found = choose_threshold(paired, colour_task())

    assert found.certified
    assert 0.3 < found.threshold <= 0.95
    assert (found.escalation_rate, found.quality) == (0.1, 1.0)
    assert found.basis.startswith("certified: quality of at least 90 %")


def test_where_nothing_is_certified_the_choice_says_so() -> None:
    small = [answer(n, correct=float(n % 2), confidence=0.5) for n in range(40)]
    paired = PairedRows(small, [answer(n, correct=float(n % 2)) for n in range(40)])

    found = choose_threshold(paired, colour_task())

    assert not found.certified
    assert "not certified" in found.basis
    assert "comes nearest to" in found.basis


def test_without_labels_half_of_the_allowed_escalation_is_planned_for() -> None:
    small = [answer(n, correct=None, confidence=n / 100) for n in range(100)]
    paired = PairedRows(small, [answer(n, correct=None) for n in range(100)])

    found = choose_threshold(paired, colour_task())

    assert not paired.is_labelled
    assert found.quality is None
    assert found.escalation_rate == pytest.approx(0.1, abs=0.011)


def test_a_failed_gate_is_handed_up_whatever_the_confidence() -> None:
    small = [answer(0, correct=1.0, confidence=0.99, gate="schema"), answer(1, correct=1.0)]
    paired = PairedRows(small, [answer(0, correct=1.0), answer(1, correct=1.0)])

    assert paired.escalated(0.0).tolist() == [True, False]


def timed(number: int, e2e_s: float, route: str | None = None) -> RequestRecord:
    return RequestRecord(
        number=number, row_id=str(number), scheduled_s=None, status="completed", sent_s=0.0,
        last_token_s=e2e_s, first_token_s=e2e_s, route=route, confidence=0.5,
    )  # fmt: skip


def test_the_router_costs_what_the_same_rows_take_longer_through_it() -> None:
    """Accepted: 12 ms through it, 10 ms directly: 2 ms. Handed up: 47 ms against 10 + 30 ms: 7 ms,
    5 more than an accepted one. 1.5 ms of core time are part of the 2 ms."""
    small = [timed(n, 0.010) for n in range(4)]
    large = [timed(n, 0.030) for n in range(4)]
    through = [timed(0, 0.012, "slm"), timed(1, 0.012, "slm"), timed(2, 0.047, "llm")]

    found = router_cost(through, small=small, large=large, cpu_s=0.0015, sustainable_per_s=50.0)

    assert (found.accepted_s, found.escalated_s) == pytest.approx((0.002, 0.005))
    assert found.hold_s == 0.0015


def test_a_stall_holds_everything_that_is_under_way() -> None:
    """A machine that stands still for 0.1 s about once in a second: of answers that take 10 ms, a
    tenth of a second of 1.1 is within a stall, and 0.01 of it just before one."""
    stalls = Stalls(1.0, np.array([0.1]))
    sent = np.arange(4000) * 0.5
    played = play(replace(pieces([False]), stalls=stalls), sent, runs=4, seed=0)

    slow = played.e2e_s > 0.0101
    assert slow.mean() == pytest.approx(0.11 / 1.1, abs=0.02)
    assert played.e2e_s[~slow] == pytest.approx(0.010, abs=0.0001)
    assert played.e2e_s.max() >= 0.1
    clean, durations = without_stalls(np.array([0.01, 0.01, 0.01, 0.2]))
    assert clean.tolist() == [0.01] * 4
    assert durations.tolist() == pytest.approx([0.19])


def test_speeds_are_drawn_evenly() -> None:
    """However few the runs, half of them are slower than the calibration and half quicker."""
    drawn = speeds(np.random.default_rng(0), 0.2, 100)

    assert np.median(drawn) == pytest.approx(1.0, abs=0.001)
    assert (drawn > 1).sum() == 50
    assert np.log(drawn).std() == pytest.approx(0.2, rel=0.02)
