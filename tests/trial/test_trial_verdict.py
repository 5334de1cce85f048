"""Held, failed, undecided: by hand, and how often a verdict is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trial_pair import colour_task

from advisor.trial.records import Counts, RequestRecord
from advisor.trial.reporting.early import CERTAIN, EarlyStop, ShareTest
from advisor.trial.reporting.measured import (
    Measured,
    effective_count,
    lag_of,
    measure,
    p95_of,
    quality_of,
)
from advisor.trial.reporting.verdict import (
    cost_verdict,
    escalation_verdict,
    latency_verdict,
    quality_verdict,
    summary_of,
    verdicts,
)

TASK = colour_task()


def record(
    number: int,
    *,
    correct: float | None = 1.0,
    e2e_s: float = 0.01,
    route: str = "slm",
    reason: str = "accepted",
    status: str = "completed",
    cost_usd: float | None = None,
) -> RequestRecord:
    answered = status == "completed"
    return RequestRecord(
        number=number,
        row_id=f"row-{number}",
        scheduled_s=number / 10,
        status=status,  # type: ignore[arg-type]
        sent_s=number / 10,
        first_token_s=number / 10 + e2e_s if answered else None,
        last_token_s=number / 10 + e2e_s if answered else None,
        output_tokens=1,
        route=route,
        reason=reason,
        correct=correct if answered or correct is None or status == "cancelled" else 0.0,
        cost_usd=cost_usd,
    )


def escalated(number: int) -> RequestRecord:
    return record(number, route="llm", reason="low_confidence")


def test_quality_is_held_where_the_exact_lower_bound_reaches_the_target() -> None:
    """Target 0.9 at 95 %: 29 of 29 right have a lower bound of 0.05^(1/29) = 0.9019, 28 of 28 one
    of 0.8985; 0.95^n > 0.05 would be target 0.95 and n = 59."""
    enough = quality_verdict(TASK, [record(n) for n in range(29)])
    short = quality_verdict(TASK, [record(n) for n in range(28)])

    assert (enough.state, short.state) == ("held", "undecided")
    assert short.more_requests == 1
    assert enough.measured is not None
    assert enough.measured.low == pytest.approx(0.05 ** (1 / 29))


def test_quality_fails_where_the_upper_bound_is_below_the_target() -> None:
    records = [record(n, correct=float(n % 2)) for n in range(40)]

    assert quality_verdict(TASK, records).state == "failed"


def test_no_answer_is_no_right_answer_and_what_was_cancelled_was_not_tried() -> None:
    records = [record(0), record(1, status="failed"), record(2, status="timed_out"),
               record(3, status="cancelled")]  # fmt: skip

    quality, rows = quality_of(records)

    assert rows == 3
    assert quality is not None
    assert quality.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("status", ["failed", "timed_out"])
def test_where_nothing_was_answered_every_promise_of_an_answer_is_broken(status: str) -> None:
    """60 requests, no answer: quality is 0 of 60 and every latency bound is exceeded 60 times. What
    the small model would have escalated, and what answers would have cost, nobody knows."""
    task = colour_task(**{"constraints.budget_usd_per_month": 100})
    records = [record(n, status=status) for n in range(60)]

    found = {one.measure: one for one in verdicts(task, records)}

    assert {name: one.state for name, one in found.items()} == {
        "quality": "failed", "e2e_p95_ms": "failed", "escalation_rate": "undecided",
        "cost_usd_per_month": "undecided",
    }  # fmt: skip
    assert found["quality"].measured is not None
    assert found["quality"].measured.value == 0.0
    assert found["e2e_p95_ms"].measured is None
    assert found["e2e_p95_ms"].basis == "60 of 60 requests exceed it"
    assert found["escalation_rate"].basis == "the small model answered nothing"
    assert found["cost_usd_per_month"].basis == "nothing was answered"
    line = summary_of(list(found.values()), disturbed="it rained", invalid="late")
    assert line == "requirements: 0 held, 2 failed, 2 undecided; it rained; invalid: late"


def test_a_few_right_answers_among_failures_hold_nothing() -> None:
    """Three answers, right and quick, of 60: 5 % right, and 57 beyond every latency bound."""
    records = [record(n, status="completed" if n < 3 else "failed") for n in range(60)]

    states = {one.measure: one.state for one in verdicts(TASK, records)}

    assert (states["quality"], states["e2e_p95_ms"]) == ("failed", "failed")
    assert states["escalation_rate"] == "undecided"


def test_what_was_cancelled_decides_nothing() -> None:
    found = verdicts(TASK, [record(n, status="cancelled") for n in range(60)])

    assert {one.state for one in found} == {"undecided"}
    assert found[0].basis == "nothing was tried"
    assert summary_of(found) == "nothing was measured"


def test_of_rows_without_labels_failures_say_nothing_of_quality() -> None:
    """Half of the rows are labelled: those that failed without a label are in no accuracy."""
    labelled = [record(n) for n in range(5)] + [record(5, status="failed")]
    others = [record(n, correct=None, status="failed") for n in range(6, 30)]

    quality, rows = quality_of([*labelled, *others])

    assert rows == 6
    assert quality is not None
    assert quality.value == pytest.approx(5 / 6)


def test_a_row_asked_twice_counts_once() -> None:
    again = [record(0), record(1, correct=0.0)] + [record(0) for _ in range(50)]

    quality, rows = quality_of(again)

    assert (rows, quality and quality.value) == (2, 0.5)


def test_without_labels_nothing_is_said_of_quality() -> None:
    verdict = quality_verdict(TASK, [record(n, correct=None) for n in range(10)])

    assert (verdict.state, verdict.measured) == ("undecided", None)
    assert verdict.basis == "no row says what is expected"


def test_a_latency_bound_is_a_share_of_at_most_five_percent() -> None:
    """0 of 59 beyond: P(none of 59 | 5 %) = 0.95^59 = 0.0485, so it is held; of 58 it is not."""

    def verdict(count: int, slow: int = 0) -> str:
        records = [record(n, e2e_s=3.0 if n < slow else 0.01) for n in range(count)]
        found = latency_verdict("e2e_p95_ms", 2000, records, confidence=0.95)
        return found.state

    assert (verdict(59), verdict(58)) == ("held", "undecided")
    assert verdict(60, slow=12) == "failed"


def test_an_answer_that_does_not_stream_exceeds_no_time_per_token() -> None:
    """Of 100, 4 stream at 90 ms a token: within the 5 % that may be beyond 50 ms, whatever the
    figure of those that stream."""
    records = [record(n) for n in range(100)]
    for n in range(4):
        one = records[n]
        assert one.first_token_s is not None
        records[n] = replace(one, output_tokens=11, last_token_s=one.first_token_s + 0.9)

    verdict = latency_verdict("tpot_p95_ms", 50, records, confidence=0.95)

    assert verdict.state == "undecided"
    assert verdict.basis == "4 of 100 requests exceed it; 96 do not stream"
    assert verdict.measured is not None
    assert verdict.measured.value == pytest.approx(90)
    still = latency_verdict("tpot_p95_ms", 50, records[4:], confidence=0.95)
    assert (still.state, still.measured) == ("held", None)


def test_failures_exceed_every_latency_bound() -> None:
    records = [record(n, status="failed" if n % 5 == 0 else "completed") for n in range(100)]

    verdict = latency_verdict("e2e_p95_ms", 2000, records, confidence=0.95)

    assert verdict.state == "failed"
    assert verdict.basis.startswith("20 of 100 requests exceed it")


def test_neighbours_that_hang_together_count_as_fewer() -> None:
    """One batch of 16 that is beyond as a whole: p = 1/16 over all, p_b is 1 once and 0 else.
    Variance of p_b: (1 − 1/16)/15·… = 1/16; independent batches of 20 would have p(1 − p)/20."""
    together = np.zeros(320, dtype=bool)
    together[:20] = True
    apart = np.zeros(320, dtype=bool)
    apart[::16] = True

    assert effective_count(together) == pytest.approx(320 / (1 / 16 / (15 / 256 / 20)), rel=1e-6)
    assert effective_count(apart) == 320
    assert effective_count(np.zeros(50, dtype=bool)) == 50


def test_escalation_is_judged_on_what_the_small_model_was_asked() -> None:
    """40 of 100 handed up, and 100 that were sent straight up by rule: 40 %, not 20 %."""
    asked = [escalated(n) if n < 40 else record(n) for n in range(100)]
    direct = [record(n, route="llm", reason="high_risk") for n in range(100, 200)]

    verdict = escalation_verdict(0.2, asked + direct, 0.95)

    assert verdict.state == "failed"
    assert verdict.measured is not None
    assert verdict.measured.value == pytest.approx(0.4)


def test_money_is_held_where_the_whole_interval_is_within_the_budget() -> None:
    def state(low: float, high: float) -> str:
        cost = Measured(value=(low + high) / 2, low=low, high=high)
        return cost_verdict(100.0, cost, requests_per_month=1e6).state

    assert state(0.00008, 0.00009) == "held"
    assert state(0.00009, 0.00011) == "undecided"
    assert state(0.00011, 0.00012) == "failed"
    assert cost_verdict(100.0, None, requests_per_month=1e6).state == "undecided"


def test_every_stated_requirement_has_a_verdict() -> None:
    task = colour_task(**{"constraints.budget_usd_per_month": 10, "latency.ttft_p95_ms": 500})

    found = verdicts(task, [record(n) for n in range(100)])

    assert [verdict.measure for verdict in found] == [
        "quality", "ttft_p95_ms", "e2e_p95_ms", "escalation_rate", "cost_usd_per_month",
    ]  # fmt: skip
    measures = [verdict.measure for verdict in verdicts(task, [], cascade=False)]
    assert "escalation_rate" not in measures


def test_an_arm_in_figures() -> None:
    records = [record(n, cost_usd=0.001) for n in range(90)] + [
        RequestRecord(**{**as_dict(escalated(n)), "cost_usd": 0.011}) for n in range(90, 100)
    ]

    found = measure("router", records, Counts(completed=100), cascade=True)

    assert found.escalation_rate is not None and found.cost_usd_per_request is not None
    assert found.escalation_rate.value == pytest.approx(0.1)
    assert found.cost_usd_per_request.value == pytest.approx(0.002)
    assert found.cost_usd_per_correct_answer == pytest.approx(0.002)
    assert found.escalation_causes == {"low_confidence": 10}
    assert found.rate_per_s == pytest.approx(10.0)
    assert found.lag is not None and found.lag.is_small


@pytest.mark.parametrize(("late_s", "valid"), [(0.0, True), (0.004, True), (0.006, False)])
def test_a_late_sender_is_judged_by_what_it_hides(late_s: float, valid: bool) -> None:
    """All take 100 ms from sending. One in ten is sent late: from when it was due it took longer,
    and with them the p95; up to 5 ms of that is 5 % of it."""
    records = [
        RequestRecord(
            number=n,
            row_id=str(n),
            status="completed",
            scheduled_s=float(n),
            sent_s=n + (late_s if n % 10 == 0 else 0.0),
            last_token_s=n + 0.1 + (late_s if n % 10 == 0 else 0.0),
        )
        for n in range(200)
    ]

    lag = lag_of(records, Measured(value=100.0, low=100.0, high=100.0))

    assert lag is not None
    assert lag.added_p95_ms == pytest.approx(1e3 * late_s)
    assert lag.limit_ms == pytest.approx(5.0)
    assert lag.is_small is valid
    assert bool(lag.why_invalid) is not valid


def as_dict(one: RequestRecord) -> dict[str, object]:
    return {name: getattr(one, name) for name in one.__slots__}


def test_the_interval_of_a_p95_holds_the_truth_nine_times_in_ten() -> None:
    rng = np.random.default_rng(5)
    truth = 1e3 * np.log(20)  # of the unit exponential, in milliseconds
    covered = 0
    for _ in range(400):
        found = p95_of(rng.standard_exponential(600).tolist())
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.86 <= covered / 400 <= 0.95


def test_a_trial_ends_early_only_when_every_requirement_is_decided() -> None:
    watch = EarlyStop.of_task(TASK, labelled=True, cascade=True)

    good = [watch([record(n)]) for n in range(3000)]
    ended = next(n for n, reason in enumerate(good) if reason)

    assert good[ended] == CERTAIN
    assert all(test.decided == "below" for test in watch.tests.values())
    assert ended > 100
    never = EarlyStop.of_task(TASK, labelled=True, cascade=True)
    edge = [never([record(n, correct=float(n % 10 != 0))]) for n in range(500)]
    assert not any(edge), "quality exactly at its target is not decided"


def test_the_error_of_looking_again_and_again_is_as_stated() -> None:
    """A share exactly at its bound, looked at after each of 2,000 requests: a decision is wrong in
    at most 5 % of the runs."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(120):
        test = ShareTest(bound=0.2, error=0.05)
        for happened in rng.random(2000) < 0.2:
            test.observe(bool(happened))
            if test.trials % 10 == 0:
                test.look()
        wrong += test.decided is not None
    assert wrong / 120 <= 0.05
