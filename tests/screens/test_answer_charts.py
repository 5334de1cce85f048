"""The hand-written charts of the recommendation: Vega-Lite's own schema accepts them."""

from __future__ import annotations

import altair as alt
import pytest

from advisor.screens import answer_charts
from advisor.screens.answer_charts import Spec

POINTS = [
    {
        "what": what,
        "architecture": answer_charts.ARCHITECTURES[kind],
        "cost": cost,
        "quality": 95.0,
        "quality_low": 93.0,
        "quality_high": 97.0,
        "e2e": 60.0,
        "meets": "meets every requirement",
        "chosen": what == "A",
    }
    for what, kind, cost in (("A", "slm", 400.0), ("B", "llm", 2_000.0))
]
SWINGS = [
    {"input": "volume: halved", "cost": 380.0, "choice": "same choice", "what": "A"},
    {"input": "volume: ×10", "cost": 4_000.0, "choice": "changes the choice", "what": "B"},
    {"input": "price: +20 %", "cost": 480.0, "choice": "same choice", "what": "A"},
]


@pytest.mark.parametrize(
    "spec", [answer_charts.pareto(POINTS), answer_charts.tornado(SWINGS, base=400.0)]
)
def test_vega_lite_accepts_the_chart(spec: Spec) -> None:
    text = {key: part for key, part in spec.items() if key != "datasets"}
    alt.LayerChart.from_dict(text, validate=True)


def test_the_text_of_a_chart_does_not_hold_its_data() -> None:
    """A browser keeps a chart whose text is the same, and moves its marks."""
    one, other = answer_charts.pareto(POINTS), answer_charts.pareto(POINTS[:1])
    assert len(one.pop("datasets")["rows"]) == 2
    assert len(other.pop("datasets")["rows"]) == 1
    assert one == other


def test_the_largest_swing_comes_first() -> None:
    rows = answer_charts.tornado(SWINGS, base=400.0)["datasets"]["rows"]
    assert list(rows["input"]) == ["volume: ×10", "price: +20 %", "volume: halved"]
    assert set(rows["base"]) == {400.0}
