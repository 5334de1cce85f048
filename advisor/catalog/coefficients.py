"""The calibrated numbers of the step-time law: efficiencies, host and collective costs."""

from __future__ import annotations

from pydantic import Field

from advisor.records import Record


class Coefficients(Record):
    """What calibration finds: shares of peak (at most 1) and fixed costs in seconds.

    They are fitted as logarithms inside the bounds given here. A share of 1 is the datasheet.
    """

    linear_bandwidth: float = Field(0.87, ge=0.2, le=1)
    """Share of memory bandwidth while reading the weights of 16-bit linears."""
    linear_bandwidth_8bit: float = Field(0.82, ge=0.2, le=1)
    linear_bandwidth_4bit: float = Field(0.66, ge=0.15, le=1)
    linear_compute_16bit: float = Field(0.75, ge=0.05, le=1)
    """Share of the peak rate of linears computed in 16 bit."""
    linear_compute_8bit: float = Field(0.48, ge=0.05, le=1)
    linear_compute_4bit: float = Field(0.40, ge=0.02, le=1)
    activation_bandwidth: float = Field(0.60, ge=0.1, le=1)
    """Share of memory bandwidth of norms, rotations and activation functions."""
    head_bandwidth: float = Field(0.79, ge=0.2, le=1)
    """Share of memory bandwidth of the LM head."""
    sampling_bandwidth: float = Field(0.40, ge=0.02, le=1)
    """The same of the sampler, which passes over float32 logits four times."""
    kv_bandwidth: float = Field(0.80, ge=0.1, le=1)
    """Share of memory bandwidth while reading the 16-bit cache of decoding sequences."""
    kv_bandwidth_8bit: float = Field(0.70, ge=0.1, le=1)
    """The same with an 8-bit cache."""
    kv_bandwidth_v0: float = Field(0.80, ge=0.1, le=1)
    """The same with the paged-attention kernels of engine V0, one KV head a query head."""
    kv_sharing_v0: float = Field(0.3, ge=0.01, le=1)
    """Those kernels read a shared head again for each query head, mostly from L2: their time grows
    as (H/Hkv) to this power."""
    kv_sharing_early: float = Field(0.6, ge=0.01, le=1)
    """The same of the first of those kernels (before vLLM 0.2.7), which have fewer blocks in flight
    and miss L2 more often."""
    kv_split_v0: float = Field(0.1, ge=0.005, le=1)
    """With fewer heads on a rank they fill the chip less: their time grows as t to this power."""
    prefill_attention: float = Field(0.53, ge=0.02, le=1)
    """Share of the 16-bit peak rate of prefill attention."""
    expert_bandwidth_16bit: float = Field(0.93, ge=0.1, le=1)
    """Share of memory bandwidth while reading the experts touched, 16-bit grouped products."""
    expert_bandwidth_8bit: float = Field(0.81, ge=0.1, le=1)
    expert_bandwidth_fp4: float = Field(0.95, ge=0.1, le=1)
    """Fused FP4 kernels, on chips that compute in FP4."""
    expert_bandwidth_weight_only: float = Field(0.65, ge=0.1, le=1)
    """4-bit experts expanded to 16 bit (Marlin, Triton)."""
    expert_bandwidth_mxfp4: float = Field(0.92, ge=0.1, le=1)
    """MXFP4 experts (gpt-oss), which have kernels of their own on every chip."""
    expert_compute_16bit: float = Field(0.48, ge=0.02, le=1)
    """Share of the peak rate of expert products."""
    expert_compute_8bit: float = Field(0.26, ge=0.02, le=1)
    expert_compute_fp4: float = Field(0.21, ge=0.01, le=1)
    expert_compute_weight_only: float = Field(0.28, ge=0.02, le=1)
    expert_compute_mxfp4: float = Field(0.30, ge=0.02, le=1)
    expert_padding_16bit: float = Field(90.0, ge=0.5, le=300)
    """Phantom tokens an expert that is touched computes: tiles are padded."""
    expert_padding_8bit: float = Field(48.0, ge=0.5, le=300)
    expert_padding_fp4: float = Field(80.0, ge=0.5, le=300)
    expert_padding_weight_only: float = Field(12.0, ge=0.5, le=300)
    expert_padding_mxfp4: float = Field(23.0, ge=0.5, le=300)
    routing_evenness: float = Field(3.0, ge=0.3, le=100)
    """Shape of the gamma distribution of experts' popularity: infinite for even routing."""
    layer_s: float = Field(45e-6, ge=2e-6, le=500e-6)
    """Kernel launches and gaps of one layer, CUDA graphs replayed (engine V1)."""
    moe_layer_16bit_s: float = Field(54e-6, ge=1e-6, le=600e-6)
    """More of them in a routed layer: routing, sorting, permuting."""
    moe_layer_8bit_s: float = Field(45e-6, ge=1e-6, le=600e-6)
    moe_layer_fp4_s: float = Field(26e-6, ge=1e-6, le=600e-6)
    moe_layer_weight_only_s: float = Field(39e-6, ge=1e-6, le=600e-6)
    moe_layer_mxfp4_s: float = Field(60e-6, ge=1e-6, le=600e-6)
    latent_layer_s: float = Field(30e-6, ge=1e-6, le=300e-6)
    """More of them in a layer with latent attention: down- and up-projections, absorption."""
    quantize_layer_s: float = Field(8e-6, ge=0.2e-6, le=100e-6)
    """More of them in a layer whose activations are quantised on the fly."""
    mixed_layer_s: float = Field(45e-6, ge=1e-6, le=400e-6)
    """More of them in a layer of a step that holds prefill tokens: its attention runs between
    pieces of the CUDA graph, launched from the host."""
    mixed_moe_layer_s: float = Field(30e-6, ge=1e-6, le=400e-6)
    """And more where that layer is routed."""
    mixed_latent_layer_s: float = Field(60e-6, ge=1e-6, le=600e-6)
    """And more where its attention is latent: keys and values of the prompt are expanded, padded
    and joined in kernels of their own."""
    mixed_reduce_s: float = Field(14e-6, ge=1e-6, le=200e-6)
    """By which an all-reduce outside a CUDA graph takes longer."""
    recent_layer_factor: float = Field(0.6, ge=0.2, le=1.5)
    """Both, from vLLM 0.15 on, as a multiple."""
    latest_moe_factor: float = Field(0.8, ge=0.2, le=1.5)
    """The part of routed layers again, from vLLM 0.18 on."""
    eager_layer_factor: float = Field(2.0, ge=1, le=8)
    """Both, without CUDA graphs, as a multiple."""
    host_step_early_s: float = Field(3e-3, ge=50e-6, le=40e-3)
    """Scheduler, input preparation and output handling of one step, before vLLM 0.2.7."""
    host_step_v0_s: float = Field(1.3e-3, ge=50e-6, le=20e-3)
    """The same, engine V0."""
    host_step_v1_s: float = Field(0.3e-3, ge=20e-6, le=10e-3)
    host_sequence_early_s: float = Field(120e-6, ge=2e-6, le=1e-3)
    """The same per sequence in the step."""
    host_sequence_v0_s: float = Field(80e-6, ge=2e-6, le=500e-6)
    host_sequence_v1_s: float = Field(10e-6, ge=0.5e-6, le=200e-6)
    worker_early_s: float = Field(2e-3, ge=50e-6, le=10e-3)
    """More host time a step for each doubling of the tensor-parallel workers (Ray calls)."""
    worker_v0_s: float = Field(0.4e-3, ge=5e-6, le=3e-3)
    """The same, engine V0 (inputs broadcast each step)."""
    worker_v1_s: float = Field(30e-6, ge=1e-6, le=1e-3)
    """The same, engine V1 (shared memory)."""
    reduce_s: float = Field(5e-6, ge=1e-6, le=200e-6)
    """Latency of one all-reduce between two ranks."""
    reduce_hop_s: float = Field(0.8e-6, ge=0.1e-6, le=50e-6)
    """More for each doubling of the ranks."""
    link_bandwidth: float = Field(0.70, ge=0.05, le=1)
    """Share of the link's peak rate in collectives."""
    request_overhead_s: float = Field(30e-3, ge=0.2e-3, le=1.0)
    """Client and HTTP, before the engine sees a request and on the first token's way back: a
    property of the serving set-up."""
    frontend_request_s: float = Field(2e-3, ge=50e-6, le=100e-3)
    """Handling of one request by client and API server, one after the other: a burst of requests
    reaches the engine no faster."""
    frontend_token_s: float = Field(4e-6, ge=0.05e-6, le=100e-6)
    """The same per input token: text sent, parsed and tokenised."""


COEFFICIENT_NAMES: tuple[str, ...] = tuple(Coefficients.model_fields)


def bounds_of(name: str) -> tuple[float, float]:
    """Smallest and largest value a coefficient may take."""
    low = high = 0.0
    for constraint in Coefficients.model_fields[name].metadata:
        low = float(getattr(constraint, "ge", low))
        high = float(getattr(constraint, "le", high))
    return low, high
