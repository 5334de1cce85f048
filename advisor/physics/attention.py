"""What attention costs: token pairs, and floating-point operations per pair."""

from __future__ import annotations

from typing import Literal

from advisor.catalog.models import ModelSpec


def attended_pairs(new_tokens: int, past_tokens: int = 0, window: int | None = None) -> int:
    """Pairs (query, key) that causal attention computes for a run of new tokens.

    Σ_{i=1..q} min(past + i, window); without a window q·past + q(q + 1)/2. Each token sees itself.
    """
    if new_tokens < 0 or past_tokens < 0:
        raise ValueError("token counts must not be negative")
    last = past_tokens + new_tokens
    if window is None or last <= window:
        return new_tokens * past_tokens + new_tokens * (new_tokens + 1) // 2
    growing = max(0, window - past_tokens)
    return attended_pairs(growing, past_tokens) + (new_tokens - growing) * window


def full_and_sliding_layers(model: ModelSpec) -> tuple[int, int]:
    """How many layers attend to everything, and how many to a window."""
    layers = model.num_layers if model.attention_layers is None else model.attention_layers
    sliding = model.sliding_window.num_sliding_layers if model.sliding_window else 0
    return layers - min(sliding, layers), min(sliding, layers)


def flops_per_pair(
    model: ModelSpec, form: Literal["prefill", "decode"] = "prefill", *, sliding: bool = False
) -> int:
    """Operations of one layer per (query, key) pair, all heads: scores and weighted sum.

    Multi-head and grouped-query: 2·H·dh + 2·H·dh = 4·H·dh (sharing keys saves bytes, not
    operations). Latent attention, expanded for a prefill: 2·H·(nope + rope + v); absorbed for
    decoding, where the query meets the latent itself: 2·H·(2·rank + rope) (arXiv 2405.04434).
    `sliding` asks for a sliding-window layer where the full-attention layers have another shape.
    """
    if model.mla is None:
        full = None if sliding else model.full_attention
        return 4 * model.num_heads * (full.head_dim if full else model.head_dim)
    mla = model.mla
    if form == "prefill":
        width = mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim
    else:
        width = 2 * mla.kv_lora_rank + mla.qk_rope_head_dim
    return 2 * model.num_heads * width


def attention_flops(model: ModelSpec, new_tokens: int, past_tokens: int = 0) -> int:
    """Operations of attention over all layers for new tokens on top of a cached context.

    flops_per_pair · (full layers · pairs + sliding layers · pairs capped at the window). One new
    token is decoding (the absorbed form of latent attention), several are a prefill.
    """
    full, sliding = full_and_sliding_layers(model)
    window = model.sliding_window.size if model.sliding_window else None
    form: Literal["prefill", "decode"] = "decode" if new_tokens == 1 else "prefill"
    wide = flops_per_pair(model, form) * attended_pairs(new_tokens, past_tokens)
    near = flops_per_pair(model, form, sliding=True)
    return full * wide + sliding * near * attended_pairs(new_tokens, past_tokens, window)
