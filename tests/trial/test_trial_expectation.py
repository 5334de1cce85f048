"""From calibration and rehearsal to a projection: what spinning servers cost, how streams come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from advisor.trial.choice import PairedRows, ThresholdChoice
from advisor.trial.endpoints import Endpoint
from advisor.trial.judging import Price
from advisor.trial.projecting.calibration import EndpointCalibration
from advisor.trial.projecting.expectation import Expectation, RouterCost
from advisor.trial.projecting.rehearsal import Observed
from advisor.trial.projecting.service import MeasuredService, Queue
from advisor.trial.records import RequestRecord

ROWS = 40


def answered(role: str) -> tuple[RequestRecord, ...]:
    """One request at a time, 10 ms of the small model and 40 ms of the large one, 5 tokens each,
    the first after half of that; every other small answer is unsure."""
    lasts_s = 0.010 if role == "slm" else 0.040
    return tuple(
        RequestRecord(
            number=n, row_id=f"row-{n}", scheduled_s=None, status="completed", sent_s=float(n),
            first_token_s=n + lasts_s / 2, last_token_s=n + lasts_s, end_s=n + lasts_s,
            output_tokens=5, confidence=0.1 if n % 2 else 0.9, correct=1.0, gate="",
        )
        for n in range(ROWS)
    )  # fmt: skip


def calibrated(role: str, queue: Queue, usd: float) -> EndpointCalibration:
    flat = np.ones(2)
    service = (
        MeasuredService.one_at_a_time(1.0)
        if queue == "fifo"
        else MeasuredService("sharing", 1.0, np.array([1.0, 100.0]), flat)
    )
    endpoint = Endpoint(
        role,  # type: ignore[arg-type]
        "http://192.0.2.1/v1",
        role,
        queue=queue,
        price=Price(usd_per_request=usd),
    )
    return EndpointCalibration(endpoint, answered(role), service, 0.02, None)


def expectation(queue: Queue, rehearsal: Observed | None) -> Expectation:
    slm, llm = calibrated("slm", queue, 1.0), calibrated("llm", queue, 10.0)
    return Expectation(
        slm,
        llm,
        PairedRows(slm.alone, llm.alone),
        ThresholdChoice(
            threshold=0.5, certified=False, basis="", rows=ROWS, escalation_rate=0.5, quality=1.0
        ),
        RouterCost(hold_s=0.0, accepted_s=0.001, escalated_s=0.001, sustainable_per_s=50.0),
        direct_share=0.0,
        seed=0,
        paid_by_time=True,
        rehearsals={} if rehearsal is None else {"router": rehearsal},
    )


def rehearsed(up_share: float, tpot_s: list[float]) -> Observed:
    """As calibrated, but the large model's server used four times the core a request."""
    up = np.arange(ROWS) < up_share * ROWS
    return Observed(
        sent_s=np.arange(float(ROWS)),
        e2e_s=np.where(up, 0.052, 0.011),
        up=up,
        tpot_s=np.array(tpot_s),
        speeds={"slm": 1.0, "llm": 4.0},
    )


@pytest.mark.parametrize(
    ("queue", "usd"),
    # $1 each, and half of them $10 more. Busy for its requests alone: 4 times as much of each of
    # these. Spinning: what the rehearsal's quarter cost, 4 · $10 · 0.25, is what the half will.
    [("fifo", 1 + 0.5 * 40), ("sharing", 1 + 0.25 * 40)],
)
def test_what_spins_costs_by_the_second_and_not_by_the_request(queue: Queue, usd: float) -> None:
    cost = expectation(queue, rehearsed(0.25, [])).cascade(np.arange(200.0).tolist())

    assert cost.cost_usd_per_request is not None
    assert cost.cost_usd_per_request.value == pytest.approx(usd)
    as_calibrated = expectation(queue, None).cascade(np.arange(200.0).tolist())
    assert as_calibrated.cost_usd_per_request is not None
    assert as_calibrated.cost_usd_per_request.value == pytest.approx(1 + 0.5 * 10)


def test_streams_come_as_rehearsed_and_where_few_did_as_one_at_a_time() -> None:
    """Alone 5 ms a token. Rehearsed 30 times at 8 ms: 8. Rehearsed 10 times at 8 ms, which is too
    few, and 20 times alone through the router at 6 ms: of both together the p95 is 8 and half of
    them are 6; rehearsed 10 times and nothing besides: as alone."""
    sent_s = np.arange(200.0).tolist()

    def tpot_ms(told: Expectation) -> float:
        found = told.cascade(sent_s).tpot_p95_ms
        assert found is not None
        return found.value

    enough = expectation("sharing", rehearsed(0.5, [0.008] * 30))
    few = expectation("sharing", rehearsed(0.5, [0.008] * 10))
    both = replace(few, alone={"router": rehearsed(0.5, [0.006] * 20)})

    assert tpot_ms(enough) == pytest.approx(8.0)
    assert tpot_ms(both) == pytest.approx(8.0)
    assert both.pieces.tpot_s is not None
    assert np.median(both.pieces.tpot_s) == pytest.approx(0.006)
    assert tpot_ms(few) == pytest.approx(5.0, rel=0.1)
