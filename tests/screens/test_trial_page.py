"""The trial page without a browser: how a trial begins, what a past one shows, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from advisor.screens.sections.trial_worker import records as records_of_server
from advisor.task import TaskProfile
from advisor.trial.data import read_rows
from advisor.trial.importing import import_load
from advisor.trial.load.plan import LoadPlan, PlannedRequest
from advisor.trial.store import TrialStore

TASK = """
name: colours
task: {type: classification, output: label, labels: [red, green]}
quality: {metric: exact_match, threshold: 0.9}
latency: {e2e_p95_ms: 200}
traffic: {requests_per_day: 864000, input_tokens: 8, output_tokens: 1}
"""


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "trials.sqlite"
    monkeypatch.setenv("ADVISOR_TRIALS", str(path))
    records_of_server.clear()
    yield path
    records_of_server.clear()


def page() -> AppTest:
    app = AppTest.from_file("../../app.py", default_timeout=60)
    app.run()
    app.switch_page("advisor/screens/trial.py").run()
    assert not app.exception
    return app


def past_trial(path: Path, folder: Path) -> str:
    """A trial of 100 answered requests at 10 a second, one of ten handed up."""
    data = folder / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"input": f"say {n}", "expected": "red"})
                              for n in range(100)))  # fmt: skip
    rows = read_rows(data)
    plan = LoadPlan(
        "http://127.0.0.1:1/v1", "m",
        [PlannedRequest(n, row.id, {}, n / 10) for n, row in enumerate(rows)],
    )  # fmt: skip
    plan.write(folder / "plan.json")
    records = [
        {
            "number": n, "status": "completed", "answer": "red", "sent_s": n / 10,
            "first_token_s": n / 10 + 0.05, "last_token_s": n / 10 + 0.05, "end_s": n / 10 + 0.05,
            "route": "llm" if n % 10 == 0 else "slm", "cost_usd": 0.001,
            "reason": "low_confidence" if n % 10 == 0 else "accepted",
        }
        for n in range(100)
    ]  # fmt: skip
    (folder / "records-0.jsonl").write_text("\n".join(map(json.dumps, records)))
    with TrialStore(path) as store:
        return import_load(store, TaskProfile.from_yaml(TASK), rows, folder).trial


def test_a_newcomer_finds_the_sandbox_first(records: Path) -> None:
    app = page()

    assert app.title[0].value == "Live trial"
    assert app.header[0].value == "Sandbox"
    assert next(one for one in app.button if one.key == "trial.sandbox").label == (
        "Run the sandbox trial"
    )
    assert "Past trials" in [header.value for header in app.header]
    assert not app.error


def test_a_past_trial_shows_its_verdict_in_every_tab(records: Path, tmp_path: Path) -> None:
    trial = past_trial(records, tmp_path)
    app = page()

    app.button(key="trial.show").click().run()

    assert not app.exception
    words = " ".join(one.value for one in app.markdown)
    assert "colours: 3 requirements, 3 held" in words
    shown = app.dataframe[0].value
    assert list(shown["Verdict"]) == ["Held", "Held", "Held"]
    assert list(shown["Measured"]) == ["100 %", "50.0 ms", "10 %"]
    for tab in ("Over time", "What was wrong", "Recommendation", "Method"):
        app.session_state["trial.tab"] = tab
        app.run()
        assert not app.exception, tab
    assert any(trial in str(frame.value) for frame in app.dataframe)


def test_a_past_trial_is_deleted(records: Path, tmp_path: Path) -> None:
    past_trial(records, tmp_path)
    app = page()

    app.button(key="trial.delete").click().run()

    assert not app.exception
    assert not app.error
    with TrialStore(records) as store:
        assert store.trials() == ()


def test_an_endpoint_without_rows_is_refused_beside_the_form(records: Path) -> None:
    app = page()

    next(one for one in app.button if one.label == "Run the trial").click().run()

    assert [error.value for error in app.error] == ["Upload the rows to send first."]


def test_records_that_cannot_be_read_are_one_line(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.write_text("no database" * 200)
    app = page()

    assert len(app.error) == 1
    assert "trial records" in app.error[0].value
