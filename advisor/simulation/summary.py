"""From a system under load to the result of its simulation."""

from __future__ import annotations

from advisor.decide.recommendation import Role
from advisor.quality.estimate import Z_90
from advisor.serving.metrics import LoadReport, Percentiles
from advisor.serving.routes import Route
from advisor.serving.series import series
from advisor.serving.tiers import SelfHosted
from advisor.simulation.results import (
    DURATIONS,
    NO_DURATIONS,
    Durations,
    Range,
    Requirement,
    RouteResult,
    SimulationResult,
    TierResult,
    durations_of,
    ranges_of,
)
from advisor.simulation.system import Run, System
from advisor.task import TaskProfile


def result_of(
    task: TaskProfile, system: System, *, requests: int, series_every_s: float | None
) -> SimulationResult:
    """Simulate, once as projected and once at either end of what is plausible.

    Raises:
        InputError: a resolution of the series that is not positive or too fine.
    """
    run = system.serve()
    figures: dict[str, Durations] = dict.fromkeys(DURATIONS, NO_DURATIONS)
    if run.stable:
        figures = {name: durations_of(getattr(run.report, name)) for name in DURATIONS}
    timelines = run.timelines if series_every_s is not None else {}
    notes = (note for tier in system.tiers.values() for note in tier.notes)
    return SimulationResult(
        task=task.name,
        deployment=system.title,
        requests=requests,
        seed=system.seed,
        wall_s=run.wall_s,
        stable=run.stable,
        offered_rate_per_s=run.report.offered_rate_per_s,
        sustainable_rate_per_s=run.report.sustainable_rate_per_s,
        ttft_ms=figures["ttft"],
        tpot_ms=figures["tpot"],
        itl_ms=figures["itl"],
        e2e_ms=figures["e2e"],
        queue_ms=figures["queue"],
        intervals_ms=_intervals(system, run) if run.stable else {},
        preemptions=sum(tier.preemptions for tier in run.tiers.values() if tier),
        escalation_rate=run.escalation_rate if len(system.tiers) == 2 else None,
        by_route=_routes(run) if run.stable else None,
        tiers={role: _tier(system, role, run) for role in system.tiers},
        requirements=_requirements(task, run),
        notes=tuple(dict.fromkeys(notes)),
        series={
            role: series(timeline, resolution_s=series_every_s or 0.0)
            for role, timeline in timelines.items()
        },
    )


def _intervals(system: System, run: Run) -> dict[str, dict[str, Range]]:
    """The same requests where every step takes as little, and as much, time as is plausible."""
    quick, slow = system.serve(-Z_90), system.serve(Z_90)
    return {
        f"{name}_ms": ranges_of(
            getattr(run.report, name),
            quick=getattr(quick.report, name),
            slow=getattr(slow.report, name) if slow.stable else None,
        )
        for name in DURATIONS
    }


def _tier(system: System, role: Role, run: Run) -> TierResult:
    tier, engines = system.tiers[role], run.tiers[role]
    own = tier.serving if isinstance(tier.serving, SelfHosted) else None
    return TierResult(
        title=tier.title,
        model=tier.model,
        accelerator=tier.accelerator,
        replicas=own.replicas if own else None,
        engine=own.engine.model_dump() if own else {},
        kv_cache_tokens=own.kv_blocks * own.engine.block_size if own else None,
        calibration=tier.calibration,
        basis=tier.basis,
        sustainable_rate_per_s=tier.sustainable_per_s,
        busy_share=engines.busy_share if engines else None,
    )


def _routes(run: Run) -> dict[Route, RouteResult] | None:
    if isinstance(run.report, LoadReport):
        return None
    return {
        route: RouteResult(
            requests=part.requests,
            share=part.share,
            ttft_ms=durations_of(part.ttft),
            tpot_ms=durations_of(part.tpot),
            e2e_ms=durations_of(part.e2e),
            queue_ms=durations_of(part.queue),
        )
        for route, part in run.report.by_route.items()
    }


def _requirements(task: TaskProfile, run: Run) -> tuple[Requirement, ...]:
    found = []
    for name, limit_ms in task.latency.bounds.items():
        figures: Percentiles = getattr(run.report, name.removesuffix("_p95_ms"))
        p95_ms = 1e3 * figures.p95 if run.stable else None
        met = p95_ms is not None and p95_ms <= limit_ms
        found.append(Requirement(name=name, p95_ms=p95_ms, limit_ms=limit_ms, met=met))
    return tuple(found)
