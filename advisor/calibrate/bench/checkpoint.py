"""What vLLM is given as a model: a checkpoint, or a config.json alone with random weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from advisor.catalog import Catalog
from advisor.catalog.models import ModelSpec
from advisor.errors import InputError

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.pt")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as vLLM takes it."""

    spec: ModelSpec
    folder: Path
    digest: str
    weights: Literal["random", "checkpoint"]
    named: str
    """As other commands take it: a catalogue id, or the folder."""


def checkpoint_of(name: str, catalog: Catalog, *, work: Path) -> Checkpoint:
    """Find a model's folder, or make one with a config.json of its shape.

    Args:
        name: a folder with config.json (and weights or none), a config.json, or a model of the
            catalogue; of the latter a Llama (or a Qwen3 mixture of experts) of the same shape is
            made, which does the same work.
        work: folder for what is made.

    Raises:
        InputError: unknown, or a shape that neither has and no config.json describes.
    """
    path = Path(name).expanduser()
    spec = catalog.known_model(name)
    if path.exists():
        folder = path if path.is_dir() else path.parent
        named = str(folder)
    else:
        folder, named = work / "model", spec.id
        _write_config(spec, folder)
    has_weights = any(next(folder.glob(pattern), None) for pattern in WEIGHTS)
    return Checkpoint(
        spec=spec,
        folder=folder,
        digest=digest_of(folder / "config.json"),
        weights="checkpoint" if has_weights else "random",
        named=named,
    )


def digest_of(config: Path) -> str:
    """First 12 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(config.read_bytes()).hexdigest()[:12]


def config_of(spec: ModelSpec) -> dict[str, Any]:
    """The config.json of a Llama with a model's shape, or of a Qwen3 mixture where it routes.

    Raises:
        InputError: latent attention, sliding windows, a feed-forward network without gate, or
            experts of which some are shared or in some layers alone.
    """
    routed = spec.moe
    mixed = routed is not None and (
        routed.shared_experts > 0
        or routed.shared_intermediate_size is not None
        or routed.dense_beside_experts
        or routed.moe_layers not in (None, spec.num_layers)
    )
    if mixed or spec.mla or spec.sliding_window or spec.ffn_matrices != 3:
        raise InputError(
            f"--model {spec.id}: its layers are neither a Llama's nor a Qwen3 mixture's; name a "
            "folder with its config.json"
        )
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": int(spec.num_kv_heads),
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.context_window,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if routed is None:
        return config
    return config | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": routed.num_experts,
        "num_experts_per_tok": routed.experts_per_token,
        "moe_intermediate_size": routed.moe_intermediate_size,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }


def _write_config(spec: ModelSpec, folder: Path) -> None:
    document = json.dumps(config_of(spec), indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(document, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output: {folder} cannot be written: {error.strerror}") from None
