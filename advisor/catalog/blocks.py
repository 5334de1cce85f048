"""Models whose blocks differ from one another, as their configurations list them (DeciLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.errors import InputError

WIDTH_MULTIPLE = 256
"""Widths given as a ratio are rounded up to a multiple of it (configuration_decilm.py)."""


def shape_of_blocks(
    blocks: Sequence[Mapping[str, Any]], *, width: int, heads: int
) -> dict[str, Any]:
    """Fields of `ModelSpec` from one entry a block: `attention` and `ffn`.

    A block may lack either (`no_op`) or have one d x d product instead (`replace_with_linear`). KV
    heads are the mean of the blocks with attention, the feed-forward width is that of all blocks;
    a product instead of attention counts as a mixer, one instead of a feed-forward network of
    three matrices as a width of d/3. Sums over the layers are exact.

    Raises:
        InputError: blocks of another kind (windows, experts), or none with attention.
    """
    kv_heads: list[float] = []
    attention_products = 0
    widths: list[float] = []
    for index, block in enumerate(blocks):
        attention, ffn = _part(block, "attention", index), _part(block, "ffn", index)
        if attention.get("replace_with_linear"):
            attention_products += 1
        elif not attention.get("no_op"):
            kv_heads.append(_kv_heads(attention, heads, index))
        widths.append(_feed_forward_width(ffn, width, index))
    if not kv_heads:
        raise InputError("block_configs: no block has attention")
    without = len(blocks) - len(kv_heads)
    return {
        "num_kv_heads": sum(kv_heads) / len(kv_heads),
        "intermediate_size": max(1, round(sum(widths) / len(widths))),
        "attention_layers": len(kv_heads) if without else None,
        "mixer_parameters_per_layer": (
            round(attention_products * width * width / without) if without else 0
        ),
    }


def _part(block: Mapping[str, Any], name: str, index: int) -> Mapping[str, Any]:
    part = block.get(name) if isinstance(block, Mapping) else None
    if not isinstance(part, Mapping):
        raise InputError(f"block_configs[{index}]: no {name}")
    return part


def _kv_heads(attention: Mapping[str, Any], heads: int, index: int) -> float:
    if attention.get("window_length") or attention.get("sparsify"):
        raise InputError(f"block_configs[{index}]: attention to a window is not modelled")
    if attention.get("num_key_value_heads"):
        return float(attention["num_key_value_heads"])
    group = attention.get("n_heads_in_group")
    if not group:
        raise InputError(f"block_configs[{index}]: attention without n_heads_in_group")
    return heads / float(group)


def _feed_forward_width(ffn: Mapping[str, Any], width: int, index: int) -> float:
    if ffn.get("no_op"):
        return 0.0
    if ffn.get("replace_with_linear"):
        return width / 3
    if ffn.get("moe") or ffn.get("sparsify"):
        raise InputError(f"block_configs[{index}]: experts within blocks are not modelled")
    if ffn.get("intermediate_size"):
        return float(ffn["intermediate_size"])
    ratio = ffn.get("ffn_mult")
    if not ratio:
        raise InputError(f"block_configs[{index}]: a feed-forward network without ffn_mult")
    exact = int(2 * float(ratio) * width / 3)
    return float(-(-exact // WIDTH_MULTIPLE) * WIDTH_MULTIPLE)
