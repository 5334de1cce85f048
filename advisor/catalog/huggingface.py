"""A model's shape from its published `config.json`, for models that the catalogue does not list."""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.catalog.blocks import shape_of_blocks
from advisor.catalog.models import ModelSpec, Precision
from advisor.documents import read_json, validate
from advisor.errors import InputError

SMALL_MODEL_PARAMETERS = 22e9
"""Up to this many parameters a model read from a file is taken for a small one."""

PLAIN_FEED_FORWARD = frozenset(
    {"apertus", "arcee", "biogpt", "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo"}
    | {"gpt_neox", "gptj", "jais2", "mpt", "nemotron", "opt", "persimmon", "phi", "starcoder2"}
    | {"xglm"}
)
"""Model types whose feed-forward network has two matrices (no gate)."""

BOTH_HALVES = frozenset({"qwen"})
"""Model types whose `intermediate_size` is that of gate and up projection together."""

EXTRA_POSITIONS = {"opt": 2, "biogpt": 2, "gpt2": 0, "gpt_bigcode": 0, "gpt_neo": 0}
"""Model types with learned positions, and the rows of the table beyond the context."""

MAMBA_2 = frozenset({"granitemoehybrid", "bamba"})
GATED_DELTA = frozenset({"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"})
WINDOW_LAYERS = frozenset({"sliding_attention", "chunked_attention"})
FULL_ATTENTION = dict.fromkeys(
    ("attention", "indexed_attention", "deepseek_sparse_attention"), "full_attention"
)
"""Other names of layers that keep every token; an index that picks among them is left out."""
STATE_LAYERS = frozenset({"linear_attention", "mamba", "mamba2"})


class _Settings:
    """Values of a configuration: as written in the file, else the default of its model type."""

    def __init__(self, written: Mapping[str, Any], defaults: Any, outer: Mapping[str, Any]) -> None:
        self._written = written
        self._defaults = defaults
        self._outer = outer

    def get(self, *names: str) -> Any:
        """The first value that is set under one of the names; None if none is."""
        for name in names:
            if self._written.get(name) is not None:
                return self._written[name]
        for name in names:
            try:
                value = getattr(self._defaults, name, None)
            except Exception:  # per-layer attributes of Gemma 4 refuse to be read as one value
                value = None
            if value is not None:
                return value
        return next((self._outer[n] for n in names if self._outer.get(n) is not None), None)

    def need(self, *names: str) -> Any:
        """The same.

        Raises:
            InputError: none is set.
        """
        value = self.get(*names)
        if value is None:
            raise InputError(f"no {' or '.join(names)}: this does not describe a decoder")
        return value


def read_model(path: Path) -> ModelSpec:
    """The shape that a `config.json` describes.

    Keys that the file leaves out take the defaults of `transformers` for its model type; nothing is
    downloaded and no code of the repository is run.

    Args:
        path: the file, or a folder that holds `config.json`.

    Raises:
        InputError: unreadable, or an architecture that is no decoder or is not modelled.
    """
    path = path.expanduser()
    file = path / "config.json" if path.is_dir() else path
    written = read_json(file, what="model configuration")
    what = f"model configuration {file}"
    if not isinstance(written, dict):
        raise InputError(f"{what}: a JSON object was expected")
    try:
        return validate(ModelSpec, _spec(written, file), what="its shape")
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{what}: a value has the wrong type or size: {error}") from None


def _spec(written: dict[str, Any], file: Path) -> dict[str, Any]:
    inner = next(
        (
            written[key]
            for key in ("text_config", "llm_config")
            if isinstance(written.get(key), dict)
        ),
        written,
    )
    defaults = _defaults(written)
    kind = str(inner.get("model_type") or getattr(defaults, "model_type", "") or "unknown")
    settings = _Settings(inner, defaults, written)
    _refuse_what_is_no_decoder(written, settings, kind)

    layers = int(settings.need("num_hidden_layers", "n_layer", "n_layers", "num_layers"))
    width = int(settings.need("hidden_size", "n_embd", "d_model"))
    heads = int(settings.need("num_attention_heads", "n_head", "n_heads"))
    context = _context(settings)
    kinds = Counter(_layer_kinds(settings, layers, context))
    latent = _latent_attention(settings)
    experts = _experts(settings, kind, layers)
    spec: dict[str, Any] = {
        "id": str(written.get("_name_or_path") or _name(file)),
        "family": kind,
        "num_layers": layers,
        "hidden_size": width,
        "num_heads": heads,
        "num_kv_heads": _kv_heads(settings, kind, heads),
        "head_dim": _head_dim(settings, latent, width, heads),
        "intermediate_size": _dense_width(settings, kind, width),
        "ffn_matrices": 2 if kind in PLAIN_FEED_FORWARD else 3,
        "vocab_size": int(settings.need("vocab_size", "padded_vocab_size")),
        "tie_word_embeddings": bool(settings.get("tie_word_embeddings")),
        "context_window": context,
        "moe": experts,
        "mla": latent,
        "sliding_window": _window(settings, kinds),
        "full_attention": _full_attention(settings, kind),
        "learned_positions": _learned_positions(kind, context),
        **_state_layers(settings, kind, kinds, layers, width),
        **_block_shape(settings, layers, width, heads),
        **_precisions(
            written.get("quantization_config") or inner.get("quantization_config"), settings
        ),
        "license": "not stated in the configuration",
        "source": str(file),
        "as_of": dt.date.fromtimestamp(file.stat().st_mtime).isoformat(),
    }
    spec["role"] = "slm" if _rough_parameters(spec) <= SMALL_MODEL_PARAMETERS else "llm"
    return spec


def _block_shape(settings: _Settings, layers: int, width: int, heads: int) -> dict[str, Any]:
    """Fields of a model whose configuration describes every block; none of others."""
    blocks = settings.get("block_configs")
    if blocks is None:
        return {}
    if not isinstance(blocks, list) or len(blocks) != layers:
        raise InputError(f"block_configs: a list of {layers} blocks was expected")
    return shape_of_blocks(blocks, width=width, heads=heads)


def _defaults(written: dict[str, Any]) -> Any:
    """The text part of the `transformers` configuration; None for a model type it does not know."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model_type = written.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return None
    try:
        return CONFIG_MAPPING[model_type].from_dict(dict(written)).get_text_config(decoder=True)
    except Exception as error:  # whatever a wrong value trips over inside a configuration class
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"transformers cannot read it: {first_line}") from None


def _refuse_what_is_no_decoder(written: dict[str, Any], settings: _Settings, kind: str) -> None:
    architectures = [str(name) for name in written.get("architectures") or ()]
    generates = ("CausalLM", "LMHead", "ConditionalGeneration")
    if written.get("is_encoder_decoder") or settings.get("is_encoder_decoder"):
        raise InputError(f"model type {kind} is an encoder-decoder; a decoder was expected")
    if architectures and not any(mark in name for name in architectures for mark in generates):
        raise InputError(f"architecture {architectures[0]} does not generate text")
    if settings.get("hidden_size_per_layer_input"):
        raise InputError("per-layer input embeddings (Gemma 3n, Gemma 4 E) are not modelled")


def _context(settings: _Settings) -> int:
    context = int(
        settings.get("max_position_embeddings", "n_positions", "max_seq_len", "seq_length") or 2048
    )
    rope = settings.get("rope_scaling") or settings.get("rope_parameters") or {}
    if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) == "yarn":
        original = int(rope.get("original_max_position_embeddings") or context)
        context = max(context, int(original * float(rope.get("factor") or 1)))
    return context


def _layer_kinds(settings: _Settings, layers: int, context: int) -> list[str]:
    """What each layer attends to, one name a layer."""
    kinds = settings.get("layer_types", "layers_block_type")
    if isinstance(kinds, list) and len(kinds) == layers:
        return [FULL_ATTENTION.get(str(kind), str(kind)) for kind in kinds]
    window = settings.get("sliding_window")
    slides = bool(window) and settings.get("use_sliding_window") is not False
    return ["sliding_attention" if slides and int(window) < context else "full_attention"] * layers


def _kv_heads(settings: _Settings, kind: str, heads: int) -> float:
    each = settings.get("num_key_value_heads_per_layer")
    if isinstance(each, list) and each:
        return sum(float(count) for count in each) / len(each)
    if kind == "falcon" and not settings.get("new_decoder_architecture"):
        return 1 if settings.get("multi_query") else heads
    if kind == "gpt_bigcode":
        return 1 if settings.get("multi_query") else heads
    nested = settings.get("attn_config")
    written = nested.get("kv_n_heads") if isinstance(nested, dict) else None
    stated = settings.get("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
    return int(written or stated or heads)


def _head_dim(settings: _Settings, latent: dict[str, Any] | None, width: int, heads: int) -> int:
    if latent is not None:
        return int(latent["qk_nope_head_dim"] + latent["qk_rope_head_dim"])
    return int(settings.get("head_dim") or width // heads)


def _dense_width(settings: _Settings, kind: str, width: int) -> int:
    names = ("intermediate_size_mlp", "intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")
    ratio = settings.get("expansion_ratio")
    stated = int(settings.get(*names) or (ratio or 4) * width)
    return stated // 2 if kind in BOTH_HALVES else stated


def _latent_attention(settings: _Settings) -> dict[str, Any] | None:
    if not settings.get("kv_lora_rank"):
        return None
    latent = {
        name: int(settings.need(name))
        for name in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    }
    return {"q_lora_rank": settings.get("q_lora_rank")} | latent


def _experts(settings: _Settings, kind: str, layers: int) -> dict[str, Any] | None:
    count = settings.get("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
    if not isinstance(count, int) or count < 2 or settings.get("enable_moe_block") is False:
        return None
    per_token = ("num_experts_per_tok", "top_k_experts", "experts_per_token", "moe_k", "moe_topk")
    routed = _routed_layers(settings, kind, layers)
    shared = settings.get("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    shared_width = settings.get("shared_expert_intermediate_size", "shared_intermediate_size")
    return {
        "num_experts": count,
        "experts_per_token": int(settings.need(*per_token)),
        "moe_intermediate_size": int(settings.need("moe_intermediate_size", "intermediate_size")),
        "shared_experts": int(shared or (1 if shared_width or kind == "llama4_text" else 0)),
        "shared_intermediate_size": shared_width or None,
        "moe_layers": routed if routed < layers else None,
        "dense_beside_experts": kind.startswith("gemma4"),
    }


def _routed_layers(settings: _Settings, kind: str, layers: int) -> int:
    """Layers with experts: listed, or after the first dense ones, or every n-th."""
    kinds = settings.get("mlp_layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        return sum(str(kind) != "dense" for kind in kinds)
    listed = settings.get("moe_layers")
    if kind == "llama4_text" and isinstance(listed, list):
        return len(listed)
    dense_first = int(settings.get("first_k_dense_replace") or 0)
    step = int(settings.get("decoder_sparse_step") or 1)
    dense = set(settings.get("mlp_only_layers") or ())
    return sum(
        index >= dense_first and index not in dense and (index + 1) % step == 0
        for index in range(layers)
    )


def _window(settings: _Settings, kinds: Counter[str]) -> dict[str, int] | None:
    sliding = sum(kinds[kind] for kind in WINDOW_LAYERS)
    size = settings.get("sliding_window", "attention_chunk_size") if sliding else None
    return {"size": int(size), "num_sliding_layers": sliding} if size else None


def _full_attention(settings: _Settings, kind: str) -> dict[str, Any] | None:
    if not kind.startswith("gemma4"):
        return None
    same = bool(settings.get("attention_k_eq_v"))
    own_heads = settings.get("num_global_key_value_heads") if same else None
    return {
        "head_dim": int(settings.get("global_head_dim") or 512),
        "num_kv_heads": int(own_heads or settings.need("num_key_value_heads")),
        "keys_are_values": same,
    }


def _learned_positions(kind: str, context: int) -> int:
    return context + EXTRA_POSITIONS[kind] if kind in EXTRA_POSITIONS else 0


def _state_layers(
    settings: _Settings, kind: str, kinds: Counter[str], layers: int, width: int
) -> dict[str, int]:
    """Fields for layers that keep a state instead of a cache; refuses those it cannot size."""
    state = sum(kinds[name] for name in STATE_LAYERS)
    odd = set(kinds) - STATE_LAYERS - WINDOW_LAYERS - {"full_attention"}
    if odd or state == layers or (state and kind not in MAMBA_2 | GATED_DELTA):
        found = ", ".join(sorted(odd)) or "state-space layers"
        raise InputError(f"model type {kind}: {found} are not modelled")
    if not state:
        return {}
    mixer = _mamba_2_parameters if kind in MAMBA_2 else _gated_delta_parameters
    return {
        "attention_layers": layers - state,
        "mixer_parameters_per_layer": mixer(settings, width),
    }


def _mamba_2_parameters(settings: _Settings, width: int) -> int:
    """Mamba-2 mixer (arXiv 2405.21060): in, convolution with bias, A, D, dt, gated norm, out."""
    inner = int(settings.need("mamba_expand")) * width
    heads = int(settings.need("mamba_n_heads"))
    states = 2 * int(settings.need("mamba_n_groups")) * int(settings.need("mamba_d_state"))
    projection = width * (2 * inner + states + heads)
    convolution = (inner + states) * (int(settings.need("mamba_d_conv")) + 1)
    return projection + convolution + 3 * heads + inner + inner * width


def _gated_delta_parameters(settings: _Settings, width: int) -> int:
    """Gated DeltaNet mixer (arXiv 2412.06464), as in Qwen3-Next: q k v z, b a, convolution, out."""
    heads = int(settings.need("linear_num_value_heads"))
    value_dim = int(settings.need("linear_value_head_dim"))
    keys = int(settings.need("linear_num_key_heads")) * int(settings.need("linear_key_head_dim"))
    values = heads * value_dim
    projection = width * (2 * keys + 2 * values + 2 * heads)
    convolution = (2 * keys + values) * int(settings.need("linear_conv_kernel_dim"))
    return projection + convolution + 2 * heads + value_dim + values * width


def _precisions(quantization: Any, settings: _Settings) -> dict[str, Precision]:
    """The format of the weights in the checkpoint."""
    sixteen: Precision = (
        "fp16"
        if str(settings.get("dtype", "torch_dtype")).rpartition(".")[2] == "float16"
        else "bf16"
    )
    if not isinstance(quantization, dict):
        return {"published_precision": sixteen}
    method = str(quantization.get("quant_method", "")).casefold()
    text = str(quantization).casefold()
    if method == "mxfp4":
        return {"published_precision": sixteen, "expert_precision": "fp4"}
    if method == "fp8" or "fp8" in text:
        return {"published_precision": "fp8"}
    bits = quantization.get("bits") or _nested_bits(quantization)
    if "nvfp4" in text or "mxfp4" in text:
        return {"published_precision": "fp4"}
    if bits == 8 and "float" in text:
        return {"published_precision": "fp8"}
    if bits == 8 or quantization.get("load_in_8bit"):
        return {"published_precision": "int8"}
    if bits == 4 or quantization.get("load_in_4bit"):
        return {"published_precision": "fp4" if "'type': 'float'" in text else "int4"}
    raise InputError(f"quantization_config with method '{method}' is not known")


def _nested_bits(quantization: dict[str, Any]) -> int | None:
    """Bits of the weights in a `compressed-tensors` configuration."""
    for group in (quantization.get("config_groups") or {}).values():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and weights.get("num_bits"):
            return int(weights["num_bits"])
    return None


def _rough_parameters(spec: dict[str, Any]) -> float:
    """Parameters to within some percent: enough to tell a small model from a large one."""
    width = spec["hidden_size"]
    attention = 2 * width * spec["head_dim"] * (spec["num_heads"] + spec["num_kv_heads"])
    dense = spec["ffn_matrices"] * width * spec["intermediate_size"]
    layers = spec["num_layers"]
    experts = spec["moe"]
    if not experts:
        return float(layers * (attention + dense) + 2 * spec["vocab_size"] * width)
    routed = experts["moe_layers"] or layers
    expert = 3 * width * experts["moe_intermediate_size"]
    total = layers * attention + routed * experts["num_experts"] * expert
    return float(total + (layers - routed) * dense + 2 * spec["vocab_size"] * width)


def _name(file: Path) -> str:
    return file.resolve().parent.name if file.name == "config.json" else file.stem
