"""Whether a deployment fits in memory, and how many tokens its KV pool holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.catalog.models import WEIGHT_BYTES
from advisor.physics.deployment import Deployment
from advisor.physics.kv_cache import BLOCK_TOKENS, blocks_of, kv_bytes
from advisor.physics.parameters import parameter_count
from advisor.records import Record

FRAMEWORK_BYTES = 1.0e9
"""CUDA context, cuBLAS and attention workspaces, fragmentation: what vLLM's start-up profile
reports as non-torch memory on one accelerator, 0.5–1.5 GB."""

COLLECTIVE_BYTES = 0.6e9
"""NCCL and custom all-reduce buffers, where there is more than one rank."""

SAMPLED_SEQUENCES = 256
"""Sequences whose logits the start-up profile holds at once."""


class MemoryPlan(Record):
    """Where the bytes of one accelerator go."""

    fits: bool
    usable_bytes: float
    """Bytes the engine may use: what the driver shows x gpu_memory_utilization."""
    weights_bytes: float
    activation_bytes: float
    framework_bytes: float
    kv_pool_bytes: float
    """What is left for the KV cache; 0 where nothing is."""
    kv_bytes_per_sequence: float
    """One sequence of the planned context, in whole blocks."""
    context_tokens: int
    kv_blocks: int
    """Blocks of 16 tokens in the pool; where layers slide, blocks of sequences of the planned
    context."""
    shortfall_bytes: float
    """Missing for one sequence of the planned context; 0 where it fits."""
    smallest_changes: tuple[str, ...]
    """What would make it fit, each alone, the least change first."""

    @property
    def kv_tokens(self) -> int:
        """Tokens the pool holds."""
        return self.kv_blocks * BLOCK_TOKENS

    def max_concurrency_at(self, context_tokens: int) -> int:
        """Sequences of a context that the pool holds at once."""
        return self.kv_blocks // max(1, blocks_of(context_tokens))


class Shares(NamedTuple):
    """Bytes of one accelerator by what takes them, as a MemoryPlan has them."""

    usable_bytes: float
    weights_bytes: float
    activation_bytes: float
    framework_bytes: float
    left_bytes: float
    """For the KV cache; negative where nothing is left."""
    kv_bytes_per_sequence: float
    kv_blocks: int

    @property
    def fits(self) -> bool:
        """Whether one sequence of the planned context does."""
        return self.left_bytes >= self.kv_bytes_per_sequence


def weights_bytes(deployment: Deployment) -> float:
    """Bytes of weights on one accelerator.

    Attention, dense feed-forward and shared experts are cut t ways (KV projections no finer than
    one head), routed experts over all ranks of a stage, embedding and head (16 bit) t ways;
    routers, norms and state-space mixers count with the linears. A pipeline's stages share the
    layers evenly; embedding and head lie on the first and the last.
    """
    model, t, stages = deployment.model, deployment.tensor_parallel, deployment.pipeline_parallel
    count = parameter_count(model)
    experts = model.moe.num_experts * count.expert * count.moe_layers if model.moe else 0
    dense = (count.body - experts) * WEIGHT_BYTES[deployment.linear_dtype] / t
    if model.mla is None and model.num_kv_heads < t:
        kv_projection = 2 * model.hidden_size * model.num_kv_heads * model.head_dim
        copies = 1 / model.num_kv_heads - 1 / t
        dense += (
            count.attention_layers * kv_projection * copies * WEIGHT_BYTES[deployment.linear_dtype]
        )
    routed = experts * WEIGHT_BYTES[deployment.expert_dtype] / deployment.stage_ranks
    ends = (count.embedding + count.head) if stages == 1 else max(count.embedding, count.head)
    return (dense + routed) / stages + ends * 2.0 / t


def activation_bytes(deployment: Deployment, max_num_batched_tokens: int) -> float:
    """Largest transient memory of a step on one accelerator.

    Per token: residual, normed copy and layer output (3·d) and the widest intermediate, twice for
    gate and up with their product (3·dff/t, or k experts' share), in 16 bit; plus float32 logits
    and their sorted copy, 2·V·4/t for each sampled sequence.
    """
    model, t = deployment.model, deployment.tensor_parallel
    width = 3.0 * model.intermediate_size / t
    if model.moe is not None:
        routed = model.moe.experts_per_token * model.moe.moe_intermediate_size
        width = max(width, 3.0 * routed / t + model.moe.experts_per_token * model.hidden_size)
    per_token = 2.0 * (3 * model.hidden_size + width)
    logits = 8.0 * model.vocab_size * min(SAMPLED_SEQUENCES, max_num_batched_tokens)
    return per_token * max_num_batched_tokens + logits


def plan_memory(
    deployment: Deployment,
    *,
    context_tokens: int,
    max_num_batched_tokens: int = 8192,
    gpu_memory_utilization: float = 0.9,
) -> MemoryPlan:
    """Share out one accelerator's memory; everything in bytes per accelerator.

    It fits when the pool holds one sequence of `context_tokens`. Of a pipeline the pool is that of
    one of the batches in flight: a stage holds 1/p of the cache of each token, for p such batches.
    Raises ValueError where an argument is out of range.
    """
    if context_tokens < 1 or max_num_batched_tokens < 1:
        raise ValueError("context_tokens and max_num_batched_tokens must be at least 1")
    if not 0 < gpu_memory_utilization <= 1:
        raise ValueError("gpu_memory_utilization must be in (0, 1]")
    settings = (max_num_batched_tokens, gpu_memory_utilization)
    shares = share_out(deployment, context_tokens, *settings)
    changes: dict[str, str] = {}
    if not shares.fits:
        for kind, label, changed, context in _smaller(deployment, context_tokens):
            if kind not in changes and share_out(changed, context, *settings).fits:
                changes[kind] = label
    return MemoryPlan(
        fits=shares.fits,
        usable_bytes=shares.usable_bytes,
        weights_bytes=shares.weights_bytes,
        activation_bytes=shares.activation_bytes,
        framework_bytes=shares.framework_bytes,
        kv_pool_bytes=max(0.0, shares.left_bytes),
        kv_bytes_per_sequence=shares.kv_bytes_per_sequence,
        context_tokens=context_tokens,
        kv_blocks=shares.kv_blocks,
        shortfall_bytes=max(0.0, shares.kv_bytes_per_sequence - shares.left_bytes),
        smallest_changes=tuple(changes.values()),
    )


def share_out(
    deployment: Deployment, context_tokens: int, max_num_batched_tokens: int, utilization: float
) -> Shares:
    """The figures of a memory plan alone, for who asks ten thousand times.

    left = usable·utilisation − weights − activations − framework;  blocks = left ÷ (bytes of a
    sequence of `context_tokens` ÷ its blocks).
    """
    usable = deployment.accelerator.memory_bytes * utilization
    weights = weights_bytes(deployment)
    activations = activation_bytes(deployment, max_num_batched_tokens)
    framework = FRAMEWORK_BYTES + (COLLECTIVE_BYTES if deployment.ranks > 1 else 0.0)
    left = usable - weights - activations - framework
    sequence = kv_bytes(
        deployment.model, context_tokens, deployment.kv_dtype, deployment.tensor_parallel
    )
    per_block = sequence / blocks_of(context_tokens)
    blocks = max(0, int(left // per_block))
    return Shares(usable, weights, activations, framework, left, sequence, blocks)


def _smaller(
    deployment: Deployment, context_tokens: int
) -> Iterator[tuple[str, str, Deployment, int]]:
    """Changes that need less memory an accelerator, by kind, from the mildest to the harshest."""
    if WEIGHT_BYTES[deployment.kv_dtype] > 1:
        changed = deployment.model_copy(update={"kv_dtype": "fp8"})
        yield "cache", "fp8 KV cache", changed, context_tokens
    context = context_tokens // 2
    while context >= 1024:
        yield "context", f"context {context}", deployment, context
        context //= 2
    for dtype in ("fp8", "int4"):
        if WEIGHT_BYTES[dtype] < WEIGHT_BYTES[deployment.weights_dtype]:
            changed = deployment.model_copy(update={"weights_dtype": dtype})
            yield "weights", f"{dtype} weights", changed, context_tokens
    t = deployment.tensor_parallel * 2
    while t <= deployment.accelerator.max_per_node and deployment.model.num_heads % t == 0:
        changed = Deployment.model_validate({**dict(deployment), "tensor_parallel": t})
        yield "parallel", f"tensor parallel {t}", changed, context_tokens
        t *= 2
