"""The charts of the recommendation, as plain Vega-Lite.

They are drawn again at every touch of a slider. Written by hand they cost about a millisecond each;
Altair checks every part of a chart against its schema, which took four fifths of the page's time.
The data are named and not part of the text, so that a browser keeps a chart and only moves its
marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from advisor.screens.charts import Row

Spec = dict[str, Any]

ARCHITECTURES = {"slm": "Small model", "llm": "Large model", "hybrid": "Hybrid"}
CHOICES = ("same choice", "changes the choice")

PICK = "pick"
"""The selection of a point; its field is `what`."""

_LEGEND = {
    "title": None,
    "orient": "top",
    "offset": 8,
    "padding": 0,
    "columns": {"expr": "width < 340 ? 1 : width < 480 ? 2 : width < 640 ? 3 : 5"},
    "symbolLimit": 0,
    "symbolOpacity": 1,
    "labelLimit": 320,
}


def pareto(points: Sequence[Row]) -> Spec:
    """Candidates by cost and quality with the interval of quality; points can be picked.

    Args:
        points: `what`, `architecture` (as in `ARCHITECTURES`), `cost` (USD a month), `quality`,
            `quality_low` and `quality_high` (percent), `e2e` (ms), `meets` (in words), `chosen`.
    """
    names = list(ARCHITECTURES.values())
    cost = _field("cost", "Cost a month, USD") | {
        "scale": {"type": "log", "nice": False, "padding": 30},
        "axis": {"format": "$,.2~s", "labelOverlap": True, "tickCount": 6},
    }
    quality = _field("quality", "Quality, %") | {
        "scale": {"zero": False, "nice": False, "domainMax": 100}
    }
    kind = _kind("architecture", names)
    ranges = {
        "mark": {"type": "rule", "opacity": 0.3, "strokeWidth": 1.5},
        "encoding": {
            "x": cost,
            "y": quality | {"field": "quality_low"},
            "y2": {"field": "quality_high"},
            "color": kind,
        },
    }
    marks = {
        "mark": {"type": "point", "filled": True, "strokeWidth": 2},
        "params": [{"name": PICK, "select": {"type": "point", "fields": ["what"]}}],
        "encoding": {
            "x": cost,
            "y": quality,
            "color": kind,
            "shape": kind,
            "size": _field("e2e", "E2E p95, ms")
            | {"scale": {"type": "log", "range": [90, 420]}, "legend": None},
            "opacity": {"condition": {"param": PICK, "value": 0.95}, "value": 0.3},
            "tooltip": [
                _text("what", "Candidate"),
                _number("cost", "Cost a month", "$,.3~s"),
                _number("quality", "Quality, %", ".1f"),
                _number("e2e", "E2E p95, ms", ",.3~r"),
                _text("meets", "Requirements"),
            ],
        },
    }
    ring = {
        "transform": [{"filter": "datum.chosen"}],
        "mark": {"type": "point", "filled": False, "size": 900, "strokeWidth": 2},
        "encoding": {"x": cost, "y": quality, "color": kind},
    }
    return _named(points) | {"height": 380, "layer": [ranges, marks, ring]}


def tornado(rows: Sequence[Row], *, base: float) -> Spec:
    """Cost a month as inputs change one at a time, from today's, the largest swing first.

    Args:
        rows: `input` (with its change), `cost` (USD a month), `choice` (of `CHOICES`), `what`.
        base: today's cost, USD a month.
    """
    ordered = sorted(rows, key=lambda row: -abs(row["cost"] - base))
    bars = {
        "mark": {"type": "bar", "height": 14},
        "encoding": {
            "x": _field("base", "Cost a month, USD")
            | {
                "scale": {"zero": False, "padding": 20},
                "axis": {"format": "$,.3~s", "labelOverlap": True},
            },
            "x2": {"field": "cost"},
            "y": {
                "field": "input",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelLimit": 300, "labelOverlap": False},
            },
            "color": _kind("choice", CHOICES),
            "tooltip": [
                _text("input", "Input"),
                _number("cost", "Cost a month", "$,.3~s"),
                _text("what", "Then"),
            ],
        },
    }
    return _named([{**row, "base": base} for row in ordered]) | {
        "height": {"step": 26},
        "layer": [bars],
    }


def _named(rows: Sequence[Row]) -> Spec:
    return {"data": {"name": "rows"}, "datasets": {"rows": pd.DataFrame(rows)}}


def _kind(field: str, names: Sequence[str]) -> Spec:
    """A colour or shape a name, in the theme's order."""
    domain = {"domain": list(names)}
    return {"field": field, "type": "nominal", "scale": domain, "legend": _LEGEND}


def _field(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title}


def _number(field: str, title: str, shown: str) -> Spec:
    return _field(field, title) | {"format": shown}


def _text(field: str, title: str) -> Spec:
    return {"field": field, "type": "nominal", "title": title}
