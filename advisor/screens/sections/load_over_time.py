"""Queues and KV caches over time, at the rate of the busiest hour."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from advisor.screens import charts
from advisor.screens.formatting import count, percent
from advisor.screens.sections.load_study import ROLES
from advisor.serving.series import LoadSeries
from advisor.simulation.load_curve import LoadStudy

MINUTES_FROM_S = 300.0


def draw(study: LoadStudy) -> None:
    """Requests waiting, requests running and KV use of each tier with engines."""
    if not study.peak.series:
        return
    st.header("Queues and KV cache over time")
    if not study.peak.stable:
        st.warning("The busiest hour is overload: the queue only grows.", icon=":material/warning:")
    left, right = st.columns(2)
    with left:
        st.markdown("**Requests waiting**")
        _lines(study, "Requests", lambda one: one.waiting, "waiting")
    with right:
        st.markdown("**KV cache in use**")
        _lines(
            study,
            "Share, %",
            lambda one: tuple(100 * share for share in one.kv_share),
            "KV cache in use",
        )
    st.caption(_said(study))


def _lines(
    study: LoadStudy, title: str, values: Callable[[LoadSeries], tuple[float, ...]], what: str
) -> None:
    unit, scale = _time_unit(study)
    names = [ROLES[role] for role in study.peak.series]
    begin = min(one.time_s[0] for one in study.peak.series.values())
    rows = [
        {"time": (time_s - begin) / scale, "value": value, "tier": ROLES[role]}
        for role, one in study.peak.series.items()
        for time_s, value in zip(one.time_s, values(one), strict=True)
    ]
    st.altair_chart(
        charts.lines(
            rows,
            x="time",
            y="value",
            series="tier",
            order=names,
            x_title=f"Time, {unit}",
            y_title=title,
            x_format=",.3~g",
            height=240,
        ),
        alt=f"{what} of {' and '.join(names)} over time at the busiest hour's rate.",
    )


def _time_unit(study: LoadStudy) -> tuple[str, float]:
    span = max(one.time_s[-1] - one.time_s[0] for one in study.peak.series.values())
    return ("min", 60.0) if span >= MINUTES_FROM_S else ("s", 1.0)


def _said(study: LoadStudy) -> str:
    parts = [
        f"{ROLES[role]}: at most {count(max(one.waiting))} waiting and "
        f"{count(max(one.running))} running, KV cache at most {percent(max(one.kv_share))} full"
        for role, one in study.peak.series.items()
    ]
    tail = f"; {count(study.peak.preemptions)} preemptions" if study.peak.preemptions else ""
    return (
        "; ".join(parts) + tail + ". All replicas together, at the rate of the busiest hour; at "
        "most an hour is shown. A shared prompt beginning counts for each request."
    )
