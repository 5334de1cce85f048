"""Simulate one deployment, or one architecture, at a task's busiest hour."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.catalog import Catalog, load_catalog
from advisor.decide.recommendation import Chosen, Recommendation, Role
from advisor.documents import read_json, validate
from advisor.errors import InputError
from advisor.serving.cascade import (
    AnswerCache,
    CascadeReport,
    Gate,
    Route,
    SelfHosted,
    cascade_report,
    simulate_cascade,
)
from advisor.serving.compilation import ensure_compiled
from advisor.serving.metrics import LoadReport, Percentiles, report
from advisor.serving.simulate import simulate_fleet
from advisor.serving.workload import Requests, workload_of
from advisor.simulation.escalation import escalation_rate_at
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
from advisor.simulation.tiers import (
    Z_90,
    DeployedTier,
    deploy,
    deployed_tier,
)
from advisor.task import TaskProfile

DEFAULT_REQUESTS = 20_000
MAX_REQUESTS = 50_000_000

Served = LoadReport | CascadeReport


@dataclass(frozen=True, eq=False)
class _System:
    """What serves the load."""

    tiers: Mapping[Role, DeployedTier]
    gate: Gate
    high_risk_share: float
    cache: AnswerCache | None
    """Answers repeats before any tier; engines by themselves have none."""
    seed: int
    title: str

    def serve(self, deviation: float = 0.0) -> tuple[Served, float]:
        """The report, and the seconds that the simulation took.

        Args:
            deviation: of every tier's times from the projected ones, in standard deviations of
                what is known about their level.
        """
        factors = {role: math.exp(deviation * tier.log_sd) for role, tier in self.tiers.items()}
        tiers = {role: tier.taking(factors[role]) for role, tier in self.tiers.items()}
        limits = {
            role: None if tier.sustainable_per_s is None else tier.sustainable_per_s / factors[role]
            for role, tier in self.tiers.items()
        }
        role, only = next(iter(tiers.items()))
        begin = time.perf_counter()
        if len(tiers) == 1 and isinstance(only, SelfHosted) and self.cache is None:
            timeline = simulate_fleet(
                only.step,
                only.engine,
                kv_blocks=only.kv_blocks,
                requests=self.tiers[role].load,
                replicas=only.replicas,
            )
            wall_s = time.perf_counter() - begin
            overhead_s = only.request_overhead_s
            limit = limits[role]
            return report(
                timeline, request_overhead_s=overhead_s, sustainable_rate_per_s=limit
            ), wall_s
        # One tier behind a cache, or behind an API, is the large one of a cascade without a small.
        alone = len(tiers) == 1
        cascade = simulate_cascade(
            tiers.get("slm", only),
            tiers.get("llm", only),
            self.gate,
            self.tiers.get("slm", self.tiers[role]).load,
            seed=self.seed,
            large_requests=self.tiers.get("llm", self.tiers[role]).load,
            cache=self.cache,
            high_risk_share=1.0 if alone else self.high_risk_share,
        )
        wall_s = time.perf_counter() - begin
        return cascade_report(
            cascade,
            small_sustainable_per_s=limits.get("slm"),
            large_sustainable_per_s=limits[role] if alone else limits["llm"],
        ), wall_s


def simulate(
    task: TaskProfile,
    *,
    model: str | None = None,
    accelerator: str | None = None,
    architecture: Chosen | Recommendation | str | Path | None = None,
    tensor_parallel: int = 1,
    weights_dtype: str | None = None,
    kv_dtype: str | None = None,
    replicas: int = 1,
    requests: int = DEFAULT_REQUESTS,
    seed: int = 0,
    engine_args: Mapping[str, Any] | None = None,
    escalation_rate: float | None = None,
    catalog: Catalog | None = None,
    announce: Callable[[str], None] | None = None,
) -> SimulationResult:
    """Percentiles of one deployment, or of an architecture, at the task's busiest hour.

    Args:
        model, accelerator: one deployment, by names, aliases or paths of files.
        architecture: instead of them, a recommendation or its `chosen` object, or the path of a
            JSON file with either.
        tensor_parallel, weights_dtype, kv_dtype, replicas: of the one deployment.
        requests: how many are drawn.
        seed: of every random choice.
        engine_args: vLLM settings by name, for the one deployment.
        escalation_rate: share of requests that a hybrid's large model gets, high-risk ones
            included; None: as the recommendation projects, or else as follows from the threshold.
        announce: told when the simulator has to be compiled first.

    Raises:
        InputError: unknown names, impossible settings, a file that is no architecture's.
        DoesNotFitError: a deployment whose memory or context window is too small.
    """
    if not 1 <= requests <= MAX_REQUESTS:
        raise InputError(f"requests = {requests}: 1 to {MAX_REQUESTS:,} are expected")
    if escalation_rate is not None and not 0 <= escalation_rate <= 1:
        raise InputError(f"escalation_rate = {escalation_rate:g}: 0 to 1 is expected")
    if seed < 0:
        raise InputError(f"seed = {seed}: a whole number from 0 up is expected")
    ensure_compiled(announce)
    catalog = catalog or load_catalog()
    drawn = workload_of(task).draw(count=requests, seed=seed)
    if architecture is not None:
        if model is not None or accelerator is not None:
            raise InputError("give an architecture, or a model and an accelerator, not both")
        chosen, projected = _read(architecture)
        rate = escalation_rate if escalation_rate is not None else projected
        system = _architecture(chosen, rate, task, catalog, drawn, seed)
    else:
        if model is None or accelerator is None:
            raise InputError("a model and an accelerator, or an architecture, are expected")
        tier = deploy(
            task,
            catalog,
            drawn,
            model=model,
            accelerator=accelerator,
            weights_dtype=weights_dtype,
            kv_dtype=kv_dtype,
            tensor_parallel=tensor_parallel,
            replicas=replicas,
            engine_args=engine_args,
        )
        # Which role a model plays alone makes no difference to its queue.
        role: Role = "slm"
        system = _System({role: tier}, Gate(), 0.0, None, seed, tier.title)
    return _result(task, system, requests)


def _architecture(
    chosen: Chosen,
    escalation_rate: float | None,
    task: TaskProfile,
    catalog: Catalog,
    drawn: Requests,
    seed: int,
) -> _System:
    tiers = {role: deployed_tier(tier, task, catalog, drawn) for role, tier in chosen.tiers.items()}
    gate, high_risk = Gate(), 0.0
    if len(tiers) == 2:
        if escalation_rate is None:
            escalation_rate = escalation_rate_at(chosen, task, catalog)
        high_risk = task.constraints.high_risk_share
        handed_up = max(escalation_rate - high_risk, 0.0) / max(1 - high_risk, 1e-12)
        validation = catalog.assumptions.with_values(task.assumptions).validation_s
        gate = Gate(validation_s=validation.value, escalation_rate=handed_up)
    cache = AnswerCache() if task.traffic.repeat_share > 0 else None
    return _System(tiers, gate, high_risk, cache, seed, chosen.title)


def _read(architecture: Chosen | Recommendation | str | Path) -> tuple[Chosen, float | None]:
    """The architecture, and the escalation rate that its recommendation projects."""
    if isinstance(architecture, Chosen):
        return architecture, None
    if not isinstance(architecture, Recommendation):
        path = Path(architecture)
        what = f"architecture {path.name}"
        value = read_json(path, what="architecture")
        if isinstance(value, dict) and "status" not in value:
            chosen: Chosen = validate(Chosen, value, what=what)
            if not chosen.tiers:
                raise InputError(f"{what}: tiers: at least one of slm and llm is expected")
            return chosen, None
        architecture = validate(Recommendation, value, what=what)
    if architecture.chosen is None:
        raise InputError("architecture: this recommendation chose none (infeasible)")
    projection = architecture.projection
    rate = projection.escalation_rate if projection else None
    return architecture.chosen, rate.value if rate else None


def _result(task: TaskProfile, system: _System, count: int) -> SimulationResult:
    served, wall_s = system.serve()
    stable = _is_stable(served)
    figures: dict[str, Durations] = dict.fromkeys(DURATIONS, NO_DURATIONS)
    if stable:
        figures = {name: durations_of(getattr(served, name)) for name in DURATIONS}
    return SimulationResult(
        task=task.name,
        deployment=system.title,
        requests=count,
        seed=system.seed,
        wall_s=wall_s,
        stable=stable,
        offered_rate_per_s=served.offered_rate_per_s,
        sustainable_rate_per_s=served.sustainable_rate_per_s,
        ttft_ms=figures["ttft"],
        tpot_ms=figures["tpot"],
        itl_ms=figures["itl"],
        e2e_ms=figures["e2e"],
        queue_ms=figures["queue"],
        intervals_ms=_intervals(system, served) if stable else {},
        preemptions=sum(part.preemptions for part in _by_tier(system, served).values() if part),
        escalation_rate=_escalation_rate(system, served),
        by_route=_routes(served) if stable else None,
        tiers=_tier_results(system, served),
        requirements=_requirements(task, served, stable=stable),
        notes=tuple(dict.fromkeys(note for tier in system.tiers.values() for note in tier.notes)),
    )


def _is_stable(served: Served) -> bool:
    limit = served.sustainable_rate_per_s
    return served.stable and (limit is None or served.offered_rate_per_s <= limit)


def _intervals(system: _System, served: Served) -> dict[str, dict[str, Range]]:
    """The same requests where every step takes as little, and as much, time as is plausible."""
    quick, _ = system.serve(-Z_90)
    slow, _ = system.serve(Z_90)
    holds = _is_stable(slow)
    return {
        f"{name}_ms": ranges_of(
            getattr(served, name),
            quick=getattr(quick, name),
            slow=getattr(slow, name) if holds else None,
        )
        for name in DURATIONS
    }


def _by_tier(system: _System, served: Served) -> dict[Role, LoadReport | None]:
    """Each tier as its engines see it; None for a hosted model."""
    if isinstance(served, LoadReport):
        return dict.fromkeys(system.tiers, served)
    if len(system.tiers) == 1:
        return dict.fromkeys(system.tiers, served.large)
    return {"slm": served.small, "llm": served.large}


def _tier_results(system: _System, served: Served) -> dict[Role, TierResult]:
    reports = _by_tier(system, served)
    results: dict[Role, TierResult] = {}
    for role, tier in system.tiers.items():
        serving, engines = tier.serving, reports[role]
        own = serving if isinstance(serving, SelfHosted) else None
        results[role] = TierResult(
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
    return results


def _escalation_rate(system: _System, served: Served) -> float | None:
    """Share of the requests beside cached ones that reach the large model."""
    if isinstance(served, LoadReport) or len(system.tiers) == 1:
        return None
    cached = served.by_route.get("cache")
    return served.large_share / (1 - (cached.share if cached else 0.0))


def _routes(served: Served) -> dict[Route, RouteResult] | None:
    if isinstance(served, LoadReport):
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
        for route, part in served.by_route.items()
    }


def _requirements(task: TaskProfile, served: Served, *, stable: bool) -> tuple[Requirement, ...]:
    found = []
    for name, limit_ms in task.latency.bounds.items():
        figures: Percentiles = getattr(served, name.removesuffix("_p95_ms"))
        p95_ms = 1e3 * figures.p95 if stable else None
        met = p95_ms is not None and p95_ms <= limit_ms
        found.append(Requirement(name=name, p95_ms=p95_ms, limit_ms=limit_ms, met=met))
    return tuple(found)
