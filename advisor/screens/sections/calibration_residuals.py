"""Predicted against measured, and what is left of it along batch, prompt and parallelism."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from advisor.calibrate.board import SPLITS, Board, accuracy_of, figures_of
from advisor.calibrate.score import KINDS
from advisor.screens.formatting import count, percent
from advisor.screens.sections import calibration_charts

HELD_OUT = {name: title for name, title in SPLITS.items() if name != "nothing"}

ALONG = {
    "batch": "Batch or users",
    "input_tokens": "Prompt, tokens",
    "tensor_parallel": "Tensor parallel",
}
"""Columns that residuals are shown along."""

LEAST = 5
"""Figures that a range is drawn of, at least."""


def choose(key: str) -> tuple[str, str]:
    """Which figure, and what was left out of the fit that predicts it."""
    with st.container(horizontal=True):
        kind = st.segmented_control(
            "Figure",
            KINDS,
            default=KINDS[0],
            required=True,
            key=f"calibration.{key}.kind",
            persist_state="session",
        )
        split = st.segmented_control(
            "Left out of the fit",
            list(HELD_OUT),
            default="model",
            required=True,
            format_func=lambda name: HELD_OUT[name].capitalize(),
            key=f"calibration.{key}.split",
            persist_state="session",
        )
    return str(kind), str(split)


def draw(board: Board) -> None:
    """The scatter, and three charts of residuals."""
    kind, split = choose("residuals")
    figures = figures_of(board, split)
    figures = figures[figures.kind == kind]
    one = accuracy_of(figures)
    st.altair_chart(
        calibration_charts.scatter(figures),
        alt=f"Predicted against measured {kind}, {HELD_OUT[split]} left out: median error "
        f"{percent(one.median, 1)}, bias {percent(one.bias, 1)}, {count(one.figures)} figures.",
    )
    st.caption("The line is a perfect prediction, the dashed ones are 20 % off.")
    st.header("What is left along load and layout")
    st.caption("Median of predicted / measured − 1, and the range that holds eight of ten rows.")
    columns = st.columns(len(ALONG))
    for column, (name, title) in zip(columns, ALONG.items(), strict=True):
        bins = residuals_along(figures, name)
        with column:
            st.altair_chart(
                calibration_charts.residuals(bins, title),
                alt=f"Bias by {title.lower()}: "
                + "; ".join(f"{row.bin}: {row.median:+.0f} %" for row in bins.itertuples()),
            )


def residuals_along(figures: pd.DataFrame, name: str) -> pd.DataFrame:
    """Bias by powers of two of a column: `bin`, `low`, `median`, `high` in percent, `figures`."""
    known = figures[figures[name].notna()]
    bins = known[name].clip(lower=1).map(lambda value: 1 << (int(value).bit_length() - 1))
    grouped = (100 * known.error).groupby(bins)
    found = pd.DataFrame(
        {
            "low": grouped.quantile(0.1),
            "median": grouped.median(),
            "high": grouped.quantile(0.9),
            "figures": grouped.size(),
        }
    )
    return found[found.figures >= LEAST].rename_axis("bin").reset_index()
