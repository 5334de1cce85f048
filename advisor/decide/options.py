"""What could serve a task: deployments that fit and have a price, and admissible hosted models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from advisor.catalog import Catalog, HostedModel
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.fits import Calibration, calibration_for
from advisor.catalog.models import ModelSpec, Precision
from advisor.decide.load import Load
from advisor.economics import HourlyPrice, accelerator_price
from advisor.errors import DoesNotFitError
from advisor.physics.deployment import Deployment, compute_dtype
from advisor.physics.kv_cache import blocks_of
from advisor.physics.memory import Shares, share_out, weights_bytes
from advisor.physics.own_steps import calibration_with_own
from advisor.physics.parameters import parameter_count
from advisor.serving.deployed import memory_of
from advisor.serving.engine import EngineSettings, vllm_defaults
from advisor.task import HOURS_PER_MONTH, TaskProfile

TENSOR_PARALLEL = (1, 2, 4, 8)

LEAST_CONCURRENCY = 2
"""Requests of the longest kind that a deployment must hold at once to be considered."""

KEPT_BY_COST = 3
"""Deployments of one model and format that the search looks at: the cheapest a request …"""
KEPT_BY_SPEED = 2
"""… and the fastest."""

CAUTION_Z = 1.28
"""Quantile of the step time (90 %) that fleets are sized for."""

EFFICIENCY = 0.6
"""Share of peak rates that the ranking before the search assumes; the search itself simulates."""


@dataclass(frozen=True, eq=False)
class SelfHostedOption:
    """A deployment that fits, with its price and its calibration."""

    deployment: Deployment
    price: HourlyPrice
    calibration: Calibration
    engine: EngineSettings
    kv_blocks: int
    rank_usd: float
    """Rough USD of a request at full load, for the order of the search only."""
    rank_s: float
    """Rough seconds of a request served alone, for the order of the search only."""

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """Identity of its step cost and scheduler."""
        own = self.deployment
        length = self.engine.max_model_len or 0
        return (own.model.id, own.weights_dtype, own.accelerator.id, own.tensor_parallel, length)

    @property
    def usd_per_month(self) -> float:
        """One replica for a month."""
        return self.price.usd.value * self.deployment.ranks * HOURS_PER_MONTH


@dataclass(frozen=True)
class Hardware:
    """An accelerator with the price that counts and its calibration."""

    accelerator: AcceleratorSpec
    price: HourlyPrice
    calibration: Calibration
    engine: EngineSettings
    """vLLM's defaults on it."""


@dataclass(frozen=True)
class Misfit:
    """A deployment that cannot be used, and why."""

    what: str
    constraint: str
    by: str
    admitted_if: str


def considered_models(task: TaskProfile, catalog: Catalog) -> tuple[ModelSpec, ...]:
    """The models a task admits: those it names, or the catalogue's current ones.

    Raises:
        InputError: a named model is unknown.
    """
    if task.constraints.models is not None:
        return tuple(catalog.model(name) for name in task.constraints.models)
    return tuple(
        spec for spec in catalog.models.values() if spec.considered and spec.commercial_use
    )


def admitted_hardware(task: TaskProfile, catalog: Catalog) -> tuple[Hardware, ...]:
    """The accelerators a task admits and that have a price.

    Raises:
        InputError: a named accelerator is unknown.
    """
    named = task.constraints.accelerators
    specs = (
        tuple(spec for spec in catalog.accelerators.values() if spec.data_centre)
        if named is None
        else tuple(catalog.accelerator(name) for name in named)
    )
    if named is not None:
        catalog = catalog.including(accelerators=specs)
    priced = ((spec, accelerator_price(catalog, spec, task.constraints)) for spec in specs)
    return tuple(
        Hardware(spec, price, calibration_for(spec), vllm_defaults(spec))
        for spec, price in priced
        if price is not None
    )


def formats_of(model: ModelSpec, accelerator: AcceleratorSpec) -> tuple[Precision, ...]:
    """Weight formats worth a look: as published, an 8-bit one the chip computes in, a 4-bit one."""
    formats: list[Precision] = [model.expert_precision or model.published_precision]
    for precision in ("fp8", "int8"):
        if precision in model.quantized_to and accelerator.computes(precision):
            formats.append(precision)
            break
    formats.extend(p for p in ("int4",) if p in model.quantized_to)
    return tuple(dict.fromkeys(formats))


def deployments_of(
    model: ModelSpec,
    precision: Precision,
    hardware: tuple[Hardware, ...],
    load: Load,
    *,
    max_accelerators: int | None = None,
) -> tuple[tuple[SelfHostedOption, ...], tuple[Misfit, ...]]:
    """Deployments of a model in a format: the few cheapest and fastest that fit, and misfits."""
    if load.longest_tokens > model.context_window:
        misfit = Misfit(
            what=f"{model.id} {precision}",
            constraint="context window",
            by=f"{load.longest_tokens - model.context_window:,} tokens",
            admitted_if=f"prompts and answers stay under {model.context_window:,} tokens",
        )
        return (), (misfit,)
    fitting: list[_Ranked] = []
    misfits: list[Misfit] = []
    for machine in hardware:
        if precision not in formats_of(model, machine.accelerator):
            continue
        most = min(
            machine.accelerator.max_per_node, max_accelerators or machine.accelerator.max_per_node
        )
        layouts = _layouts(model, precision, machine, load.longest_tokens, most)
        fitting.extend(_ranked(layout, machine, load) for layout in layouts)
        if not (layouts or misfits):
            misfits.append(_misfit(model, precision, machine, load.longest_tokens, most))
    cheapest: dict[str, _Ranked] = {}
    for one in sorted(fitting, key=lambda one: one.usd):
        cheapest.setdefault(one.machine.accelerator.id, one)
    by_cost = list(cheapest.values())[:KEPT_BY_COST]
    by_speed = sorted(fitting, key=lambda one: one.seconds)[:KEPT_BY_SPEED]
    kept = {id(one): one for one in (*by_cost, *by_speed)}
    return tuple(one.option(load) for one in kept.values()), tuple(misfits)


class _Layout(NamedTuple):
    """A deployment that fits, with what its rank needs."""

    deployment: Deployment
    memory: Shares
    total: int
    active: int


class _Ranked(NamedTuple):
    """A layout on hardware that has a price; most are ranked and never looked at again."""

    layout: _Layout
    machine: Hardware
    usd: float
    seconds: float

    def option(self, load: Load) -> SelfHostedOption:
        """As the search takes it."""
        machine, deployment = self.machine, self.layout.deployment
        return SelfHostedOption(
            deployment=deployment,
            price=machine.price,
            calibration=calibration_with_own(machine.calibration, deployment),
            engine=machine.engine.model_copy(update={"max_model_len": load.longest_tokens}),
            kv_blocks=self.layout.memory.kv_blocks,
            rank_usd=self.usd,
            rank_s=self.seconds,
        )


_LAYOUTS: dict[tuple[object, ...], tuple[_Layout, ...]] = {}
"""What fits depends on shapes and lengths alone, so it is found once in a process."""


def _layouts(
    model: ModelSpec, precision: Precision, machine: Hardware, longest_tokens: int, most: int
) -> tuple[_Layout, ...]:
    """The smallest tensor-parallel group that fits, and twice and four times as many."""
    key = (id(model), id(machine.accelerator), precision, longest_tokens, most)
    if key not in _LAYOUTS:
        _LAYOUTS[key] = _fit(model, precision, machine, longest_tokens, most)
    return _LAYOUTS[key]


def _fit(
    model: ModelSpec, precision: Precision, machine: Hardware, longest_tokens: int, most: int
) -> tuple[_Layout, ...]:
    """The layouts that hold enough requests at once."""
    accelerator, engine = machine.accelerator, machine.engine
    count = parameter_count(model)
    needed = LEAST_CONCURRENCY * blocks_of(longest_tokens)
    # Ranks that copy projections hold more in sum than one alone, never less.
    least_bytes = weights_bytes(_deployment(model, precision, accelerator, 1))
    layouts: list[_Layout] = []
    for t in TENSOR_PARALLEL:
        if t > most or model.num_heads % t or (layouts and t > 4 * layouts[0].deployment.ranks):
            continue
        if least_bytes > t * accelerator.memory_bytes:
            continue
        deployment = _deployment(model, precision, accelerator, t)
        memory = share_out(
            deployment,
            longest_tokens,
            engine.max_num_batched_tokens,
            engine.gpu_memory_utilization,
        )
        if memory.kv_blocks >= needed:
            layouts.append(_Layout(deployment, memory, count.total, count.active))
    return tuple(layouts)


_DEPLOYMENTS: dict[tuple[int, Precision, int, int], Deployment] = {}
"""Kept with the models and accelerators they hold, so that no identity is ever given twice."""


def _deployment(
    model: ModelSpec, precision: Precision, accelerator: AcceleratorSpec, tensor_parallel: int
) -> Deployment:
    key = (id(model), precision, id(accelerator), tensor_parallel)
    if key not in _DEPLOYMENTS:
        _DEPLOYMENTS[key] = Deployment(
            model=model,
            accelerator=accelerator,
            weights_dtype=precision,
            tensor_parallel=tensor_parallel,
        )
    return _DEPLOYMENTS[key]


def _misfit(
    model: ModelSpec, precision: Precision, machine: Hardware, longest_tokens: int, most: int
) -> Misfit:
    """Why no layout holds enough: the largest group that the model divides into."""
    accelerator = machine.accelerator
    largest = max(t for t in TENSOR_PARALLEL if t <= most and model.num_heads % t == 0)
    plan = memory_of(
        Deployment(
            model=model, accelerator=accelerator, weights_dtype=precision, tensor_parallel=largest
        ),
        machine.engine,
        context_tokens=longest_tokens,
    )
    short = plan.shortfall_bytes or (
        LEAST_CONCURRENCY * plan.kv_bytes_per_sequence - plan.kv_pool_bytes
    )
    return Misfit(
        what=f"{model.id} {precision} on {largest} × {accelerator.id}",
        constraint="memory",
        by=f"{short / 1e9:,.1f} GB short",
        admitted_if=" or ".join(plan.smallest_changes) or "more or larger accelerators are allowed",
    )


def _ranked(layout: _Layout, machine: Hardware, load: Load) -> _Ranked:
    """USD of a request at full load and seconds of one alone, from a roofline at 60 % of peak."""
    deployment = layout.deployment
    accelerator, t = deployment.accelerator, deployment.tensor_parallel
    flops = (
        t
        * EFFICIENCY
        * accelerator.peak_flops(compute_dtype(accelerator, deployment.weights_dtype))
    )
    bandwidth = EFFICIENCY * accelerator.bandwidth_bytes_per_s
    share = layout.active / layout.total
    cache = layout.memory.kv_bytes_per_sequence
    batch = max(1.0, min(256.0, layout.memory.left_bytes / cache))
    touched = min(1.0, share * batch) if deployment.model.moe else 1.0
    read = layout.memory.weights_bytes / bandwidth
    prefill = 2 * layout.active * load.computed_tokens / flops
    step = max(read * touched / batch, 2 * layout.active / flops) + cache / bandwidth
    alone = prefill + load.output_tokens * (read * share + cache / bandwidth)
    usd_per_s = machine.price.usd.value * deployment.ranks / 3600
    # What is less sure is sized more cautiously, and so costs more.
    caution = math.exp(CAUTION_Z * machine.calibration.decode_log_sd(deployment.model))
    usd = (prefill + load.output_tokens * step) * usd_per_s * caution
    return _Ranked(layout, machine, usd, alone)


def hosted_options(task: TaskProfile, catalog: Catalog, load: Load) -> tuple[HostedModel, ...]:
    """Hosted models that the data may go to and whose context holds the longest request."""
    if not task.constraints.hosted_allowed or task.constraints.models is not None:
        return ()
    return tuple(model for model in catalog.hosted if model.context_tokens >= load.longest_tokens)


def require_options(count: int, task: TaskProfile) -> None:
    """Raise DoesNotFitError where a task's constraints leave nothing to choose from."""
    if count == 0:
        allowed = ", ".join(task.constraints.accelerators or ()) or "any accelerator"
        raise DoesNotFitError(
            f"no model fits {allowed} under data residency {task.constraints.data_residency}"
        )
