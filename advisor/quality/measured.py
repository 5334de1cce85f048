"""Confidence and joint errors measured on a user's rows, in place of the assumed ones."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import special

from advisor.errors import InputError
from advisor.quality.escalation import ConfidencePrior, Range
from advisor.quality.estimate import Z_90
from advisor.quality.pairs import Pairs
from advisor.quality.reliability import auroc, log_odds_ratio

LABELS_DECIDE = 0.1
"""Where the assumption carries less than this share of the precision, labels are the basis."""


def measured_confidence(pairs: Pairs, assumed: ConfidencePrior) -> ConfidencePrior:
    """The assumed AUROC and odds ratio, weighed with the measured ones by their precision.

    Both are normal on their own scale, Φ⁻¹(AUROC) and ln ψ; a log without confidences, or on
    which the small model is always right or always wrong, leaves the AUROC assumed.
    """
    ratio, ratio_sd = log_odds_ratio(pairs.slm_correct, pairs.llm_correct)
    dependence = assumed.error_dependence
    log_prior = (
        math.log(dependence.value),
        _sd(math.log(dependence.low), math.log(dependence.high)),
    )
    log_mean, log_sd = _combined(log_prior, (ratio, ratio_sd))
    probit_prior = _probit(assumed.auroc)
    probit_mean, probit_sd = probit_prior
    measured = _measured_probit(pairs)
    if measured is not None:
        probit_mean, probit_sd = _combined(probit_prior, measured)
    remaining = max((probit_sd / probit_prior[1]) ** 2, (log_sd / log_prior[1]) ** 2)
    return ConfidencePrior(
        auroc=_range(probit_mean, probit_sd, lambda x: float(special.ndtr(x))),
        error_dependence=_range(log_mean, log_sd, math.exp),
        basis="labels" if remaining < LABELS_DECIDE else "mixed",
        note=f"measured on {len(pairs.slm_correct):,} rows on which both models are labelled"
        + ("" if measured is not None else "; the AUROC stays assumed"),
    )


def _measured_probit(pairs: Pairs) -> tuple[float, float] | None:
    """Φ⁻¹ of the measured AUROC and its standard error (delta method); None if there is none."""
    try:
        found = auroc(pairs.confidence, pairs.slm_correct)
    except InputError:
        return None
    rows = found.right + found.wrong
    # A perfect ranking of few rows is not certainty: half a misplaced pair is left.
    margin = 0.5 / (found.right * found.wrong)
    value = min(max(found.value, margin), 1 - margin)
    probit = float(special.ndtri(value))
    density = math.exp(-(probit**2) / 2) / math.sqrt(2 * math.pi)
    least = math.sqrt(value * (1 - value) / rows)
    error = found.standard_error if found.standard_error > least else least
    return probit, error / density


def _combined(prior: tuple[float, float], measured: tuple[float, float]) -> tuple[float, float]:
    """Precision-weighted mean of two normals, and its standard deviation."""
    weights = [1 / prior[1] ** 2, 1 / measured[1] ** 2]
    mean = (weights[0] * prior[0] + weights[1] * measured[0]) / sum(weights)
    return mean, 1 / math.sqrt(sum(weights))


def _probit(auroc_range: Range) -> tuple[float, float]:
    low, value, high = special.ndtri([auroc_range.low, auroc_range.value, auroc_range.high])
    return float(value), _sd(float(low), float(high))


def _sd(low: float, high: float) -> float:
    return (high - low) / (2 * Z_90)


def _range(mean: float, sd: float, back: Callable[[float], float]) -> Range:
    return Range(value=back(mean), low=back(mean - Z_90 * sd), high=back(mean + Z_90 * sd))
