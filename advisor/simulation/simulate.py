"""Simulate one deployment, or one architecture, at a task's busiest hour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from advisor.catalog import Catalog, load_catalog
from advisor.decide.recommendation import Chosen, Recommendation
from advisor.documents import read_json, validate
from advisor.errors import InputError
from advisor.serving.cascade import AnswerCache, Gate
from advisor.serving.compilation import ensure_compiled
from advisor.serving.traces import read_trace
from advisor.serving.workload import Requests, workload_of
from advisor.simulation.escalation import escalation_rate_at
from advisor.simulation.results import SimulationResult
from advisor.simulation.summary import result_of
from advisor.simulation.system import System
from advisor.simulation.tiers import deploy, deployed_tier
from advisor.task import TaskProfile

DEFAULT_REQUESTS = 20_000
MAX_REQUESTS = 50_000_000


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
    requests: int | None = None,
    seed: int = 0,
    trace: str | Path | None = None,
    series_every_s: float | None = None,
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
        requests: how many are drawn (20,000), or taken from the beginning of the trace (all).
        seed: of every random choice.
        trace: a CSV or JSONL file with the arrival and the lengths of each request, instead of
            requests drawn from the profile (`advisor.serving.traces.read_trace`).
        series_every_s: resolution of the time series; None: there are none.
        engine_args: vLLM settings by name, for the one deployment.
        escalation_rate: share of requests that a hybrid's large model gets, high-risk ones
            included; None: as the recommendation projects, or else as follows from the threshold.
        announce: told when the simulator has to be compiled first.

    Raises:
        InputError: unknown names, impossible settings, a file that is no architecture's.
        DoesNotFitError: a deployment whose memory or context window is too small.
    """
    if escalation_rate is not None and not 0 <= escalation_rate <= 1:
        raise InputError(f"escalation_rate = {escalation_rate:g}: 0 to 1 is expected")
    if seed < 0:
        raise InputError(f"seed = {seed}: a whole number from 0 up is expected")
    catalog = catalog or load_catalog()
    drawn = _requests(task, requests, seed, trace)
    if architecture is not None:
        if model is not None or accelerator is not None:
            raise InputError("give an architecture, or a model and an accelerator, not both")
        chosen, projected = _read(architecture)
        rate = escalation_rate if escalation_rate is not None else projected
        system = architecture_system(chosen, task, catalog, drawn, escalation_rate=rate, seed=seed)
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
        system = System({"slm": tier}, tier.title, seed)
    ensure_compiled(announce)
    return result_of(task, system, requests=len(drawn), series_every_s=series_every_s)


def _requests(
    task: TaskProfile, count: int | None, seed: int, trace: str | Path | None
) -> Requests:
    if count is not None and not 1 <= count <= MAX_REQUESTS:
        raise InputError(f"requests = {count}: 1 to {MAX_REQUESTS:,} are expected")
    if trace is None:
        return workload_of(task).draw(count=count or DEFAULT_REQUESTS, seed=seed)
    recorded = read_trace(trace, shared_prefix_tokens=task.traffic.shared_prefix_tokens)
    return recorded if count is None else recorded.select(slice(0, count))


def architecture_system(
    chosen: Chosen,
    task: TaskProfile,
    catalog: Catalog,
    drawn: Requests,
    *,
    escalation_rate: float | None,
    seed: int,
) -> System:
    """An architecture, ready to be simulated.

    Args:
        drawn: the task's requests.
        escalation_rate: share that a hybrid's large model gets, high-risk ones included; None: as
            follows from the threshold.

    Raises:
        InputError, DoesNotFitError: as `simulate`.
    """
    tiers = {role: deployed_tier(tier, task, catalog, drawn) for role, tier in chosen.tiers.items()}
    gate, high_risk = Gate(), 0.0
    if len(tiers) == 2:
        if escalation_rate is None:
            escalation_rate = escalation_rate_at(chosen, task, catalog)
        high_risk = task.constraints.high_risk_share
        handed_up = max(escalation_rate - high_risk, 0.0) / max(1 - high_risk, 1e-12)
        validation = catalog.assumptions.with_values(task.assumptions).validation_s
        gate = Gate(validation_s=validation.value, escalation_rate=handed_up)
    cache = AnswerCache() if drawn.prompt_key is not None else None
    return System(tiers, chosen.title, seed, gate, high_risk, cache)


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
