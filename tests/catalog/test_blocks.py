"""Models whose blocks differ: sums over the layers must be those of the blocks."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog.blocks import shape_of_blocks
from advisor.errors import InputError

WIDTH, HEADS = 3072, 24


def block(attention: dict[str, Any], ffn: dict[str, Any]) -> dict[str, Any]:
    return {"attention": attention, "ffn": ffn}


WHOLE = block({"n_heads_in_group": 8}, {"ffn_mult": 2.625})
"""24 heads in groups of 8 are 3 KV heads; 2·2.625·3072/3 = 5,376 = 21·256 wide."""


def test_equal_blocks_are_a_plain_model() -> None:
    assert shape_of_blocks([WHOLE] * 4, width=WIDTH, heads=HEADS) == {
        "num_kv_heads": 3.0,
        "intermediate_size": 5376,
        "attention_layers": None,
        "mixer_parameters_per_layer": 0,
    }


def test_blocks_without_a_part_leave_the_sums_exact() -> None:
    """Four blocks, of which one has no attention, one a product instead, one no feed-forward."""
    blocks = [
        WHOLE,
        block({"no_op": True}, {"ffn_mult": 2.625}),
        block({"replace_with_linear": True}, {"replace_with_linear": True}),
        block({"n_heads_in_group": 4}, {"no_op": True}),
    ]
    shape = shape_of_blocks(blocks, width=WIDTH, heads=HEADS)

    assert shape["attention_layers"] == 2
    assert shape["attention_layers"] * shape["num_kv_heads"] == 3 + 6
    assert 2 * shape["mixer_parameters_per_layer"] == WIDTH * WIDTH
    # Three matrices of width w have 3·d·w weights: 5,376 twice, and d/3 for one product of d·d.
    assert 4 * shape["intermediate_size"] == 2 * 5376 + WIDTH // 3


def test_a_ratio_is_rounded_up_to_whole_256() -> None:
    """2·1.3125·3072/3 = 2,688 lies between 10 and 11 times 256."""
    narrow = block({"n_heads_in_group": 8}, {"ffn_mult": 1.3125})
    assert shape_of_blocks([narrow], width=WIDTH, heads=HEADS)["intermediate_size"] == 2816


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (block({"no_op": True}, {"no_op": True}), "no block has attention"),
        (block({"n_heads_in_group": 8, "window_length": 1024}, {"no_op": True}), "window"),
        (block({"n_heads_in_group": 8}, {"moe": {"num_local_experts": 8}}), "experts"),
        (block({"n_heads_in_group": 8}, {}), "without ffn_mult"),
        (block({}, {"no_op": True}), "without n_heads_in_group"),
        ({"attention": {"n_heads_in_group": 8}}, r"block_configs\[0\]: no ffn"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        shape_of_blocks([wrong], width=WIDTH, heads=HEADS)
