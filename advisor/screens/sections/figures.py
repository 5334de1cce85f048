"""The figures of a projection: their names, titles and formats."""

from __future__ import annotations

from collections.abc import Callable

from advisor.screens.formatting import milliseconds, percent, usd


def quality(value: float) -> str:
    """A score with one decimal: the second would not be known."""
    return percent(value, 1)


def per_million(usd_each: float) -> str:
    """A small cost of one thing as that of a million."""
    return usd(1e6 * usd_each)


FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("quality", "Quality", quality),
    ("ttft_p95_ms", "TTFT p95", milliseconds),
    ("e2e_p95_ms", "E2E p95", milliseconds),
    ("tpot_p95_ms", "TPOT p95", milliseconds),
    ("cost_usd_per_month", "Cost a month", usd),
    ("cost_usd_per_million_requests", "Per million requests", usd),
    ("cost_usd_per_correct_answer", "Per million correct", per_million),
    ("escalation_rate", "Escalation rate", percent),
)
"""Field of the projection, title, format."""
