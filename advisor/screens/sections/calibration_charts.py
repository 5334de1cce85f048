"""Charts of predictions beside measurements."""

from __future__ import annotations

import altair as alt
import pandas as pd

from advisor.screens import charts

LOADS = {
    "static_batch": "Static batch",
    "steady_batch": "Steady batch",
    "closed_loop": "Closed loop",
    "constant_rate": "Constant rate",
    "poisson": "Poisson",
    "gamma": "Gamma",
    "burst": "Burst",
}

OFF = 0.2
"""How far off the dashed lines of the scatter are."""


def scatter(figures: pd.DataFrame) -> alt.LayerChart:
    """Predicted against measured, milliseconds, both logarithmic, coloured by kind of load."""
    points = pd.DataFrame(
        {
            "measured": 1000 * figures.measured_s,
            "predicted": 1000 * figures.predicted_s,
            "load": figures.load.map(LOADS).astype(str),
            "model": figures.model.astype(str),
            "accelerator": figures.accelerator.astype(str),
            "batch": figures.batch,
            "tokens": figures.input_tokens,
            "error": 100 * figures.error,
        }
    )
    names = [name for name in LOADS.values() if name in set(points.load)]
    ends = [
        0.85 * min(points.measured.min(), points.predicted.min()),
        1.15 * max(points.measured.max(), points.predicted.max()),
    ]
    scale = alt.Scale(type="log", domain=ends, nice=False)
    axis = alt.Axis(format="~g", labelOverlap=True, tickCount=6)
    marks = (
        alt.Chart(points)
        .mark_point(filled=True, size=26, opacity=0.55)
        .encode(
            x=alt.X("measured:Q", title="Measured, ms", scale=scale, axis=axis),
            y=alt.Y("predicted:Q", title="Predicted, ms", scale=scale, axis=axis),
            color=alt.Color("load:N", scale=alt.Scale(domain=names), legend=charts.LEGEND),
            shape=alt.Shape("load:N", scale=alt.Scale(domain=names), legend=charts.LEGEND),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("accelerator:N", title="Accelerator"),
                alt.Tooltip("load:N", title="Load"),
                alt.Tooltip("batch:Q", title="Batch or users"),
                alt.Tooltip("tokens:Q", title="Prompt, tokens", format=",.0f"),
                alt.Tooltip("measured:Q", title="Measured, ms", format=",.4~g"),
                alt.Tooltip("predicted:Q", title="Predicted, ms", format=",.4~g"),
                alt.Tooltip("error:Q", title="Off by, %", format="+.1f"),
            ],
        )
    )
    guides = [_guide(ends, factor) for factor in (1.0, 1 + OFF, 1 / (1 + OFF))]
    return charts.layered(*guides, marks).properties(height=430)


def _guide(ends: list[float], factor: float) -> alt.Chart:
    line = pd.DataFrame({"x": ends, "y": [factor * end for end in ends]})
    dash = [1, 0] if factor == 1 else [4, 4]
    chart: alt.Chart = (
        alt.Chart(line)
        .mark_line(color=charts.ink(), strokeWidth=1.2, strokeDash=dash, opacity=0.6, clip=True)
        .encode(x="x:Q", y="y:Q")
    )
    return chart


def residuals(bins: pd.DataFrame, title: str) -> alt.LayerChart:
    """Bias by bin with the range of eight in ten rows, percent."""
    order = [str(value) for value in bins.bin]
    frame = bins.assign(bin=order)
    across = alt.X("bin:O", title=title, sort=order, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    base = alt.Chart(frame).encode(x=across)
    zero = (
        alt.Chart(pd.DataFrame({"zero": [0]}))
        .mark_rule(color=charts.ink(), opacity=0.5)
        .encode(y="zero:Q")
    )
    ranges = base.mark_rule(strokeWidth=3, opacity=0.35, color=charts.ink()).encode(
        y=alt.Y("low:Q", title="Off by, %", axis=alt.Axis(tickCount=5)), y2="high:Q"
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y="median:Q",
        tooltip=[
            alt.Tooltip("bin:O", title=f"{title}, from"),
            alt.Tooltip("median:Q", title="Median, %", format="+.1f"),
            alt.Tooltip("low:Q", title="10th percentile, %", format="+.1f"),
            alt.Tooltip("high:Q", title="90th percentile, %", format="+.1f"),
            alt.Tooltip("figures:Q", title="Figures"),
        ],
    )
    return charts.layered(zero, ranges, points).properties(height=240)
