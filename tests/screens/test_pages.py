"""Every page without a browser: it runs, it follows its inputs, it tells mistakes in one line."""

from __future__ import annotations

import time

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from advisor.catalog import load_catalog
from advisor.errors import InputError
from advisor.screens import scenario
from advisor.screens.sections import claims
from advisor.task import TaskProfile

PATIENCE_S = 120


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_file("../../app.py", default_timeout=60)


def on(app: AppTest, page: str) -> AppTest:
    app.run()
    app.switch_page(f"advisor/screens/{page}.py").run()
    assert not app.exception
    return app


def answered(app: AppTest) -> AppTest:
    """The page once its search has finished (timers do not tick here)."""
    app.run()
    until = time.monotonic() + PATIENCE_S
    while not app.session_state["recommendation.search"].finished:
        assert time.monotonic() < until, "the search did not end"
        time.sleep(0.1)
    app.run()
    assert not app.exception
    return app


def metrics(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def task_of(app: AppTest) -> TaskProfile:
    task = app.session_state["scenario.task"]
    assert isinstance(task, TaskProfile)
    return task


def test_the_recommendation_is_there_for_a_newcomer(app: AppTest) -> None:
    answered(app)
    assert app.title[0].value == "Intent classification"
    assert {"Quality", "E2E p95", "TTFT p95", "Cost a month", "Escalation rate"} <= set(
        metrics(app)
    )
    assert metrics(app)["Cost a month"].startswith("$")
    assert "Conditions" in [header.value for header in app.header]


def test_a_slider_changes_the_task_and_the_answer(app: AppTest) -> None:
    before = metrics(answered(app))["Cost a month"]
    app.select_slider(key="headline.traffic.requests_per_day").set_value(100_000_000.0).run()
    assert task_of(app).traffic.requests_per_day == 100_000_000
    assert metrics(answered(app))["Cost a month"] != before


@pytest.mark.parametrize("page", ["explore", "task", "quality"])
def test_another_page_and_back_leaves_the_task_as_it_was(app: AppTest, page: str) -> None:
    """Streamlit forgets the controls of a page that is left; the task must not follow them."""
    app.run()
    app.select_slider(key="headline.quality.threshold").set_value(0.9).run()
    before = task_of(app)
    assert before.quality.threshold == 0.9
    app.switch_page(f"advisor/screens/{page}.py").run()
    app.run()
    app.switch_page("advisor/screens/recommendation.py").run()
    assert task_of(app) == before
    assert app.select_slider(key="headline.quality.threshold").value == 0.9
    app.select_slider(key="headline.quality.threshold").set_value(0.92).run()
    assert task_of(app).quality.threshold == 0.92
    assert task_of(app).traffic == before.traffic


def test_an_answer_does_not_wait_for_the_full_search(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the new search is held back, the old one answers, and the page says so."""
    answered(app)
    monkeypatch.setattr("advisor.screens.search.FullSearch.run", lambda self: None)
    app.select_slider(key="headline.latency.e2e_p95_ms").set_value(200.0).run()
    assert not app.exception
    assert "Cost a month" in metrics(app)
    assert any("full search running" in one.value for one in app.markdown)


def test_a_task_that_nothing_simulated_covers_says_that_it_is_simulating(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(app)
    monkeypatch.setattr("advisor.screens.search.FullSearch.run", lambda self: None)
    app.selectbox(key="scenario.picked").set_value("text-to-sql").run()
    assert not app.exception
    assert metrics(app) == {}
    assert any("Simulating" in one.value for one in app.markdown)


def test_a_link_opens_its_scenario(app: AppTest) -> None:
    app.query_params["example"] = "text-to-sql"
    app.query_params["traffic.requests_per_day"] = "123456"
    app.run()
    assert not app.exception
    assert task_of(app).name == scenario.examples()["text-to-sql"].name
    assert app.select_slider(key="headline.traffic.requests_per_day").value == 123456


def test_an_unchanged_form_leaves_the_task_alone(app: AppTest) -> None:
    on(app, "task")
    assert task_of(app) == scenario.examples()["intent-classification"]


def field(label: str, app: AppTest):  # type: ignore[no-untyped-def]
    return next(one for one in app.number_input if one.label == label)


def test_a_valid_change_applies_at_once(app: AppTest) -> None:
    on(app, "task")
    field("E2E, ms", app).set_value(120.0).run()
    assert task_of(app).latency.e2e_p95_ms == 120
    field("E2E, ms", app).set_value(None).run()
    assert task_of(app).latency.e2e_p95_ms is None


def test_a_wrong_value_gets_a_line_and_changes_nothing(app: AppTest) -> None:
    on(app, "task")
    field("Requests a day", app).set_value(-3.0).run()
    assert not app.exception
    assert any("must be greater than 0" in one.value for one in app.markdown)
    assert "Not valid yet (1 field" in app.warning[0].value
    assert task_of(app).traffic.requests_per_day == 10_000_000
    field("Requests a day", app).set_value(5000.0).run()
    assert not app.warning
    assert task_of(app).traffic.requests_per_day == 5000


def test_an_example_fills_the_form(app: AppTest) -> None:
    on(app, "task")
    app.selectbox(key="scenario.picked").set_value("support-assistant").run()
    assert not app.exception
    assert field("TTFT, ms", app).value == 1500
    assert task_of(app) == scenario.examples()["support-assistant"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x", "'task' is missing"),
        (scenario.to_yaml(scenario.examples()["text-to-sql"]) + "speed: 3", "unknown key 'speed'"),
        ("", "nothing"),
        ("a: &a [x]\nb: [" + "*a, " * 40 + "]", "aliases"),
    ],
)
def test_pasted_text_that_is_no_profile_gets_one_line(app: AppTest, text: str, said: str) -> None:
    on(app, "task")
    app.text_area(key="task.text").set_value(text)
    app.button(key="task.use").click().run()
    assert not app.exception
    line = next(one.value for one in app.markdown if said in one.value)
    assert "\n" not in line
    assert task_of(app) == scenario.examples()["intent-classification"]


@pytest.mark.parametrize(
    "tab", ["Step time", "Memory fit", "KV cache", "FLOPs", "Attention", "Common claims"]
)
def test_every_law_is_drawn(app: AppTest, tab: str) -> None:
    app.session_state["explore.tab"] = tab
    on(app, "explore")
    if tab != "Common claims":
        assert app.get("vega_lite_chart")


def one_of_each_kind() -> list[str]:
    """A model of each combination of attention and feed-forward network in the catalogue."""
    kinds = {}
    for spec in load_catalog().models.values():
        attention = (spec.mla, spec.sliding_window, spec.full_attention, spec.attention_layers)
        kinds[tuple(part is None for part in (spec.moe, *attention))] = spec.id
    return list(kinds.values())


def test_every_kind_of_model_can_be_explored(app: AppTest) -> None:
    on(app, "explore")
    app.selectbox(key="explore.accelerator").set_value("L4")
    for model in one_of_each_kind():
        app.selectbox(key="explore.model").set_value(model).run()
        assert not app.exception, model


def test_what_does_not_fit_is_told_with_the_smallest_change(app: AppTest) -> None:
    app.session_state["explore.tab"] = "Memory fit"
    on(app, "explore")
    app.selectbox(key="explore.model").set_value("meta-llama/Llama-3.3-70B-Instruct").run()
    assert "Does not fit on one H100-SXM" in app.error[0].value
    assert "int4 weights" in app.error[0].value


def test_an_unknown_model_is_told_in_a_line(app: AppTest) -> None:
    app.session_state["explore.model"] = "no-such-model"
    on(app, "explore")
    assert any("not in the catalogue" in one.value for one in app.caption)


@pytest.mark.parametrize(
    "tab",
    [
        "Quality",
        "Calibration",
        "Assumptions",
        "Models",
        "Accelerators",
        "GPU prices",
        "Hosted prices",
        "Workloads",
        "Notices",
    ],
)
def test_every_kind_of_evidence_is_shown(app: AppTest, tab: str) -> None:
    app.session_state["evidence.tab"] = tab
    on(app, "evidence")
    assert app.code if tab == "Notices" else app.get("arrow_data_frame") or app.dataframe


def test_claims_carry_the_computed_figures() -> None:
    """The one that started it: 2.68 GB and not 40 GB for 8k tokens of a 70B model."""
    found = {finding.quoted: finding for finding in claims.findings()}
    cache = found["over 40 GB"]
    assert cache.computed.replace("\u00a0", " ") == "2.68 GB"
    assert cache.verdict == "wrong"
    assert "42.9" in cache.explanation, "what it takes to reach the quoted figure"
    assert found["×4"].computed.startswith("×4.0 attention")
    assert found["8"].computed.startswith("8 (bf16)")


def test_a_catalogue_that_cannot_be_read_is_told_in_a_line(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise InputError("models qwen.yaml: 'source' is missing")

    monkeypatch.setattr("advisor.catalog.load_catalog", broken)
    on(app, "explore")
    assert app.error[0].value == "models qwen.yaml: 'source' is missing"


def test_a_figure_of_ones_own_replaces_an_assumption(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(frame: pd.DataFrame, **_: object) -> pd.DataFrame:
        return frame.assign(Yours=[0.3, *frame["Yours"][1:]])

    app.session_state["evidence.tab"] = "Assumptions"
    monkeypatch.setattr("streamlit.data_editor", edited)
    on(app, "evidence")
    assert task_of(app).assumptions == {"hosted_ttft_small_s": 0.3}


def test_an_assumption_that_cannot_be_is_told_in_a_line(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(frame: pd.DataFrame, **_: object) -> pd.DataFrame:
        return frame.assign(Yours=[-1.0, *frame["Yours"][1:]])

    app.session_state["evidence.tab"] = "Assumptions"
    monkeypatch.setattr("streamlit.data_editor", edited)
    on(app, "evidence")
    assert "a number from 0 up is expected" in app.error[0].value
    assert task_of(app).assumptions == {}
