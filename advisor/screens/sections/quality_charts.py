"""Charts of a labelled log: risk–coverage, reliability, cost–quality of routing policies."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from advisor.screens import charts
from advisor.screens.charts import Row

HEIGHT = 320


def risk_coverage(curve: Sequence[Row], certified: Row | None) -> alt.LayerChart:
    """Share of wrong answers among the accepted against the share accepted, in percent."""
    line = charts.lines(
        curve,
        x="coverage",
        y="risk",
        series="series",
        order=["Small model's answers"],
        x_title="Accepted, % of the rows",
        y_title="Wrong among the accepted, %",
        x_format=",.3~f",
        height=HEIGHT,
    )
    if certified is None:
        return charts.layered(line)
    at = alt.Chart(pd.DataFrame([certified])).encode(x="coverage:Q", y="risk:Q")
    point = at.mark_point(filled=True, size=160, color=charts.ink(), opacity=1).encode(
        tooltip=[
            alt.Tooltip("threshold:N", title="Certified threshold"),
            alt.Tooltip("coverage:Q", title="Accepted, %", format=".1f"),
            alt.Tooltip("risk:Q", title="Wrong among them, %", format=".2f"),
        ]
    )
    left = float(certified["coverage"]) > 50
    label = at.mark_text(
        align="right" if left else "left", dx=-12 if left else 12, dy=-12, color=charts.ink()
    ).encode(text=alt.value("certified"))
    return charts.layered(line, point, label).properties(height=HEIGHT)


def reliability(bins: Sequence[Row]) -> alt.LayerChart:
    """Share right against stated confidence, in percent, with the diagonal of a calibrated one."""
    ends = [min(float(min(b["confidence"], b["accuracy"])) for b in bins), 100.0]
    scale = alt.Scale(domain=[max(0.0, ends[0] - 2), 100.0], nice=False)
    diagonal = (
        alt.Chart(pd.DataFrame({"confidence": scale.domain, "accuracy": scale.domain}))
        .mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=charts.ink(), opacity=0.7)
        .encode(
            x=alt.X("confidence:Q", title="Calibrated confidence, %", scale=scale),
            y=alt.Y("accuracy:Q", title="Right, %", scale=scale),
        )
    )
    points = (
        alt.Chart(pd.DataFrame(bins))
        .mark_line(point=alt.OverlayMarkDef(filled=True, size=70), strokeWidth=1.8)
        .encode(
            x=alt.X("confidence:Q", scale=scale),
            y=alt.Y("accuracy:Q", scale=scale),
            tooltip=[
                alt.Tooltip("confidence:Q", title="Mean confidence, %", format=".1f"),
                alt.Tooltip("accuracy:Q", title="Right, %", format=".1f"),
                alt.Tooltip("rows:Q", title="Rows", format=","),
            ],
        )
    )
    return charts.layered(diagonal, points).properties(height=HEIGHT)


def policies(
    curves: Sequence[Row], singles: Sequence[Row], *, order: Sequence[str], x_title: str
) -> alt.LayerChart:
    """Quality (percent) of each routing policy against what it costs; single models as points."""
    lines = charts.lines(
        curves,
        x="x",
        y="quality",
        series="policy",
        order=order,
        x_title=x_title,
        y_title="Quality, %",
        x_format=",.3~f",
        y_zero=False,
        dashed=[name for name in order if name == "Random mix"],
        height=HEIGHT,
    )
    at = alt.Chart(pd.DataFrame(singles)).encode(x="x:Q", y="quality:Q")
    points = at.mark_point(filled=True, size=130, color=charts.ink(), opacity=1).encode(
        tooltip=[
            alt.Tooltip("what:N", title="Policy"),
            alt.Tooltip("x:Q", title=x_title, format=",.4~g"),
            alt.Tooltip("quality:Q", title="Quality, %", format=".2f"),
        ]
    )
    return charts.layered(lines, points).properties(height=HEIGHT)
