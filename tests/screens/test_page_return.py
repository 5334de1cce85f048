"""What a visitor set is still there after another page was shown.

Streamlit forgets what controls say as soon as they are not drawn: on another page, and under a tab
that is not open. Nothing may then go on with other values than the visitor left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from advisor.quality.example_log import simulated_log
from advisor.screens.labelled import Upload
from advisor.screens.sections.trial_worker import records

PATIENCE_S = 120


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    monkeypatch.setenv("ADVISOR_TRIALS", str(tmp_path / "trials.sqlite"))
    records.clear()
    yield AppTest.from_file("../../app.py", default_timeout=60)
    records.clear()


def at(app: AppTest, page: str) -> AppTest:
    app.switch_page(f"advisor/screens/{page}.py").run()
    assert not app.exception
    return app


def settled(app: AppTest) -> AppTest:
    """Once the search has ended (timers do not tick here)."""
    until = time.monotonic() + PATIENCE_S
    while not app.session_state["recommendation.search"].finished:
        assert time.monotonic() < until, "the search did not end"
        time.sleep(0.1)
    app.run()
    assert not app.exception
    return app


def away_and_back(app: AppTest, page: str) -> AppTest:
    """Two pages later: what one run still remembers, the second may have lost."""
    at(app, "evidence" if page != "evidence" else "explore")
    app.run()
    return at(app, page)


def controls(app: AppTest) -> dict[str, Any]:
    """What every keyed control on the page says."""
    kinds = (
        *app.selectbox,
        *app.select_slider,
        *app.slider,
        *app.number_input,
        *app.text_input,
        *app.text_area,
        *app.toggle,
        *app.segmented_control,
        *app.multiselect,
    )
    return {one.key: one.value for one in kinds if one.key}


def of(app: AppTest, label: str) -> Any:
    """The control with a label."""
    kinds = (*app.selectbox, *app.select_slider, *app.number_input, *app.toggle, *app.text_input)
    return next(one for one in kinds if one.label == label)


@pytest.mark.parametrize(
    ("tab", "values"),
    [
        ("Step time", {"explore.step.batch": 128, "explore.step.context": 4096}),
        ("Memory fit", {"explore.memory.context": 16384, "explore.memory.utilisation": 80}),
        ("FLOPs", {"explore.flops.input": 2048}),
    ],
)
def test_explore_keeps_its_deployment_and_its_open_tab(
    app: AppTest, tab: str, values: dict[str, int]
) -> None:
    app.session_state["explore.tab"] = tab
    app.run()
    at(app, "explore")
    app.selectbox(key="explore.accelerator").set_value("L40S").run()
    of(app, "Weights").set_value("int4").run()
    of(app, "Tensor parallel").set_value(2).run()
    for key, value in values.items():
        (app.slider if key.endswith("utilisation") else app.select_slider)(key=key).set_value(value)
    app.run()
    before = controls(app)
    assert before.items() >= values.items()
    away_and_back(app, "explore")
    assert controls(app) == before


def test_load_keeps_its_architecture_its_metric_and_its_what_if(app: AppTest) -> None:
    app.run()
    settled(at(app, "load"))
    box = app.selectbox(key="load.architecture.Intent classification")
    box.set_value(box.options[1]).run()
    app.segmented_control[0].set_value("ttft").run()
    of(app, "Arrivals").set_value("gamma").run()
    of(app, "Burstiness").set_value(0.5).run()
    replicas = of(app, "Replicas")
    replicas.set_value(replicas.value + 3).run()
    of(app, "Let the fleet follow the load").set_value(True).run()
    before = controls(app)
    assert "After" in app.table[0].value
    away_and_back(app, "load")
    assert controls(app) == before
    assert "After" in app.table[0].value


def test_what_was_asked_of_one_deployment_is_not_asked_of_another(app: AppTest) -> None:
    """Ten times the traffic: other fleets, and a what-if that starts from nothing."""
    app.run()
    settled(at(app, "load"))
    of(app, "Replicas").set_value(of(app, "Replicas").value + 3).run()
    at(app, "recommendation")
    app.select_slider(key="headline.traffic.requests_per_day").set_value(100_000_000.0).run()
    settled(at(app, "load"))
    assert not [one for one in app.table if "After" in one.value]


def test_a_draft_that_is_not_valid_yet_stays_a_draft(app: AppTest) -> None:
    app.run()
    at(app, "task")
    wrong = of(app, "Requests a day")
    wrong.set_value(-3.0).run()
    app.text_area(key="task.text").set_value("name: pasted").run()
    away_and_back(app, "task")
    assert of(app, "Requests a day").value == -3.0
    assert "Not valid yet" in app.warning[0].value
    assert app.text_area(key="task.text").value == "name: pasted"
    assert app.session_state["scenario.task"].traffic.requests_per_day == 10_000_000


def test_the_endpoints_of_a_trial_stay_but_for_their_keys(app: AppTest) -> None:
    app.run()
    at(app, "trial")
    typed = {
        "trial.slm.url": "http://127.0.0.1:8000/v1",
        "trial.slm.model": "small",
        "trial.llm.url": "http://127.0.0.1:8001/v1",
        "trial.llm.price": "0.1/0.4",
    }
    for key, value in typed.items():
        app.text_input(key=key).set_value(value)
    app.text_input(key="trial.slm.key").set_value("sk-secret")
    app.number_input(key="trial.requests").set_value(50)
    app.session_state["trial.upload"] = ("rows.jsonl", b'{"input": "say red"}')
    app.run()
    away_and_back(app, "trial")
    shown = controls(app)
    assert shown.items() >= typed.items()
    assert shown["trial.requests"] == 50
    assert shown["trial.slm.key"] == ""
    assert any("rows.jsonl" in one.value for one in app.markdown)


def test_a_calibration_run_is_asked_for_once(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advisor.screens.sections.calibration_run._missing", lambda: None)
    app.session_state["calibration.tab"] = "Measure here"
    app.run()
    at(app, "calibration")
    app.text_input(key="calibration.run.model").set_value("facebook/opt-125m")
    app.select_slider(key="calibration.run.budget").set_value(20).run()
    before = controls(app)
    away_and_back(app, "calibration")
    assert controls(app) == before
    assert before["calibration.run.budget"] == 20


def test_the_kind_of_certificate_and_the_use_of_the_labels_stay(app: AppTest) -> None:
    """A start that were silently another would void the guarantee."""
    app.session_state["quality.upload"] = Upload.of("mine.jsonl", simulated_log().encode())
    app.session_state["quality.given_for"] = 0
    app.run()
    at(app, "quality")
    until = time.monotonic() + PATIENCE_S
    while not app.session_state["quality.analysis"].finished:
        assert time.monotonic() < until
        time.sleep(0.1)
    app.run()
    app.segmented_control(key="quality.start").set_value("llm").run()
    assert app.session_state["scenario.labels"] is not None
    app.toggle[0].set_value(False).run()
    assert app.session_state["scenario.labels"] is None
    away_and_back(app, "quality")
    assert app.segmented_control(key="quality.start").value == "llm"
    assert app.toggle[0].value is False
    assert app.session_state["scenario.labels"] is None


def test_a_tab_that_is_not_open_keeps_its_controls(app: AppTest) -> None:
    app.session_state["explore.tab"] = "FLOPs"
    app.run()
    at(app, "explore")
    app.select_slider(key="explore.flops.input").set_value(4096).run()
    app.session_state["explore.tab"] = "Attention"
    app.run()
    app.run()
    app.session_state["explore.tab"] = "FLOPs"
    app.run()
    assert app.select_slider(key="explore.flops.input").value == 4096
