"""Attention: pairs counted one by one, windows, the latent form, the quadratic law."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog import load_catalog
from advisor.physics.attention import attended_pairs, attention_flops, flops_per_pair

CATALOG = load_catalog()
TOKENS = st.integers(0, 300)


def pairs_one_by_one(new: int, past: int, window: int | None) -> int:
    seen = [past + i for i in range(1, new + 1)]
    return sum(min(context, window) if window else context for context in seen)


@given(new=TOKENS, past=TOKENS, window=st.none() | st.integers(1, 200))
def test_closed_form_equals_counting(new: int, past: int, window: int | None) -> None:
    assert attended_pairs(new, past, window) == pairs_one_by_one(new, past, window)


@given(a=TOKENS, b=TOKENS, past=TOKENS, window=st.none() | st.integers(1, 200))
def test_chunks_attend_to_what_the_whole_prompt_does(
    a: int, b: int, past: int, window: int | None
) -> None:
    whole = attended_pairs(a + b, past, window)
    assert whole == attended_pairs(a, past, window) + attended_pairs(b, past + a, window)


def test_twice_the_prompt_is_four_times_the_attention() -> None:
    model = CATALOG.model("meta-llama/Llama-3.1-8B")
    assert attention_flops(model, 4096) / attention_flops(model, 2048) == pytest.approx(4, 1e-3)


def test_sliding_layers_grow_linearly_beyond_the_window() -> None:
    """gpt-oss-120b: 18 layers see everything, 18 the last 128 tokens."""
    model = CATALOG.model("openai/gpt-oss-120b")
    per_pair = 4 * 64 * 64
    full = 4096 * 4097 // 2
    near = 128 * 129 // 2 + (4096 - 128) * 128
    assert attention_flops(model, 4096) == per_pair * 18 * (full + near)


def test_grouped_queries_save_bytes_and_no_operations() -> None:
    grouped = CATALOG.model("meta-llama/Meta-Llama-3-8B")
    multi_head = CATALOG.model("meta-llama/Llama-2-7b-hf")
    assert flops_per_pair(grouped) == flops_per_pair(multi_head) == 4 * 32 * 128


def test_latent_attention_expands_in_prefill_and_absorbs_in_decode() -> None:
    model = CATALOG.model("deepseek-ai/DeepSeek-V3")
    assert flops_per_pair(model, "prefill") == 2 * 128 * (128 + 64 + 128)
    assert flops_per_pair(model, "decode") == 2 * 128 * (512 + 64 + 512)


def test_layers_of_two_shapes_are_counted_each_as_it_is() -> None:
    """Gemma 4: its full-attention layers have wider heads than the sliding ones."""
    model = CATALOG.model("google/gemma-4-26B-A4B")
    assert model.full_attention is not None
    assert flops_per_pair(model) == 4 * model.num_heads * model.full_attention.head_dim
    assert flops_per_pair(model, sliding=True) == 4 * model.num_heads * model.head_dim


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        attended_pairs(-1)
