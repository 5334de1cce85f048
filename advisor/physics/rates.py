"""Which coefficients one engine generation and one set of kernels use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.catalog.coefficients import Coefficients
from advisor.physics.engine import Generation
from advisor.physics.work import MXFP4_KERNEL, Values, Work

EXPERT_KERNELS: dict[float, str] = {8: "8bit", 4: "fp4", MXFP4_KERNEL: "mxfp4", 0: "weight_only"}
"""Part of a coefficient's name by `Work.expert_kernel`; 16 bit for all others."""


@dataclass(frozen=True, slots=True)
class EngineFlags:
    """Which generation an engine is of (columns allowed); none of them: V1 before 0.15."""

    early: bool | NDArray[np.bool_]
    v0: bool | NDArray[np.bool_]
    recent: bool | NDArray[np.bool_]
    """0.15 on."""
    latest: bool | NDArray[np.bool_]
    """0.18 on."""


def engine_flags(generation: Generation) -> EngineFlags:
    """Flags of one engine."""
    return EngineFlags(
        early=generation == "v0_early",
        v0=generation == "v0",
        recent=generation in ("v1_recent", "v1_latest"),
        latest=generation == "v1_latest",
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """Coefficients as one engine generation and one set of kernels use them (columns allowed)."""

    linear_bandwidth: Values
    linear_compute: Values
    activation_bandwidth: Values
    head_bandwidth: Values
    sampling_bandwidth: Values
    kv_bandwidth: Values
    prefill_attention: Values
    expert_bandwidth: Values
    expert_compute: Values
    expert_padding_tokens: Values
    routing_evenness: Values
    layer_s: Values
    mixed_layer_s: Values
    mixed_moe_layer_s: Values
    mixed_reduce_s: Values
    moe_layer_s: Values
    host_step_s: Values
    host_sequence_s: Values
    worker_s: Values
    reduce_s: Values
    reduce_hop_s: Values
    link_bandwidth: Values


def rates_of(c: Coefficients, work: Work, engine: EngineFlags) -> Rates:
    """Pick what one engine generation and one set of kernels use (columns allowed throughout)."""

    def by_engine(early: Values, v0: Values, v1: Values) -> Values:
        return np.where(engine.early, early, np.where(engine.v0, v0, v1))

    def by_experts(name: str) -> Values:
        chosen: Values = getattr(c, name.format("16bit"))
        for kernel, kind in EXPERT_KERNELS.items():
            chosen = np.where(work.expert_kernel == kernel, getattr(c, name.format(kind)), chosen)
        return chosen

    old = np.logical_or(engine.early, engine.v0)
    launches = np.where(engine.recent, c.recent_layer_factor, 1.0)
    latest = np.where(engine.latest, c.latest_moe_factor, 1.0)
    launches = launches * np.where(engine.early, c.eager_layer_factor, 1.0)
    layer = c.layer_s + work.latent * c.latent_layer_s + work.quantized * c.quantize_layer_s
    sharing = np.where(engine.early, c.kv_sharing_early, c.kv_sharing_v0)
    paged = c.kv_bandwidth_v0 * work.group**-sharing
    paged = paged * work.tensor_parallel ** -np.asarray(c.kv_split_v0)
    cache = np.where(work.kv_bits == 8, c.kv_bandwidth_8bit, c.kv_bandwidth)
    narrow_read = np.where(
        work.linear_read_bits == 4, c.linear_bandwidth_4bit, c.linear_bandwidth_8bit
    )
    narrow = np.where(work.linear_bits == 4, c.linear_compute_4bit, c.linear_compute_8bit)
    return Rates(
        linear_bandwidth=np.where(work.linear_read_bits == 16, c.linear_bandwidth, narrow_read),
        linear_compute=np.where(work.linear_bits == 16, c.linear_compute_16bit, narrow),
        activation_bandwidth=c.activation_bandwidth,
        head_bandwidth=c.head_bandwidth,
        sampling_bandwidth=c.sampling_bandwidth,
        kv_bandwidth=np.where(old, paged, cache),
        prefill_attention=c.prefill_attention,
        expert_bandwidth=by_experts("expert_bandwidth_{}"),
        expert_compute=by_experts("expert_compute_{}"),
        expert_padding_tokens=by_experts("expert_padding_{}"),
        layer_s=layer * launches,
        mixed_layer_s=c.mixed_layer_s + work.latent * c.mixed_latent_layer_s,
        mixed_moe_layer_s=c.mixed_moe_layer_s,
        mixed_reduce_s=c.mixed_reduce_s,
        moe_layer_s=by_experts("moe_layer_{}_s") * launches * latest,
        routing_evenness=c.routing_evenness,
        host_step_s=by_engine(c.host_step_early_s, c.host_step_v0_s, c.host_step_v1_s),
        host_sequence_s=by_engine(
            c.host_sequence_early_s, c.host_sequence_v0_s, c.host_sequence_v1_s
        ),
        worker_s=by_engine(c.worker_early_s, c.worker_v0_s, c.worker_v1_s),
        reduce_s=c.reduce_s,
        reduce_hop_s=c.reduce_hop_s,
        link_bandwidth=c.link_bandwidth,
    )
