"""Memory: what fits, how much KV is left, and the smallest change where it does not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog import load_catalog
from advisor.physics.deployment import Deployment
from advisor.physics.kv_cache import blocks_of
from advisor.physics.memory import plan_memory, weights_bytes

CATALOG = load_catalog()


def deploy(
    model: str, accelerator: str, dtype: str = "bf16", t: int = 1, **more: object
) -> Deployment:
    return Deployment.model_validate(
        {
            "model": CATALOG.model(model),
            "accelerator": CATALOG.accelerator(accelerator),
            "weights_dtype": dtype,
            "tensor_parallel": t,
            **more,
        }
    )


def test_weights_of_an_8b_model_by_hand() -> None:
    assert weights_bytes(deploy("meta-llama/Llama-3.1-8B", "H100-SXM")) == 2 * 8_030_261_248
    in_8_bit = weights_bytes(deploy("meta-llama/Llama-3.1-8B", "H100-SXM", "fp8"))
    sixteen_bit_part = 2 * 128256 * 4096
    assert in_8_bit == (8_030_261_248 - sixteen_bit_part) + 2 * sixteen_bit_part


def test_stages_share_the_layers_and_each_end_holds_one_table() -> None:
    whole = deploy("meta-llama/Llama-3.1-8B", "H100-SXM")
    halved = deploy("meta-llama/Llama-3.1-8B", "H100-SXM", pipeline_parallel=2)
    table = 2 * 128256 * 4096
    assert weights_bytes(halved) == (weights_bytes(whole) - 2 * table) / 2 + table
    assert plan_memory(halved, context_tokens=8192).kv_blocks > (
        plan_memory(whole, context_tokens=8192).kv_blocks
    )
    assert not plan_memory(deploy("Qwen/Qwen3-32B", "A100-40GB-SXM"), context_tokens=4096).fits
    assert plan_memory(
        deploy("Qwen/Qwen3-32B", "A100-40GB-SXM", pipeline_parallel=4), context_tokens=4096
    ).fits


def test_kv_pool_agrees_with_a_published_start_up() -> None:
    """vLLM with Llama-3.1-8B bf16 on an H200 reports about 860,000 tokens of KV cache."""
    plan = plan_memory(deploy("meta-llama/Llama-3.1-8B", "H200-SXM"), context_tokens=8192)
    assert plan.fits
    assert plan.kv_tokens == pytest.approx(860_000, rel=0.06)
    assert plan.max_concurrency_at(8192) == plan.kv_blocks // 512


def test_four_bit_experts_leave_the_rest_in_16_bit() -> None:
    """gpt-oss-120b's checkpoint is about 61 GiB; the driver shows 79.6 GiB on an H100."""
    weights = weights_bytes(deploy("openai/gpt-oss-120b", "H100-SXM", "fp4"))
    assert weights == pytest.approx(65e9, rel=0.03)


def test_what_does_not_fit_says_by_how_much_and_what_would() -> None:
    plan = plan_memory(deploy("meta-llama/Llama-3.1-70B", "H100-SXM"), context_tokens=8192)
    assert not plan.fits
    assert plan.kv_blocks == 0
    assert plan.shortfall_bytes > 141e9 - 80e9
    assert plan.smallest_changes == ("int4 weights", "tensor parallel 2")


def test_a_context_that_is_too_long_is_named() -> None:
    plan = plan_memory(deploy("meta-llama/Llama-3.1-8B", "L4"), context_tokens=65536)
    assert not plan.fits
    assert plan.smallest_changes[:1] == ("context 16384",)


def test_suggested_changes_do_fit() -> None:
    for name, chip, t in (
        ("Qwen/Qwen3-32B", "L40S", 1),
        ("deepseek-ai/DeepSeek-V3", "H200-SXM", 4),
    ):
        plan = plan_memory(deploy(name, chip, t=t), context_tokens=4096)
        assert not plan.fits
        for change in plan.smallest_changes:
            if change.startswith("tensor parallel"):
                wider = deploy(name, chip, t=int(change.split()[-1]))
                assert plan_memory(wider, context_tokens=4096).fits


@settings(max_examples=30)
@given(context=st.integers(16, 100_000), utilization=st.floats(0.5, 0.95))
def test_the_bytes_add_up(context: int, utilization: float) -> None:
    deployment = deploy("meta-llama/Llama-3.1-8B", "H100-SXM")
    plan = plan_memory(deployment, context_tokens=context, gpu_memory_utilization=utilization)
    parts = plan.weights_bytes + plan.activation_bytes + plan.framework_bytes + plan.kv_pool_bytes
    assert parts == pytest.approx(plan.usable_bytes)
    assert plan.fits == (plan.kv_blocks >= blocks_of(context))
    assert plan.fits == (plan.shortfall_bytes == 0)


@pytest.mark.parametrize(
    "bad", [{"context_tokens": 0}, {"context_tokens": 9, "gpu_memory_utilization": 90}]
)
def test_nonsense_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        plan_memory(deploy("meta-llama/Llama-3.1-8B", "H100-SXM"), **bad)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"t": 3}, "does not divide"),
        ({"t": 16}, "at most 8"),
        ({"expert_parallel": 2}, "has no experts"),
        ({"kv_dtype": "int4"}, "kv_dtype"),
    ],
)
def test_impossible_layouts_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        deploy("meta-llama/Llama-3.1-8B", "H100-SXM", **fields)  # type: ignore[arg-type]
