"""Quality of a hybrid before there are labels: small model first, its least sure answers handed up.

The small model is right with probability a. Its confidence is normal with variance 1, and higher
by d where it is right (the binormal model of ROC analysis, AUROC = Φ(d/√2)). The large model is
right with probability b, and more rarely where the small one is wrong: the two errors have the
odds ratio ψ (Plackett 1965),

    p₁₁ = ((1 + (a + b)(ψ − 1)) − √((1 + (a + b)(ψ − 1))² − 4ψ(ψ − 1)ab)) / (2(ψ − 1)),
    P(L right | S wrong) = (b − p₁₁) / (1 − a).

A share g of the answers fails a hard gate (all of them wrong, all of them handed up), a share h of
the requests is high-risk and goes to the large model unseen, and of the rest those below a
threshold τ are handed up: with F₀ = Φ(τ) of the small model's errors that pass the gate and
F₁ = Φ(τ − d) of its right answers,

    escalated  e = h + (1 − h)(g + (1 − a − g)·F₀ + a·F₁)
    quality    Q = h·b + (1 − h)(a(1 − F₁) + a·F₁·P(L|S right) + (g + (1 − a − g)·F₀)·P(L|S wrong)).

Sources: dependence of errors from RouteLLM's published per-query results (GSM8K: ψ = 1.9; MMLU:
9.5) and RouterBench-Mini; AUROC of sequence probabilities from Gupta et al. (arXiv 2404.10136) and
published studies of token log-probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from advisor.quality.estimate import Z_90, QualityEstimate
from advisor.records import Record

FloatArray = NDArray[np.float64]

NEWTON_STEPS = 8
"""Reaches rounding error from anywhere in the bracket."""

BRACKET_MARGIN = 0.5
"""Standard deviations beside the bracket, lest a step that overshoots a root at its end counts."""

SQRT_TAU = math.sqrt(2 * math.pi)

GRID = 201
"""Escalation rates tried in the search for the least one that suffices."""


class Range(Record):
    """A value with its 90 % interval."""

    value: float
    low: float
    high: float


class ConfidencePrior(Record):
    """How well the small model knows when it is wrong, and whether the large one errs with it."""

    auroc: Range
    """P(a right answer is more confident than a wrong one); 0.5 is no information."""
    error_dependence: Range
    """Odds ratio of the two models' errors; 1 is independence."""
    basis: str = "assumed"
    """assumed; mixed or labels once measured on the user's log."""
    note: str = ""

    @classmethod
    def for_task(cls, task_type: str) -> ConfidencePrior:
        """What to assume of a task type until a log says better.

        The odds ratio 6 (1.5–25) spans RouteLLM's GSM8K (1.9) and MMLU (9.5) and RouterBench-Mini
        (about 45).
        """
        value, low, high = _ASSUMED_AUROC[task_type]
        return cls(
            auroc=Range(value=value, low=low, high=high),
            error_dependence=Range(value=6.0, low=1.5, high=25.0),
            note="assumed from published confidence studies; 200 labelled rows would measure it",
        )


_ASSUMED_AUROC = {
    "classification": (0.84, 0.72, 0.93),
    "extraction": (0.80, 0.66, 0.92),
    "sql": (0.72, 0.60, 0.84),
    "summarization": (0.62, 0.52, 0.74),
    "generation": (0.62, 0.52, 0.74),
    "reasoning": (0.68, 0.56, 0.80),
}
"""(value, low, high). Closed answers have a probability that means something (label-renormalised,
value tokens): published AUROCs of 0.75–0.93; invoices 0.93 with two reads, less with one
(arXiv 2606.24420). Free text is long and has many right wordings: 0.55–0.75 (arXiv 2404.10136)."""


@dataclass(frozen=True)
class HybridProjection:
    """A hybrid at one escalation rate."""

    escalation_rate: float
    """Share of all requests that reach the large model, high-risk and gate failures included."""
    quality: QualityEstimate
    llm_right_given_slm_wrong: float
    threshold: float
    """P(right) of the small model's answer below which it is handed up."""
    accepted_quality: float
    """Share of right answers among those the small model keeps."""


@dataclass(frozen=True)
class HybridCurve:
    """A hybrid at many escalation rates; every array is (rates,)."""

    escalation_rate: FloatArray
    quality: FloatArray
    """Median."""
    logit_mean: FloatArray
    logit_sd: FloatArray
    accepted_quality: FloatArray
    threshold: FloatArray
    llm_right_given_slm_wrong: float


def llm_right_given(slm: float, llm: float, odds_ratio: float) -> tuple[float, float]:
    """(P(L right | S right), P(L right | S wrong)) from both accuracies and the odds ratio."""
    right, wrong = _conditional(np.float64(slm), np.float64(llm), np.float64(odds_ratio))
    return float(right), float(wrong)


def least_escalation_bound(slm: float, llm: float, *, target: float, odds_ratio: float) -> float:
    """The least share that must be handed up, whatever the confidence: (μ − α)/P(L right|S wrong).

    μ is the small model's error, α the allowed one (1 − target). 0 where the small model reaches
    the target alone; above 1 where no hybrid of the two can.
    """
    missing = target - slm
    _, rescued = llm_right_given(slm, llm, odds_ratio)
    if missing <= 0:
        return 0.0
    return missing / rescued if rescued > 0 else math.inf


def hybrid_curve(
    slm: QualityEstimate,
    llm: QualityEstimate,
    *,
    escalation_rates: ArrayLike,
    confidence: ConfidencePrior,
    gate_failure_rate: float = 0.0,
    high_risk_share: float = 0.0,
) -> HybridCurve:
    """Quality against escalation rate; rates below the unavoidable ones are raised to them.

    The spread comes from four uncertain numbers (both models' log-odds, the AUROC, the odds
    ratio), each moved by one standard deviation in turn (the delta method with symmetric
    differences); the models' log-odds correlate by what they share of an unknown data set.

    Args:
        escalation_rates: (rates,) shares of all requests.
        gate_failure_rate: share of the small model's answers that fail a hard gate.
        high_risk_share: share of requests that policy sends to the large model.
    """
    rates = np.atleast_1d(np.asarray(escalation_rates, dtype=float))
    points = _sigma_points(slm, llm, confidence)
    state = _State.at(points, rates, gate_failure_rate, high_risk_share)
    quality = np.clip(state.quality, 1e-9, 1 - 1e-9)
    logits = special.logit(quality)
    halves = (logits[1::2] - logits[2::2]) / 2
    correlation = _correlation(slm, llm)
    variance = (halves**2).sum(axis=0) + 2 * correlation * halves[0] * halves[1]
    return HybridCurve(
        escalation_rate=state.escalated[0],
        quality=quality[0],
        logit_mean=logits[0],
        logit_sd=np.sqrt(np.maximum(variance, 0.0)),
        accepted_quality=state.accepted_quality[0],
        threshold=state.threshold[0],
        llm_right_given_slm_wrong=float(state.rescued[0, 0]),
    )


def project_hybrid(
    slm: QualityEstimate,
    llm: QualityEstimate,
    *,
    escalation_rate: float,
    confidence: ConfidencePrior,
    gate_failure_rate: float = 0.0,
    high_risk_share: float = 0.0,
) -> HybridProjection:
    """A hybrid at one escalation rate; see `hybrid_curve`."""
    curve = hybrid_curve(
        slm,
        llm,
        escalation_rates=escalation_rate,
        confidence=confidence,
        gate_failure_rate=gate_failure_rate,
        high_risk_share=high_risk_share,
    )
    return projection_at(curve, 0, slm=slm, llm=llm)


def projection_at(
    curve: HybridCurve, index: int, *, slm: QualityEstimate, llm: QualityEstimate
) -> HybridProjection:
    """One point of a curve, with its quality as an estimate."""
    mixed = slm.labels or llm.labels
    assumed = slm.basis == "assumed" or llm.basis == "assumed"
    return HybridProjection(
        escalation_rate=float(curve.escalation_rate[index]),
        quality=QualityEstimate.from_logit(
            mean=float(curve.logit_mean[index]),
            sd=float(curve.logit_sd[index]),
            shared_sd=min(slm.shared_sd, llm.shared_sd),
            basis="mixed" if mixed else "assumed" if assumed else "prior",
            evidence_ids=tuple(dict.fromkeys((*slm.evidence_ids[:4], *llm.evidence_ids[:4]))),
            labels=min(slm.labels, llm.labels),
            note="small model first; confidence and joint errors as stated beside it",
        ),
        llm_right_given_slm_wrong=curve.llm_right_given_slm_wrong,
        threshold=float(curve.threshold[index]),
        accepted_quality=float(curve.accepted_quality[index]),
    )


def least_escalation(
    slm: QualityEstimate,
    llm: QualityEstimate,
    *,
    target: float,
    confidence: ConfidencePrior,
    gate_failure_rate: float = 0.0,
    high_risk_share: float = 0.0,
) -> float | None:
    """Smallest escalation rate whose median quality reaches the target; None where none does.

    Quality rises with escalation only as long as the large model rescues more than it spoils, so
    the search walks a grid from below and then refines the first step that reaches the target.
    """

    def curve(rates: ArrayLike) -> HybridCurve:
        return hybrid_curve(
            slm,
            llm,
            escalation_rates=rates,
            confidence=confidence,
            gate_failure_rate=gate_failure_rate,
            high_risk_share=high_risk_share,
        )

    coarse = curve(np.linspace(0, 1, GRID))
    reached = np.flatnonzero(coarse.quality >= target)
    if len(reached) == 0:
        return None
    first = int(reached[0])
    if first == 0:
        return float(coarse.escalation_rate[0])
    below, above = coarse.escalation_rate[first - 1 : first + 1]
    fine = curve(np.linspace(below, above, 26))
    return float(fine.escalation_rate[np.argmax(fine.quality >= target)])


@dataclass(frozen=True)
class _Points:
    """Sigma points of the uncertain numbers, each (points, 1): the centre, then ± of each."""

    slm: FloatArray
    llm: FloatArray
    separation: FloatArray
    odds_ratio: FloatArray


def _sigma_points(
    slm: QualityEstimate, llm: QualityEstimate, confidence: ConfidencePrior
) -> _Points:
    auroc_mean, auroc_sd = _probit_scale(confidence.auroc)
    log_odds_sd = math.log(confidence.error_dependence.high / confidence.error_dependence.low) / (
        2 * Z_90
    )
    centre = np.array(
        [slm.logit_mean, llm.logit_mean, auroc_mean, math.log(confidence.error_dependence.value)]
    )
    steps = np.diag([slm.logit_sd, llm.logit_sd, auroc_sd, log_odds_sd])
    signed = np.stack([steps, -steps], axis=1).reshape(-1, 4)
    points = centre + np.vstack([np.zeros(4), signed])
    return _Points(
        slm=special.expit(points[:, :1]),
        llm=special.expit(points[:, 1:2]),
        separation=np.maximum(math.sqrt(2) * points[:, 2:3], 0.0),
        odds_ratio=np.exp(points[:, 3:4]),
    )


def _probit_scale(auroc: Range) -> tuple[float, float]:
    """Mean and sd of Φ⁻¹(AUROC)."""
    low, value, high = special.ndtri(np.clip([auroc.low, auroc.value, auroc.high], 1e-6, 1 - 1e-6))
    return float(value), float((high - low) / (2 * Z_90))


def _correlation(slm: QualityEstimate, llm: QualityEstimate) -> float:
    if slm.logit_sd == 0 or llm.logit_sd == 0:
        return 0.0
    return slm.shared_sd * llm.shared_sd / (slm.logit_sd * llm.logit_sd)


def _conditional(
    slm: NDArray[np.float64] | np.float64,
    llm: NDArray[np.float64] | np.float64,
    odds_ratio: NDArray[np.float64] | np.float64,
) -> tuple[FloatArray, FloatArray]:
    """P(L right | S right) and P(L right | S wrong), elementwise (Plackett)."""
    excess = odds_ratio - 1
    linear = 1 + (slm + llm) * excess
    root = np.sqrt(np.maximum(linear**2 - 4 * odds_ratio * excess * slm * llm, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # The stable form of the quadratic's root, which also covers an odds ratio of 1.
        both = 2 * odds_ratio * slm * llm / (linear + root)
        right = np.where(slm > 0, both / slm, llm)
        wrong = np.where(slm < 1, (llm - both) / (1 - slm), llm)
    return np.clip(right, 0, 1), np.clip(wrong, 0, 1)


@dataclass(frozen=True)
class _State:
    """Everything at each sigma point and rate, (points, rates)."""

    escalated: FloatArray
    quality: FloatArray
    accepted_quality: FloatArray
    threshold: FloatArray
    rescued: FloatArray

    @classmethod
    def at(
        cls, points: _Points, rates: FloatArray, gate_failure_rate: float, high_risk_share: float
    ) -> _State:
        a, d = points.slm, points.separation
        right, rescued = _conditional(a, points.llm, points.odds_ratio)
        gated = np.minimum(gate_failure_rate, 1 - a)
        wrong = 1 - a - gated
        open_share = 1 - high_risk_share
        wanted = np.clip((rates - high_risk_share) / max(open_share, 1e-12), gated, 1.0) - gated
        tau = _threshold(wanted, a, wrong, d)
        errors, rights = special.ndtr(tau), special.ndtr(tau - d)
        handed_wrong = gated + wrong * errors
        kept_right, kept_wrong = a * (1 - rights), wrong * (1 - errors)
        kept = kept_right + kept_wrong
        open_quality = kept_right + a * rights * right + handed_wrong * rescued
        with np.errstate(invalid="ignore", divide="ignore"):
            accepted = np.where(kept > 1e-12, kept_right / kept, np.nan)
            # P(right | confidence = τ): normal densities with means d and 0, weights a and wrong.
            surplus = np.log(a) - np.log(wrong)
        return cls(
            escalated=high_risk_share + open_share * (handed_wrong + a * rights),
            quality=high_risk_share * points.llm + open_share * open_quality,
            accepted_quality=accepted,
            threshold=special.expit(surplus + d * tau - d**2 / 2),
            rescued=rescued,
        )


def _threshold(wanted: FloatArray, a: FloatArray, wrong: FloatArray, d: FloatArray) -> FloatArray:
    """τ with wrong·Φ(τ) + a·Φ(τ − d) = wanted, by Newton's method in a bracket; (points, rates).

    A quantile of a mixture lies between those of its parts, z and z + d; a Newton step that would
    leave what is left of that bracket halves it instead.
    """
    z = np.clip(special.ndtri(np.clip(wanted / (wrong + a), 0.0, 1.0)), -9.0, 9.0)
    low, high = np.minimum(z, z + d) - BRACKET_MARGIN, np.maximum(z, z + d) + BRACKET_MARGIN
    tau = (low + high) / 2
    for _ in range(NEWTON_STEPS):
        excess = wrong * special.ndtr(tau) + a * special.ndtr(tau - d) - wanted
        density = wrong * np.exp(-(tau**2) / 2) + a * np.exp(-((tau - d) ** 2) / 2)
        low, high = np.where(excess < 0, tau, low), np.where(excess < 0, high, tau)
        step = tau - excess * SQRT_TAU / np.maximum(density, 1e-300)
        tau = np.where((step >= low) & (step <= high), step, (low + high) / 2)
    return tau
