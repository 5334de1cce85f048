"""The Load screen without a browser: the headline, the charts, and before and after a change."""

from __future__ import annotations

import time

import pytest
from streamlit.testing.v1 import AppTest

PATIENCE_S = 120


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_file("../../app.py", default_timeout=60)


def loaded(app: AppTest, example: str = "intent-classification") -> AppTest:
    """The screen once the search has finished (timers do not tick here)."""
    app.query_params["example"] = example
    app.run()
    app.switch_page("advisor/screens/load.py").run()
    until = time.monotonic() + PATIENCE_S
    while not metrics(app):
        assert time.monotonic() < until, "the search did not end"
        time.sleep(0.1)
        app.run()
    assert not app.exception
    assert not app.error
    return app


def metrics(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def headline(app: AppTest) -> str:
    return next(one.value for one in app.markdown if one.value.startswith("## "))


def headers(app: AppTest) -> list[str]:
    return [header.value for header in app.header]


def test_a_newcomer_reads_how_much_it_takes(app: AppTest) -> None:
    loaded(app)
    assert "times the busiest hour" in headline(app)
    # 10 million requests a day, twice the mean rate at the peak.
    assert metrics(app)["Busiest hour"] == "231/s"
    assert {"Latency against the rate", "What if", "Queues and KV cache over time"} <= set(
        headers(app)
    )


def test_each_metric_has_its_chart(app: AppTest) -> None:
    loaded(app)
    control = app.segmented_control[0]
    assert control.value == "e2e"
    for metric in ("ttft", "tpot", "queue"):
        control.set_value(metric).run()
        assert not app.exception
        assert not app.error


def test_every_architecture_can_be_put_under_load(app: AppTest) -> None:
    loaded(app)
    box = app.selectbox(key="load.architecture.Intent classification")
    assert box.options[0].startswith("Recommended: ")
    for option in box.options[1:]:
        app.selectbox(key="load.architecture.Intent classification").set_value(option).run()
        assert not app.exception
        assert not app.error
        assert metrics(app)["Can sustain"].endswith("/s")


def test_a_change_shows_before_and_after(app: AppTest) -> None:
    loaded(app)
    replicas = next(one for one in app.number_input if one.label == "Replicas")
    replicas.set_value(2 * replicas.value).run()
    assert not app.exception
    assert not app.error
    table = next(one.value for one in app.table if "After" in one.value)
    assert table.loc["Can sustain", "Change"].startswith("+")
    assert table.loc["Cost a month", "Change"].startswith("+")
    assert table.loc["Can sustain", "Before"] != table.loc["Can sustain", "After"]


def test_a_change_that_does_not_fit_is_told_in_one_line(app: AppTest) -> None:
    loaded(app)
    length = next(one for one in app.number_input if one.label == "max_model_len")
    length.set_value(64).run()
    assert not app.exception
    assert [("context of 64" in one.value, "\n" in one.value) for one in app.error] == [
        (True, False)
    ]
    assert "Latency against the rate" in headers(app), "the rest of the screen stays"


def test_a_fleet_can_follow_its_load(app: AppTest) -> None:
    loaded(app, "long-document-qa")
    app.toggle(key="load.scaling.Long-document question answering").set_value(True).run()
    assert not app.exception
    assert not app.error
    table = next(one.value for one in app.table if "Scaled fleet" in one.value)
    assert table.loc["E2E p99", "Scaled fleet"].split()[0] != ""
    assert any("cold" in one.value or "weights ÷ load" in one.value for one in app.caption)


def test_a_hosted_api_says_that_no_limit_is_known(app: AppTest) -> None:
    loaded(app, "table-summarization")
    assert "no limit is known" in headline(app)
    assert metrics(app)["Can sustain"] == "–"
