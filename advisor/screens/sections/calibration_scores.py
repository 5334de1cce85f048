"""The scoreboard: errors and coverage by what was left out, beside two baselines."""

from __future__ import annotations

import streamlit as st

from advisor.calibrate.board import SPLITS, Accuracy, Board, accuracy_of, figures_of
from advisor.calibrate.score import KINDS
from advisor.screens.sections.tables import number, table, text

PERCENT = number(format="%.1f %%")


def draw(board: Board) -> None:
    """One row a figure and a thing left out."""
    st.caption(
        "Errors are |predicted / measured − 1|. A source, a model or an accelerator is left out in "
        "turn, and its rows are predicted by a fit of all others. The overhead of client and HTTP "
        "counts as known. With one row known, the middle row of each deployment sets its level. "
        "Baselines: the datasheet roofline, and 5.0 ms + 1.55 × roofline, the line fitted to these "
        "very rows."
    )
    rows = []
    for split, title in SPLITS.items():
        figures = figures_of(board, split)
        for kind in KINDS:
            one = accuracy_of(figures[figures.kind == kind])
            rows.append({"Left out": title.capitalize(), "Figure": kind} | columns_of(one))
    table(
        rows,
        "Median, mean and 90th percentile errors, bias and interval coverage by what was left out.",
        {"Left out": text(width=180)} | FORMATS,
    )


FORMATS = dict.fromkeys(
    ("Median", "Mean", "90th percentile", "Bias", "Inside 90 %", "Roofline", "Affine"), PERCENT
)
"""Columns of `columns_of` in percent."""


def columns_of(one: Accuracy) -> dict[str, float | int]:
    """An accuracy as cells of a table, in percent."""
    return {
        "Median": 100 * one.median,
        "Mean": 100 * one.mean,
        "90th percentile": 100 * one.p90,
        "Bias": round(100 * one.bias, 1) + 0.0,
        "Inside 90 %": 100 * one.coverage,
        "Figures": one.figures,
        "Roofline": 100 * one.naive,
        "Affine": 100 * one.affine,
    }
