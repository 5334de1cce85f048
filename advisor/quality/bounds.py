"""Exact finite-sample bounds on a proportion, and how many rows they need.

Everything here is for one look at a fixed number of rows; `advisor.quality.sequential` has the
bounds that may be looked at again and again.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

MAX_PLANNED_ROWS = 1_000_000
"""Planning stops here: a margin so thin that no team labels enough rows for it."""

FloatArray = NDArray[np.float64]


def lower_bound(correct: int, rows: int, *, confidence: float) -> float:
    """Clopper–Pearson lower bound of a success probability, one-sided.

    The q with P(Bin(rows, q) ≥ correct) = 1 − confidence; 0 where nothing was correct.
    Source: Clopper and Pearson 1934 (Biometrika 26).
    """
    _check_counts(correct, rows)
    if correct == 0:
        return 0.0
    return float(special.betaincinv(correct, rows - correct + 1, 1 - confidence))


def upper_bound(correct: int, rows: int, *, confidence: float) -> float:
    """Clopper–Pearson upper bound of a success probability, one-sided."""
    _check_counts(correct, rows)
    if correct == rows:
        return 1.0
    return float(special.betaincinv(correct + 1, rows - correct, confidence))


def binomial_p_value(losses: ArrayLike, rows: int, *, allowed_loss: float) -> FloatArray:
    """P(Bin(rows, allowed_loss) ≤ losses): small where the true loss is below `allowed_loss`.

    `losses` counts wrong rows (whole numbers), any shape. Super-uniform under
    H: loss ≥ allowed_loss, which makes it a p-value for "the loss is below what is allowed".
    """
    counts = np.floor(np.asarray(losses, dtype=float) + 1e-9)
    with np.errstate(invalid="ignore"):
        p = special.betainc(np.maximum(rows - counts, 1e-300), counts + 1, 1 - allowed_loss)
    return np.where(counts >= rows, 1.0, p)


def hoeffding_bentkus_p_value(
    mean_losses: ArrayLike, rows: int, *, allowed_loss: float
) -> FloatArray:
    """p-value for graded losses in [0, 1]: min(Hoeffding's, Bentkus').

    Hoeffding: exp(−n·kl(min(R, α), α)); Bentkus: e·P(Bin(n, α) ≤ ⌈n·R⌉). R is the mean loss of
    n rows, any shape. Source: Bates et al. 2021 (arXiv 2101.02703), used by Learn then Test
    (arXiv 2110.01052).
    """
    risk = np.asarray(mean_losses, dtype=float)
    clipped = np.minimum(risk, allowed_loss)
    divergence = special.rel_entr(clipped, allowed_loss) + special.rel_entr(
        1 - clipped, 1 - allowed_loss
    )
    hoeffding = np.exp(-rows * divergence)
    bentkus = math.e * binomial_p_value(
        np.ceil(rows * risk - 1e-9), rows, allowed_loss=allowed_loss
    )
    return np.asarray(np.minimum(1.0, np.minimum(hoeffding, bentkus)), dtype=float)


def rows_to_certify(observed: float, *, target: float, confidence: float) -> int | None:
    """Smallest number of rows at which an observed quality certifies more than `target`.

    `observed` is the share that will be right; the wrong rows are rounded to the nearest whole
    number. At 95 % confidence: 1.0 needs 59 rows to certify 0.95, 0.98 needs 124, 0.96 needs
    1,237. None where `observed` does not exceed `target`, or where it would take more than
    `MAX_PLANNED_ROWS`.
    """
    if observed <= target:
        return None
    if target <= 0:
        return 1
    delta = 1 - confidence
    wrong = 0
    while True:
        fewest = _rows_for_failures(wrong, allowed=1 - target, delta=delta)
        if fewest > MAX_PLANNED_ROWS:
            return None
        first = max(fewest, _first_row_count_with(wrong, 1 - observed))
        if _nearest(first * (1 - observed)) == wrong:
            return first
        # Jump to the failures that the rate expects at this many rows; they only grow.
        wrong = max(wrong + 1, _nearest(fewest * (1 - observed)))


def _rows_for_failures(failures: int, *, allowed: float, delta: float) -> int:
    """Smallest n with P(Bin(n, allowed) ≤ failures) ≤ delta."""
    low, high = failures, 2 * failures + 2
    while binomial_p_value(failures, high, allowed_loss=allowed) > delta:
        low, high = high, 2 * high
        if low > MAX_PLANNED_ROWS:
            return high
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_p_value(failures, middle, allowed_loss=allowed) <= delta:
            high = middle
        else:
            low = middle
    return high


def _first_row_count_with(failures: int, rate: float) -> int:
    """Smallest n whose expected failures round to at least `failures`."""
    if failures == 0 or rate <= 0:
        return 1
    n = max(1, math.ceil((failures - 0.5) / rate))
    while _nearest(n * rate) < failures:
        n += 1
    return n


def _nearest(value: float) -> int:
    return math.floor(value + 0.5 + 1e-9)


def _check_counts(correct: int, rows: int) -> None:
    if rows <= 0 or not 0 <= correct <= rows:
        raise ValueError(f"correct = {correct} of rows = {rows}: 0 ≤ correct ≤ rows, rows > 0")
