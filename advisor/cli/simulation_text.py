"""A simulation as text of at most 80 columns."""

from __future__ import annotations

import math

from advisor.cli.output import paragraph, table
from advisor.figures import in_milliseconds, interval, milliseconds, percent, rate
from advisor.simulation import SimulationResult
from advisor.simulation.results import DURATIONS, Durations, TierResult

NAMES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "gap between tokens",
    "e2e": "end to end",
    "queue": "waiting in queues",
}


def simulation_text(result: SimulationResult) -> str:
    """The answer first, then percentiles, bounds, routes and what they rest on."""
    parts = [_verdict(result)]
    if result.stable:
        parts.append(_percentiles(result))
    if result.requirements:
        parts.append(_requirements(result))
    if result.by_route:
        parts.append(_routes(result))
    parts.append(_grounds(result))
    return "\n\n".join(parts)


def _verdict(result: SimulationResult) -> str:
    offered, limit = result.offered_rate_per_s, result.sustainable_rate_per_s
    lines = [paragraph(result.deployment)]
    sustained = f"it can sustain {rate(limit)} requests/s"
    if result.stable:
        load = f"{rate(offered)} requests/s at the busiest hour; {sustained}"
        lines.append(load + (f" (load {percent(offered / limit)})" if limit else ""))
    else:
        lines.append(
            f"OVERLOADED: {rate(offered)} requests/s are offered at the busiest hour;\n"
            f"{sustained}. Its queue only grows, so there are no percentiles."
        )
        lines += _enough_replicas(result)
    if result.escalation_rate is not None:
        lines.append(
            f"escalation rate {percent(result.escalation_rate)}; recommended fleets are sized for "
            "a tenth more\n(--escalation-rate)"
        )
    return "\n".join(lines)


def _enough_replicas(result: SimulationResult) -> list[str]:
    """How many replicas of an overloaded tier the load needs at the very least."""
    (tier, *others) = result.tiers.values()
    limit = result.sustainable_rate_per_s
    if others or tier.replicas is None or not limit:
        return []
    least = math.floor(result.offered_rate_per_s * tier.replicas / limit) + 1
    return [f"It takes at least {least:,} replicas: --replicas {least}, and some more for latency."]


def _percentiles(result: SimulationResult) -> str:
    rows: list[tuple[str, ...]] = [("ms", "mean", "p50", "p90", "p95", "p99", "p95, 90 % interval")]
    for name in DURATIONS:
        figures: Durations = getattr(result, f"{name}_ms")
        known = result.intervals_ms[f"{name}_ms"]["p95"]
        shown = (figures.mean, figures.p50, figures.p90, figures.p95, figures.p99)
        likely = interval(known.low, known.high, in_milliseconds)
        rows.append((NAMES[name], *map(in_milliseconds, shown), likely))
    return table(rows)


def _requirements(result: SimulationResult) -> str:
    lines = []
    for requirement in result.requirements:
        name = NAMES[requirement.name.removesuffix("_p95_ms")]
        verdict = "met" if requirement.met else "MISSED"
        found = "overloaded" if requirement.p95_ms is None else milliseconds(requirement.p95_ms)
        limit = milliseconds(requirement.limit_ms)
        lines.append(f"{verdict}: {name}, p95 {found}; at most {limit}")
    return "\n".join(lines)


def _routes(result: SimulationResult) -> str:
    rows = [("route", "share", "TTFT p95, ms", "end to end p95, ms")]
    for name, route in (result.by_route or {}).items():
        first, whole = route.ttft_ms.p95, route.e2e_ms.p95
        rows.append((name, percent(route.share), in_milliseconds(first), in_milliseconds(whole)))
    return table(rows)


def _grounds(result: SimulationResult) -> str:
    lines = [
        paragraph(f"Latency model of {tier.title}: {_basis(tier)}.", indent="  ")
        for tier in result.tiers.values()
    ]
    lines += [paragraph(f"Note: {note}.", indent="  ") for note in result.notes]
    took = milliseconds(1e3 * result.wall_s)
    lines.append(f"{result.requests:,} requests, seed {result.seed}, simulated in {took}.")
    return "\n".join(lines)


def _basis(tier: TierResult) -> str:
    """The label and the grounds; grounds that begin with the label say it already."""
    if tier.basis.startswith(tier.calibration):
        return tier.basis
    return f"{tier.calibration}, {tier.basis}"
