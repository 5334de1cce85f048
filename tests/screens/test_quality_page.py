"""The Quality page without a browser: with and without labels, and with logs that are none."""

from __future__ import annotations

import json
import time

import pytest
from streamlit.testing.v1 import AppTest

from advisor.quality.example_log import simulated_log
from advisor.screens.labelled import Upload

PATIENCE_S = 120
TABS = ["Certificate", "Metrics", "Routing", "Calibration", "Evidence", "Labels needed"]


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_file("../../app.py", default_timeout=60)


def opened(app: AppTest) -> AppTest:
    """The page once nothing runs in the background any more (timers do not tick here)."""
    app.run()
    app.switch_page("advisor/screens/quality.py").run()
    until = time.monotonic() + PATIENCE_S
    settled = False
    while not settled:
        assert time.monotonic() < until, "the page's work did not end"
        # What has ended may start something else: a log changes the question of the search.
        settled = ended(app)
        app.run()
        assert not app.exception
        settled = settled and ended(app)
        time.sleep(0 if settled else 0.1)
    return app


def ended(app: AppTest) -> bool:
    analysis = app.session_state["quality.analysis"]
    searched = app.session_state["recommendation.search"].finished
    return searched and (analysis is None or analysis.finished)


def with_log(app: AppTest, content: str, name: str = "log.jsonl", *, used: bool = False) -> AppTest:
    """As after an upload: the test client has no files to give."""
    app.session_state["quality.upload"] = Upload.of(name, content.encode())
    app.session_state["quality.given_for"] = 0 if used else None
    return opened(app)


def texts(app: AppTest) -> str:
    shown = (*app.markdown, *app.caption, *app.info, *app.success, *app.warning, *app.error)
    return "\n".join(str(one.value) for one in shown).replace("\u00a0", " ").replace("\\", "")


def test_without_labels_it_says_what_to_expect_and_why(app: AppTest) -> None:
    opened(app)
    assert "Expected exact match:" in texts(app)
    assert "published evidence" in texts(app)
    assert [tab.label for tab in app.tabs] == ["Evidence", "Labels needed"]
    assert {header.value for header in app.header} >= {"Small model", "Large model", "Your labels"}


def test_without_labels_it_plans(app: AppTest) -> None:
    app.session_state["quality.tab.2"] = "Labels needed"
    opened(app)
    needed, alarms = (table.value for table in app.table)
    assert needed.loc["100.00\u00a0%", "From one end"] == "59"
    assert needed.loc["98.00\u00a0%", "From one end"] == "124"
    assert alarms["One look"].tolist()[:3] == ["16", "28", "50"]


def test_every_part_is_drawn_from_a_log(app: AppTest) -> None:
    with_log(app, simulated_log())
    assert [one.label for one in app.tabs] == TABS
    for tab in TABS:
        app.session_state["quality.tab.6"] = tab
        app.run()
        assert not app.exception, tab
        charted = tab in ("Certificate", "Routing", "Calibration")
        assert bool(app.get("vega_lite_chart")) is charted, tab


def test_the_certificate_is_told_in_words(app: AppTest) -> None:
    with_log(app, simulated_log())
    assert "Quality of at least 95 % with 95 % confidence" in texts(app)
    assert "Hand up every answer with a confidence below" in texts(app)
    app.segmented_control(key="quality.start").set_value("slm").run()
    assert "is not proven" in texts(app)
    assert "More labels would not help" in texts(app)


def test_too_few_labels_are_told_with_how_many_more(app: AppTest) -> None:
    """58 flawless rows do not certify 95 %; from both ends 73 do."""
    rows = [{"confidence": k / 58, "slm_correct": 1, "llm_correct": 1} for k in range(58)]
    with_log(app, "\n".join(json.dumps(row) for row in rows))
    assert "15 more labels" in texts(app)
    assert "73 in all" in texts(app)


def test_the_recommendation_rests_on_the_labels(app: AppTest) -> None:
    with_log(app, simulated_log(), "mine.jsonl", used=True)
    assert "labelled rows" in texts(app)
    app.switch_page("advisor/screens/recommendation.py").run()
    assert not app.exception
    assert "Quality from your 2,000 labels in mine.jsonl" in texts(app)


def test_labels_of_one_task_are_not_those_of_the_next(app: AppTest) -> None:
    with_log(app, simulated_log(), "mine.jsonl", used=True)
    assert app.session_state["scenario.labels"].name == "mine.jsonl"
    app.switch_page("advisor/screens/task.py").run()
    app.selectbox(key="scenario.picked").set_value("invoice-extraction").run()
    assert app.session_state["scenario.labels"] is None
    opened(app)
    assert app.session_state["scenario.labels"] is None
    assert "The log was given for another task." in texts(app)
    (use,) = app.toggle
    use.set_value(True).run()
    assert app.session_state["scenario.labels"].name == "mine.jsonl"


def test_simulated_labels_do_not_move_the_recommendation(app: AppTest) -> None:
    opened(app)
    app.button(key="quality.example").click().run()
    opened(app)
    assert "Simulated, not measured" in texts(app)
    assert app.session_state["scenario.labels"] is None
    app.button(key="quality.remove").click().run()
    assert [tab.label for tab in app.tabs] == ["Evidence", "Labels needed"]


def test_routing_that_does_not_pay_says_so(app: AppTest) -> None:
    app.session_state["quality.tab.6"] = "Routing"
    rows = [
        {"confidence": (k * 37 % 100) / 100, "slm_correct": k % 10 > 0, "llm_correct": k % 5 > 0}
        for k in range(500)
    ]
    with_log(app, "\n".join(json.dumps(row) for row in rows))
    assert app.warning[0].value.startswith("Always the small model")


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "log.jsonl", "log.jsonl is empty"),
        ("not json", "log.jsonl", "log.jsonl line 1: not JSON"),
        ("[1, 2]", "log.jsonl", "an object was expected"),
        ('{"confidence": 0.5}', "log.jsonl", "'slm_correct' and 'llm_correct', is missing"),
        ('{"slm_correct": 7, "llm_correct": 1}', "log.jsonl", "slm_correct = 7"),
        ('{"confidence": "high", "slm_correct": 1}', "log.jsonl", "confidence must be a number"),
        ("a,b\n1,2\n", "pairs.csv", "column 'confidence' is missing"),
        ("confidence,slm_correct,llm_correct\n0.5,x,1\n", "pairs.csv", "'x' is not a number"),
        ("\x00\x01\x02", "log.jsonl", "not JSON"),
    ],
)
def test_what_is_no_log_gets_one_line(app: AppTest, content: str, name: str, said: str) -> None:
    with_log(app, content, name, used=True)
    line = next(one.value for one in app.markdown if said in one.value.replace("\\", ""))
    assert "\n" not in line
    assert "Expected exact match:" in texts(app)
    assert app.session_state["scenario.labels"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"slm_correct": 1, "llm_correct": 1},
        {"slm_correct": 0, "llm_correct": 0},
        {"confidence": 0.5},
        {"confidence": None},
        {"confidence": float("nan")},
        {"confidence": -7.5},
        {"llm_correct": None},
        {"slm_correct": 0.5},
    ],
)
def test_a_hostile_log_gives_a_result_or_a_reason(app: AppTest, changes: dict[str, object]) -> None:
    rows = [
        {"confidence": k / 200, "slm_correct": int(k % 9 > 0), "llm_correct": int(k % 11 > 0)}
        | changes
        for k in range(200)
    ]
    with_log(app, "\n".join(json.dumps(row) for row in rows))
    assert app.session_state["quality.analysis"].problem is None
    for tab in ("Metrics", "Routing", "Calibration"):
        app.session_state["quality.tab.6"] = tab
        app.run()
        assert not app.exception, tab


def test_a_log_of_a_model_that_nobody_knows_is_shown_but_not_used(app: AppTest) -> None:
    rows = [{"outputs": {"my-model": {"correct": 1}}, "confidence": 0.5}] * 5
    with_log(app, "\n".join(json.dumps(row) for row in rows), used=True)
    assert "The recommendation cannot take this log" in texts(app)
    assert app.session_state["scenario.labels"] is None
