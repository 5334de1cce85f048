"""The step-time law: by hand, its tables against itself, and how it must behave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog import load_catalog
from advisor.catalog.coefficients import Coefficients
from advisor.physics.deployment import Deployment, Speculation
from advisor.physics.engine import Generation, engine_generation
from advisor.physics.step_cost import StepCost
from advisor.physics.step_time import (
    breakdown,
    decode_step_s,
    prefill_s,
    roofline,
    smooth_maximum,
    step_cost,
)
from advisor.physics.work import experts_touched, stack, work_of

CATALOG = load_catalog()
C = Coefficients()


def deploy(
    model: str, accelerator: str = "H100-SXM", dtype: str = "bf16", **more: object
) -> Deployment:
    return Deployment.model_validate(
        {
            "model": CATALOG.model(model),
            "accelerator": CATALOG.accelerator(accelerator),
            "weights_dtype": dtype,
            **more,
        }
    )


LLAMA = deploy("meta-llama/Llama-3.1-8B")
LAYOUTS = [
    LLAMA,
    deploy("meta-llama/Llama-3.1-70B", dtype="fp8", tensor_parallel=4),
    deploy("openai/gpt-oss-120b", dtype="fp4", tensor_parallel=2),
    deploy("deepseek-ai/DeepSeek-V3", "H200-SXM", "fp8", tensor_parallel=8, expert_parallel=8),
    deploy("Qwen/Qwen3-30B-A3B", "L40S", data_parallel=2, expert_parallel=2),
]


def test_a_decode_step_by_hand() -> None:
    """Llama-3.1-8B on one H100, one sequence of 1,000 tokens."""
    linears = (8_030_261_248 - 2 * 128256 * 4096) * 2 / (3350e9 * C.linear_bandwidth)
    head = 128256 * 4096 * 2 / (3350e9 * C.head_bandwidth)
    logits = 16 * 128256 / (3350e9 * C.sampling_bandwidth)
    cache = 1000 * 131072 / (3350e9 * C.kv_bandwidth)
    activations = 2 * 32 * (8 * 4096 + 3 * 14336) / (3350e9 * C.activation_bandwidth)
    launches = 32 * C.layer_s
    host = C.host_step_v1_s + C.host_sequence_v1_s
    expected = linears + activations + head + logits + cache + launches + host
    step = decode_step_s(LLAMA, C, batch=1, context_tokens=1000, generation="v1")
    assert step == pytest.approx(expected, rel=1e-6)


def test_a_long_prefill_is_bound_by_compute() -> None:
    """4,096 tokens: 2·7.0e9·4096 operations at 75 % of 989 TFLOP/s are 77 ms."""
    linears = 2 * (8_030_261_248 - 2 * 128256 * 4096) * 4096 / (989e12 * C.linear_compute_16bit)
    attention = 32 * 4 * 32 * 128 * (4096 * 4097 / 2) / (989e12 * C.prefill_attention)
    passes = 2 * 4096 * 32 * (8 * 4096 + 3 * 14336) / (3350e9 * C.activation_bandwidth)
    prefill = prefill_s(LLAMA, C, prompt_tokens=4096)
    assert prefill == pytest.approx(linears + attention + passes, rel=0.05)


def test_experts_touched_is_the_birthday_law() -> None:
    """8 of 128 experts a token: 16 tokens touch 128·(1 − (15/16)^16) = 82.4 of them."""
    assert experts_touched(16.0, 128.0, 8 / 128) == pytest.approx(128 * (1 - (15 / 16) ** 16))
    assert experts_touched(1.0, 128.0, 8 / 128) == pytest.approx(8)
    assert experts_touched(50.0, 0.0, 0.0) == 0


def test_favourite_experts_are_touched_again() -> None:
    """Gamma-Poisson: one token still visits k, many tokens find fewer new experts."""
    even = [float(experts_touched(float(n), 128.0, 8 / 128)) for n in (1, 16, 512)]
    uneven = [float(experts_touched(float(n), 128.0, 8 / 128, 2.0)) for n in (1, 16, 512)]
    assert uneven[0] == pytest.approx(even[0], rel=0.02)
    assert uneven[1] < 0.9 * even[1]
    assert uneven[2] == pytest.approx(128, rel=0.01)


@pytest.mark.parametrize(
    ("model", "accelerator", "dtype", "kind"),
    [
        ("openai/gpt-oss-120b", "H100-SXM", "fp4", "mxfp4"),
        ("openai/gpt-oss-120b", "B200-SXM", "fp4", "mxfp4"),
        ("MiniMaxAI/MiniMax-M2.5", "B200-SXM", "fp4", "fp4"),
        ("MiniMaxAI/MiniMax-M2.5", "B200-SXM", "fp8", "8bit"),
        ("moonshotai/Kimi-K2.5", "H200-SXM", "int4", "weight_only"),
        ("Qwen/Qwen3-30B-A3B", "H100-SXM", "bf16", "16bit"),
    ],
)
def test_each_kind_of_experts_has_its_own_kernels(
    model: str, accelerator: str, dtype: str, kind: str
) -> None:
    """Only the coefficients of the kernels that run change the step."""
    layout = deploy(model, accelerator, dtype, tensor_parallel=8)
    names = [name for name in Coefficients.model_fields if name.startswith("expert_padding_")]
    plain = decode_step_s(layout, C, batch=64, context_tokens=1000)
    heard = [
        name.removeprefix("expert_padding_")
        for name in names
        if decode_step_s(layout, C.model_copy(update={name: 300.0}), batch=64, context_tokens=1000)
        != plain
    ]
    assert heard == [kind]


def test_a_dense_model_on_one_accelerator_has_no_experts_and_no_collectives() -> None:
    terms = breakdown(LLAMA, C, batch=8, context_tokens=500)
    assert terms.experts == terms.collectives == terms.prefill_attention == 0
    assert sum(terms.shares().values()) == pytest.approx(1)


def test_two_ranks_halve_the_reading_and_add_all_reduces() -> None:
    one = breakdown(LLAMA, C, batch=1, context_tokens=0)
    two = breakdown(deploy("meta-llama/Llama-3.1-8B", tensor_parallel=2), C, batch=1)
    assert two.linears_memory == pytest.approx(one.linears_memory / 2)
    assert two.collectives > 64 * (C.reduce_s + C.reduce_hop_s)


def test_stages_read_in_turn_and_hand_over() -> None:
    """A batch passes both stages: the same reading, and one hand-over of 2·d 16-bit values."""
    whole = breakdown(LLAMA, C, batch=4, context_tokens=500)
    staged = breakdown(
        LLAMA.model_copy(update={"pipeline_parallel": 2}), C, batch=4, context_tokens=500
    )
    assert staged.linears_memory == whole.linears_memory
    handed = 4 * 2 * 4096 * 2 / (450e9 * C.link_bandwidth)
    assert staged.collectives == pytest.approx(C.reduce_s + handed)


def test_a_step_with_a_prompt_is_launched_in_pieces() -> None:
    pure = breakdown(LLAMA, C, batch=32, context_tokens=100)
    mixed = breakdown(LLAMA, C, batch=32, context_tokens=100, prompt_tokens=1)
    assert float(mixed.launches - pure.launches) == pytest.approx(32 * C.mixed_layer_s)


def test_older_engines_pay_more_host_time() -> None:
    steps = [
        decode_step_s(LLAMA, C, batch=32, context_tokens=100, generation=generation)
        for generation in ("v1_latest", "v1", "v0", "v0_early")
    ]
    assert steps == sorted(steps)


def from_tables(cost: StepCost, batch: int, context: int, prompt: int) -> float:
    """A step of decodes and one whole prompt, as the simulator adds it up."""
    near = min(prompt, cost.window)
    near_pairs = near * (near + 1) // 2 + (prompt - near) * near
    total = cost.token_s[batch + prompt] + cost.sample_s[batch + (prompt > 0)]
    total += batch * (cost.kv_s * context + cost.window_kv_s * min(context, cost.window))
    total += cost.mixed_s * (prompt > 0) + cost.prefill_s * (prompt * (prompt + 1) // 2)
    return float(total + cost.window_prefill_s * near_pairs)


def test_old_kernels_read_a_shared_head_again() -> None:
    """Four query heads a KV head: the cache takes 4^s times as long, s by the kernels' age."""
    older = C.model_copy(update={"kv_sharing_early": 0.9, "kv_sharing_v0": 0.3, "kv_split_v0": 0.1})

    def cache_s(generation: Generation) -> float:
        terms = breakdown(LLAMA, older, batch=8, context_tokens=2000, generation=generation)
        return float(terms.kv_attention)

    assert cache_s("v0_early") / cache_s("v0") == pytest.approx(4**0.6)
    assert cache_s("v0") / cache_s("v1") == pytest.approx(
        4**0.3 * C.kv_bandwidth / C.kv_bandwidth_v0
    )


@pytest.mark.parametrize("deployment", LAYOUTS, ids=lambda d: d.model.id)
def test_tables_equal_the_law(deployment: Deployment) -> None:
    """The simulator's tables and the Explore screen's breakdown are one law."""
    cost = step_cost(deployment, C, max_tokens=600, max_seqs=64)
    for batch, context, prompt in ((1, 100, 0), (64, 3000, 0), (0, 0, 500), (32, 1000, 400)):
        law = breakdown(deployment, C, batch=batch, context_tokens=context, prompt_tokens=prompt)
        table = from_tables(cost, batch, context, prompt)
        assert table == pytest.approx(float(law.total), rel=1e-12)


@pytest.mark.parametrize("deployment", LAYOUTS, ids=lambda d: d.model.id)
def test_no_step_beats_the_datasheet(deployment: Deployment) -> None:
    for batch in (1, 16, 256):
        bound = roofline(deployment, batch=batch, context_tokens=1024)
        assert decode_step_s(deployment, C, batch=batch, context_tokens=1024) > bound


def test_the_naive_bound_of_an_8b_model() -> None:
    """Llama-3-8B bf16 on one H100 at batch 1: 15.0 GB over 3.35 TB/s are 4.5 ms."""
    assert roofline(LLAMA, batch=1, context_tokens=0) == pytest.approx(4.49e-3, rel=0.005)


@settings(max_examples=40)
@given(
    layout=st.sampled_from(LAYOUTS),
    batch=st.integers(1, 255),
    more=st.integers(1, 200),
    context=st.integers(0, 20_000),
)
def test_more_work_never_takes_less_time(
    layout: Deployment, batch: int, more: int, context: int
) -> None:
    step = decode_step_s(layout, C, batch=batch, context_tokens=context)
    assert decode_step_s(layout, C, batch=batch + more, context_tokens=context) > step
    assert decode_step_s(layout, C, batch=batch, context_tokens=context + more) > step


@given(a=st.floats(0, 1e3), b=st.floats(0, 1e3))
def test_smooth_maximum_stays_within_a_fifth_of_the_maximum(a: float, b: float) -> None:
    value = float(smooth_maximum(a, b))
    assert max(a, b) <= value <= max(a, b) * 2**0.25 * (1 + 1e-12)


def test_columns_equal_one_at_a_time() -> None:
    works = [work_of(layout) for layout in LAYOUTS]
    columns = stack(works)
    assert np.array_equal(columns.kv_bytes, [work.kv_bytes for work in works])


def test_rejected_drafts_cost_and_accepted_ones_pay() -> None:
    """One sequence: reading weights dominates, so k = 3 at 80 % emits 2.95 tokens for one step."""
    plain = step_cost(LLAMA, C, max_tokens=512, max_seqs=16)

    def speculating(acceptance: float) -> float:
        draft = Speculation(draft_tokens=3, acceptance=acceptance)
        deployment = LLAMA.model_copy(update={"speculative": draft})
        cost = step_cost(deployment, C, max_tokens=512, max_seqs=16)
        return float(cost.token_s[1] + cost.sample_s[1])

    base = float(plain.token_s[1] + plain.sample_s[1])
    assert Speculation(draft_tokens=3, acceptance=0.8).tokens_per_step == pytest.approx(2.952)
    assert speculating(0.8) < base / 2.4
    assert speculating(0.0) > base


@pytest.mark.parametrize(
    ("version", "generation"),
    [
        ("0.2", "v0_early"),
        ("0.2.7", "v0"),
        ("v0.6.3.post1", "v0"),
        ("0.8.0", "v1"),
        ("0.14.1", "v1"),
        ("0.15.0", "v1_recent"),
        ("0.18.0", "v1_latest"),
        ("1.0", "v1_latest"),
        (None, "v1_latest"),
        ("nightly", "v1_latest"),
    ],
)
def test_versions_fall_into_generations(version: str | None, generation: str) -> None:
    assert engine_generation(version) == generation


def test_an_empty_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        breakdown(LLAMA, C)
    with pytest.raises(ValueError, match="at least 1"):
        step_cost(LLAMA, C, max_tokens=0, max_seqs=1)
