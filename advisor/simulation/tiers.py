"""From a model on accelerators, or a hosted model, to a tier that can be simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import ValidationError

from advisor.catalog import Catalog
from advisor.catalog.assumptions import Assumptions
from advisor.catalog.fits import calibration_for
from advisor.catalog.models import PRECISIONS, ModelSpec, Precision
from advisor.decide.hosted import HostedLatency
from advisor.decide.recommendation import HostedTier, SelfHostedTier, short_name
from advisor.documents import validate
from advisor.errors import DoesNotFitError, InputError
from advisor.figures import percent
from advisor.physics.deployment import Deployment
from advisor.physics.own_steps import calibration_with_own
from advisor.serving.capacity import LEAST_REQUESTS, saturated_throughput
from advisor.serving.cascade import Hosted, SelfHosted
from advisor.serving.deployed import (
    context_for,
    level_log_sd,
    longest_tokens,
    memory_of,
    overhead_s,
    steps_of,
)
from advisor.serving.engine import EngineSettings, vllm_defaults
from advisor.serving.workload import Requests, example_tokens, with_examples
from advisor.task import TaskProfile

MOST_CUT = 0.01
"""Share of the requests that may be longer than the context; more is another deployment's task."""


@dataclass(frozen=True, eq=False)
class DeployedTier:
    """A tier ready to be simulated, with what its latency rests on."""

    serving: SelfHosted | Hosted
    load: Requests
    """The requests as this tier sees them: with worked examples, cut to what it accepts."""
    title: str
    model: str
    accelerator: str | None
    calibration: str
    basis: str
    log_sd: float
    """1-sd of ln(true / projected) of its times."""
    notes: tuple[str, ...] = ()

    @cached_property
    def sustainable_per_s(self) -> float | None:
        """Requests a second with a full queue; a hosted model's limit, None where it has none.

        The queue repeats the tier's load until the batch has been filled a dozen times.
        """
        serving, load = self.serving, self.load
        if isinstance(serving, Hosted):
            return serving.rate_limit_per_s
        tokens = float((load.input_tokens + load.output_tokens / 2).mean())
        held = serving.kv_blocks * serving.engine.block_size / tokens
        count = max(LEAST_REQUESTS, int(12 * min(serving.engine.max_num_seqs, held)))
        index = np.arange(count) % len(load)
        burst = Requests(
            arrival_s=np.zeros(count),
            input_tokens=load.input_tokens[index],
            output_tokens=load.output_tokens[index],
            cached_tokens=load.cached_tokens[index],
        )
        rate = saturated_throughput(serving.step, serving.engine, serving.kv_blocks, burst)
        return serving.replicas * rate

    def taking(self, factor: float) -> SelfHosted | Hosted:
        """The tier where everything it does takes `factor` times as long."""
        if isinstance(self.serving, SelfHosted):
            return replace(self.serving, step=self.serving.step.scaled(factor))
        return replace(
            self.serving,
            ttft_median_s=self.serving.ttft_median_s * factor,
            ttft_p95_s=self.serving.ttft_p95_s * factor,
            token_median_s=self.serving.token_median_s * factor,
            token_p95_s=self.serving.token_p95_s * factor,
        )


def deploy(
    task: TaskProfile,
    catalog: Catalog,
    requests: Requests,
    *,
    model: str,
    accelerator: str,
    weights_dtype: str | None = None,
    kv_dtype: str | None = None,
    tensor_parallel: int = 1,
    replicas: int = 1,
    engine_args: Mapping[str, Any] | None = None,
) -> DeployedTier:
    """A model on accelerators of one's own.

    Args:
        requests: the load, with the prompts that the model gets.
        model, accelerator: names, aliases or paths, as the catalogue takes them.
        weights_dtype: a precision; None: as the model is published.
        engine_args: vLLM settings by name; the others are vLLM's own defaults.

    Raises:
        InputError: unknown names, impossible layouts or settings.
        DoesNotFitError: more than a few requests are longer than the context, or the deployment
            does not fit in memory; the message says what would.
    """
    spec, hardware = catalog.known_model(model), catalog.known_accelerator(accelerator)
    given = engine_args or {}
    if replicas < 1:
        raise InputError(f"replicas = {replicas}: at least 1 is expected")
    weights = _precision("weights_dtype", weights_dtype) or spec.published_precision
    deployment = _deployment(
        model=spec,
        accelerator=hardware,
        weights_dtype=weights,
        tensor_parallel=tensor_parallel,
        **({"kv_dtype": _precision("kv_dtype", kv_dtype)} if kv_dtype else {}),
    )
    defaults = vllm_defaults(
        hardware, max_model_len=min(context_for(requests), spec.context_window)
    )
    engine = validate(
        EngineSettings,
        defaults.model_dump() | {_setting(key): value for key, value in given.items()},
        what="engine arguments",
    )
    length = min(engine.max_model_len or spec.context_window, spec.context_window)
    requests, cut_note = _cut(requests, length, model=spec, block_size=engine.block_size)
    plan = memory_of(deployment, engine, context_tokens=length)
    title = f"{short_name(spec.id)} {weights} on {_count(replicas, tensor_parallel)}{hardware.id}"
    if not plan.fits:
        changes = " or ".join(plan.smallest_changes) or "a larger accelerator"
        raise DoesNotFitError(
            f"{title}: {plan.shortfall_bytes / 1e9:,.1f} GB short on each accelerator for one "
            f"request of {length:,} tokens; it fits with {changes}"
        )
    calibration = calibration_with_own(calibration_for(hardware), deployment)
    computed = float((requests.input_tokens - requests.cached_tokens).mean())
    step = steps_of(deployment, calibration, engine)
    return DeployedTier(
        serving=SelfHosted(
            step=step,
            engine=engine,
            kv_blocks=plan.kv_tokens // engine.block_size,
            replicas=replicas,
            request_overhead_s=overhead_s(
                calibration, _assumptions(task, catalog).request_overhead_s.value
            ),
        ),
        load=requests,
        title=title,
        model=spec.id,
        accelerator=hardware.id,
        calibration=calibration.label,
        basis=calibration.basis,
        log_sd=level_log_sd(
            step,
            calibration,
            spec,
            computed_tokens=computed,
            output_tokens=float(requests.output_tokens.mean()),
        ),
        notes=(*_format_notes(spec, weights), *cut_note),
    )


def deployed_tier(
    tier: SelfHostedTier | HostedTier, task: TaskProfile, catalog: Catalog, requests: Requests
) -> DeployedTier:
    """A tier of a recommended architecture.

    Args:
        requests: the task's, before the tier's adaptation puts worked examples into them.

    Raises:
        InputError, DoesNotFitError: as `deploy`, or a hosted model that is not in the catalogue.
    """
    shots = catalog.assumptions.adaptation(tier.adaptation).shots
    if shots:
        requests = with_examples(requests, task, tokens=example_tokens(task, shots))
    if isinstance(tier, SelfHostedTier):
        return deploy(
            task,
            catalog,
            requests,
            model=tier.model,
            accelerator=tier.accelerator,
            weights_dtype=tier.weights_dtype,
            kv_dtype=tier.kv_dtype,
            tensor_parallel=tier.tensor_parallel,
            replicas=tier.replicas,
            engine_args=tier.engine.model_dump(),
        )
    return _hosted(tier, task, catalog, requests)


def _hosted(
    tier: HostedTier, task: TaskProfile, catalog: Catalog, requests: Requests
) -> DeployedTier:
    """A hosted API with the latency that is assumed of it."""
    wanted, assumptions = tier.hosted, _assumptions(task, catalog)
    known = [m for m in catalog.hosted if (m.provider, m.id) == (wanted.provider, wanted.model)]
    if not known:
        raise InputError(f"hosted model {wanted.provider}/{wanted.model} is not in the catalogue")
    # A limit is the account's: it binds where the user states it, else one that fits is assumed.
    name = "hosted_rate_limit_per_s"
    stated = assumptions.hosted_rate_limit_per_s.value if name in task.assumptions else None
    latency = HostedLatency.of(known[0], assumptions)
    return DeployedTier(
        serving=latency.tier(requests, rate_limit_per_s=stated),
        load=requests,
        title=tier.title,
        model=wanted.model,
        accelerator=None,
        calibration="assumed",
        basis="assumed: latency of hosted APIs, until a trial measures it",
        log_sd=latency.log_sd,
        notes=() if stated else ("the account's rate limit is assumed to admit the load",),
    )


def _assumptions(task: TaskProfile, catalog: Catalog) -> Assumptions:
    return catalog.assumptions.with_values(task.assumptions)


def _deployment(**values: Any) -> Deployment:
    """A layout, its first fault told in one line."""
    try:
        return Deployment(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{field} = {values[field]}: {message}" if field else message) from None


def _precision(name: str, value: str | None) -> Precision | None:
    for precision in PRECISIONS:
        if value == precision:
            return precision
    if value is not None:
        raise InputError(f"{name} = {value}: one of {', '.join(PRECISIONS)} is expected")
    return None


def _setting(name: str) -> str:
    """vLLM's option as its field: `--max-num-seqs` and `max_num_seqs` are the same."""
    return name.lstrip("-").replace("-", "_")


def _cut(
    requests: Requests, length: int, *, model: ModelSpec, block_size: int
) -> tuple[Requests, tuple[str, ...]]:
    """Requests in whole blocks within a context length, and a note where the longest were cut.

    A distribution's tail has no end; an engine refuses what is longer than its context.
    """
    over = requests.input_tokens + requests.output_tokens > length
    share = float(over.mean())
    if share > MOST_CUT:
        raise DoesNotFitError(
            f"{model.id}: {percent(share)} of the requests are longer than a context of {length:,} "
            f"tokens (the longest has {longest_tokens(requests):,})"
        )
    outputs = np.where(
        over, np.minimum(requests.output_tokens, length // 2), requests.output_tokens
    )
    inputs = np.minimum(requests.input_tokens, length - outputs)
    cached = np.minimum(requests.cached_tokens, inputs - 1) // block_size * block_size
    cut = replace(requests, input_tokens=inputs, output_tokens=outputs, cached_tokens=cached)
    note = f"{percent(share)} of the requests are cut to a context of {length:,} tokens"
    return cut, (note,) if share else ()


def _count(replicas: int, tensor_parallel: int) -> str:
    return f"{replicas} × " + (f"{tensor_parallel}×" if tensor_parallel > 1 else "")


def _format_notes(model: ModelSpec, weights: Precision) -> tuple[str, ...]:
    known = {model.published_precision, model.expert_precision, "bf16", "fp16", *model.quantized_to}
    if weights in known:
        return ()
    return (f"no published {weights} checkpoint of {model.id} is known here",)
