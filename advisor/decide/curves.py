"""Latency of a tier against its load: simulated once, read for any objective and any uncertainty.

Where every step takes f times as long, so does everything that follows from steps: at a rate λ the
latencies are f times those of the original at the rate f·λ. One curve therefore serves every value
of the uncertain level of the step time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.catalog import Assumptions, HostedModel
from advisor.decide.hosted import HostedLatency
from advisor.decide.load import Load
from advisor.decide.options import SelfHostedOption
from advisor.physics.step_cost import StepCost
from advisor.serving.deployed import level_log_sd, steps_of
from advisor.serving.metrics import is_drifting
from advisor.serving.simulate import simulate_engine

FloatArray = NDArray[np.float64]

QUANTILES: FloatArray = (np.arange(160) + 0.5) / 160
"""Probabilities at which distributions are kept; each stands for 1/160 of the requests."""

FRACTIONS = (0.02, 0.2, 0.4, 0.55, 0.7, 0.82, 0.9, 0.96)
"""Rates simulated, as fractions of the saturation rate."""

WARMUP = 0.1


@dataclass(frozen=True, eq=False)
class TierCurve:
    """Latency distributions of one replica (or one hosted API) at rising rates."""

    rates_per_s: FloatArray
    """(levels,) requests per second per replica; infinite for a hosted API."""
    ttft_s: FloatArray
    """(levels, quantiles) without request overhead."""
    e2e_s: FloatArray
    tpot_s: FloatArray
    saturation_per_s: float
    """Rate that one replica cannot exceed."""
    overhead_s: float
    log_sd: float
    """1-sd of ln(true / projected) of all its times."""

    @property
    def levels(self) -> int:
        """Rates simulated without overload."""
        return len(self.rates_per_s)

    def p95_s(self, metric: str, factor: float = 1.0) -> FloatArray:
        """(levels,) 95th percentile of `ttft`, `e2e` or `tpot` where steps take `factor` times."""
        values: FloatArray = getattr(self, f"{metric}_s")
        at = np.searchsorted(QUANTILES, 0.95)
        own = np.maximum.accumulate(values[:, at]) * factor
        return own if metric == "tpot" else own + self.overhead_s

    def usable_rate(self, bounds_s: dict[str, float], factor: float = 1.0) -> float:
        """Highest rate per replica at which every p95 keeps its bound; 0 where none does."""
        best = float(self.rates_per_s[-1]) / factor
        for metric, bound in bounds_s.items():
            p95 = self.p95_s(metric, factor)
            if p95[0] > bound:
                return 0.0
            if p95[-1] > bound:
                best = min(best, float(np.interp(bound, p95, self.rates_per_s)) / factor)
        return best

    def at_rate(self, metric: str, rate_per_s: float, factor: float = 1.0) -> float | None:
        """95th percentile at a rate per replica; None where that is too much for it."""
        if rate_per_s * factor > self.rates_per_s[-1] * 1.02:
            return None
        p95 = self.p95_s(metric, factor)
        return float(np.interp(rate_per_s * factor, self.rates_per_s, p95))


def saturation_rate(step: StepCost, option: SelfHostedOption, load: Load) -> float:
    """Requests per second of one replica with a full queue, mean-field.

    B sequences decode; each of their o steps ends B/o of them and prefills as many prompts:

        rate(B) = B / (o·T(B)),  T(B) = token_s[B + q] + sample_s[B + B/o] + kv_s·B·c + prefill_s·Q

    with q prompt tokens and Q attended pairs a step; the best B up to the KV pool, max_num_seqs and
    the token budget.
    """
    outputs, computed = load.output_tokens, load.computed_tokens
    context = load.input_tokens + outputs / 2
    past = load.input_tokens - computed
    most = min(option.engine.max_num_seqs, option.kv_blocks * 16 / (context + 16))
    batch = np.unique(np.geomspace(1, max(most, 1.0), 24).round())
    # At a budget's limit the prompts, not the sequences, set the pace.
    budget = option.engine.max_num_batched_tokens
    batch = np.minimum(batch, (budget - 1) / (1 + computed / outputs))
    prompts = batch / outputs
    tokens = np.clip(batch + prompts * computed, 1, budget)
    pairs = prompts * (computed * past + computed * (computed + 1) / 2)
    seen = min(context, step.window) if step.window else 0.0
    seconds = (
        np.interp(tokens, np.arange(len(step.token_s)), step.token_s)
        + np.interp(batch + prompts, np.arange(len(step.sample_s)), step.sample_s)
        + step.kv_s * batch * context
        + step.window_kv_s * batch * seen
        + step.prefill_s * pairs
        + step.window_prefill_s * prompts * computed * min(load.input_tokens, step.window or 0)
        + step.mixed_s
    )
    return float(np.max(batch / (outputs * seconds)))


def step_of(option: SelfHostedOption) -> StepCost:
    """The step cost of a deployment, as it is calibrated."""
    return steps_of(option.deployment, option.calibration, option.engine)


def simulated_curve(option: SelfHostedOption, load: Load, *, overhead_s: float) -> TierCurve:
    """Simulate one replica at rising rates until it is overloaded."""
    step = step_of(option)
    saturation = saturation_rate(step, option, load)
    rates: list[float] = []
    found: list[list[FloatArray]] = []
    for fraction in FRACTIONS:
        requests = load.at_rate(fraction * saturation)
        timeline = simulate_engine(
            step, option.engine, kv_blocks=option.kv_blocks, requests=requests
        )
        kept = slice(int(WARMUP * len(timeline)), None)
        ttft = timeline.first_token_s[kept] - timeline.arrival_s[kept]
        e2e = timeline.finish_s[kept] - timeline.arrival_s[kept]
        tail = timeline.finish_s[-1] - timeline.arrival_s[-1]
        if rates and (is_drifting(e2e) or tail > 0.5 * timeline.arrival_s[-1]):
            break
        gaps = np.maximum(timeline.output_tokens[kept] - 1, 1)
        rates.append(fraction * saturation)
        found.append([_quantiles(values) for values in (ttft, e2e, (e2e - ttft) / gaps)])
    values = np.asarray(found)
    return TierCurve(
        rates_per_s=np.asarray(rates),
        ttft_s=values[:, 0],
        e2e_s=values[:, 1],
        tpot_s=values[:, 2],
        saturation_per_s=saturation,
        overhead_s=overhead_s,
        log_sd=level_log_sd(
            step,
            option.calibration,
            option.deployment.model,
            computed_tokens=load.computed_tokens,
            output_tokens=load.output_tokens,
        ),
    )


def hosted_curve(model: HostedModel, assumptions: Assumptions, load: Load) -> TierCurve:
    """Latency of a hosted API, whatever the rate."""
    latency, sample = HostedLatency.of(model, assumptions), load.requests
    ttft, pace = latency.drawn(sample, np.random.default_rng(0))
    e2e = ttft + (sample.output_tokens - 1) * pace
    return TierCurve(
        rates_per_s=np.asarray([np.inf]),
        ttft_s=_quantiles(ttft)[None],
        e2e_s=_quantiles(e2e)[None],
        tpot_s=_quantiles(pace)[None],
        saturation_per_s=np.inf,
        overhead_s=0.0,
        log_sd=latency.log_sd,
    )


def with_overhead(curve: TierCurve, overhead_s: float) -> TierCurve:
    """The same curve with another request overhead."""
    return replace(curve, overhead_s=overhead_s)


def _quantiles(values: FloatArray) -> FloatArray:
    ordered = np.sort(values)
    at = QUANTILES * (len(ordered) - 1)
    found: FloatArray = np.interp(at, np.arange(len(ordered)), ordered)
    return found
