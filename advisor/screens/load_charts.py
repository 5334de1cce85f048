"""Charts of the Load screen: percentiles against the rate, and routes side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from advisor.screens.charts import LEGEND, Row, ink, layered

RATE = "Requests a second"


def rate_format(most: float) -> str:
    """How an axis of rates is labelled: 0.5, 200, 2.5k."""
    return ",.3~s" if most >= 1000 else ",.3~f"


def percentiles(
    rows: Sequence[Row],
    *,
    names: Sequence[str],
    y_title: str,
    most: float,
    marks: Mapping[str, float],
    bound: tuple[str, float] | None,
) -> alt.LayerChart:
    """Percentiles with their intervals against the rate.

    Args:
        rows: `rate`, `name`, `value`, `low`, `high`; one a rate and percentile.
        most: where the vertical axis ends; what lies above is cut off.
        marks: rates with a vertical line each, by label.
        bound: label and value of the horizontal line.
    """
    legend = LEGEND.copy()
    legend.symbolType, legend.symbolStrokeWidth = "stroke", 3
    end = max([*(row["rate"] for row in rows), *marks.values()])
    x = alt.X(
        "rate:Q",
        title=RATE,
        scale=alt.Scale(domain=[0, end * 1.02], nice=False),
        axis=alt.Axis(format=rate_format(end), labelOverlap=True, tickCount=8),
    )
    scale = alt.Scale(domain=[0, most], nice=False)
    y = alt.Y(title=y_title, scale=scale, axis=alt.Axis(format=",.3~f", tickCount=6))
    colour = alt.Color(
        "name:N", sort=list(names), scale=alt.Scale(domain=list(names)), legend=legend
    )
    base = alt.Chart(pd.DataFrame(rows)).encode(x=x, color=colour)
    areas = base.mark_area(opacity=0.13, clip=True).encode(y=_field(y, "low"), y2="high:Q")
    lines = base.mark_line(strokeWidth=2.2, clip=True, point=alt.OverlayMarkDef(size=28)).encode(
        y=_field(y, "value"),
        tooltip=[
            alt.Tooltip("name:N", title="Percentile"),
            alt.Tooltip("rate:Q", title=RATE, format=",.4~g"),
            alt.Tooltip("value:Q", title=y_title, format=",.4~g"),
            alt.Tooltip("range:N", title="90 % interval"),
        ],
    )
    layers = [areas, lines, *_verticals(marks, most, end)]
    if bound is not None:
        layers += _horizontal(*bound)
    return layered(*layers).properties(height=360)


def _field(y: alt.Y, name: str) -> alt.Y:
    found = y.copy()
    found.shorthand = f"{name}:Q"
    return found


def _verticals(marks: Mapping[str, float], most: float, end: float) -> list[alt.Chart]:
    """A dashed line and its label at each rate, a line lower each; labels stay inside."""
    layers = []
    for row, (label, rate) in enumerate(marks.items()):
        frame = pd.DataFrame([{"rate": rate, "label": label, "top": most}])
        rule = alt.Chart(frame).mark_rule(strokeDash=[5, 4], color=ink(), opacity=0.7)
        layers.append(rule.encode(x="rate:Q"))
        left = rate > 0.6 * end
        text = alt.Chart(frame).mark_text(
            align="right" if left else "left",
            baseline="top",
            dx=-5 if left else 5,
            dy=3 + 15 * row,
            color=ink(),
        )
        layers.append(text.encode(x="rate:Q", y="top:Q", text="label:N"))
    return layers


def _horizontal(label: str, value: float) -> list[alt.Chart]:
    frame = pd.DataFrame([{"value": value, "label": label, "rate": 0.0}])
    base = alt.Chart(frame)
    return [
        base.mark_rule(strokeWidth=1.6, color=ink(), clip=True).encode(y="value:Q"),
        base.mark_text(align="left", baseline="bottom", dx=5, dy=-3, color=ink()).encode(
            x="rate:Q", y="value:Q", text="label:N"
        ),
    ]


def routes(rows: Sequence[Row], *, order: Sequence[str], title: str) -> alt.LayerChart:
    """The span from p50 to p99 of each route, with p95 marked."""
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("route:N", title=None, sort=list(order), axis=alt.Axis(labelLimit=240)),
        tooltip=_route_tooltip(title),
    )
    axis = alt.Axis(format=",.3~f", labelOverlap=True)
    bars = base.mark_bar(height=12, opacity=0.45).encode(
        x=alt.X("p50:Q", title=title, scale=alt.Scale(zero=True), axis=axis), x2="p99:Q"
    )
    ticks = base.mark_tick(thickness=3, size=26, color=ink()).encode(x="p95:Q")
    return layered(bars, ticks).properties(height=alt.Step(42))


def _route_tooltip(title: str) -> list[Any]:
    figures = [
        alt.Tooltip(f"{name}:Q", title=f"{name}, {title}", format=",.4~g")
        for name in ("p50", "p95", "p99")
    ]
    return [alt.Tooltip("route:N", title="Route"), alt.Tooltip("share:N", title="Share"), *figures]
