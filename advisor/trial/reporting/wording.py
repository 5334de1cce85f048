"""The trial's figures in words: names and units, the same on every surface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from advisor.figures import percent
from advisor.trial.reporting.report import Comparison, TrialReport

MEASURES: Mapping[str, str] = {
    "quality": "quality",
    "escalation_rate": "escalation rate",
    "e2e_p50_ms": "E2E p50",
    "e2e_p95_ms": "E2E p95",
    "ttft_p95_ms": "TTFT p95",
    "tpot_p95_ms": "TPOT p95, streamed",
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


_SERVERS: Mapping[str, str] = {
    "slm": "The small model's server",
    "llm": "The large model's server",
}


def shown(measure: str, value: float) -> str:
    """A figure with its unit."""
    if measure in ("quality", "escalation_rate"):
        return percent(value)
    if measure == "cost_usd_per_request":
        return f"${1e6 * value:,.3g}"
    if measure == "cost_usd_per_month":
        return f"${value:,.0f}"
    return f"{value:.1f} ms"


def error_text(one: Comparison) -> str:
    """How far the projection was off: points for shares, percent for the rest."""
    return f"{100 * one.error:+.1f} points" if one.unit == "share" else f"{100 * one.error:+.1f} %"


def endpoint_lines(report: TrialReport) -> Iterator[str]:
    """The endpoints' own figures beside the client's, a sentence each: from their Prometheus pages
    (means over the router's load) and from OpenTelemetry spans (p95 of each arm)."""
    for role, server in report.servers.items():
        ttft = "" if server.ttft_s is None else f"TTFT {1e3 * server.ttft_s:.1f} ms, "
        if server.e2e_s is not None:
            yield (
                f"{_SERVERS[role]} counted {server.requests:,} requests of the router: means "
                f"{ttft}E2E {1e3 * server.e2e_s:.1f} ms (Prometheus)."
            )
    for arm, figures in report.traces.items():
        client = report.measurements.get(arm)
        whole = client.e2e_p95_ms if client else None
        beside = "" if whole is None else f", the client {whole.value:.1f} ms"
        for one in figures:
            who = _SERVERS[one.role]
            if one.witness == "router":
                who += ", as the router timed it,"
            ttft = "" if one.ttft_p95_ms is None else f", TTFT p95 {one.ttft_p95_ms:.1f} ms"
            queue = "" if one.queue_p95_ms is None else f", queue p95 {one.queue_p95_ms:.1f} ms"
            yield (
                f"{who} took over {one.requests:,} requests, {ARM_NAMES[arm]}: E2E p95 "
                f"{one.e2e_p95_ms:.1f} ms{beside if arm != 'router' else ''}{ttft}{queue} "
                "(OpenTelemetry)."
            )
