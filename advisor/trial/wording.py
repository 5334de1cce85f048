"""The trial's figures in words: names and units, the same on every surface."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.trial.report import Comparison

MEASURES: Mapping[str, str] = {
    "quality": "quality",
    "escalation_rate": "escalation rate",
    "e2e_p50_ms": "E2E p50",
    "e2e_p95_ms": "E2E p95",
    "ttft_p95_ms": "TTFT p95",
    "tpot_p95_ms": "TPOT p95",
    "accepted_e2e_p95_ms": "E2E p95, accepted",
    "escalated_e2e_p95_ms": "E2E p95, escalated",
    "cost_usd_per_request": "cost of a million requests",
    "cost_usd_per_month": "cost a month",
}

ARM_NAMES: Mapping[str, str] = {
    "slm_only": "small alone",
    "llm_only": "large alone",
    "router": "router",
}


def shown(measure: str, value: float) -> str:
    """A figure with its unit."""
    if measure in ("quality", "escalation_rate"):
        return f"{value:.1%}"
    if measure == "cost_usd_per_request":
        return f"${1e6 * value:,.3g}"
    if measure == "cost_usd_per_month":
        return f"${value:,.0f}"
    return f"{value:.1f} ms"


def error_text(one: Comparison) -> str:
    """How far the projection was off: points for shares, percent for the rest."""
    return f"{100 * one.error:+.1f} points" if one.unit == "share" else f"{one.error:+.1%}"
