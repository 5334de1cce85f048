"""Blanks become what the engine would have done, and contradictions become errors."""

import pytest
from calibrate_rows import LOOP, OPEN, STATIC, condition

from advisor.errors import InputError


def test_blank_settings_are_the_engines_and_are_named() -> None:
    one = condition(LOOP, weights_dtype="")
    assert one.deployment.weights_dtype == "bf16"
    assert one.engine.max_num_batched_tokens == 8192
    assert one.engine.gpu_memory_utilization == 0.9
    assert one.assumed == (
        "weights_dtype=bf16",
        "kv_dtype=bf16",
        "max_num_seqs=1024",
        "max_num_batched_tokens=8192",
    )


def test_stated_settings_are_kept() -> None:
    one = condition(LOOP, max_num_seqs="128", max_num_batched_tokens="2048", kv_dtype="fp8")
    assert one.engine.max_num_seqs == 128
    assert one.engine.max_num_batched_tokens == 2048
    assert one.assumed == ()


def test_eight_bit_checkpoints_come_with_eight_bit_caches() -> None:
    assert condition(LOOP, weights_dtype="fp8").deployment.kv_dtype == "fp8"
    assert condition(LOOP, weights_dtype="fp16").deployment.kv_dtype == "fp16"
    on_ampere = condition(LOOP, weights_dtype="fp8", accelerator="A100-80GB-SXM")
    assert on_ampere.deployment.kv_dtype == "bf16"


def test_spread_lengths_have_their_true_mean() -> None:
    one = condition(LOOP)
    assert one.spread == (0.8, 1.0)
    assert one.input_tokens == pytest.approx(0.9 * 1024)
    assert condition(LOOP, length_spread="fixed").input_tokens == 1024


def test_requests_stop_at_the_models_context() -> None:
    """A model of 2,048 tokens asked for 2,000 + 2,048 tokens ends after 48."""
    one = condition(STATIC, model="huggyllama/llama-7b", input_tokens="2000", output_tokens="2048")
    assert one.output_tokens == 48


@pytest.mark.parametrize(
    ("users", "layout", "said"),
    [
        ("256", (1, 4, 4), "attention data-parallel over 4 accelerators"),
        ("16", (4, 1, 4), "experts over 4 accelerators, attention tensor-parallel"),
    ],
)
def test_squared_expert_parallelism_is_inside_a_tensor_parallel_group(
    users: str, layout: tuple[int, int, int], said: str
) -> None:
    """`tp 4, dp 4, ep 16` of a benchmark's table is four accelerators, not sixteen; loops of few
    users take the times of a tensor-parallel attention."""
    one = condition(
        LOOP,
        model="MiniMaxAI/MiniMax-M2.5",
        weights_dtype="fp8",
        accelerator="B200-SXM",
        n_accelerators="16",
        tensor_parallel="4",
        data_parallel="4",
        expert_parallel="16",
        concurrency=users,
    )
    found = one.deployment
    assert found.ranks == 4
    assert (found.tensor_parallel, found.data_parallel, found.expert_parallel) == layout
    assert said in one.assumed


def test_a_small_token_budget_bounds_the_sequences_as_in_the_engine() -> None:
    assert condition(LOOP, max_num_batched_tokens="512").engine.max_num_seqs == 512
    one = condition(LOOP, max_num_seqs="16384")
    assert one.engine.max_num_batched_tokens == 16384


@pytest.mark.parametrize("version", ["nightly", "main", "4f2c1ab"])
def test_a_version_that_is_no_release_is_the_newest(version: str) -> None:
    one = condition(LOOP, engine_version=version)
    assert one.generation == "v1_latest"
    assert f"engine_version '{version}' taken for the newest" in one.assumed


def test_data_parallel_ranks_of_a_dense_model_are_replicas() -> None:
    one = condition(LOOP, data_parallel="2", tensor_parallel="1", n_accelerators="2")
    assert one.replicas == 2
    assert one.deployment.ranks == 1


@pytest.mark.parametrize(
    ("changes", "generation"),
    [
        ({"engine_version": "0.6.0"}, "v0"),
        ({"engine_version": "", "weights_dtype": "fp16"}, "v0"),
        ({"engine_version": ""}, "v1"),
        ({"engine_version": "", "weights_dtype": "fp16", "accelerator": "B200-SXM"}, "v1"),
        ({"engine_version": "", "model": "MiniMaxAI/MiniMax-M2.5"}, "v1_recent"),
    ],
)
def test_an_unstated_engine_is_inferred(changes: dict[str, str], generation: str) -> None:
    one = condition(LOOP, **changes)
    assert one.generation == generation
    stated = bool({**LOOP, **changes}["engine_version"])
    assert (f"engine generation {generation}" in one.assumed) != stated


def test_a_pipeline_is_one_engine_a_stage_that_each_pass_all_stages() -> None:
    """8 requests over 2 stages: two batches of 4 in flight, each at its own share of the cache."""
    one = condition(STATIC, pipeline_parallel="2", n_accelerators="2", batch_size="8")
    assert (one.deployment.pipeline_parallel, one.deployment.ranks, one.replicas) == (2, 2, 2)
    assert one.parts == 2
    assert one.deployment.tensor_parallel == 1
    lone = condition(STATIC, pipeline_parallel="4", batch_size="1")
    assert lone.parts == 1  # a single request leaves the other stages idle


def test_formats_as_engines_spell_them() -> None:
    one = condition(STATIC, weights_dtype="bfloat16", kv_dtype="fp8_e4m3")
    assert (one.deployment.weights_dtype, one.deployment.kv_dtype) == ("bf16", "fp8")
    assert condition(LOOP, weights_dtype="NVFP4").deployment.weights_dtype == "fp4"
    assert "kv_dtype=bf16" in condition(STATIC, kv_dtype="auto").assumed


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (LOOP, {"model": "nobody/nothing"}, "not in the catalogue"),
        (LOOP, {"accelerator": "Abacus"}, "not in the catalogue"),
        (LOOP, {"concurrency": ""}, "concurrency is blank"),
        (OPEN, {"request_rate_per_s": ""}, "request_rate_per_s is blank"),
        (STATIC, {"tensor_parallel": "3"}, "^tensor_parallel 3 does not divide"),
        (LOOP, {"max_num_seqs": "512", "max_num_batched_tokens": "256"}, "^max_num_batched"),
        (STATIC, {"pipeline_parallel": "33"}, "^pipeline_parallel 33: .* has 32 layers"),
        (STATIC, {"engine": "sglang"}, "sglang"),
        (LOOP, {"model": "huggyllama/llama-7b", "input_tokens": "4096"}, "exceeds the context"),
    ],
)
def test_contradictions_are_refused(
    row: dict[str, str], changes: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        condition(row, **changes)


def test_a_rate_without_end_is_all_at_once_or_a_closed_loop() -> None:
    """`vllm bench serve --request-rate inf`, alone and with `--max-concurrency`."""
    at_once = condition(OPEN, request_rate_per_s="inf", requests="64")
    assert (at_once.setup.load, at_once.setup.requests) == ("burst", 64)
    assert "load=burst, for the rate has no end" in at_once.assumed
    looped = condition(OPEN, request_rate_per_s="inf", concurrency="16", requests="64")
    assert (looped.setup.load, looped.setup.concurrency) == ("closed_loop", 16)


def test_lengths_go_by_other_names() -> None:
    assert condition(LOOP, length_spread="synthetic").setup.length_spread == "fixed"
    varied = condition(LOOP, length_spread="normal")
    assert varied.setup.length_spread == "distribution"
    assert "length_spread=distribution" in varied.assumed
