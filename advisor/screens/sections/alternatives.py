"""What else there is: the best of each architecture, the trade-off, and what fell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from advisor.decide.recommendation import (
    Alternative,
    Projected,
    Recommendation,
)
from advisor.screens import answer_charts
from advisor.screens.formatting import interval, likelihood, plain
from advisor.screens.sections.figures import FIGURES

SHOWN = 8
"""Rejected candidates shown before the rest is folded away."""


def comparison(answer: Recommendation) -> None:
    """The recommendation and the best of each architecture, side by side."""
    columns = {_capital(other.label): other for other in answer.alternatives}
    if answer.chosen:
        columns = {
            f"Recommended ({name.lower()})" if other.chosen == answer.chosen else name: other
            for name, other in columns.items()
        }
    if not columns:
        return
    st.header("Best of each architecture")
    others = columns.values()
    rows = {"What": [f"**{plain(one.chosen.title)}**" for one in others]}
    for name, title, show in FIGURES:
        rows[title] = [_figure(getattr(one.projection, name), show) for one in others]
    rows["All requirements hold"] = [f"{likelihood(one.probability)} likely" for one in others]
    rows["Median misses"] = [plain("; ".join(one.misses)) or "nothing" for one in others]
    st.table(pd.DataFrame(rows, index=list(columns)).T.rename_axis("Figure"))


def _figure(figure: Projected | None, show: Callable[[float], str]) -> str:
    if figure is None:
        return "–"
    return (
        f"{plain(show(figure.value))}  \n:small[{plain(interval(figure.low, figure.high, show))}]"
    )


def trade_off(answer: Recommendation) -> None:
    """Cost against quality of everything that nothing else beats; a click shows one in full."""
    shown = {one.chosen.title: one for one in (*answer.pareto, *answer.alternatives)}
    if len(shown) < 2:
        return
    st.header("Cost against quality")
    chosen = answer.chosen.title if answer.chosen else None
    event = st.vega_lite_chart(
        spec=answer_charts.pareto([_point(one, chosen) for one in shown.values()]),
        on_select="rerun",
        key="recommendation.pareto",
        alt=f"{len(shown)} candidates by cost a month and quality; the size shows their E2E p95.",
    )
    picked = [row.get("what") for row in event.selection.get(answer_charts.PICK, [])]
    one = shown.get(str(picked[0])) if picked else None
    if one is None:
        st.caption(
            "Candidates that no other beats in cost, quality and latency at once, and the best of "
            "each architecture. Larger marks are slower; the ring is the recommendation. Select a "
            "point to see it in full."
        )
        return
    with st.container(border=True):
        st.markdown(f"**{plain(one.chosen.title)}**")
        figures = (
            f"{title} {_line(getattr(one.projection, name), show)}"
            for name, title, show in FIGURES
            if getattr(one.projection, name) is not None
        )
        st.caption(plain(" · ".join(figures)))
        st.caption(plain(f"Misses: {'; '.join(one.misses)}" if one.misses else "Misses nothing."))


def _line(figure: Projected, show: Callable[[float], str]) -> str:
    return f"{show(figure.value)} ({interval(figure.low, figure.high, show)})"


def _point(one: Alternative, chosen: str | None) -> dict[str, Any]:
    projection = one.projection
    return {
        "what": one.chosen.title,
        "architecture": answer_charts.ARCHITECTURES[one.architecture],
        "cost": projection.cost_usd_per_month.value,
        "quality": 100 * projection.quality.value,
        "quality_low": 100 * projection.quality.low,
        "quality_high": 100 * (projection.quality.high or projection.quality.value),
        "e2e": projection.e2e_p95_ms.value,
        "meets": "meets every requirement" if one.feasible else "; ".join(one.misses),
        "chosen": one.chosen.title == chosen,
    }


def rejected(answer: Recommendation) -> None:
    """What was left out, by which constraint, and what would admit it."""
    if not answer.rejected:
        return
    st.header("Why others fell")
    rows = pd.DataFrame(
        {
            "What": plain(one.what),
            "Constraint": plain(one.constraint),
            "By": plain(one.by),
            "Admitted if": plain(one.admitted_if),
        }
        for one in answer.rejected
    ).set_index("What")
    st.table(rows[:SHOWN])
    if len(rows) > SHOWN:
        with st.expander(f"{len(rows) - SHOWN} more"):
            st.table(rows[SHOWN:])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
