"""Percentiles of a cascade: the mixture itself, each route, and each tier."""

from __future__ import annotations

import numpy as np

from advisor.records import Record
from advisor.serving.metrics import (
    LoadReport,
    Percentiles,
    is_drifting,
    percentiles,
    rate_of,
    report,
)
from advisor.serving.routes import (
    CACHE,
    DIRECT,
    ESCALATED,
    ROUTES,
    SMALL,
    CascadeTimeline,
    Route,
)
from advisor.serving.tiers import BoolArray, FloatArray, TierTimeline


class RouteReport(Record):
    """The requests that took one route."""

    requests: int
    share: float
    ttft: Percentiles
    tpot: Percentiles
    e2e: Percentiles
    queue: Percentiles


class CascadeReport(Record):
    """How a cascade served a load."""

    requests: int
    """Requests the figures are over, without warm-up."""
    stable: bool
    offered_rate_per_s: float
    sustainable_rate_per_s: float | None = None
    """Rate at which the first tier saturates, where the tiers' own rates were given."""
    escalation_rate: float
    """Requests the large model answered, of those that went to the small one."""
    large_share: float
    """Requests that the large tier answered, over all."""
    ttft: Percentiles
    """Until something may be shown: accepted answers count whole."""
    tpot: Percentiles
    """Of answers that stream, the large model's; accepted ones are released whole and have none."""
    itl: Percentiles
    """Of what the large model streams; accepted answers have no gaps."""
    e2e: Percentiles
    queue: Percentiles
    """Time in the queues of all tiers visited."""
    by_route: dict[Route, RouteReport]
    small: LoadReport | None
    """The small tier as an engine sees it; None where it is hosted or idle."""
    large: LoadReport | None
    cancelled: int = 0


def cascade_report(
    timeline: CascadeTimeline,
    *,
    warmup_share: float = 0.1,
    small_sustainable_per_s: float | None = None,
    large_sustainable_per_s: float | None = None,
    intervals: bool = True,
) -> CascadeReport:
    """Percentiles of a cascade.

    Args:
        warmup_share: share of the requests left out at the beginning.
        small_sustainable_per_s, large_sustainable_per_s: what each tier can take for ever, where
            known; the cascade saturates with the first of them.
        intervals: whether confidence intervals are wanted.
    """
    kept = slice(int(warmup_share * len(timeline)), len(timeline))
    e2e = (timeline.finish_s - timeline.arrival_s)[kept]
    answered = ~np.isnan(e2e)
    route = timeline.route[kept]
    ttft = (timeline.first_token_s - timeline.arrival_s)[kept]
    waited = timeline.waited_s[kept]
    several = answered & (timeline.output_tokens[kept] > 1)
    streamed = several & (route != SMALL) & (route != CACHE)
    tpot = (e2e - ttft) / np.maximum(timeline.output_tokens[kept] - 1, 1)
    small, large = (
        tier_report(tier, warmup_share, limit, intervals)
        for tier, limit in (
            (timeline.small, small_sustainable_per_s),
            (timeline.large, large_sustainable_per_s),
        )
    )

    def of(values: FloatArray, chosen: BoolArray) -> Percentiles:
        return percentiles(values[chosen], intervals=intervals)

    by_route: dict[Route, RouteReport] = {}
    for code, name in enumerate(ROUTES):
        chosen = answered & (route == code)
        if chosen.any():
            by_route[name] = RouteReport(
                requests=int(chosen.sum()),
                share=float(np.mean(route == code)),
                ttft=of(ttft, chosen),
                tpot=of(tpot, chosen & streamed),
                e2e=of(e2e, chosen),
                queue=of(waited, chosen),
            )
    offered = rate_of(timeline.arrival_s)
    return CascadeReport(
        requests=int(answered.sum()),
        stable=all(tier.stable for tier in (small, large) if tier)
        and not is_drifting(e2e[answered]),
        offered_rate_per_s=offered,
        sustainable_rate_per_s=_first_to_saturate(
            timeline, offered, small_sustainable_per_s, large_sustainable_per_s
        ),
        escalation_rate=timeline.escalation_rate,
        large_share=float(np.mean((route == ESCALATED) | (route == DIRECT))),
        ttft=of(ttft, answered),
        tpot=of(tpot, streamed),
        itl=large.itl if large else of(tpot, streamed),
        e2e=of(e2e, answered),
        queue=of(waited, answered),
        by_route=by_route,
        small=small,
        large=large,
        cancelled=int(np.count_nonzero(~answered)),
    )


def tier_report(
    tier: TierTimeline, warmup_share: float, sustainable_per_s: float | None, intervals: bool
) -> LoadReport | None:
    """The load of one tier as its engine sees it; None where there is no engine or no request."""
    if tier.engine is None or np.isnan(tier.engine.finish_s).all():
        return None
    return report(
        tier.engine,
        warmup_share=warmup_share,
        sustainable_rate_per_s=sustainable_per_s,
        intervals=intervals,
    )


def _first_to_saturate(
    timeline: CascadeTimeline, offered: float, *sustainable: float | None
) -> float | None:
    """Rate of the whole at which a tier gets more than it can take; None where none is known."""
    rates = [
        limit * len(timeline) / len(tier.index)
        for tier, limit in zip((timeline.small, timeline.large), sustainable, strict=True)
        if limit is not None and len(tier.index)
    ]
    return min(rates) if rates and np.isfinite(offered) else None
