"""The calibration page: its figures, its tabs, and a table of one's own."""

from __future__ import annotations

import time

import pytest
from streamlit.testing.v1 import AppTest

from advisor.calibrate.board import accuracy_of, figures_of, load_board
from advisor.calibrate.measurements import PUBLIC_TABLE
from advisor.calibrate.score import KINDS
from advisor.screens.sections.calibration_residuals import residuals_along

PATIENCE_S = 60


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_file("../../app.py", default_timeout=60)


def calibration(app: AppTest, tab: str = "Scoreboard") -> AppTest:
    app.session_state["calibration.tab"] = tab
    app.run()
    app.switch_page("advisor/screens/calibration.py").run()
    assert not app.exception
    return app


def scored(app: AppTest, name: str, content: str) -> AppTest:
    """The page once an uploaded table is scored (timers do not tick here)."""
    app.session_state["calibration.upload"] = (name, content.encode())
    calibration(app, "Your rows")
    until = time.monotonic() + PATIENCE_S
    while not any(one.value.startswith((":red[", f"**{name}**")) for one in app.markdown):
        assert time.monotonic() < until, "the scoring did not end"
        time.sleep(0.2)
        app.run()
    assert not app.exception
    return app


def public_rows(source: str, count: int) -> str:
    head, *rows = PUBLIC_TABLE.read_text(encoding="utf-8").splitlines()
    return "\n".join([head, *[row for row in rows if f",{source}," in row][:count]])


def test_the_headline_is_the_error_on_models_left_out(app: AppTest) -> None:
    calibration(app)
    figures = figures_of(load_board(), "model")
    shown = {metric.label: metric.value.replace("\u00a0", " ") for metric in app.metric}
    for kind in KINDS:
        assert shown[kind] == f"{100 * accuracy_of(figures[figures.kind == kind]).median:.1f} %"


def test_the_scoreboard_has_a_row_for_each_figure_and_split(app: AppTest) -> None:
    calibration(app)
    board = app.dataframe[-1].value
    assert len(board) == 15
    assert {"Left out", "Figure", "Median", "Mean", "Bias", "Roofline", "Affine"} <= set(board)


@pytest.mark.parametrize("tab", ["Where it is bad", "Terms of the law"])
def test_the_other_tables(app: AppTest, tab: str) -> None:
    calibration(app, tab)
    table = app.dataframe[-1].value
    assert len(table) > 3
    if tab == "Terms of the law":
        assert table.iloc[0]["Without"] == "full law"
    else:
        assert list(table["Median"]) == sorted(table["Median"], reverse=True)


def test_predictions_are_drawn_with_what_is_left_of_them(app: AppTest) -> None:
    calibration(app, "Predicted and measured")
    assert len(app.get("vega_lite_chart")) == 4


def test_residuals_fall_into_powers_of_two() -> None:
    figures = figures_of(load_board(), "model")
    bins = residuals_along(figures, "batch")
    assert set(bins.bin) <= {2**power for power in range(12)}
    assert bins.figures.min() >= 5
    assert bins.figures.sum() <= figures.batch.notna().sum()
    assert (bins.low <= bins["median"]).all() and (bins["median"] <= bins.high).all()


def test_a_table_of_ones_own_is_scored(app: AppTest) -> None:
    scored(app, "mine.csv", public_rows("argonne_llm_inference_bench", 5))
    assert any("5 rows" in one.value and "mine.csv" in one.value for one in app.markdown)
    assert app.get("vega_lite_chart")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "mine.csv: no column"),
        ("row_id,engine,model,accelerator,load\n", "no column"),
        (
            public_rows("argonne_llm_inference_bench", 1).replace("meta-llama/Llama", "x/Thing"),
            "nothing to score",
        ),
    ],
)
def test_a_table_that_cannot_be_scored_is_told_in_a_line(
    app: AppTest, content: str, said: str
) -> None:
    scored(app, "mine.csv", content)
    line = next(one.value for one in app.markdown if one.value.startswith(":red["))
    assert said in line.replace("\\", "")
    assert "\n" not in line and "/tmp" not in line
