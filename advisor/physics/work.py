"""What one engine step reads, computes and exchanges on one accelerator, before any efficiency."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import cast

import numpy as np
from numpy.typing import NDArray

from advisor.catalog.models import WEIGHT_BYTES, ModelSpec
from advisor.physics.attention import flops_per_pair, full_and_sliding_layers
from advisor.physics.deployment import Deployment, compute_dtype
from advisor.physics.kv_cache import kv_bytes_per_token_per_layer
from advisor.physics.parameters import ParameterCount, parameter_count

MXFP4_KERNEL = 5.0
"""`Work.expert_kernel` of MXFP4 experts (gpt-oss)."""

Values = float | NDArray[np.float64]
"""One deployment's figure, or a column of them: the laws are written once for both."""


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes, operations and counts of a step, per accelerator, and the peaks they run against.

    Every field may be a column (one entry a deployment): the calibration evaluates thousands of
    measured conditions at once with the same formulas that the recommendation uses.
    """

    layers: Values
    moe_layers: Values
    linear_bytes: Values
    """Weights read each step whatever the batch: all linears but routed experts and head."""
    linear_flops: Values
    """Operations of those linears per token."""
    linear_peak: Values
    """Peak operations per second in their compute format."""
    linear_bits: Values
    """Width of that format: 16, 8 or 4."""
    activation_bytes: Values
    """Traffic of norms, rotations and activation functions per token."""
    linear_read_bits: Values
    """Width of the weights themselves: 16, 8 or 4."""
    head_bytes: Values
    head_flops: Values
    """Operations of the LM head per sampled position."""
    logit_bytes: Values
    """Traffic of the sampler per sampled position: 16·V (float32 logits written, read thrice)."""
    kv_bits: Values
    """Width of the cache: 16 or 8."""
    kv_bytes: Values
    """Cache read per context token and step, full-attention layers."""
    window_kv_bytes: Values
    group: Values
    """Query heads that share a KV head on one rank; 1 for latent attention."""
    pair_flops: Values
    """Prefill attention per token pair, full-attention layers."""
    window_pair_flops: Values
    experts: Values
    """Routed experts; 0 for a dense model."""
    visit_share: Values
    """k/E: chance that a token visits a given expert."""
    expert_bytes: Values
    """Weights of one expert over all layers, on this accelerator's share."""
    expert_flops: Values
    """Operations of one expert for one token over all layers, on this accelerator's share."""
    expert_peak: Values
    expert_kernel: Values
    """Which kernels run the experts: 16 or 8 for grouped products of that width, 4 for fused FP4,
    `MXFP4_KERNEL`, 0 for 4-bit weights expanded to 16 bit; 16 for a dense model."""
    latent: bool | Values
    """1 with latent attention."""
    quantized: bool | Values
    """1 where the linears' activations are quantised on the fly."""
    peak_16bit: Values
    bandwidth: Values
    """Peak bytes per second."""
    tensor_parallel: Values
    data_parallel: Values
    reduce_bytes: Values
    """Bytes one rank sends per token for the all-reduces of the tensor-parallel group."""
    reductions: Values
    """All-reduces a step: two a layer where t > 1."""
    exchange_bytes: Values
    """Bytes one rank sends per token to gather and scatter tokens between data-parallel ranks."""
    exchanges: Values
    handoff_bytes: Values
    """Bytes one rank sends per token to the following pipeline stages."""
    handoffs: Values
    """Stages after the first."""
    link: Values
    """Peak bytes per second to the other accelerators."""


def stack(works: list[Work]) -> Work:
    """Columns of many deployments' figures."""
    columns = {
        field.name: np.array([getattr(work, field.name) for work in works], dtype=np.float64)
        for field in fields(Work)
    }
    return Work(**cast(dict[str, Values], columns))


def work_of(deployment: Deployment) -> Work:
    """Derive a step's work from shapes and layout.

    Linears 2·P ops and w·P bytes, cut t ways; the head 2·V·d; cache max(1, Hkv/t) heads a rank;
    ring all-reduce 2(t − 1)/t·d·2 bytes a token, twice a layer (arXiv 1909.08053 §3); with data
    parallelism an all-gather and a reduce-scatter of the hidden states around each routed layer;
    between pipeline stages hidden states and residual, 2·d·2/t bytes a token. A step is the pass
    of one batch through all stages.
    """
    model, chip, t = deployment.model, deployment.accelerator, deployment.tensor_parallel
    count = parameter_count(model)
    full, sliding = full_and_sliding_layers(model)
    kv_dtype = deployment.kv_dtype
    linears = _linear_parameters(model, count)
    linear_format = compute_dtype(chip, deployment.linear_dtype)
    expert_format = compute_dtype(chip, deployment.expert_dtype)
    mxfp4 = model.expert_precision == "fp4"  # MXFP4 weights meet MXFP8 activations
    hidden_bytes = 2.0 * model.hidden_size
    dp = deployment.data_parallel
    routed = count.moe_layers if model.moe else 0
    return Work(
        layers=float(model.num_layers),
        moe_layers=float(routed),
        linear_bytes=linears * WEIGHT_BYTES[deployment.linear_dtype] / t,
        linear_flops=2.0 * linears / t,
        linear_peak=chip.peak_flops(linear_format),
        linear_bits={"fp8": 8.0, "int8": 8.0, "fp4": 4.0}.get(linear_format, 16.0),
        activation_bytes=2.0
        * (8.0 * model.num_layers * model.hidden_size + 3.0 * _dense_width(model, count) / t),
        linear_read_bits={1.0: 8.0, 2.0: 16.0}.get(WEIGHT_BYTES[deployment.linear_dtype], 4.0),
        head_bytes=2.0 * model.vocab_size * model.hidden_size / t,
        head_flops=2.0 * model.vocab_size * model.hidden_size / t,
        logit_bytes=16.0 * model.vocab_size,
        kv_bits=8.0 * WEIGHT_BYTES[kv_dtype],
        kv_bytes=full * kv_bytes_per_token_per_layer(model, kv_dtype, t),
        window_kv_bytes=sliding * kv_bytes_per_token_per_layer(model, kv_dtype, t, sliding=True),
        group=1.0 if model.mla else model.num_heads / t / max(1.0, model.num_kv_heads / t),
        pair_flops=full * flops_per_pair(model) / t,
        window_pair_flops=sliding * flops_per_pair(model, sliding=True) / t,
        experts=float(model.moe.num_experts) if model.moe else 0.0,
        visit_share=model.moe.experts_per_token / model.moe.num_experts if model.moe else 0.0,
        expert_bytes=routed
        * count.expert
        * WEIGHT_BYTES[deployment.expert_dtype]
        / deployment.stage_ranks,
        expert_flops=2.0 * routed * count.expert / deployment.stage_ranks,
        expert_peak=chip.peak_flops("fp8" if mxfp4 and expert_format == "fp4" else expert_format),
        expert_kernel=_expert_kernel(deployment),
        latent=model.mla is not None,
        quantized=linear_format in ("fp8", "int8", "fp4"),
        peak_16bit=chip.peak_flops("bf16"),
        bandwidth=chip.bandwidth_bytes_per_s,
        tensor_parallel=float(t),
        data_parallel=float(dp),
        reduce_bytes=2.0 * model.num_layers * hidden_bytes * 2.0 * (t - 1) / t,
        reductions=2.0 * model.num_layers if t > 1 else 0.0,
        exchange_bytes=2.0 * routed * hidden_bytes * (dp - 1),
        exchanges=2.0 * routed if dp > 1 else 0.0,
        handoff_bytes=2.0 * hidden_bytes / t * (deployment.pipeline_parallel - 1),
        handoffs=deployment.pipeline_parallel - 1.0,
        link=chip.link_bytes_per_s,
    )


def _dense_width(model: ModelSpec, count: ParameterCount) -> float:
    """Feed-forward columns of all dense layers together."""
    return float(count.dense_ffn_layers * model.intermediate_size)


def _expert_kernel(deployment: Deployment) -> float:
    dtype = deployment.expert_dtype
    if deployment.model.moe is None or dtype in ("bf16", "fp16"):
        return 16.0
    if dtype == "fp4" and deployment.model.expert_precision == "fp4":
        return MXFP4_KERNEL
    computed = compute_dtype(deployment.accelerator, dtype)
    if dtype in ("fp4", "int4"):
        return 4.0 if computed == "fp4" else 0.0
    return 8.0 if computed in ("fp8", "int8") else 16.0


def _linear_parameters(model: ModelSpec, count: ParameterCount) -> float:
    """Weights that every token passes, but for embedding and head."""
    experts = model.moe.num_experts * count.expert * count.moe_layers if model.moe else 0
    return float(count.body - experts)


def experts_touched(
    tokens: Values, experts: Values, visit_share: Values, evenness: Values = np.inf
) -> NDArray[np.float64]:
    """Distinct experts that n tokens visit in a layer.

    Even routing: E·(1 − (1 − k/E)ⁿ). Real routers have favourites: with popularities spread as a
    gamma distribution of shape a, E·(1 − (1 + λ/a)^−a), λ = −n·ln(1 − k/E), which is the former
    for a → ∞.
    """
    share = np.minimum(np.asarray(visit_share, dtype=np.float64), 1 - 1e-12)
    visits = -tokens * np.log1p(-share)
    shape = np.minimum(np.asarray(evenness, dtype=np.float64), 1e9)
    return np.asarray(experts * -np.expm1(-shape * np.log1p(visits / shape)))
