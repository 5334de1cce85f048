"""How good a confidence is: ranking (AUROC, risk–coverage) and calibration (ECE, Brier).

Ranking decides what a hybrid costs, calibration whether its projections are right; a monotone map
changes the second and not the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.errors import InputError

FloatArray = NDArray[np.float64]

BINS = 15
"""Equal-mass bins of the reliability diagram and of the ECE."""


@dataclass(frozen=True)
class Auroc:
    """P(a right answer is more confident than a wrong one), ties counting half."""

    value: float
    standard_error: float
    """DeLong's; NaN where one class has a single row."""
    right: int
    wrong: int


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows of neighbouring confidence."""

    confidence: float
    """Mean confidence."""
    accuracy: float
    """Share that was right."""
    rows: int


@dataclass(frozen=True)
class RiskCoverage:
    """Error among the most confident rows; every array is (points,), coverage rising."""

    coverage: FloatArray
    risk: FloatArray
    area: float
    """AURC: mean risk over coverages, lower is better (Geifman et al., arXiv 1805.08206)."""
    best_area: float
    """AURC of a confidence that ranks every right answer above every wrong one."""


def auroc(confidence: ArrayLike, correct: ArrayLike) -> Auroc:
    """Area under the ROC curve, with DeLong's standard error, in O(n log n).

    With mid-ranks r among all m + n rows and among its own class, a right row's placement is
    (r_all − r_own)/n, and AUROC their mean (DeLong et al. 1988; Sun and Xu 2014).

    Raises:
        InputError: not both right and wrong rows.
    """
    score, right = _checked(confidence, correct)
    positives, negatives = score[right], score[~right]
    m, n = len(positives), len(negatives)
    if m == 0 or n == 0:
        which = "right" if m == 0 else "wrong"
        raise InputError(f"AUROC needs right and wrong answers; none of {m + n:,} rows is {which}")
    ranks = _mid_ranks(np.concatenate([positives, negatives]))
    placed_right = (ranks[:m] - _mid_ranks(positives)) / n
    placed_wrong = 1 - (ranks[m:] - _mid_ranks(negatives)) / m
    error = math.nan
    if m > 1 and n > 1:
        error = math.sqrt(placed_right.var(ddof=1) / m + placed_wrong.var(ddof=1) / n)
    return Auroc(value=float(placed_right.mean()), standard_error=error, right=m, wrong=n)


def reliability_bins(
    probability: ArrayLike, correct: ArrayLike, *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """The reliability diagram: bins of equal numbers of rows, by rising confidence.

    Rows of one confidence stay in one bin, so that ties cannot flatter.
    """
    score, right = _checked(probability, correct)
    _check_probabilities(score)
    order = np.argsort(score, kind="stable")
    score, right = score[order], right[order].astype(float)
    edges = np.searchsorted(score, score[np.linspace(0, len(score), bins + 1)[1:-1].astype(int)])
    parts = zip(np.split(score, np.unique(edges)), np.split(right, np.unique(edges)), strict=True)
    return tuple(
        ReliabilityBin(confidence=float(s.mean()), accuracy=float(r.mean()), rows=len(s))
        for s, r in parts
        if len(s)
    )


def expected_calibration_error(
    probability: ArrayLike, correct: ArrayLike, *, bins: int = BINS
) -> float:
    """Σ_b (n_b/n)·|accuracy_b − confidence_b| over equal-mass bins (arXiv 1706.04599)."""
    found = reliability_bins(probability, correct, bins=bins)
    rows = sum(one.rows for one in found)
    return sum(one.rows * abs(one.accuracy - one.confidence) for one in found) / rows


def brier_score(probability: ArrayLike, correct: ArrayLike) -> float:
    """Mean (p − correct)²: 0 is perfect, 0.25 is always saying one half."""
    score, right = _checked(probability, correct)
    _check_probabilities(score)
    return float(np.mean((score - right) ** 2))


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Share of wrong answers among the most confident, for every share that may be accepted.

    One point for each distinct confidence: rows that tie are accepted together. The area is over
    the n single coverages, ties taking their mean risk in between.
    """
    score, right = _checked(confidence, correct)
    order = np.argsort(-score, kind="stable")
    wrong = (~right[order]).astype(float)
    distinct = np.flatnonzero(np.append(np.diff(score[order]) != 0, True)) + 1
    cumulative = np.concatenate([[0.0], np.cumsum(wrong)])
    coverage = distinct / len(score)
    risk = cumulative[distinct] / distinct
    every = np.arange(1, len(score) + 1)
    expected = np.interp(every, np.append(0, distinct), cumulative[np.append(0, distinct)])
    ideal = np.maximum(0, every - right.sum())
    return RiskCoverage(
        coverage=coverage,
        risk=risk,
        area=float(np.mean(expected / every)),
        best_area=float(np.mean(ideal / every)),
    )


def log_odds_ratio(first: ArrayLike, second: ArrayLike) -> tuple[float, float]:
    """ln of the odds ratio of two models' being right, and its standard error.

    Half a row is added to each cell of the 2×2 table (Haldane 1956), so that an empty one gives a
    wide answer and not an infinite one.
    """
    a, b = np.asarray(first, dtype=float) >= 0.5, np.asarray(second, dtype=float) >= 0.5
    cells = np.array([[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]) + 0.5
    logs = np.log(cells)
    ratio = logs[0, 0] + logs[1, 1] - logs[0, 1] - logs[1, 0]
    return float(ratio), float(np.sqrt((1 / cells).sum()))


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Rows with a confidence; a graded score counts as right from one half."""
    score = np.asarray(confidence, dtype=float)
    right = np.asarray(correct, dtype=float)
    if score.shape != right.shape or score.ndim != 1:
        raise InputError(f"confidence has shape {score.shape} and correct {right.shape}")
    known = ~np.isnan(score)
    if not known.any():
        raise InputError("no row has a confidence")
    return score[known], right[known] >= 0.5


def _check_probabilities(score: FloatArray) -> None:
    if score.min() < 0 or score.max() > 1:
        raise InputError(f"confidence {score.min():g} to {score.max():g}: probabilities expected")


def _mid_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=float)
