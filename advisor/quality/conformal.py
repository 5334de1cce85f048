"""Thresholds that need no labels of the large model: what the small one may keep.

Two guarantees on the small model's accepted answers. Selective risk bounds the share of wrong
ones among those accepted, with high probability; conformal risk control bounds the share of all
requests that are accepted and wrong, in expectation, and needs fewer rows for it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.errors import InputError
from advisor.quality.bounds import upper_bound
from advisor.records import Record

FloatArray = NDArray[np.float64]

COVERAGES = tuple(round(1 - 0.05 * k, 2) for k in range(20))
"""Shares of the rows that may be accepted: fixed before the rows are seen."""


class AcceptanceThreshold(Record):
    """From which confidence on the small model's answers may be kept."""

    certified: bool
    threshold: float | None
    """Answers with a confidence above it are kept; None where nothing is certified."""
    escalation_rate: float | None
    accepted_error: float | None
    """Observed share of wrong answers among those kept."""
    error_bound: float | None
    """What is guaranteed of it."""
    rows: int
    reason: str


def certify_accepted(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    target: float,
    confidence_level: float,
) -> AcceptanceThreshold:
    """The most accepting threshold whose accepted answers are right in at least `target`.

    For each of 20 fixed coverages the threshold is the row of that rank; given it, the rows above
    are independent draws from the answers that would be accepted, so the Clopper–Pearson bound of
    their errors at δ/20 holds, and by the union bound all 20 hold together with probability
    ≥ 1 − δ (selective classification, Geifman and El-Yaniv, arXiv 1705.08500, with ranks fixed
    beforehand in place of its binary search).

    Raises:
        InputError: columns that do not match, or nothing in them.
    """
    score, wrong = _checked(confidence, correct)
    n = len(score)
    ordered = np.sort(score)[::-1]
    delta = (1 - confidence_level) / len(COVERAGES)
    for coverage in COVERAGES:
        kept = math.floor(coverage * n)
        if kept < 1:
            break
        threshold = float(ordered[kept]) if kept < n else -float(np.finfo(float).max)
        accepted = score > threshold
        rows, errors = int(accepted.sum()), int(wrong[accepted].sum())
        if rows == 0:
            continue
        bound = upper_bound(errors, rows, confidence=1 - delta)
        if bound <= 1 - target:
            return AcceptanceThreshold(
                certified=True,
                threshold=threshold,
                escalation_rate=1 - rows / n,
                accepted_error=errors / rows,
                error_bound=bound,
                rows=n,
                reason=f"at most {bound:.4f} of the accepted answers are wrong",
            )
    return _nothing(n, f"at no coverage do {n:,} rows prove {target:g} of the accepted right")


def control_risk(
    confidence: ArrayLike, correct: ArrayLike, *, allowed: float
) -> AcceptanceThreshold:
    """The most accepting threshold at which E[accepted and wrong] ≤ `allowed`.

    The loss of one row, wrong and accepted, only falls as the threshold rises, so the smallest t
    with n/(n + 1)·R(t) + 1/(n + 1) ≤ allowed is enough (conformal risk control, arXiv 2208.02814).
    This holds on average over calibration sets, not for each with high probability.

    Raises:
        InputError: columns that do not match, or nothing in them.
    """
    score, wrong = _checked(confidence, correct)
    n = len(score)
    budget = math.floor(allowed * (n + 1) - 1 + 1e-9)
    if budget < 0:
        needed = math.ceil(1 / allowed - 1e-9) - 1
        return _nothing(n, f"{needed:,} rows are needed to allow {allowed:g}, not {n:,}")
    errors = np.sort(score[wrong.astype(bool)])[::-1]
    threshold = float(errors[budget]) if budget < len(errors) else -float(np.finfo(float).max)
    accepted = score > threshold
    kept = int(accepted.sum())
    return AcceptanceThreshold(
        certified=True,
        threshold=threshold,
        escalation_rate=1 - kept / n,
        accepted_error=float(wrong[accepted].sum()) / kept if kept else 0.0,
        error_bound=allowed,
        rows=n,
        reason=f"on average at most {allowed:g} of all requests are accepted and wrong",
    )


def _nothing(rows: int, reason: str) -> AcceptanceThreshold:
    return AcceptanceThreshold(
        certified=False,
        threshold=None,
        escalation_rate=None,
        accepted_error=None,
        error_bound=None,
        rows=rows,
        reason=reason,
    )


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Scores (no score: never accepted) and 1 for wrong rows."""
    score = np.asarray(confidence, dtype=float)
    right = np.asarray(correct, dtype=float)
    if score.ndim != 1 or score.shape != right.shape or len(score) == 0:
        raise InputError(f"confidence has shape {score.shape} and correct {right.shape}")
    if not ((right >= 0) & (right <= 1)).all():
        raise InputError("correct: 0 or 1 was expected in every row")
    return np.where(np.isnan(score), -np.inf, score), (right < 0.5).astype(float)
