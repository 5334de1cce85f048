"""What is learned from a rehearsal: by hand, and by finding again what it was played with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from advisor.trial.load.driver import ArmResult, Used
from advisor.trial.projecting.cascade import Pieces, Rows, Stalls, play
from advisor.trial.projecting.rehearsal import (
    LEAST_EFFICIENCY,
    Observed,
    calm_ones,
    found_by_playing,
    observed,
    tail_s,
    typical,
)
from advisor.trial.projecting.service import MeasuredService
from advisor.trial.projecting.works import Works, on_cores, works_of
from advisor.trial.records import RequestRecord
from advisor.trial.reporting.report import LoadReport
from advisor.trial.watching.disturbance import CoreTime, wait_for_calm
from advisor.trial.watching.server_metrics import ServerFigures

ONE_AT_A_TIME = MeasuredService.one_at_a_time(1.0)

WORKS = Works(
    client_s=0.001, records_s=0.001, router_s=0.002, small_http_s=0.001, small_s=0.002,
    large_http_s=0.002, large_s=0.006,
)  # fmt: skip


def calibrated(escalate: list[bool]) -> Pieces:
    count = len(escalate)
    rows = Rows(
        small_s=np.linspace(0.002, 0.004, count),
        large_first_s=np.full(count, 0.004),
        large_s=np.full(count, 0.008),
        large_tokens=np.full(count, 4),
        escalate=np.array(escalate),
    )
    return Pieces(rows, ONE_AT_A_TIME, ONE_AT_A_TIME)


def record(number: int, e2e_s: float | None, route: str = "slm") -> RequestRecord:
    return RequestRecord(
        number=number, row_id=str(number), scheduled_s=0.0, sent_s=float(-number),
        last_token_s=None if e2e_s is None else e2e_s - number, route=route,
        status="failed" if e2e_s is None else "completed",
    )  # fmt: skip


def figures(*, busy_s: float, cpu_s: float) -> ServerFigures:
    return ServerFigures(
        requests=10, busy_s=busy_s, queue_s=None, ttft_s=None, e2e_s=None, cpu_s=cpu_s
    )


def test_core_seconds_are_shared_out_among_the_answers() -> None:
    """Two answers and a failure: 4 ms of the sender are 2 ms an answer. They are put into the order
    in which they were sent."""
    records = (record(0, 0.010), record(1, 0.030, "llm"), record(2, None))
    result = ArmResult(records, None, used=Used(sender_s=0.004, own_s=0.002))

    seen = observed(
        result, {"slm": figures(busy_s=0.002, cpu_s=0.003)}, router_s=0.006, speeds={"slm": 1.5}
    )

    assert seen.e2e_s.tolist() == pytest.approx([0.030, 0.010])
    assert seen.up.tolist() == [True, False]
    assert (seen.client_s, seen.records_s, seen.router_s) == pytest.approx((0.002, 0.001, 0.003))
    assert seen.servers_s == {"slm": 0.003}


def test_the_typical_rehearsal_is_the_one_with_the_middle_tail() -> None:
    """Of two it is the quicker one, and one without answers is none."""

    def taking(*e2e_s: float) -> Observed:
        return Observed(np.arange(len(e2e_s)), np.array(e2e_s), np.zeros(len(e2e_s), dtype=bool))

    quick, middle, slow, none = taking(0.1, 0.2), taking(0.3, 0.1), taking(0.1, 0.9), taking()

    assert typical([slow, quick, middle]) is middle
    assert typical([slow, none, quick]) is quick
    assert typical([slow]) is slow
    assert typical([none]) is none


def test_rehearsals_that_others_disturbed_are_left_out() -> None:
    one, other = (Observed(np.full(1, at), np.ones(1), np.zeros(1, dtype=bool)) for at in (0.0, 1))
    assert calm_ones([(1.0, one), (3.0, other)]) == [one, other]
    assert calm_ones([(40.0, one), (3.0, other)]) == [other]
    assert calm_ones([(40.0, one), (30.0, other)]) == [other]


def test_a_servers_core_time_is_divided_as_it_was_in_calibration() -> None:
    """Alone 2 of 4 ms were the engine's: of 6 ms under load, 3 are. The large one was not asked: it
    takes what it took."""
    seen = Observed(
        np.zeros(1), np.ones(1), np.zeros(1, dtype=bool), client_s=0.1, records_s=0.2,
        router_s=0.0, servers_s={"slm": 0.006},
    )  # fmt: skip
    small, large = figures(busy_s=0.002, cpu_s=0.004), figures(busy_s=0.006, cpu_s=0.008)

    found = works_of(seen, small, large)

    assert found is not None
    assert (found.small_http_s, found.small_s) == pytest.approx((0.003, 0.003))
    assert (found.large_http_s, found.large_s) == pytest.approx((0.002, 0.006))
    assert works_of(replace(seen, client_s=None), small, large) is None
    assert works_of(seen, small, None) is None


def test_what_answers_took_besides_the_works_is_not_work() -> None:
    """Kept: 6 ms of works, 6.5 ms measured. Handed up: 8 ms more of works, 7 ms more measured."""
    e2e_s = np.array([0.0065, 0.0065, 0.0135])
    seen = Observed(np.arange(3.0), e2e_s, np.array([False, False, True]))

    assert WORKS.rest_s(seen) == pytest.approx((0.0005, -0.001))
    all_up = replace(seen, up=np.ones(3, dtype=bool), e2e_s=np.full(3, 0.012))
    assert WORKS.rest_s(all_up) == pytest.approx((0.0, 0.001))


def test_rows_differ_as_they_did_alone_and_are_as_much_work_as_was_counted() -> None:
    found = on_cores(calibrated([False] * 5), WORKS, efficiency=0.9, rest_s=(0.0, 0.0))

    assert found.rows.small_s.mean() == pytest.approx(WORKS.small_s)
    assert found.rows.small_s[-1] / found.rows.small_s[0] == pytest.approx(2.0)
    assert found.rows.large_first_s / found.rows.large_s == pytest.approx([0.5] * 5)
    assert found.router_hold_s == WORKS.router_s


def test_the_efficiency_of_the_cores_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load played on two cores that lose a fifth is taken for one that was measured."""
    monkeypatch.setattr("advisor.trial.projecting.works.available_cores", lambda: 2)
    pieces = calibrated([False] * 9 + [True])
    sent_s = np.cumsum(np.random.default_rng(0).standard_exponential(1500)) / 120

    def at(efficiency: float) -> Pieces:
        return on_cores(pieces, WORKS, efficiency=efficiency, rest_s=(0.0, 0.0))

    truth = play(at(0.8), sent_s, runs=1, seed=5)
    seen = Observed(sent_s, truth.e2e_s[0], truth.escalated[0])

    found, beyond_s = found_by_playing(at, seen, quick=1.0, slow=LEAST_EFFICIENCY, seed=1)

    assert found == pytest.approx(0.8, abs=0.03)
    assert beyond_s == 0.0
    quicker = replace(seen, e2e_s=np.full(1500, 0.001))
    found, beyond_s = found_by_playing(at, quicker, quick=1.0, slow=LEAST_EFFICIENCY, seed=1)
    assert found == 1.0
    assert beyond_s < -0.004


def test_a_rehearsal_is_of_one_speed_of_the_machine() -> None:
    """Half again as slow, found again whatever speeds the machine may have in the load to come: a
    queue is slowed more by one run at 1.6 times the work than it is sped up by one at 0.6."""
    sent_s = np.cumsum(np.random.default_rng(0).standard_exponential(800)) / 100
    calm = calibrated([False] * 5)

    def slower(factor: float) -> Pieces:
        rows = replace(calm.rows, small_s=np.full(5, factor * 0.003))
        return replace(calm, rows=rows, speed_log_sd=0.5)

    truth = play(replace(slower(1.5), speed_log_sd=0.0), sent_s, runs=1, seed=5)
    seen = Observed(sent_s, truth.e2e_s[0], truth.escalated[0])

    found, _ = found_by_playing(slower, seen, quick=0.5, slow=4.0, seed=1)

    assert found == pytest.approx(1.5, rel=0.05)


def test_stalls_are_not_taken_for_slowness() -> None:
    """A machine at its usual speed that stood still for 20 ms twice a second: found is about its
    usual speed, for its stalls are played as well; without them it would be 1.3 times as slow."""
    sent_s = np.cumsum(np.random.default_rng(0).standard_exponential(4000)) / 100
    stalls = Stalls(2.0, np.full(1, 0.020))

    def slower(factor: float) -> Pieces:
        usual = calibrated([False] * 5)
        rows = replace(usual.rows, small_s=factor * usual.rows.small_s)
        return replace(usual, rows=rows, stalls=stalls)

    truth = play(slower(1.0), sent_s, runs=1, seed=5)
    seen = Observed(sent_s, truth.e2e_s[0], truth.escalated[0])

    found, _ = found_by_playing(slower, seen, quick=0.5, slow=4.0, seed=1)

    assert found == pytest.approx(1.0, abs=0.1)


def test_the_tail_is_compared_without_its_end() -> None:
    """Of 1 to 100 ms: 81 to 98 have a mean of 89.5; what the slowest two take does not matter."""
    e2e_s = np.arange(1, 101) / 1000
    stalled = np.where(e2e_s > 0.0985, 5.0, e2e_s)

    assert tail_s(e2e_s) == pytest.approx(0.0895)
    assert tail_s(stalled) == pytest.approx(0.0895)
    assert tail_s(np.array([0.01])) == 0.01


def test_what_others_took_is_neither_idle_nor_our_own() -> None:
    """Of 20 core-seconds 5 were idle and 12 our own: others took 3 of 20, and 3 of the 15 that were
    wanted."""
    before, after = CoreTime(100.0, 50.0, 10.0), CoreTime(120.0, 55.0, 22.0)

    assert after.taken_since(before) == pytest.approx(15.0)
    assert after.pace_since(before) == pytest.approx(0.8)
    assert before.pace_since(before) == 1.0
    assert before.taken_since(before) == 0.0
    assert CoreTime(120.0, 60.0, 30.0).taken_since(before) == 0.0


def test_waiting_for_calm_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look finds the machine busy, the second finds it calm."""
    looks = iter([CoreTime(0, 0, 0), CoreTime(2, 0, 0), CoreTime(4, 1.99, 0)])
    monkeypatch.setattr(CoreTime, "now", lambda: next(looks))
    monkeypatch.setattr("advisor.trial.watching.disturbance.LOOK_S", 0.0)

    assert wait_for_calm(60.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        (None, ""),
        (5.0, ""),
        (29.1, "other work on this machine took 29 % of its cores during the load"),
    ],
)
def test_much_other_work_is_told(taken: float | None, said: str) -> None:
    load = LoadReport(
        requests=1, rate_per_s=1.0, sustainable_rate_per_s=2.0, share=0.5, others_took=taken
    )
    assert load.disturbance == said
