"""From a row's configuration to a deployment under a load, blanks filled as the engine does."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pydantic import ValidationError

from advisor.calibrate.checkpoints import model_of
from advisor.calibrate.machines import accelerator_of
from advisor.calibrate.measurements import Setup
from advisor.catalog import Catalog
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.models import ModelSpec, Precision
from advisor.documents import describe
from advisor.errors import InputError
from advisor.physics.deployment import Deployment
from advisor.physics.engine import Generation, engine_generation, is_version
from advisor.records import Record
from advisor.serving.engine import EngineSettings, vllm_defaults

_SPREAD = re.compile(r"^uniform\[([0-9.]+),\s*([0-9.]+)\]x$")

IN_PROCESS = ("static_batch", "steady_batch")
"""Loads that are handed to an engine in its own process."""

OPEN_LOADS = ("poisson", "constant_rate", "gamma")

FIXED_LENGTHS = ("fixed", "constant", "exact", "none", "random", "synthetic")
"""Names of lengths that are the same for every request; `random` is the data set of `vllm bench`
whose words are random and whose lengths are not."""

DP_ATTENTION_USERS = 128
"""From which concurrency on recipes switch to data-parallel attention."""

V0_CONTEXT_BUDGET = 2048
"""Smallest token budget of engine V0 without chunked prefill; else the longest context."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One row, ready to be evaluated."""

    setup: Setup
    deployment: Deployment
    engine: EngineSettings
    generation: Generation
    replicas: int
    """Engines that share the load; batches in flight of a pipeline count as engines."""
    input_tokens: float
    """True mean, after the spread."""
    output_tokens: float
    spread: tuple[float, float] | None
    """Each length uniform between these multiples of the nominal one; None: fixed, or by a
    distribution."""
    assumed: tuple[str, ...]
    """Settings that the row leaves blank, as `name=value`."""

    @property
    def parts(self) -> int:
        """Parts that the load is dealt into: one an engine or data-parallel rank, and no more
        than there are requests at a time."""
        engines = self.replicas * self.deployment.data_parallel
        setup = self.setup
        at_once = setup.batch_size if setup.load in IN_PROCESS else setup.concurrency
        return min(engines, at_once or engines)


def condition_of(setup: Setup, catalog: Catalog) -> Condition:
    """Resolve a row's names and blanks.

    Raises:
        InputError: unknown model or accelerator, a layout that contradicts itself, lengths beyond
            the model's context, a load without its size.
    """
    assumed: list[str] = []
    setup = _as_run(setup, assumed)
    model, told = model_of(setup.model, catalog, assumed)
    if told and setup.weights_dtype is None:
        assumed.append(f"weights_dtype={told}")
        setup = setup.model_copy(update={"weights_dtype": told})
    accelerator = accelerator_of(setup.accelerator, catalog, assumed)
    if not setup.engine.lower().startswith("vllm"):
        raise InputError(f"engine '{setup.engine}': only vllm is modelled")
    generation = _generation(setup, model, accelerator, assumed)
    deployment = _deployment(setup, model, accelerator, assumed)
    engine = _engine(setup, deployment, generation, assumed)
    spread = _spread(setup)
    factor = sum(spread) / 2 if spread else 1.0
    return Condition(
        setup=setup,
        deployment=deployment,
        engine=engine,
        generation=generation,
        replicas=_replicas(setup, deployment),
        input_tokens=setup.input_tokens * factor,
        output_tokens=_output_within_context(setup, model, factor),
        spread=spread,
        assumed=tuple(assumed),
    )


def _as_run(setup: Setup, assumed: list[str]) -> Setup:
    """The load and the lengths as they were run, whatever they are called.

    A rate without end is what `vllm bench serve` calls all requests at once, or, with a largest
    concurrency, a closed loop. Lengths that are neither fixed nor of a named spread vary.

    Raises:
        InputError: a load without its size.
    """
    changes: dict[str, object] = {}
    if setup.load in OPEN_LOADS and math.isinf(setup.request_rate_per_s or 0.0):
        load = "closed_loop" if setup.concurrency else "burst"
        changes |= {"load": load, "request_rate_per_s": None}
        assumed.append(f"load={load}, for the rate has no end")
    if setup.length_spread and not _spread(setup):
        lengths = "fixed" if setup.length_spread.lower() in FIXED_LENGTHS else "distribution"
        if setup.length_spread.lower() not in (lengths, "sharegpt"):
            assumed.append(f"length_spread={lengths}")
        if setup.length_spread.lower() != "sharegpt":
            changes["length_spread"] = lengths
    run = setup.model_copy(update=changes)
    if run.load == "burst" and run.requests is None:
        run = run.model_copy(update={"requests": run.batch_size or run.concurrency})
    _check_load(run)
    return run


def weights_of(setup: Setup, model: ModelSpec, assumed: list[str]) -> Precision:
    """The row's weight format; a blank one is what the model's maker publishes."""
    if setup.weights_dtype is not None:
        return setup.weights_dtype
    assumed.append(f"weights_dtype={model.published_precision}")
    return model.published_precision


def kv_dtype_of(
    setup: Setup, weights: Precision, accelerator: AcceleratorSpec, assumed: list[str]
) -> Precision:
    """The row's cache format; blank, what benchmarks of such a checkpoint run.

    16-bit checkpoints keep a 16-bit cache. FP8 and FP4 checkpoints are made with calibrated FP8
    caches (ModelOpt, compressed-tensors), which vLLM then uses: measured capacities and decode
    times of such checkpoints agree with 8 and not with 16 bit.
    """
    if setup.kv_dtype is not None:
        return setup.kv_dtype
    dtype: Precision = "bf16"
    if weights == "fp16":
        dtype = "fp16"
    elif weights in ("fp8", "fp4") and accelerator.computes("fp8"):
        dtype = "fp8"
    assumed.append(f"kv_dtype={dtype}")
    return dtype


def _deployment(
    setup: Setup, model: ModelSpec, accelerator: AcceleratorSpec, assumed: list[str]
) -> Deployment:
    weights = weights_of(setup, model, assumed)
    stages = setup.pipeline_parallel or 1
    t, dp, ep = setup.tensor_parallel, setup.data_parallel or 1, setup.expert_parallel or 1
    if t is None:
        t = max(1, (setup.n_accelerators or 1) // (dp * (setup.replicas or 1) * stages))
        if setup.n_accelerators and t > 1:
            assumed.append(f"tensor_parallel={t}")
    if model.moe and dp == t > 1 and ep == t * dp:
        t, dp, ep = _inside_group(setup, t, assumed)
    elif model.moe is None:
        ep = 1
    try:
        return Deployment(
            model=model,
            accelerator=accelerator,
            weights_dtype=weights,
            kv_dtype=kv_dtype_of(setup, weights, accelerator, assumed),
            tensor_parallel=t,
            data_parallel=dp if model.moe else 1,
            expert_parallel=ep,
            pipeline_parallel=stages,
        )
    except ValidationError as error:
        raise InputError(_reason(error, Deployment)) from None


def _inside_group(setup: Setup, t: int, assumed: list[str]) -> tuple[int, int, int]:
    """Tensor-, data- and expert-parallel sizes that `tp t, dp t, ep t²` of a benchmark's table
    means: t accelerators, over which the experts are dealt out.

    With many users the attention is data-parallel inside the group ("DP attention"), each
    accelerator holding whole layers of it. Loops of fewer are tabled so as well, but take the times
    of a tensor-parallel attention: the same runs are in other tables as `tp t, dp 1, ep t`.
    """
    users = setup.concurrency
    if users is not None and users < DP_ATTENTION_USERS:
        assumed.append(f"experts over {t} accelerators, attention tensor-parallel")
        return t, 1, t
    assumed.append(f"attention data-parallel over {t} accelerators")
    return 1, t, t


def _reason(error: ValidationError, record: type[Record]) -> str:
    """What is wrong, in one line; of settings that contradict each other, just that."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    return str(cause) if cause and not first["loc"] else describe(error, record)


def _replicas(setup: Setup, deployment: Deployment) -> int:
    """Engines that share the load: replicas, the data-parallel ranks of a dense model, and the
    batches that a pipeline has in flight (one a stage, each passing all stages)."""
    dense_ranks = 1 if deployment.model.moe else (setup.data_parallel or 1)
    return (setup.replicas or 1) * dense_ranks * deployment.pipeline_parallel


def _generation(
    setup: Setup, model: ModelSpec, accelerator: AcceleratorSpec, assumed: list[str]
) -> Generation:
    if setup.engine_version is not None:
        return engine_generation(setup.engine_version)
    generation = unstated_generation(setup, model, accelerator)
    assumed.append(f"engine generation {generation}")
    return generation


FIRST_VERSION = {
    "minimax": "0.16",
    "kimi-k2.5": "0.15",
    "qwen3.5": "0.16",
    "glm-5": "0.16",
    "gpt-oss": "0.10.1",
    "qwen3": "0.8.4",
    "qwen3-next": "0.10.2",
    "qwen3-vl": "0.11",
    "deepseek-v3.2": "0.11",
    "glm-4.5": "0.10",
    "gemma-3": "0.8",
    "llama-4": "0.8.3",
}
"""First vLLM release that runs a family (release notes of github.com/vllm-project/vllm)."""


def unstated_generation(setup: Setup, model: ModelSpec, accelerator: AcceleratorSpec) -> Generation:
    """The engine of a row that names no version, by what else it says.

    No older than the model needs. FP16 weights were the way of the years of engine V0; what is
    published later says bf16 or has fewer bits. Blackwell came with V1.
    """
    name = f"{model.id.split('/')[-1]} {model.family}".lower()
    needed = [first for family, first in FIRST_VERSION.items() if family in name]
    if needed:
        return engine_generation(max(needed, key=_release))
    if setup.weights_dtype == "fp16" and not accelerator.arch.startswith("blackwell"):
        return "v0"
    if setup.load == "static_batch" and setup.kv_dtype is not None:
        return "v0"
    return "v1"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _engine(
    setup: Setup, deployment: Deployment, generation: Generation, assumed: list[str]
) -> EngineSettings:
    offline = setup.load in IN_PROCESS
    stated = setup.engine_version if is_version(setup.engine_version) else None
    if setup.engine_version is not None and stated is None:
        assumed.append(f"engine_version '{setup.engine_version}' taken for the newest")
    defaults = vllm_defaults(deployment.accelerator, api_server=not offline, engine_version=stated)
    seqs, budget = defaults.max_num_seqs, defaults.max_num_batched_tokens
    changes: dict[str, object] = {}
    if generation in ("v0", "v0_early"):
        seqs, budget = 256, max(V0_CONTEXT_BUDGET, deployment.model.context_window)
        budget = min(budget, 131_072)
        changes |= {"async_scheduling": False, "enable_chunked_prefill": False}
    if setup.max_num_seqs is None:
        seqs = min(seqs, setup.max_num_batched_tokens or seqs)
        assumed.append(f"max_num_seqs={seqs}")
    seqs = setup.max_num_seqs or seqs
    if setup.max_num_batched_tokens is None:
        budget = max(budget, seqs)
        assumed.append(f"max_num_batched_tokens={budget}")
    budget = setup.max_num_batched_tokens or budget
    if setup.chunked_prefill is not None:
        changes["enable_chunked_prefill"] = setup.chunked_prefill
    changes["enable_prefix_caching"] = (
        setup.prefix_caching if setup.prefix_caching is not None else generation.startswith("v1")
    )
    try:
        return EngineSettings.model_validate(
            {
                **defaults.model_dump(),
                "max_num_seqs": math.ceil(seqs / deployment.pipeline_parallel),
                "max_num_batched_tokens": budget,
                **changes,
            }
        )
    except ValidationError as error:
        raise InputError(_reason(error, EngineSettings)) from None


def _spread(setup: Setup) -> tuple[float, float] | None:
    if setup.length_spread is None:
        return None
    found = _SPREAD.match(setup.length_spread.replace(" ", ""))
    return (float(found[1]), float(found[2])) if found else None


def _output_within_context(setup: Setup, model: ModelSpec, factor: float) -> float:
    """Mean output length; a request that reaches the model's context ends there."""
    room = model.context_window - setup.input_tokens * factor
    if room < 1:
        raise InputError(
            f"input_tokens {setup.input_tokens:g} exceeds the context of {model.id} "
            f"({model.context_window})"
        )
    return min(setup.output_tokens * factor, room)


def _check_load(setup: Setup) -> None:
    needed = {
        "static_batch": "batch_size",
        "steady_batch": "batch_size",
        "closed_loop": "concurrency",
        "poisson": "request_rate_per_s",
        "constant_rate": "request_rate_per_s",
        "gamma": "request_rate_per_s",
        "burst": "requests",
    }.get(setup.load)
    if needed and getattr(setup, needed) is None:
        raise InputError(f"load {setup.load}: {needed} is blank")
