"""Charts of a trial: latency by route against the projection, running shares, money, queue."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd
import streamlit as st

from advisor.screens import charts
from advisor.screens.formatting import percent
from advisor.trial.progress import Progress, SharePoint
from advisor.trial.projecting.projection import Figure

HEIGHT = 260
SECONDS = "Seconds since the load began"
LOG = alt.Scale(type="log", nice=False, padding=12)
LOG_AXIS = alt.Axis(
    format=",~g", values=[m * 10**k for k in range(-1, 6) for m in (1, 2, 5)], labelOverlap=True
)

LEAST_SEEN = 20
"""Requests before a running share is drawn: of fewer, the interval is all there is."""

MOST_DOTS = 600
"""Answers drawn; of more, every so-manieth: a browser may draw them on the machine under load."""


def latency(progress: Progress) -> None:
    """Every answer by route, with the projected p95 and its interval as a band."""
    points = progress.latencies[:: 1 + len(progress.latencies) // MOST_DOTS]
    if not points:
        st.caption("No answer yet.")
        return
    frame = pd.DataFrame(
        {"at": [p.at_s for p in points], "ms": [p.e2e_ms for p in points],
         "route": [p.route for p in points]}
    )  # fmt: skip
    names = [name for name in ("small model", "large model", "cache", "other")
             if name in set(frame["route"])]  # fmt: skip
    dots = (
        alt.Chart(frame)
        .mark_circle(size=26, opacity=0.6)
        .encode(
            x=_seconds("at"),
            y=alt.Y("ms:Q", title="E2E latency, ms", scale=LOG, axis=LOG_AXIS),
            color=alt.Color("route:N", scale=alt.Scale(domain=names), legend=charts.LEGEND),
            tooltip=[
                alt.Tooltip("route:N", title="Answered by"),
                alt.Tooltip("ms:Q", title="E2E, ms", format=".1f"),
                alt.Tooltip("at:Q", title="Sent at, s", format=".1f"),
            ],
        )
    )
    layers = [dots]
    if progress.projection is not None:
        layers = [*_projected(progress.projection.e2e_p95_ms), dots]
    st.altair_chart(
        charts.layered(*layers).properties(height=HEIGHT),
        width="stretch",
        alt="End-to-end latency of every answer by route, over the projected p95 and its interval",
    )


def escalation(progress: Progress, limit: float) -> None:
    """The running escalation rate with its interval, and the limit."""
    projected = progress.projection.escalation_rate if progress.projection else None
    _share(
        progress.escalation,
        title="Escalation rate, %",
        bound=limit,
        bound_title=f"limit {percent(limit)}",
        projected=projected,
        alt_text="Running escalation rate with its interval, the projection and the limit",
    )


def quality(progress: Progress, threshold: float) -> None:
    """The running quality with its interval, and the threshold."""
    if not progress.quality:
        st.caption("No row says what is expected, or no answer yet.")
        return
    _share(
        progress.quality,
        title="Quality, %",
        bound=threshold,
        bound_title=f"required {percent(threshold)}",
        projected=progress.projection.quality if progress.projection else None,
        alt_text="Running quality with its interval, the projection and the required quality",
    )


def money(progress: Progress) -> None:
    """USD so far."""
    if not progress.cost_usd:
        st.caption("No price is known.")
        return
    rows = [{"at": at, "usd": 1e6 * usd, "series": "so far"} for at, usd in progress.cost_usd]
    chart = charts.lines(
        rows, x="at", y="usd", series="series", order=["so far"], x_title=SECONDS,
        y_title="Spent, millionths of a dollar" , x_format=",.3~f", height=HEIGHT,
    )  # fmt: skip
    st.altair_chart(chart, width="stretch", alt="Money spent on the answers so far")


def queue(progress: Progress) -> None:
    """Requests in flight."""
    if not progress.in_flight:
        st.caption("Nothing has been sent yet.")
        return
    rows = [{"at": at, "n": n, "series": "in flight"} for at, n in progress.in_flight]
    chart = charts.lines(
        rows, x="at", y="n", series="series", order=["in flight"], x_title=SECONDS,
        y_title="Requests in flight", x_format=",.3~f", height=HEIGHT,
    )  # fmt: skip
    st.altair_chart(chart, width="stretch", alt="Requests sent and not yet answered, over time")


def _projected(figure: Figure) -> list[alt.Chart]:
    """The projected p95 and its interval, across the whole chart."""
    frame = pd.DataFrame(
        [{"low": figure.low, "high": figure.high, "value": figure.value, "what": "projected p95"}]
    )
    base = alt.Chart(frame)
    band = base.mark_rect(opacity=0.18, color=charts.ink()).encode(y="low:Q", y2="high:Q")
    line = base.mark_rule(strokeDash=[5, 4], color=charts.ink()).encode(
        y=alt.Y("value:Q", title="E2E latency, ms", scale=LOG, axis=LOG_AXIS),
        tooltip=[
            alt.Tooltip("value:Q", title="Projected p95, ms", format=".1f"),
            alt.Tooltip("low:Q", title="from, ms", format=".1f"),
            alt.Tooltip("high:Q", title="to, ms", format=".1f"),
        ],
    )
    text = base.mark_text(align="left", dx=4, dy=-7, color=charts.ink()).encode(
        x=alt.value(0), y="value:Q", text="what:N"
    )
    return [band, line, text]


def _share(
    points: Sequence[SharePoint],
    *,
    title: str,
    bound: float,
    bound_title: str,
    projected: Figure | None,
    alt_text: str,
) -> None:
    points = [point for point in points if point.requests >= LEAST_SEEN]
    if not points:
        st.caption(f"Drawn from {LEAST_SEEN} answers on.")
        return
    frame = pd.DataFrame(
        {"at": [p.at_s for p in points], "value": [100 * p.value for p in points],
         "low": [100 * p.low for p in points], "high": [100 * p.high for p in points]}
    )  # fmt: skip
    scale = alt.Scale(zero=False, nice=True)
    area = (
        alt.Chart(frame)
        .mark_area(opacity=0.22)
        .encode(x=_seconds("at"), y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q")
    )
    line = (
        alt.Chart(frame)
        .mark_line(strokeWidth=2.2)
        .encode(
            x=_seconds("at"),
            y=alt.Y("value:Q", title=title, scale=scale),
            tooltip=[
                alt.Tooltip("at:Q", title="Second", format=".0f"),
                alt.Tooltip("value:Q", title=title, format=".1f"),
                alt.Tooltip("low:Q", title="from", format=".1f"),
                alt.Tooltip("high:Q", title="to", format=".1f"),
            ],
        )
    )
    marks = [{"y": 100 * bound, "what": bound_title, "dash": "bound"}]
    if projected is not None:
        marks.append({"y": 100 * projected.value, "what": "projected", "dash": "projected"})
    rules = alt.Chart(pd.DataFrame(marks))
    rule = rules.mark_rule(color=charts.ink()).encode(
        y="y:Q",
        strokeDash=alt.StrokeDash(
            "dash:N", scale=alt.Scale(domain=["bound", "projected"], range=[[1, 0], [5, 4]]),
            legend=None,
        ),
    )  # fmt: skip
    at_left = rules.transform_filter("datum.dash == 'bound'").mark_text(
        align="left", dx=4, dy=-7, color=charts.ink()
    )
    at_right = rules.transform_filter("datum.dash == 'projected'").mark_text(
        align="right", dx=-4, dy=-7, color=charts.ink()
    )
    texts = (
        at_left.encode(x=alt.value(0), y="y:Q", text="what:N"),
        at_right.encode(x=alt.value("width"), y="y:Q", text="what:N"),
    )
    chart = charts.layered(area, line, rule, *texts).properties(height=HEIGHT)
    st.altair_chart(chart, width="stretch", alt=alt_text)


def _seconds(name: str) -> alt.X:
    return alt.X(
        f"{name}:Q", title=SECONDS, axis=alt.Axis(format=",.3~f"),
        scale=alt.Scale(nice=False),
    )  # fmt: skip
