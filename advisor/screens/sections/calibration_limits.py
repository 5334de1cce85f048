"""Where predictions are bad: the worst groups of what was left out, and what is known of why."""

from __future__ import annotations

import streamlit as st

from advisor.calibrate.board import Board, accuracy_of, figures_of
from advisor.calibrate.exclusions import EXCLUSIONS
from advisor.screens.formatting import count, plain
from advisor.screens.sections.calibration_residuals import ALONG, choose
from advisor.screens.sections.calibration_scores import FORMATS, columns_of
from advisor.screens.sections.tables import table

LEAST, SHOWN = 8, 12
"""Figures that a group has at least, and groups that are listed."""

GROUPINGS = {
    "Model on accelerator": ["model", "accelerator"],
    "Source": ["source"],
    "Load": ["load"],
    **{title: [name] for name, title in ALONG.items()},
}

KNOWN = """\
- **Engine V0 with CUDA graphs** (vLLM of 2024) was measured by one source only. With that source
  left out, its host times rest on priors; with either of them half or twice as large the median
  error of batch E2E is 5 to 16 %.
- **TTFT with 256 users and more** is predicted too short, by a quarter and more, and it is not
  known why: token streaming that slows the frontend was tried as a term and explains little of it.
- **TTFT of other people's servers** varies with client, HTTP and prefix-cache hits; two sources say
  neither what they average nor how requests began.
- **Percentiles** (p95, p99) were published for eight rows. Of the four below saturation those of
  TTFT are off by up to 28 % (p99 of the row next to saturation by two thirds) and those of E2E by
  up to 23 %; at saturation by several times, since a queue that grows depends on how long the load
  lasted and how many requests its client keeps open.
- **Attention data-parallel** layouts and **accelerators of other makers** have few rows or none:
  the label says *transferred* or *assumed*, and intervals are wider.
"""


def draw(board: Board) -> None:
    """The worst groups by a chosen grouping, the known limits, and rows that are not fitted."""
    kind, split = choose("limits")
    by = st.selectbox(
        "Group by", list(GROUPINGS), key="calibration.limits.by", persist_state="session"
    )
    figures = figures_of(board, split)
    figures = figures[figures.kind == kind]
    groups = figures.groupby(GROUPINGS[by], observed=True)
    found = [(_title(key), group) for key, group in groups if len(group) >= LEAST]
    rows = [{by: title} | columns_of(accuracy_of(group)) for title, group in found]
    rows.sort(key=lambda row: -float(row["Median"]))
    if rows:
        table(rows[:SHOWN], f"Groups with the largest median error of {kind}.", FORMATS)
    st.caption(
        f"The {min(SHOWN, len(rows))} worst of {count(len(rows))} groups with at least {LEAST} "
        "figures each."
    )
    st.header("What is known of why")
    st.markdown(KNOWN)
    with st.expander("Rows that are not fitted, and why"):
        st.markdown("\n".join(f"- {plain(one.reason)}" for one in EXCLUSIONS))


def _title(key: object) -> str:
    values = key if isinstance(key, tuple) else (key,)
    return " on ".join(f"{one:,.0f}" if isinstance(one, float) else str(one) for one in values)
