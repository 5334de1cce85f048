"""Cache bytes: ten models worked out by hand, blocks, windows, heads on many ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog import load_catalog
from advisor.physics.kv_cache import BLOCK_TOKENS, kv_bytes, kv_bytes_per_token

CATALOG = load_catalog()

BYTES_PER_TOKEN = {
    "meta-llama/Llama-3.1-8B": 2 * 32 * 8 * 128 * 2,
    "meta-llama/Llama-2-7b-hf": 2 * 32 * 32 * 128 * 2,
    "meta-llama/Llama-3.1-70B": 2 * 80 * 8 * 128 * 2,
    "Qwen/Qwen3-0.6B": 2 * 28 * 8 * 128 * 2,
    "Qwen/Qwen3-32B": 2 * 64 * 8 * 128 * 2,
    "Qwen/Qwen2.5-7B-Instruct": 2 * 28 * 4 * 128 * 2,
    "Qwen/Qwen3-235B-A22B": 2 * 94 * 4 * 128 * 2,
    "microsoft/phi-4": 2 * 40 * 10 * 128 * 2,
    "openai/gpt-oss-120b": 2 * 36 * 8 * 64 * 2,
    "deepseek-ai/DeepSeek-V3": 61 * (512 + 64) * 2,
}


@pytest.mark.parametrize(("name", "expected"), BYTES_PER_TOKEN.items())
def test_bytes_a_token(name: str, expected: int) -> None:
    assert kv_bytes_per_token(CATALOG.model(name)) == expected


def test_a_70b_model_needs_2_7_gb_for_8k_tokens_and_not_40() -> None:
    """The folk figure of 40 GB is multi-head attention (64 heads) in 32 bit."""
    model = CATALOG.model("meta-llama/Llama-3.1-70B")
    assert kv_bytes(model, 8192) == pytest.approx(2.68e9, rel=0.01)
    multi_head_32_bit = 2 * 80 * 64 * 128 * 4 * 8192
    assert multi_head_32_bit == pytest.approx(43e9, rel=0.01)


def test_eight_bit_cache_is_half() -> None:
    model = CATALOG.model("Qwen/Qwen3-32B")
    assert kv_bytes_per_token(model, "fp8") == kv_bytes_per_token(model) / 2


def test_a_rank_keeps_at_least_one_head() -> None:
    """Four KV heads on eight ranks: one each, in pairs of copies."""
    model = CATALOG.model("Qwen/Qwen3-235B-A22B")
    whole = kv_bytes_per_token(model)
    assert kv_bytes_per_token(model, tensor_parallel=4) == whole / 4
    assert kv_bytes_per_token(model, tensor_parallel=8) == whole / 4


def test_latent_cache_is_copied_to_every_rank() -> None:
    model = CATALOG.model("deepseek-ai/DeepSeek-V3")
    assert kv_bytes_per_token(model, tensor_parallel=8) == kv_bytes_per_token(model)


def test_sliding_layers_stop_at_the_window() -> None:
    """gpt-oss-120b at 8,192 tokens: 18 layers of 512 blocks and 18 of 8."""
    model = CATALOG.model("openai/gpt-oss-120b")
    assert kv_bytes(model, 8192) == 18 * (512 + 8) * BLOCK_TOKENS * 2 * 8 * 64 * 2


@given(context=st.integers(1, 5000), more=st.integers(0, 500))
def test_longer_contexts_never_take_less(context: int, more: int) -> None:
    for name in ("openai/gpt-oss-120b", "google/gemma-4-26B-A4B"):
        model = CATALOG.model(name)
        assert kv_bytes(model, context) <= kv_bytes(model, context + more)


def test_a_block_is_taken_whole() -> None:
    model = CATALOG.model("meta-llama/Llama-3.1-8B")
    assert kv_bytes(model, 17) == kv_bytes(model, 32) == 2 * kv_bytes(model, 16)
