"""What was wrong in a projection: measured pieces swapped in, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.trial.choice import PairedRows, ThresholdChoice
from advisor.trial.endpoints import Endpoint
from advisor.trial.projecting.calibration import EndpointCalibration
from advisor.trial.projecting.expectation import Expectation, RouterCost
from advisor.trial.projecting.rehearsal import Observed
from advisor.trial.projecting.service import MeasuredService
from advisor.trial.records import RequestRecord
from advisor.trial.reporting.comparing import UnderLoad, attributions
from advisor.trial.reporting.report import Attribution
from advisor.trial.watching.server_metrics import ServerFigures

ROWS = 20
SENT_S = np.arange(float(ROWS))
"""So far apart that nothing waits."""


def calibration(role: str) -> EndpointCalibration:
    """10 ms a request one at a time, 2 ms of them core time, half of it the engine's."""
    records = tuple(
        RequestRecord(
            number=n, row_id=f"row-{n}", scheduled_s=None, status="completed", sent_s=float(n),
            first_token_s=n + 0.005, last_token_s=n + 0.010, end_s=n + 0.010,
            output_tokens=5, confidence=0.9, correct=1.0, gate="",
        )
        for n in range(ROWS)
    )  # fmt: skip
    return EndpointCalibration(
        Endpoint(role, "http://127.0.0.1:9/v1", role, queue="fifo"),  # type: ignore[arg-type]
        records,
        MeasuredService.one_at_a_time(1.0),
        0.0,
        ServerFigures(
            requests=ROWS, busy_s=0.001, queue_s=None, ttft_s=None, e2e_s=None, cpu_s=0.002
        ),
    )


def wrong(seen: UnderLoad, pace: float = 1.0) -> dict[str, Attribution]:
    """Attributions by piece. Everything runs here: 1 ms of the sender, 2 ms of the router and 2 ms
    of the small model's server are work, and 5 ms of the 10 pass besides."""
    rehearsal = Observed(
        sent_s=SENT_S, e2e_s=np.full(ROWS, 0.010), up=np.zeros(ROWS, dtype=bool), client_s=0.001,
        records_s=0.001, router_s=0.002, servers_s={"slm": 0.002}, speeds={"slm": 1.0}, pace=pace,
    )  # fmt: skip
    slm, llm = calibration("slm"), calibration("llm")
    expected = Expectation(
        slm,
        llm,
        PairedRows(slm.alone, llm.alone),
        ThresholdChoice(
            threshold=0.5, certified=False, basis="", rows=ROWS, escalation_rate=0.0, quality=1.0
        ),
        RouterCost(hold_s=0.002, accepted_s=0.002, escalated_s=0.0, sustainable_per_s=50.0),
        direct_share=0.0,
        seed=0,
        alone={"router": rehearsal},
        rehearsals={"router": rehearsal},
    )
    return {one.piece: one for one in attributions(expected, SENT_S.tolist(), seen)}


def under_load(**given: float) -> UnderLoad:
    nothing = dict.fromkeys(
        ("small_speed", "large_speed", "router_hold_s", "escalation_rate", "output_tokens", "pace")
    )
    return UnderLoad(**{**nothing, "sent_s": SENT_S.tolist(), **given})  # type: ignore[arg-type]


def test_an_engine_of_half_the_speed_adds_its_work_once_more() -> None:
    """1 ms of the small model's engine becomes 2."""
    found = wrong(under_load(small_speed=2.0))["speed of the small model's engine"]

    assert found.e2e_p95_ms == pytest.approx(11.0, abs=0.01)
    assert found.change_ms == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("rehearsed", "then", "more_ms"), [(1.0, 0.5, 5.0), (0.8, 0.64, 1.25)])
def test_cores_that_others_took_slow_down_all_that_is_work(
    rehearsed: float, then: float, more_ms: float
) -> None:
    """5 ms of the 10 are work: on half of the cores they take 10, on four fifths 6.25."""
    found = wrong(under_load(pace=then), rehearsed)["other work on this machine"]

    assert found.change_ms == pytest.approx(more_ms, abs=0.01)
    assert found.measured_as == f"{100 * (1 - then):.0f} %"


def test_a_load_that_ended_early_is_called_the_beginning_of_its_schedule() -> None:
    part = under_load()
    found = wrong(UnderLoad(**{**vars(part), "sent_s": SENT_S[:5].tolist()}))["times of sending"]

    assert found.measured_as == "0.0 ms late on average, the first 5 of 20"
    assert found.change_ms == pytest.approx(0.0, abs=0.01)
