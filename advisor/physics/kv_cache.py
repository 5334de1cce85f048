"""Bytes of the KV cache: per token, per sequence, in blocks."""

from __future__ import annotations

import math

from advisor.catalog.models import WEIGHT_BYTES, ModelSpec, Precision
from advisor.physics.attention import full_and_sliding_layers

BLOCK_TOKENS = 16
"""Tokens in one block of vLLM's paged cache (arXiv 2309.06180)."""


def kv_bytes_per_token_per_layer(
    model: ModelSpec,
    kv_dtype: Precision = "bf16",
    tensor_parallel: int = 1,
    *,
    sliding: bool = False,
) -> float:
    """Bytes one token takes in one layer's cache on one accelerator.

    2·max(1, Hkv/t)·dh·c; latent attention (rank + rope)·c, a copy on every rank. `sliding` asks for
    a sliding-window layer where the full-attention layers have another shape.
    """
    element = WEIGHT_BYTES[kv_dtype]
    if model.mla is not None:
        return (model.mla.kv_lora_rank + model.mla.qk_rope_head_dim) * element
    heads, head_dim = model.num_kv_heads, model.head_dim
    if model.full_attention and not sliding:
        heads, head_dim = model.full_attention.num_kv_heads, model.full_attention.head_dim
    return 2 * max(1.0, heads / tensor_parallel) * head_dim * element


def kv_bytes_per_token(
    model: ModelSpec, kv_dtype: Precision = "bf16", tensor_parallel: int = 1
) -> float:
    """Bytes one token takes on one accelerator while it is inside every window: Σ over layers."""
    full, sliding = full_and_sliding_layers(model)
    wide = kv_bytes_per_token_per_layer(model, kv_dtype, tensor_parallel)
    near = kv_bytes_per_token_per_layer(model, kv_dtype, tensor_parallel, sliding=True)
    return full * wide + sliding * near


def blocks_of(tokens: int) -> int:
    """Blocks that hold a context."""
    return math.ceil(tokens / BLOCK_TOKENS)


def kv_bytes(
    model: ModelSpec,
    context_tokens: int,
    kv_dtype: Precision = "bf16",
    tensor_parallel: int = 1,
) -> float:
    """Bytes of one sequence's cache on one accelerator, in whole blocks.

    Full layers hold ⌈context/16⌉ blocks, sliding layers at most those that cover the window.
    """
    full, sliding = full_and_sliding_layers(model)
    wide = kv_bytes_per_token_per_layer(model, kv_dtype, tensor_parallel)
    total = full * blocks_of(context_tokens) * wide
    if sliding and model.sliding_window:
        near = kv_bytes_per_token_per_layer(model, kv_dtype, tensor_parallel, sliding=True)
        total += sliding * blocks_of(min(context_tokens, model.sliding_window.size)) * near
    return total * BLOCK_TOKENS
