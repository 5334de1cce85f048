"""A fleet that follows its load, over the steepest hour of the day: what its cold starts cost.

The load steps from the hour before to that of the busiest hour, in the middle of the time that is
simulated. The same requests meet the fleet as it is, and one that starts with what the hour before
needs and is scaled (`advisor.serving.simulate.Scaling`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from advisor.catalog import Catalog
from advisor.decide.recommendation import Chosen, Role, SelfHostedTier
from advisor.errors import InputError
from advisor.physics.deployment import Deployment
from advisor.physics.memory import weights_bytes
from advisor.records import Record
from advisor.serving.compilation import ensure_compiled
from advisor.serving.scaling import Scaling, cold_start
from advisor.serving.tiers import SelfHosted
from advisor.serving.timeline import FleetSize
from advisor.serving.workload import Stepped, workload_of
from advisor.simulation.simulate import architecture_system
from advisor.simulation.system import Run, System
from advisor.simulation.what_if import hours_of
from advisor.task import HOURS_PER_MONTH, TaskProfile

WINDOW_S = 3600.0
MOST_REQUESTS = 150_000
"""Requests simulated; the time is shortened to them where an hour has more."""
MOST_CACHED = 30_000
"""The same where answers are cached, which is simulated several times over."""


class ScaledTier(Record):
    """How one tier's fleet is scaled, and what came of it."""

    target_in_flight: int
    """Requests inside one replica that are wanted."""
    min_replicas: int
    max_replicas: int
    cold_start_s: float
    """Weights ÷ load bandwidth + engine start, both assumed."""
    fleet: FleetSize
    """Replicas ready and starting over time."""
    mean_replicas: float
    """Over the 24 hours of the day, those still starting included; see `_over_a_day`."""


class Stay(Record):
    """E2E of all requests of the time simulated, milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


class RiseStudy(Record):
    """A fixed fleet beside one that follows its load."""

    before_per_s: float
    peak_per_s: float
    span_s: float
    """Seconds simulated; the rate rises in the middle."""
    fixed: Stay
    scaled: Stay
    tiers: dict[Role, ScaledTier]
    fixed_usd_per_month: float
    scaled_usd_per_month: float
    """Of the mean replicas; a cloud that bills by the second and never runs out is taken for
    granted."""


def study_rise(
    chosen: Chosen,
    task: TaskProfile,
    *,
    catalog: Catalog,
    escalation_rate: float | None = None,
    target_in_flight: Mapping[Role, int] | None = None,
    min_replicas: int = 1,
    seed: int = 0,
) -> RiseStudy:
    """An architecture with fixed fleets and with fleets that follow the load.

    Args:
        escalation_rate: as `advisor.simulation.simulate.architecture_system`.
        target_in_flight: requests inside one replica that are wanted, by role; where it is not
            stated, as many as the busiest hour puts into each replica of the fixed fleet.
        min_replicas: of every tier; the most are the replicas of the fixed fleet.

    Raises:
        InputError: no tier has replicas of its own, or impossible limits.
        DoesNotFitError: as `architecture_system`.
    """
    own = {role: t for role, t in chosen.tiers.items() if isinstance(t, SelfHostedTier)}
    if not own:
        raise InputError("autoscaling: no tier has replicas of its own")
    ensure_compiled()
    peak = task.traffic.peak_rate_per_s
    before = hour_before(task) * peak
    most = MOST_CACHED if task.traffic.repeat_share else MOST_REQUESTS
    half_s = min(WINDOW_S / 2, most / (before + peak))
    count = max(int(half_s * (before + peak)), 2)
    arrivals = Stepped((before, peak), half_s, burstiness=task.traffic.burstiness)
    drawn = replace(workload_of(task), arrivals=arrivals).draw(count=count, seed=seed)
    system = architecture_system(
        chosen, task, catalog, drawn, escalation_rate=escalation_rate, seed=seed
    )
    fixed = system.serve(intervals=False)
    mean_per_s = count / (2 * half_s)
    inside = {role: _inside(fixed, role) / mean_per_s for role in own}
    scalings = {}
    for role, tier in own.items():
        wanted = max(math.ceil(inside[role] * peak / tier.replicas), 1)
        scalings[role] = Scaling(
            min_replicas=min(min_replicas, tier.replicas),
            max_replicas=tier.replicas,
            target_in_flight=(target_in_flight or {}).get(role, wanted),
            cold_start_s=cold_start_of(tier, task, catalog),
        )
    scaled = _scaled(system, scalings, inside, before).serve(intervals=False)
    tiers = {role: _told(scaled, role, scaling, half_s, task) for role, scaling in scalings.items()}
    return RiseStudy(
        before_per_s=before,
        peak_per_s=peak,
        span_s=2 * half_s,
        fixed=_stay(fixed),
        scaled=_stay(scaled),
        tiers=tiers,
        fixed_usd_per_month=sum(_usd(tier, tier.replicas) for tier in own.values()),
        scaled_usd_per_month=sum(_usd(own[r], tier.mean_replicas) for r, tier in tiers.items()),
    )


def hour_before(task: TaskProfile) -> float:
    """Rate of the hour before the busiest, over that of the busiest."""
    hours = hours_of(task)
    return hours[hours.index(max(hours)) - 1]


def cold_start_of(tier: SelfHostedTier, task: TaskProfile, catalog: Catalog) -> float:
    """Seconds from starting a replica to its first request; its ranks load side by side."""
    assumptions = catalog.assumptions.with_values(task.assumptions)
    deployment = Deployment(
        model=catalog.known_model(tier.model),
        accelerator=catalog.known_accelerator(tier.accelerator),
        weights_dtype=tier.weights_dtype,
        kv_dtype=tier.kv_dtype,
        tensor_parallel=tier.tensor_parallel,
    )
    return cold_start(
        weight_bytes=weights_bytes(deployment),
        load_bytes_per_s=assumptions.load_bandwidth_bytes_per_s.value,
        engine_start_s=assumptions.engine_start_s.value,
    )


def _scaled(
    system: System, scalings: Mapping[Role, Scaling], inside: Mapping[Role, float], rate: float
) -> System:
    """The system with fleets that scale, each starting with what a rate needs."""
    tiers = dict(system.tiers)
    for role, scaling in scalings.items():
        tier, serving = tiers[role], tiers[role].serving
        assert isinstance(serving, SelfHosted)
        start = _desired(inside[role] * rate, scaling)
        changed = replace(serving, replicas=start, scaling=scaling, balancing="least_loaded")
        tiers[role] = replace(tier, serving=changed)
    return replace(system, tiers=tiers)


def _desired(inside: float, scaling: Scaling) -> int:
    wanted = math.ceil(inside / scaling.target_in_flight)
    return min(max(wanted, scaling.min_replicas), scaling.max_replicas)


def _inside(run: Run, role: Role) -> float:
    """Mean requests inside one tier's engines: Little's law, arrivals a second x mean stay."""
    report = run.tiers[role]
    return report.offered_rate_per_s * report.e2e.mean if report else 0.0


def _told(run: Run, role: Role, scaling: Scaling, half_s: float, task: TaskProfile) -> ScaledTier:
    timeline = run.timelines.get(role)
    fleet = timeline.fleet if timeline else None
    return ScaledTier(
        target_in_flight=scaling.target_in_flight,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        cold_start_s=scaling.cold_start_s,
        fleet=fleet or FleetSize(time_s=(), ready=(), starting=(), inside=()),
        mean_replicas=_over_a_day(fleet, half_s, task) if fleet else scaling.min_replicas,
    )


def _over_a_day(fleet: FleetSize, half_s: float, task: TaskProfile) -> float:
    """Mean replicas of the 24 hours, from what was rented before the rise and after it.

    An hour between the two rates lies between the two means in proportion; quieter ones are taken
    to need as much as the hour before the rise.
    """
    rented = np.add(fleet.ready, fleet.starting)
    later = np.asarray(fleet.time_s) > half_s
    hours, before = hours_of(task), hour_before(task)
    if before == 1 or later.all() or not later.any():
        return float(rented.mean())
    levels = (rented[~later].mean(), rented[later].mean())
    return float(np.interp(hours, (before, 1.0), levels).mean())


def _usd(tier: SelfHostedTier, replicas: float) -> float:
    return replicas * tier.tensor_parallel * tier.usd_per_accelerator_hour * HOURS_PER_MONTH


def _stay(run: Run) -> Stay:
    e2e = run.report.e2e
    return Stay(p50_ms=1e3 * e2e.p50, p95_ms=1e3 * e2e.p95, p99_ms=1e3 * e2e.p99)
