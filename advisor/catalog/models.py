"""Open-weight language models: their shapes, as a person edits them in profiles/models/."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from advisor.catalog.dates import Day
from advisor.records import Record

Precision = Literal["bf16", "fp16", "fp8", "int8", "int4", "fp4"]
"""Number formats of weights, activations and KV cache, by their names in every file."""

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16", "fp8", "int8", "int4", "fp4")

WEIGHT_BYTES: dict[Precision, float] = {
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.53125,
    "fp4": 0.53125,
}
"""Bytes a quantised weight, with its scales: 4-bit formats carry one 8-bit scale for 32 weights
(MXFP4, OCP Microscaling 1.0) or one 16-bit scale for 128 (GPTQ): 4.25 bits at most."""


class MixtureOfExperts(Record):
    """Routed feed-forward layers: each token visits `experts_per_token` of `num_experts`."""

    num_experts: PositiveInt
    experts_per_token: PositiveInt
    moe_intermediate_size: PositiveInt
    """Width of one expert."""
    shared_experts: NonNegativeInt = 0
    """Experts that every token visits."""
    shared_intermediate_size: PositiveInt | None = None
    """Width of all shared experts together; None: shared_experts x moe_intermediate_size."""
    moe_layers: PositiveInt | None = None
    """How many layers are routed; None: all. The others are dense with `intermediate_size`."""
    dense_beside_experts: bool = False
    """A dense feed-forward network of `intermediate_size` runs beside the experts in each layer."""


class LatentAttention(Record):
    """Multi-head latent attention (arXiv 2405.04434): one compressed KV vector a token."""

    q_lora_rank: PositiveInt | None = None
    kv_lora_rank: PositiveInt
    qk_rope_head_dim: PositiveInt
    qk_nope_head_dim: PositiveInt
    v_head_dim: PositiveInt


class SlidingWindow(Record):
    """Layers that attend only to the last `size` tokens."""

    size: PositiveInt
    num_sliding_layers: PositiveInt


class FullAttention(Record):
    """Shape of full-attention layers where it differs from that of the sliding ones (Gemma 4)."""

    head_dim: PositiveInt
    num_kv_heads: PositiveInt
    keys_are_values: bool = False
    """One projection serves as key and value: its weights exist once, the cache holds both."""


class ModelSpec(Record):
    """Shape of a decoder-only transformer; everything that latency and memory follow from."""

    id: str
    """Hugging Face id."""
    aliases: tuple[str, ...] = ()
    """Other ids with the same shape."""
    family: str
    """Lineage, e.g. `llama-3`."""
    role: Literal["slm", "llm"]
    """Tier it is considered for by default; a user may overrule it."""
    num_layers: PositiveInt
    hidden_size: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveFloat
    """KV heads a layer; a mean where layers differ (DeciLM)."""
    head_dim: PositiveInt
    intermediate_size: PositiveInt
    """Width of the dense feed-forward layers."""
    ffn_matrices: Literal[2, 3] = 3
    """3 for gated feed-forward networks (SwiGLU), 2 for plain ones."""
    vocab_size: PositiveInt
    tie_word_embeddings: bool = False
    context_window: PositiveInt
    moe: MixtureOfExperts | None = None
    mla: LatentAttention | None = None
    sliding_window: SlidingWindow | None = None
    full_attention: FullAttention | None = None
    """Full-attention layers of another shape than `num_kv_heads` x `head_dim`; None: the same."""
    attention_layers: PositiveInt | None = None
    """Layers with attention where the rest are state-space layers (Mamba); None: all."""
    mixer_parameters_per_layer: NonNegativeInt = 0
    """Parameters of one state-space layer's mixer, where there are any."""
    learned_positions: NonNegativeInt = 0
    """Rows of a learned position table (OPT); 0 with rotary or ALiBi positions."""
    published_precision: Precision = "bf16"
    """Format of the checkpoint its maker publishes."""
    expert_precision: Precision | None = None
    """Format of the expert weights alone, where it differs (MXFP4 in gpt-oss)."""
    quantized_to: tuple[Precision, ...] = ("fp8", "int8", "int4")
    """Formats that checkpoints of it exist in, beside `published_precision`."""
    params_total_published_b: PositiveFloat | None = None
    """Billions of parameters of the language model as its maker states them."""
    params_active_published_b: PositiveFloat | None = None
    count_exception: str = ""
    """Why the count computed from the shape is more than 1 % off the published one, where it is."""
    variant_of: str | None = None
    """Id of the model whose shape this is: a quantised checkpoint of it, or its base model."""
    considered: bool = True
    """Whether a recommendation considers it unasked; False for base models (not tuned to follow
    instructions), superseded ones, and checkpoints that another entry at a precision covers."""
    license: str
    commercial_use: bool = True
    note: str = ""
    source: str
    as_of: Day
    """Date of the figures (YYYY-MM-DD)."""
    checked: bool = True
    """False where figures are recalled and were not compared with the published file."""

    @model_validator(mode="after")
    def _shape_is_possible(self) -> ModelSpec:
        if self.moe and (self.moe.moe_layers or 0) > self.num_layers:
            raise ValueError(f"moe_layers must be at most num_layers ({self.num_layers})")
        if self.sliding_window and self.sliding_window.num_sliding_layers > self.num_layers:
            raise ValueError(f"num_sliding_layers must be at most num_layers ({self.num_layers})")
        if self.attention_layers and self.attention_layers > self.num_layers:
            raise ValueError(f"attention_layers must be at most num_layers ({self.num_layers})")
        if self.num_kv_heads > self.num_heads:
            raise ValueError(f"num_kv_heads must be at most num_heads ({self.num_heads})")
        return self


class ModelVariant(Record):
    """A checkpoint with the shape of another: what differs from it."""

    id: str
    """Hugging Face id."""
    variant_of: str
    """Id of the model whose shape it has."""
    aliases: tuple[str, ...] = ()
    context_window: PositiveInt | None = None
    published_precision: Precision | None = None
    expert_precision: Precision | None = None
    quantized_to: tuple[Precision, ...] | None = None
    license: str | None = None
    commercial_use: bool | None = None
    considered: bool = False
    note: str = ""
    source: str
    as_of: Day
    checked: bool = True

    def spec(self, original: ModelSpec) -> ModelSpec:
        """The full record: the original's shape with what is stated here."""
        stated = self.model_dump(exclude_none=True)
        return ModelSpec.model_validate(original.model_dump() | stated)


class ModelFile(Record):
    """One file of profiles/models/."""

    models: tuple[ModelSpec, ...] = Field(min_length=1)
    variants: tuple[ModelVariant, ...] = ()
