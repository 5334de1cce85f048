"""What each term of the law is worth: the fit without it."""

from __future__ import annotations

import streamlit as st

from advisor.calibrate.board import Ablation, Board
from advisor.screens.sections.tables import number, table

TITLES = {"tpot": "TPOT", "e2e": "Batch E2E", "ttft": "TTFT"}


def draw(board: Board) -> None:
    """Median errors without each term, the costliest loss first."""
    if not board.ablations:
        return
    full, *others = board.ablations
    st.caption(
        "Median errors with one term of the law switched off and everything else fitted again: in "
        "sample, and of sources left out. A term that is worth nothing leaves the first row's "
        "figures as they are. Loops are evaluated in closed form here, so that the figures differ "
        "a little from the scoreboard's."
    )
    ordered = sorted(others, key=lambda one: -_loss(one, full))
    table(
        [_row(one) for one in (full, *ordered)],
        "Median errors of the law without each of its terms, in sample and with sources left out.",
        {name: number(format="%.1f %%") for name in _row(full) if name != "Without"},
    )


def _loss(one: Ablation, full: Ablation) -> float:
    """The worst that leaving the term out does in sample, as a ratio of errors."""
    return max(one.in_sample[name] / full.in_sample[name] for name in full.in_sample)


def _row(one: Ablation) -> dict[str, str | float]:
    cells: dict[str, str | float] = {"Without": one.term}
    for name in one.in_sample:
        cells[f"{TITLES[name]}, in sample"] = 100 * one.in_sample[name]
        cells[f"{TITLES[name]}, source left out"] = 100 * one.source_left_out[name]
    return cells
