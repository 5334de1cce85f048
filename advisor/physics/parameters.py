"""How many parameters a model has, from its shape."""

from __future__ import annotations

from functools import lru_cache

from advisor.catalog.models import ModelSpec
from advisor.physics.attention import full_and_sliding_layers
from advisor.records import Record


class ParameterCount(Record):
    """Parameters of the language model by part (counts, not bytes)."""

    total: int
    active: int
    """Those that one token's forward pass uses: all but the experts it does not visit."""
    embedding: int
    """Token embedding, V x d, with learned positions where there are any."""
    head: int
    """LM head, V x d; 0 where it is the embedding itself."""
    attention_per_layer: float
    """Projections of one attention layer; the mean where layers differ."""
    mixer_per_layer: int
    """One state-space layer's mixer."""
    dense_ffn_per_layer: int
    """One dense feed-forward network."""
    expert: int
    """One routed expert."""
    shared_experts_per_layer: int
    router_per_layer: int
    attention_layers: int
    dense_ffn_layers: int
    moe_layers: int

    @property
    def body(self) -> int:
        """All but embedding and head: what the layers hold."""
        return self.total - self.embedding - self.head

    @property
    def active_body(self) -> int:
        """Active parameters without embedding and head: the P of 2·P·n."""
        return self.active - self.embedding - self.head


def attention_parameters(model: ModelSpec, *, sliding: bool = False) -> int:
    """Parameters of one attention layer's projections.

    Multi-head, grouped- and multi-query:  d·H·dh (queries) + 2·d·Hkv·dh + H·dh·d (output).
    Latent attention (arXiv 2405.04434, eq. 9–19), r ranks:
        d·r_q + r_q·H·(nope + rope)  [d·H·(nope + rope) without a query rank]
        + d·(r_kv + rope) + r_kv·H·(nope + v) + H·v·d.
    `sliding` asks for a sliding-window layer where the full-attention layers have another shape.
    """
    d, heads = model.hidden_size, model.num_heads
    if model.mla is None:
        full = None if sliding else model.full_attention
        head_dim = full.head_dim if full else model.head_dim
        kv_heads = full.num_kv_heads if full else model.num_kv_heads
        projections = 1 if full and full.keys_are_values else 2
        return round(2 * d * heads * head_dim + projections * d * kv_heads * head_dim)
    mla = model.mla
    query_width = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    rank = mla.q_lora_rank
    query = d * query_width if rank is None else d * rank + rank * query_width
    latent = d * (mla.kv_lora_rank + mla.qk_rope_head_dim)
    expand = mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    return query + latent + expand + heads * mla.v_head_dim * d


@lru_cache(maxsize=512)
def parameter_count(model: ModelSpec) -> ParameterCount:
    """Count the parameters of a decoder from its shape.

    total = V·d (embedding) + V·d (head, unless tied) + Σ layers (attention or mixer, feed-forward
    or router + experts, two norms) + final norm. Biases, query/key norms and multi-token-prediction
    layers are left out: together they are under 0.5 % of every model in the catalogue.
    """
    d, layers, moe = model.hidden_size, model.num_layers, model.moe
    moe_layers = 0 if moe is None else (moe.moe_layers or layers)
    dense_layers = layers if moe and moe.dense_beside_experts else layers - moe_layers
    full, sliding = full_and_sliding_layers(model)
    attention = full * attention_parameters(model)
    attention += sliding * attention_parameters(model, sliding=True)
    dense = model.ffn_matrices * d * model.intermediate_size
    expert = shared = router = 0
    if moe is not None:
        expert = model.ffn_matrices * d * moe.moe_intermediate_size
        width = moe.shared_intermediate_size or moe.shared_experts * moe.moe_intermediate_size
        shared = model.ffn_matrices * d * width
        router = d * moe.num_experts
    embedding = (model.vocab_size + model.learned_positions) * d
    head = 0 if model.tie_word_embeddings else model.vocab_size * d
    attention_layers = full + sliding
    mixers = (layers - attention_layers) * model.mixer_parameters_per_layer
    norms = (2 * layers + 1) * d
    always = attention + mixers + dense_layers * dense + norms
    always += moe_layers * (shared + router)
    experts = moe.num_experts if moe else 0
    visited = moe.experts_per_token if moe else 0
    return ParameterCount(
        total=embedding + head + always + moe_layers * experts * expert,
        active=embedding + head + always + moe_layers * visited * expert,
        embedding=embedding,
        head=head,
        attention_per_layer=attention / attention_layers,
        mixer_per_layer=model.mixer_parameters_per_layer,
        dense_ffn_per_layer=dense,
        expert=expert,
        shared_experts_per_layer=shared,
        router_per_layer=router,
        attention_layers=attention_layers,
        dense_ffn_layers=dense_layers,
        moe_layers=moe_layers,
    )
