"""Charts that several screens draw; colours come from the theme, in the order of the parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

Row = Mapping[str, Any]

DOUBLING = "datum.value >= 1024 ? datum.value / 1024 + 'k' : datum.value"
"""Labels of an axis of token counts or batches: 512, 1k, 2k."""

LEGEND = alt.Legend(
    title=None,
    orient="top",
    offset=8,
    padding=0,
    columns=alt.ExprRef("width < 340 ? 1 : width < 480 ? 2 : width < 640 ? 3 : 5"),
    symbolLimit=0,
    symbolOpacity=1,
    labelLimit=320,
)


def stacked_bars(
    rows: Sequence[Row],
    *,
    value: str,
    part: str,
    bar: str,
    parts: Sequence[str],
    bars: Sequence[str],
    title: str,
    unit_format: str = ",.3~f",
    most: float | None = None,
) -> alt.Chart:
    """Horizontal bars cut into parts, in the given order; one row holds one part of one bar.

    `most` ends the axis there.
    """
    frame = pd.DataFrame(rows)
    frame["_order"] = frame[part].map({name: rank for rank, name in enumerate(parts)})
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X(
                f"{value}:Q",
                title=title,
                stack="zero",
                scale=alt.Scale(domainMax=most) if most else alt.Scale(),
                axis=alt.Axis(format=unit_format, labelOverlap=True),
            ),
            y=alt.Y(f"{bar}:N", title=None, sort=list(bars), axis=alt.Axis(labelLimit=220)),
            color=alt.Color(
                f"{part}:N", sort=list(parts), scale=alt.Scale(domain=list(parts)), legend=LEGEND
            ),
            order=alt.Order("_order:Q"),
            tooltip=[
                alt.Tooltip(f"{bar}:N"),
                alt.Tooltip(f"{part}:N"),
                alt.Tooltip(f"{value}:Q", title=title, format=",.3~f"),
            ],
        )
        .properties(height=alt.Step(38))
    )
    return chart


def lines(
    rows: Sequence[Row],
    *,
    x: str,
    y: str,
    series: str,
    order: Sequence[str],
    x_title: str,
    y_title: str,
    x_log: bool = False,
    y_log: bool = False,
    y_format: str = ",.3~f",
    x_format: str = ",.3~s",
    y_zero: bool = True,
    dashed: Sequence[str] = (),
    height: int = 320,
) -> alt.Chart:
    """One line a series over a common axis; series named in `dashed` are bounds or references."""
    frame = pd.DataFrame(rows)
    y_scale = alt.Scale(type="log") if y_log else alt.Scale(zero=y_zero)
    y_axis = alt.Axis(format=y_format, tickCount=6)
    if y_log:
        y_axis = alt.Axis(format=y_format, values=_decades(frame[y]))
    dash = [[5, 4] if name in dashed else [1, 0] for name in order]
    legend = LEGEND if len(order) > 1 else None
    names = list(order)
    chart = alt.Chart(frame).mark_line(strokeWidth=2.2)
    encoded = chart.encode(
        x=_across(x, x_title, x_log, x_format),
        y=alt.Y(f"{y}:Q", title=y_title, scale=y_scale, axis=y_axis),
        color=alt.Color(f"{series}:N", sort=names, scale=alt.Scale(domain=names), legend=legend),
        tooltip=[
            alt.Tooltip(f"{series}:N", title="Series"),
            alt.Tooltip(f"{x}:Q", title=x_title, format=","),
            alt.Tooltip(f"{y}:Q", title=y_title, format=",.4~g"),
        ],
    )
    if dashed:
        scale = alt.Scale(domain=names, range=dash)
        encoded = encoded.encode(
            strokeDash=alt.StrokeDash(f"{series}:N", scale=scale, legend=legend)
        )
    sized: alt.Chart = encoded.properties(height=height)
    return sized


def band(
    rows: Sequence[Row],
    *,
    x: str,
    y: str,
    low: str,
    high: str,
    x_title: str,
    y_title: str,
    reference: str | None = None,
    reference_title: str = "",
    value_title: str = "Projected",
    x_log: bool = False,
    y_log: bool = False,
    height: int = 320,
) -> alt.LayerChart:
    """A curve within its interval, and beside it a dashed reference from another column."""
    frame = pd.DataFrame(rows).assign(series=value_title)
    names = [value_title]
    curves = frame.rename(columns={y: "_value"})
    if reference:
        names.append(reference_title)
        other = frame.assign(series=reference_title, _value=frame[reference])
        curves = pd.concat([curves, other], ignore_index=True)
    y_scale = alt.Scale(type="log") if y_log else alt.Scale(zero=True)
    across = _across(x, x_title, x_log, ",.3~s")
    axis = alt.Axis(format=",.3~f", tickCount=6)
    legend = LEGEND.copy()
    legend.symbolType, legend.symbolStrokeWidth = "stroke", 3
    colour = alt.Color("series:N", sort=names, scale=alt.Scale(domain=names), legend=legend)
    dash = alt.Scale(domain=names, range=[[1, 0], [5, 4]][: len(names)])
    area = (
        alt.Chart(frame)
        .mark_area(opacity=0.22)
        .encode(
            x=across,
            y=alt.Y(f"{low}:Q", title=y_title, scale=y_scale, axis=axis),
            y2=f"{high}:Q",
            color=colour,
        )
    )
    line = (
        alt.Chart(curves)
        .mark_line(strokeWidth=2.2)
        .encode(
            x=across,
            y=alt.Y("_value:Q", title=y_title, scale=y_scale, axis=axis),
            color=colour,
            strokeDash=alt.StrokeDash("series:N", scale=dash, legend=legend),
            tooltip=[
                alt.Tooltip("series:N", title="Series"),
                alt.Tooltip(f"{x}:Q", title=x_title, format=","),
                alt.Tooltip("_value:Q", title=y_title, format=",.4~g"),
            ],
        )
    )
    return layered(area, line).properties(height=height)


def _across(x: str, title: str, log: bool, label_format: str) -> alt.X:
    """A horizontal axis; a logarithmic one doubles from tick to tick."""
    if log:
        scale = alt.Scale(type="log", base=2, nice=False)
        return alt.X(
            f"{x}:Q", title=title, scale=scale, axis=alt.Axis(labelExpr=DOUBLING, labelOverlap=True)
        )
    axis = alt.Axis(format=label_format, labelOverlap=True)
    return alt.X(f"{x}:Q", title=title, scale=alt.Scale(nice=False), axis=axis)


def _decades(values: pd.Series[float]) -> list[float]:
    """Powers of ten that span positive values."""
    low, high = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
    step = 1 + (high - low) // 7
    return [10.0**power for power in range(low, high + 1, step)]


def scores(points: Sequence[Row]) -> alt.Chart:
    """Published scores (percent) by model size (billions of parameters) and adaptation."""
    chart: alt.Chart = (
        alt.Chart(pd.DataFrame(points))
        .mark_point(filled=True, opacity=0.7, size=70)
        .encode(
            x=alt.X(
                "params:Q",
                title="Parameters, billions",
                scale=alt.Scale(type="log", nice=False, padding=12),
                axis=alt.Axis(values=[0.1, 0.5, 1, 3, 7, 13, 30, 70, 200, 700], format="~g"),
            ),
            y=alt.Y("score:Q", title="Score, %", scale=alt.Scale(zero=False)),
            color=alt.Color("adaptation:N", legend=LEGEND),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("params:Q", title="Parameters, billions"),
                alt.Tooltip("score:Q", title="Score, %", format=".1f"),
                alt.Tooltip("adaptation:N", title="Adaptation"),
                alt.Tooltip("dataset:N", title="Data set"),
                alt.Tooltip("metric:N", title="Metric"),
                alt.Tooltip("source:N", title="Source"),
            ],
        )
        .properties(height=320)
    )
    return chart


def layered(*layers: alt.Chart) -> alt.LayerChart:
    """Charts on one plane."""
    layered = alt.layer(*layers)
    assert isinstance(layered, alt.LayerChart)
    return layered


def ink() -> str:
    """The colour of marks that belong to no category, on the theme in use."""
    return "#e6ebf1" if st.context.theme.type == "dark" else "#0f1720"
