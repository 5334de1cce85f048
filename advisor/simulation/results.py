"""What a simulation answers: durations in milliseconds, each with its interval and its basis."""

from __future__ import annotations

import math

from pydantic import Field

from advisor.decide.recommendation import Role
from advisor.records import Record
from advisor.serving.metrics import LEVELS, Percentiles
from advisor.serving.routes import Route
from advisor.serving.series import LoadSeries

Z_90_OF_95 = 1.6448536269514722 / 1.959963984540054
"""Half-width of a 90 % interval over that of a 95 % one."""

DURATIONS = ("ttft", "tpot", "itl", "e2e", "queue")
"""Time to first token, time per output token, gap between tokens, whole request, waiting."""


class Range(Record):
    """A 90 % interval, milliseconds; no upper end where the deployment may be overloaded."""

    low: float
    high: float | None


class Durations(Record):
    """Mean and percentiles of a duration in milliseconds; null where the load is too much."""

    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class RouteResult(Record):
    """The requests of an architecture that took one route."""

    requests: int
    share: float
    ttft_ms: Durations
    tpot_ms: Durations
    e2e_ms: Durations
    queue_ms: Durations


class TierResult(Record):
    """One tier of what was simulated."""

    title: str
    model: str
    accelerator: str | None
    """None for a hosted model."""
    replicas: int | None
    engine: dict[str, float | int | bool | str | None]
    """vLLM settings; empty for a hosted model."""
    kv_cache_tokens: int | None
    """Tokens that the KV cache of one replica holds."""
    calibration: str
    """measured, calibrated, transferred or assumed."""
    basis: str
    sustainable_rate_per_s: float | None
    """Requests a second that reach this tier and that it can serve for ever."""
    busy_share: float | None
    """Share of the time that its engines are stepping."""


class Requirement(Record):
    """One latency bound of the task beside the simulated 95th percentile."""

    name: str
    p95_ms: float | None
    limit_ms: float
    met: bool


class SimulationResult(Record):
    """How a deployment or an architecture serves a task's busiest hour."""

    task: str
    deployment: str
    requests: int
    """Requests simulated; the figures leave out the first tenth, while queues fill."""
    seed: int
    wall_s: float
    """Seconds the simulation itself took, without compilation and percentiles."""
    stable: bool
    """Whether the load can be served for ever."""
    offered_rate_per_s: float
    sustainable_rate_per_s: float | None
    """Highest rate that can be served for ever; null for a hosted API without a limit."""
    ttft_ms: Durations
    """Time to first token that may be shown."""
    tpot_ms: Durations
    """Time per output token after the first."""
    itl_ms: Durations
    """Gap between two tokens, over all tokens."""
    e2e_ms: Durations
    """From sending to the last token."""
    queue_ms: Durations
    """From arrival at an engine to the first step that works on the request."""
    intervals_ms: dict[str, dict[str, Range]]
    """90 % intervals of the figures above: how well the latency model is known, and chance."""
    preemptions: int
    """How often requests lost their KV blocks and were computed again."""
    escalation_rate: float | None = None
    """Share of requests, beside those answered from the cache, that a hybrid's large model gets;
    null without two tiers."""
    by_route: dict[Route, RouteResult] | None = None
    tiers: dict[Role, TierResult]
    requirements: tuple[Requirement, ...]
    notes: tuple[str, ...] = ()
    series: dict[Role, LoadSeries] = Field(default_factory=dict)
    """What the engines of each tier did over time, where it was asked for."""

    @property
    def meets_requirements(self) -> bool:
        """Whether the load can be served, within every latency bound of the task."""
        return self.stable and all(requirement.met for requirement in self.requirements)


NO_DURATIONS = Durations(mean=None, p50=None, p90=None, p95=None, p99=None)


def durations_of(percentiles: Percentiles) -> Durations:
    """Seconds to milliseconds."""
    return Durations(**percentiles.milliseconds())


def ranges_of(
    figures: Percentiles, *, quick: Percentiles, slow: Percentiles | None
) -> dict[str, Range]:
    """90 % intervals of one duration's figures, milliseconds.

    Args:
        figures: the projection, with the confidence intervals of chance.
        quick: the same load where every step takes as little time as is plausible.
        slow: where it takes as much; None where that is overload.

    What the latency model leaves open and what chance does are independent: their half-widths are
    added in quadrature.
    """
    found = {}
    for name in ("mean", *LEVELS):
        value = getattr(figures, name)
        chance = figures.intervals.get(name)
        half = Z_90_OF_95 * (chance.high - value) if chance else 0.0
        below = math.hypot(value - getattr(quick, name), half)
        above = None if slow is None else math.hypot(getattr(slow, name) - value, half)
        found[name] = Range(
            low=1e3 * max(value - below, 0.0),
            high=None if above is None else 1e3 * (value + above),
        )
    return found
