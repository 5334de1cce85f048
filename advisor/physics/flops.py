"""Floating-point operations of a request, counted, beside the 2·P·T rule of thumb."""

from __future__ import annotations

from typing import Literal

from advisor.catalog.models import ModelSpec
from advisor.physics.attention import attended_pairs, flops_per_pair, full_and_sliding_layers
from advisor.physics.parameters import parameter_count
from advisor.records import Record


class RequestFlops(Record):
    """Operations of one request, by part."""

    linears: float
    """2·P·n over the layers' active weights."""
    head: float
    """2·V·d for each sampled position."""
    attention_prefill: float
    attention_decode: float
    rule_of_thumb: float
    """2·P·T, with all active parameters and every token."""

    @property
    def attention(self) -> float:
        return self.attention_prefill + self.attention_decode

    @property
    def total(self) -> float:
        return self.linears + self.head + self.attention

    @property
    def difference(self) -> float:
        """How far the rule of thumb is off: rule/total − 1."""
        return self.rule_of_thumb / self.total - 1


def rule_of_thumb_flops(model: ModelSpec, tokens: int) -> float:
    """2·P·T (arXiv 2001.08361 §2.1): one multiply and one add per active parameter and token."""
    return 2.0 * parameter_count(model).active * tokens


def request_flops(model: ModelSpec, input_tokens: int, output_tokens: int) -> RequestFlops:
    """Operations of a request of `input_tokens` that produces `output_tokens`.

    n = input + output − 1 tokens pass the layers (the last one is returned, not fed back):
        linears 2·P_body·n, head 2·V·d·output, attention flops_per_pair · Σ context seen, capped at
        the window on sliding layers.
    Raises ValueError where a count is below 1.
    """
    if input_tokens < 1 or output_tokens < 1:
        raise ValueError("input_tokens and output_tokens must be at least 1")
    decoded = output_tokens - 1
    count = parameter_count(model)
    full, sliding = full_and_sliding_layers(model)
    window = model.sliding_window.size if model.sliding_window else None

    def attention(form: Literal["prefill", "decode"], new: int, past: int) -> float:
        wide = full * flops_per_pair(model, form) * attended_pairs(new, past)
        near = flops_per_pair(model, form, sliding=True) * attended_pairs(new, past, window)
        return float(wide + sliding * near)

    return RequestFlops(
        linears=2.0 * count.active_body * (input_tokens + decoded),
        head=2.0 * model.vocab_size * model.hidden_size * output_tokens,
        attention_prefill=attention("prefill", input_tokens, 0),
        attention_decode=attention("decode", decoded, input_tokens),
        rule_of_thumb=rule_of_thumb_flops(model, input_tokens + output_tokens),
    )
