"""What else there is: the best of each architecture, the trade-off, and what fell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from advisor.decide.recommendation import (
    Alternative,
    Projected,
    Projection,
    Recommendation,
)
from advisor.screens import charts
from advisor.screens.formatting import interval, milliseconds, percent, plain, usd

FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("quality", "Quality", percent),
    ("ttft_p95_ms", "TTFT p95", milliseconds),
    ("e2e_p95_ms", "E2E p95", milliseconds),
    ("tpot_p95_ms", "TPOT p95", milliseconds),
    ("cost_usd_per_month", "Cost a month", usd),
    ("cost_usd_per_million_requests", "Per million requests", usd),
    ("cost_usd_per_correct_answer", "Per million correct answers", lambda usd_: usd(1e6 * usd_)),
    ("escalation_rate", "Escalation rate", percent),
)


def comparison(answer: Recommendation) -> None:
    """The recommendation and the best of each architecture, side by side."""
    columns: dict[str, tuple[str, Projection, float | None, tuple[str, ...]]] = {}
    if answer.chosen and answer.projection:
        columns["Recommended"] = (answer.chosen.title, answer.projection, None, ())
    for other in answer.alternatives:
        columns[_capital(other.label)] = (
            other.chosen.title,
            other.projection,
            other.probability,
            other.misses,
        )
    if not columns:
        return
    st.subheader("Best of each architecture")
    rows: dict[str, list[str]] = {"": [f"**{plain(one[0])}**" for one in columns.values()]}
    for name, title, show in FIGURES:
        rows[title] = [_figure(getattr(one[1], name), show) for one in columns.values()]
    rows["All requirements hold"] = [
        "see conditions" if chance is None else f"{percent(chance, 0)} likely"
        for _, _, chance, _ in columns.values()
    ]
    rows["Median misses"] = [
        plain("; ".join(misses)) or "nothing" for _, _, _, misses in columns.values()
    ]
    st.table(pd.DataFrame(rows, index=list(columns)).T)


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
    st.subheader("Cost against quality")
    chosen = answer.chosen.title if answer.chosen else None
    event = st.altair_chart(
        charts.pareto([_point(one, chosen) for one in shown.values()]),
        on_select="rerun",
        key="recommendation.pareto",
        alt=f"{len(shown)} candidates by cost a month and quality; the size shows their E2E p95.",
    )
    picked = [row.get("what") for row in event.selection.get("pick", [])]
    one = shown.get(str(picked[0])) if picked else None
    if one is None:
        st.caption(
            "Candidates that no other beats in cost, quality and latency at once, and the best of "
            "each architecture. Select a point to see it in full."
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
        "architecture": charts.ARCHITECTURES[one.architecture],
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
    st.subheader("Why others fell")
    st.dataframe(
        pd.DataFrame(
            {
                "What": one.what,
                "Constraint": one.constraint,
                "By": one.by,
                "Admitted if": one.admitted_if,
            }
            for one in answer.rejected
        ),
        hide_index=True,
        alt="Rejected candidates with the constraint each misses and what would admit it.",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
