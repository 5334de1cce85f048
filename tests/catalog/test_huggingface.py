"""A model's config.json becomes the shape that the catalogue has for that model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.catalog import ModelSpec, load_catalog
from advisor.errors import InputError
from advisor.physics.parameters import parameter_count

CATALOG = load_catalog()

SHAPE = (
    *("num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim", "intermediate_size"),
    *("ffn_matrices", "vocab_size", "tie_word_embeddings", "moe", "mla", "sliding_window"),
    *("full_attention", "attention_layers", "mixer_parameters_per_layer", "learned_positions"),
    *("published_precision", "expert_precision", "context_window"),
)

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}

DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "meta-llama/Meta-Llama-3.1-8B-Instruct": LLAMA,
    "deepseek-ai/DeepSeek-V3": DEEPSEEK,
    "Qwen/Qwen3-30B-A3B": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "decoder_sparse_step": 1,
        "head_dim": 128,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_position_embeddings": 40960,
        "mlp_only_layers": [],
        "moe_intermediate_size": 768,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 151936,
    },
    "openai/gpt-oss-20b": {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "head_dim": 64,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "max_position_embeddings": 131072,
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 24,
        "num_key_value_heads": 8,
        "num_local_experts": 32,
        "sliding_window": 128,
        "vocab_size": 201088,
        "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    },
    "google/gemma-3-4b-it": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 1024,
            "vocab_size": 262144,
        },
    },
    "google/gemma-4-26B-A4B": {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "text_config": {
            "model_type": "gemma4_text",
            "attention_k_eq_v": True,
            "enable_moe_block": True,
            "global_head_dim": 512,
            "head_dim": 256,
            "hidden_size": 2816,
            "hidden_size_per_layer_input": 0,
            "intermediate_size": 2112,
            "max_position_embeddings": 262144,
            "moe_intermediate_size": 704,
            "num_attention_heads": 16,
            "num_experts": 128,
            "num_global_key_value_heads": 2,
            "num_hidden_layers": 30,
            "num_key_value_heads": 8,
            "sliding_window": 1024,
            "tie_word_embeddings": True,
            "top_k_experts": 8,
            "vocab_size": 262144,
        },
    },
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "text_config": {
            "model_type": "llama4_text",
            "attention_chunk_size": 8192,
            "head_dim": 128,
            "hidden_size": 5120,
            "interleave_moe_layer_step": 2,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "max_position_embeddings": 1048576,
            "num_attention_heads": 40,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 48,
            "num_key_value_heads": 8,
            "num_local_experts": 128,
            "vocab_size": 202048,
        },
    },
    "ibm-granite/granite-4.0-h-small": {
        "architectures": ["GraniteMoeHybridForCausalLM"],
        "model_type": "granitemoehybrid",
        "hidden_size": 4096,
        "intermediate_size": 768,
        "layer_types": [
            "attention" if layer in (5, 15, 25, 35) else "mamba" for layer in range(40)
        ],
        "mamba_d_conv": 4,
        "mamba_d_head": 64,
        "mamba_d_state": 128,
        "mamba_expand": 2,
        "mamba_n_groups": 1,
        "mamba_n_heads": 128,
        "max_position_embeddings": 131072,
        "num_attention_heads": 32,
        "num_experts_per_tok": 10,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "num_local_experts": 72,
        "shared_intermediate_size": 1536,
        "tie_word_embeddings": True,
        "vocab_size": 100352,
    },
    "zai-org/GLM-4.5-Air": {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "first_k_dense_replace": 1,
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "max_position_embeddings": 131072,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 128,
        "n_shared_experts": 1,
        "num_attention_heads": 96,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 46,
        "num_key_value_heads": 8,
        "vocab_size": 151552,
    },
    "mistralai/Mistral-7B-v0.1": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "vocab_size": 32000,
    },
    "microsoft/Phi-4-mini-instruct": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "num_attention_heads": 24,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "original_max_position_embeddings": 4096,
        "sliding_window": 262144,
        "tie_word_embeddings": True,
        "vocab_size": 200064,
        "pad_token_id": 199999,
    },
    "facebook/opt-6.7b": {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "ffn_dim": 16384,
        "hidden_size": 4096,
        "max_position_embeddings": 2048,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "vocab_size": 50272,
        "word_embed_proj_dim": 4096,
    },
    "EleutherAI/gpt-j-6b": {
        "architectures": ["GPTJForCausalLM"],
        "model_type": "gptj",
        "n_embd": 4096,
        "n_head": 16,
        "n_inner": None,
        "n_layer": 28,
        "n_positions": 2048,
        "vocab_size": 50400,
        "tie_word_embeddings": False,
    },
    "bigscience/bloom-7b1": {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "n_layer": 30,
        "hidden_size": 4096,
        "n_head": 32,
        "seq_length": 2048,
        "vocab_size": 250880,
    },
}


def read(folder: Path, config: dict[str, Any]) -> ModelSpec:
    (folder / "config.json").write_text(json.dumps(config))
    return CATALOG.model(str(folder))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_configuration_gives_the_catalogues_shape(tmp_path: Path, name: str) -> None:
    expected, spec = CATALOG.model(name), read(tmp_path, PUBLISHED[name])
    assert {field: getattr(spec, field) for field in SHAPE} == {
        field: getattr(expected, field) for field in SHAPE
    }
    assert spec.role == expected.role
    assert spec.id == tmp_path.name


def test_a_path_to_the_file_itself(tmp_path: Path) -> None:
    file = tmp_path / "my-model.json"
    file.write_text(json.dumps(LLAMA | {"_name_or_path": ""}))
    spec = CATALOG.model(str(file))
    assert (spec.id, spec.family, spec.source) == ("my-model", "llama", str(file))
    assert parameter_count(spec).total == 8_030_261_248


def test_mixtral_and_its_published_count(tmp_path: Path) -> None:
    """Not in the catalogue: 46.7e9 parameters, 12.9e9 of them active."""
    mixtral = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_attention_heads": 32,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "vocab_size": 32000,
    }
    count = parameter_count(read(tmp_path, mixtral))
    assert count.total / 1e9 == pytest.approx(46.7, abs=0.05)
    assert count.active / 1e9 == pytest.approx(12.9, abs=0.05)


def test_a_hybrid_of_gated_delta_layers(tmp_path: Path) -> None:
    """Qwen3-Next-80B-A3B: 36 of 48 layers keep a state; 80e9 parameters as its card says."""
    config = {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
        "moe_intermediate_size": 512,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "shared_expert_intermediate_size": 512,
        "max_position_embeddings": 262144,
        "vocab_size": 151936,
    }
    spec = read(tmp_path, config)
    assert (spec.attention_layers, spec.role) == (12, "llm")
    assert parameter_count(spec).total / 1e9 == pytest.approx(79.7, rel=0.01)


def test_yarn_stretches_the_context(tmp_path: Path) -> None:
    """vLLM multiplies the original context by the factor that a person puts into the file."""
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    spec = read(tmp_path, LLAMA | {"max_position_embeddings": 32768, "rope_scaling": rope})
    assert spec.context_window == 131072


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}},
            },
            "int8",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
    ],
)
def test_format_of_a_quantised_checkpoint(
    tmp_path: Path, quantization: dict[str, Any], precision: str
) -> None:
    spec = read(tmp_path, LLAMA | {"quantization_config": quantization})
    assert spec.published_precision == precision


def test_a_model_type_that_transformers_does_not_know_needs_its_keys_written(
    tmp_path: Path,
) -> None:
    assert read(tmp_path, LLAMA | {"model_type": "from_next_year"}).num_layers == 32
    without = {key: value for key, value in LLAMA.items() if key != "num_hidden_layers"}
    with pytest.raises(InputError, match="no num_hidden_layers or n_layer"):
        read(tmp_path, without | {"model_type": "from_next_year"})


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "t5 is an encoder-decoder"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "does not generate text"),
        ({"model_type": "jamba"}, "model type jamba: state-space layers are not modelled"),
        ({}, "no num_hidden_layers"),
        (LLAMA | {"num_hidden_layers": -1}, "num_layers = -1"),
        (LLAMA | {"quantization_config": {"quant_method": "magic"}}, "'magic' is not known"),
    ],
)
def test_what_is_no_decoder_is_refused_in_one_line(
    tmp_path: Path, config: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        read(tmp_path, config)
    assert "\n" not in str(error.value)
    assert "config.json" in str(error.value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        CATALOG.model(str(tmp_path / "missing.json"))
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="a JSON object was expected"):
        CATALOG.model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        CATALOG.model(str(tmp_path))


@given(
    st.sampled_from(sorted({*LLAMA, *DEEPSEEK, "layer_types", "head_dim", "sliding_window"})),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=4,
    ),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_of_any_key_gives_a_model_or_one_line(
    tmp_path: Path, key: str, value: object
) -> None:
    try:
        assert isinstance(read(tmp_path, DEEPSEEK | {key: value}), ModelSpec)
    except InputError as error:
        assert "\n" not in str(error)
