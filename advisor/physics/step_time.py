"""How long one engine step takes: the law, its tables, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from advisor.catalog.coefficients import Coefficients
from advisor.physics.deployment import Deployment, Speculation
from advisor.physics.engine import CURRENT, Generation
from advisor.physics.parameters import parameter_count
from advisor.physics.rates import Rates, engine_flags, rates_of
from advisor.physics.step_cost import StepCost
from advisor.physics.work import Values, Work, experts_touched, work_of

RIDGE_SHARPNESS = 4.0
"""Exponent of the smooth maximum of memory and compute time: near the ridge a product costs up to
2^(1/4) − 1 = 19 % more than either bound."""


@dataclass(frozen=True, slots=True)
class StepTerms:
    """Seconds of one step, by what they are spent on; the step takes their sum."""

    host: Values
    launches: Values
    linears_memory: Values
    """Reading weights, and what the linears would take if they computed in no time."""
    linears_compute: Values
    """What computing adds to that, norms, rotations and activation functions included."""
    experts: Values
    head: Values
    kv_attention: Values
    prefill_attention: Values
    collectives: Values

    @property
    def total(self) -> Values:
        """Seconds of the whole step."""
        return sum((getattr(self, field.name) for field in fields(self)), start=0.0)

    def shares(self) -> dict[str, float]:
        """Share of the step by term (of one step, not of columns)."""
        total = float(self.total)
        return {field.name: float(getattr(self, field.name)) / total for field in fields(self)}


def smooth_maximum(a: Values, b: Values) -> Values:
    """(aᵖ + bᵖ)^(1/p) with p = RIDGE_SHARPNESS, without overflow; 0 where both are 0."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    ratio = low / np.maximum(high, 1e-300)
    result: Values = high * (1 + ratio**RIDGE_SHARPNESS) ** (1 / RIDGE_SHARPNESS)
    return result


def step_terms(
    work: Work,
    rates: Rates,
    *,
    tokens: Values,
    sampled: Values,
    context: Values = 0.0,
    window_context: Values = 0.0,
    pairs: Values = 0.0,
    window_pairs: Values = 0.0,
    prefilling: bool | NDArray[np.bool_] = False,
) -> StepTerms:
    """The law, term by term (seconds).

    tokens n and sampled m of one data-parallel rank; context S, window_context W, pairs Q and
    window_pairs Q_w as in `StepCost`.

        host        h + h_w·log2 t + s·m
        launches    L·l + L_moe·l_moe, with prefill tokens also L·x + L_moe·x_moe + 2L·x_r (l and x
                    more with latent attention, l with quantised activations)
        linears     smooth max(w·P/t / (BW·e_w), 2·P·n/t / (F·e_c))
        activations 2·n·Σ(8·d + 3·dff/t) / (BW·e_v)
        experts     smooth max(touched·b / (BW·e_m), 2·p_e·(k·N + n0·touched)/R / (F·e_x)),
                    touched: `experts_touched`, N = n·dp tokens of all R ranks
        head        max(2·V·d/t / (BW·e_h), 2·V·d·m/t / (F16·e_c)) + 16·V·m / (BW·e_s)
        attention   kv·S / (BW·e_a) and 4·H·dh/t·Q / (F16·e_p)
        collectives 2L·(a0 + a1·log2 t) + ring bytes·n / (link·e_l), the data-parallel exchange, and
                    a0 with the hidden states for each pipeline stage after the first

    The form follows measurements of vLLM on A100, H100, H200, B200 and B300 (calibration/).
    """
    read = work.linear_bytes / (work.bandwidth * rates.linear_bandwidth)
    compute = work.linear_flops * tokens / (work.linear_peak * rates.linear_compute)
    linears = smooth_maximum(read, compute)
    activations = work.activation_bytes * tokens / (work.bandwidth * rates.activation_bandwidth)
    head_read = work.head_bytes / (work.bandwidth * rates.head_bandwidth)
    head_compute = work.head_flops * sampled / (work.peak_16bit * rates.linear_compute)
    logits = work.logit_bytes * sampled / (work.bandwidth * rates.sampling_bandwidth)
    kv_rate = work.bandwidth * rates.kv_bandwidth
    pair_rate = work.peak_16bit * rates.prefill_attention
    launches = work.layers * rates.layer_s + work.moe_layers * rates.moe_layer_s
    return StepTerms(
        host=rates.host_step_s
        + rates.worker_s * np.log2(work.tensor_parallel)
        + rates.host_sequence_s * sampled,
        launches=launches + np.where(prefilling, _mixed_s(work, rates), 0.0),
        linears_memory=read,
        linears_compute=linears - read + activations,
        experts=_expert_s(work, rates, tokens),
        head=np.maximum(head_read, head_compute) + logits,
        kv_attention=(work.kv_bytes * context + work.window_kv_bytes * window_context) / kv_rate,
        prefill_attention=(work.pair_flops * pairs + work.window_pair_flops * window_pairs)
        / pair_rate,
        collectives=_collective_s(work, rates, tokens),
    )


def _mixed_s(work: Work, rates: Rates) -> Values:
    """What launching outside the CUDA graph adds to a step that holds prefill tokens."""
    result: Values = (
        work.layers * rates.mixed_layer_s
        + work.moe_layers * rates.mixed_moe_layer_s
        + work.reductions * rates.mixed_reduce_s
    )
    return result


def _expert_s(work: Work, rates: Rates, tokens: Values) -> Values:
    everyone = tokens * work.data_parallel
    touched = experts_touched(everyone, work.experts, work.visit_share, rates.routing_evenness)
    read = touched * work.expert_bytes / (work.bandwidth * rates.expert_bandwidth)
    visits = everyone * work.visit_share * work.experts
    padded = visits + rates.expert_padding_tokens * touched
    compute = padded * work.expert_flops / (work.expert_peak * rates.expert_compute)
    return smooth_maximum(read, compute)


def _collective_s(work: Work, rates: Rates, tokens: Values) -> Values:
    link = work.link * rates.link_bandwidth
    reduce = rates.reduce_s + rates.reduce_hop_s * np.log2(work.tensor_parallel)
    exchange = rates.reduce_s + rates.reduce_hop_s * np.log2(
        work.tensor_parallel * work.data_parallel
    )
    latency = work.reductions * reduce + work.exchanges * exchange + work.handoffs * rates.reduce_s
    sent = work.reduce_bytes + work.exchange_bytes + work.handoff_bytes
    result: Values = latency + sent * tokens / link
    return result


def step_cost(
    deployment: Deployment,
    coefficients: Coefficients,
    *,
    max_tokens: int,
    max_seqs: int,
    generation: Generation = CURRENT,
) -> StepCost:
    """Tabulate the law for the simulator: steps of 1…max_tokens tokens, 0…max_seqs samples.

    Raises ValueError where a bound is below 1.
    """
    if max_tokens < 1 or max_seqs < 1:
        raise ValueError("max_tokens and max_seqs must be at least 1")
    work = work_of(deployment)
    rates = rates_of(coefficients, work, engine_flags(generation))
    drafted = deployment.speculative.draft_tokens if deployment.speculative else 0
    n = np.arange(max_tokens + 1 + drafted * max_seqs, dtype=np.float64)
    m = np.arange(max_seqs + 1, dtype=np.float64)
    by_tokens = step_terms(work, rates, tokens=n, sampled=0.0)
    by_samples = step_terms(work, rates, tokens=1.0, sampled=m * (1 + drafted))
    token_s = np.asarray(by_tokens.total - by_tokens.head, dtype=np.float64)
    kv_rate = float(work.bandwidth * rates.kv_bandwidth)
    pair_rate = float(work.peak_16bit * rates.prefill_attention)
    window = deployment.model.sliding_window
    cost = StepCost(
        token_s=token_s,
        sample_s=np.asarray(by_samples.head + by_samples.host - by_tokens.host),
        kv_s=float(work.kv_bytes) / kv_rate,
        prefill_s=float(work.pair_flops) / pair_rate,
        mixed_s=float(_mixed_s(work, rates)),
        window=window.size if window else 0,
        window_kv_s=float(work.window_kv_bytes) / kv_rate,
        window_prefill_s=float(work.window_pair_flops) / pair_rate,
    )
    if deployment.speculative is None:
        return cost
    return _per_emitted_token(
        cost, deployment.speculative, deployment.model.num_layers, max_tokens, max_seqs
    )


def _per_emitted_token(
    cost: StepCost, draft: Speculation, layers: int, max_tokens: int, max_seqs: int
) -> StepCost:
    """The same engine counted in emitted tokens instead of steps.

    A step that checks k proposals of each of d sequences passes d·(k + 1) tokens and emits
    A = (1 − a^{k+1})/(1 − a) tokens a sequence, so that a token costs (T(d·(k + 1)) + draft)/A.
    Prefill tokens (those beyond `max_seqs` in a step) keep their full marginal cost. The cache is
    read once a step, whatever the number of proposals.
    """
    k, emitted = draft.draft_tokens, draft.tokens_per_step
    n = np.arange(max_tokens + 1)
    decoding = np.minimum(n, max_seqs)
    base = cost.token_s[decoding * (k + 1)] / emitted
    extra = cost.token_s[n + decoding * k] - cost.token_s[decoding * (k + 1)]
    drafting = k * draft.draft_layers / layers * cost.token_s[decoding] / emitted
    return StepCost(
        token_s=base + extra + drafting,
        sample_s=cost.sample_s / emitted,
        kv_s=cost.kv_s / emitted,
        prefill_s=cost.prefill_s,
        mixed_s=cost.mixed_s,
        window=cost.window,
        window_kv_s=cost.window_kv_s / emitted,
        window_prefill_s=cost.window_prefill_s,
    )


def decode_step_s(
    deployment: Deployment,
    coefficients: Coefficients,
    *,
    batch: int,
    context_tokens: float,
    generation: Generation = CURRENT,
) -> float:
    """Seconds of a step that decodes `batch` sequences of `context_tokens` each."""
    terms = breakdown(
        deployment,
        coefficients,
        batch=batch,
        context_tokens=context_tokens,
        generation=generation,
    )
    return float(terms.total)


def breakdown(
    deployment: Deployment,
    coefficients: Coefficients,
    *,
    batch: int = 0,
    context_tokens: float = 0.0,
    prompt_tokens: int = 0,
    generation: Generation = CURRENT,
) -> StepTerms:
    """What one step is made of: `batch` decoding sequences and one prompt prefilled in it."""
    if batch < 0 or prompt_tokens < 0 or batch + prompt_tokens == 0:
        raise ValueError("a step needs at least one decoding sequence or one prompt token")
    work = work_of(deployment)
    window = deployment.model.sliding_window
    seen = min(context_tokens, window.size) if window else 0.0
    q = float(prompt_tokens)
    capped = q
    if window:
        capped = min(q, float(window.size))
    return step_terms(
        work,
        rates_of(coefficients, work, engine_flags(generation)),
        tokens=float(batch) + q,
        sampled=float(batch) + (1.0 if prompt_tokens else 0.0),
        context=batch * context_tokens,
        window_context=batch * seen,
        pairs=q * (q + 1) / 2,
        window_pairs=capped * (capped + 1) / 2 + (q - capped) * capped,
        prefilling=prompt_tokens > 0,
    )


def prefill_s(
    deployment: Deployment,
    coefficients: Coefficients,
    *,
    prompt_tokens: int,
    generation: Generation = CURRENT,
) -> float:
    """Seconds to prefill one prompt alone, in one step."""
    terms = breakdown(
        deployment,
        coefficients,
        prompt_tokens=prompt_tokens,
        generation=generation,
    )
    return float(terms.total)


def roofline(deployment: Deployment, *, batch: int, context_tokens: float) -> float:
    """The naive bound of a decode step, seconds: max(bytes/BW, ops/F), nothing else.

    Weights of active parameters and cache over all ranks at datasheet peaks, ideal parallelism:
    the baseline that every calibrated figure is compared with.
    """
    work = work_of(deployment)
    count = parameter_count(deployment.model)
    window = deployment.model.sliding_window
    seen = min(context_tokens, window.size) if window else 0.0
    touched = float(experts_touched(batch * work.data_parallel, work.experts, work.visit_share))
    read = work.linear_bytes + work.head_bytes + touched * work.expert_bytes
    cache = batch * (work.kv_bytes * context_tokens + work.window_kv_bytes * seen)
    flops = 2.0 * (count.active - count.embedding) * batch / deployment.tensor_parallel
    return max(float(read + cache) / float(work.bandwidth), flops / float(work.linear_peak))
