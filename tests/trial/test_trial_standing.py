"""A killed trial: judged as it stands, or gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoint_fake import serving
from trial_pair import (
    colour_rows,
    colour_task,
    large_answer,
    large_endpoint,
    pair_of,
    small_endpoint,
)

from advisor.errors import InputError
from advisor.trial.progress import progress_of
from advisor.trial.projecting.projection import Figure, LoadProjection
from advisor.trial.records import RequestRecord
from advisor.trial.reporting.report import LoadReport, TrialSettings
from advisor.trial.resume import resume_trial
from advisor.trial.run import run_trial
from advisor.trial.standing import judge_as_it_stands
from advisor.trial.store import TrialStore

COUNT = 100


def settings(**changes: Any) -> dict[str, Any]:
    given = TrialSettings(
        sandbox=False, engine=None, slm="small", llm="large", policy="cascade", data="rows.jsonl",
        requests=COUNT, rate_per_s=10.0, load=None, arrivals="Poisson", budget_usd=None,
        early_stop=True, seed=0,
    )  # fmt: skip
    return given.model_copy(update=changes).model_dump(mode="json")


def projection() -> LoadProjection:
    near = Figure(value=50.0, low=40.0, high=60.0)
    share = Figure(value=0.1, low=0.05, high=0.15)
    return LoadProjection(
        requests=COUNT, ttft_p95_ms=near, tpot_p95_ms=None, e2e_p50_ms=near, e2e_p95_ms=near,
        escalation_rate=share, quality=share,
    )  # fmt: skip


def half_done(store: TrialStore, answered: int = 60) -> str:
    """A trial whose process went away after 60 of 100 answers of 50 ms, a tenth handed up."""
    trial = store.begin("colours", settings())
    store.put_document(trial, "task", colour_task().to_mapping())
    load = LoadReport(requests=COUNT, rate_per_s=10, sustainable_rate_per_s=40, share=0.25)
    arms = {"router": projection().model_dump(mode="json")}
    store.put_document(trial, "projection", {"load": load.model_dump(mode="json"), "arms": arms})
    planned = [RequestRecord(n, f"row-{n}", n / 10) for n in range(COUNT)]
    store.plan(trial, "router", planned)
    store.begin_arm(trial, "router", 1000.0)
    store.record(
        trial,
        "router",
        [
            replace(
                one, status="completed", sent_s=n / 10, first_token_s=n / 10 + 0.05,
                last_token_s=n / 10 + 0.05, end_s=n / 10 + 0.05, correct=1.0, cost_usd=0.01,
                route="llm" if n % 10 == 0 else "slm",
                reason="low_confidence" if n % 10 == 0 else "accepted",
            )
            for n, one in enumerate(planned[:answered])
        ],
    )  # fmt: skip
    return trial


def test_progress_is_read_from_the_records_while_they_come(tmp_path: Path) -> None:
    with TrialStore(tmp_path / "t.sqlite") as store:
        found = progress_of(store, half_done(store))

    assert (found.counts.completed, found.counts.planned) == (60, 40)
    assert found.share == pytest.approx(0.6)
    assert (found.lasts_s, found.now_s) == (pytest.approx(9.9), pytest.approx(5.95))
    assert found.escalation[-1].value == pytest.approx(0.1)
    assert found.escalation[-1].low < 0.1 < found.escalation[-1].high
    assert found.quality[-1].value == 1.0
    assert found.cost_usd[-1][1] == pytest.approx(0.6)
    assert {point.route for point in found.latencies} == {"small model", "large model"}
    assert max(count for _, count in found.in_flight) <= 1
    assert found.projection == projection()


def test_a_killed_trial_is_judged_as_it_stands(tmp_path: Path) -> None:
    with TrialStore(tmp_path / "t.sqlite") as store:
        trial = half_done(store)
        with pytest.raises(InputError, match="is running"):
            judge_as_it_stands(store, trial)
        store.finish(trial, "interrupted", "killed")
        report = judge_as_it_stands(store, trial)
        assert store.document(trial, "report") is not None

    states = {verdict.measure: verdict.state for verdict in report.verdicts}
    assert states == {"quality": "held", "e2e_p95_ms": "held", "escalation_rate": "held"}
    assert report.measurements["router"].requests.cancelled == 40
    compared = {one.measure: one for one in report.comparisons}
    assert compared["e2e_p95_ms"].inside
    assert compared["e2e_p95_ms"].error == pytest.approx(0.0, abs=1e-6)
    assert not compared["quality"].inside


def test_what_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with TrialStore(path) as store:
        trial = half_done(store)
        store.finish(trial, "interrupted", "killed")
    with pytest.raises(InputError, match="before its load began: start it anew"):
        resume_trial(trial, records=path)
    with pytest.raises(InputError, match="no trial nothing"):
        resume_trial("nothing", records=path)


@pytest.mark.live
def test_a_trial_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """Of a whole trial, the last 40 records are put back to what a killed one leaves."""
    path, data = tmp_path / "t.sqlite", tmp_path / "rows.jsonl"
    data.write_text(
        "\n".join(
            json.dumps({"id": row.id, "input": row.text, "expected": row.expected})
            for row in colour_rows(150)
        )
    )
    with serving(small_endpoint()) as small, serving(large_endpoint()) as large:
        slm, llm = pair_of(small, large)
        report = run_trial(
            colour_task(), slm=slm, llm=llm, data=data, rate_per_s=40.0, requests=80,
            early_stop=False, records=path,
        )  # fmt: skip
        with TrialStore(path) as store:
            before = store.requests(report.trial, "router")
            store._connection.execute(
                "UPDATE request SET status = 'cancelled', sent_s = NULL, first_token_s = NULL, "
                "last_token_s = NULL, end_s = NULL, correct = NULL, answer = NULL, route = NULL "
                "WHERE trial = ? AND arm = 'router' AND number >= 40",
                (report.trial,),
            )
        again = resume_trial(report.trial, records=path)
        with TrialStore(path) as store:
            after = store.requests(report.trial, "router")
            assert store.summary(report.trial).state == "finished"

    assert after[:40] == before[:40]
    assert all(record.status == "completed" for record in after)
    assert all((record.send_lag_s or 0) >= 0 for record in after)
    rows = {row.id: row for row in colour_rows(150)}
    assert all(record.answer == large_answer(rows[record.row_id].text) for record in after)
    assert again.measurements["router"].requests.completed == 80
