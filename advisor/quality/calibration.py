"""From a score to a probability of being right, by a method that the number of labels can bear.

    rows      combination of features            calibration of one score
    < 30      least likely value token           none
    30–199    least likely value token           temperature (one parameter)
    200–999   L2 logistic regression             Platt (two parameters)
    ≥ 1000    L2 logistic regression             isotonic (as many steps as the rows ask for)

The rows that fit any of these must not certify a threshold.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from advisor.errors import InputError
from advisor.records import Record

FloatArray = NDArray[np.float64]

TEMPERATURE_ROWS, LOGISTIC_ROWS, ISOTONIC_ROWS = 30, 200, 1000

RIDGE = 1.0
"""L2 penalty on standardised coefficients: one unit of prior precision each (Gelman 2008)."""

EDGE = 1e-6
"""Probabilities are kept within (this, 1 − this)."""


class Calibration(Record):
    """A monotone map from a score to P(right); plain numbers, so that a file can hold it."""

    method: Literal["none", "temperature", "platt", "isotonic"]
    rows: int
    """Rows it was fitted on."""
    slope: float = 1.0
    """temperature, platt: P = σ(slope·x + offset) with x the score, or its log-odds."""
    offset: float = 0.0
    on_log_odds: bool = True
    """Whether the score is a probability, so that its log-odds are x."""
    knots: tuple[float, ...] = ()
    """isotonic: scores, rising."""
    values: tuple[float, ...] = ()
    """isotonic: P at the knots, linear between."""

    def apply(self, score: ArrayLike) -> FloatArray:
        """P(right), elementwise; NaN stays NaN."""
        x = np.asarray(score, dtype=float)
        if self.method == "none":
            return np.asarray(np.clip(x, 0.0, 1.0), dtype=float)
        if self.method == "isotonic":
            result = np.interp(x, self.knots, self.values)
            return np.where(np.isnan(x), np.nan, result)
        if self.on_log_odds:
            x = special.logit(np.clip(x, EDGE, 1 - EDGE))
        return np.asarray(special.expit(self.slope * x + self.offset), dtype=float)


class LogisticScore(Record):
    """P(right) = σ(Σ w_j·(x_j − mean_j)/scale_j + bias)."""

    weights: tuple[float, ...]
    bias: float
    means: tuple[float, ...]
    scales: tuple[float, ...]
    rows: int

    def apply(self, features: ArrayLike) -> FloatArray:
        """(n, p) features to (n,) probabilities."""
        x = (np.asarray(features, dtype=float) - self.means) / np.array(self.scales)
        return np.asarray(special.expit(x @ np.array(self.weights) + self.bias), dtype=float)


def fit_calibration(score: ArrayLike, correct: ArrayLike) -> Calibration:
    """Calibrate one score by the method that the number of rows can bear.

    Scores within [0, 1] are read as probabilities. With one class only there is nothing to fit
    and the score stays as it is.

    Raises:
        InputError: columns that do not match.
    """
    x, y = _rows(score, correct)
    are_probabilities = len(x) == 0 or bool(x.min() >= 0 and x.max() <= 1)
    if len(x) < TEMPERATURE_ROWS or y.min() == y.max():
        return Calibration(method="none", rows=len(x), on_log_odds=are_probabilities)
    if len(x) >= ISOTONIC_ROWS:
        knots, values = isotonic(x, y)
        return Calibration(
            method="isotonic",
            rows=len(x),
            knots=tuple(knots.tolist()),
            values=tuple(values.tolist()),
        )
    inputs = special.logit(np.clip(x, EDGE, 1 - EDGE)) if are_probabilities else x
    if len(x) < LOGISTIC_ROWS and are_probabilities:
        slope, offset = _one_parameter(inputs, y), 0.0
        method: Literal["temperature", "platt"] = "temperature"
    else:
        slope, offset = _platt(inputs, y)
        method = "platt"
    return Calibration(
        method=method, rows=len(x), slope=slope, offset=offset, on_log_odds=are_probabilities
    )


def fit_logistic(features: ArrayLike, correct: ArrayLike) -> LogisticScore:
    """L2-penalised logistic regression by Newton's method on standardised features.

    Raises:
        InputError: columns that do not match, fewer than 200 rows, or one class only.
    """
    x = np.asarray(features, dtype=float)
    y = np.asarray(correct, dtype=float) >= 0.5
    if x.ndim != 2 or len(x) != len(y):
        raise InputError(f"features have shape {x.shape}, correct {y.shape}")
    if len(x) < LOGISTIC_ROWS:
        raise InputError(f"{len(x)} labelled rows: a logistic combination needs {LOGISTIC_ROWS}")
    if y.all() or not y.any():
        raise InputError("all rows are right, or all wrong: there is nothing to learn")
    means, scales = x.mean(axis=0), x.std(axis=0)
    # A constant feature says nothing; any scale keeps its weight at zero.
    scales = np.where(scales > 1e-12, scales, 1.0)
    coefficients = newton_logistic((x - means) / scales, y.astype(float), ridge=RIDGE)
    return LogisticScore(
        weights=tuple(coefficients[1:].tolist()),
        bias=float(coefficients[0]),
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        rows=len(x),
    )


def newton_logistic(x: FloatArray, y: FloatArray, *, ridge: float) -> FloatArray:
    """(1 + p,) intercept and weights that minimise −ln L + ridge/2·‖w‖²; the intercept is free."""
    design = np.column_stack([np.ones(len(x)), x])
    penalty = np.full(design.shape[1], ridge)
    penalty[0] = 1e-9
    weights = np.zeros(design.shape[1])
    weights[0] = special.logit(np.clip(y.mean(), EDGE, 1 - EDGE))
    for _ in range(100):
        p = special.expit(design @ weights)
        gradient = design.T @ (p - y) + penalty * weights
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        # Damped where Newton would leap: separable data have no finite optimum without a penalty.
        step *= min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return np.asarray(weights, dtype=float)


def isotonic(score: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Knots and values of the best rising step function (pool adjacent violators), as a polyline.

    Each block is represented by its mean score, so that between blocks the map rises linearly and
    ranks are kept; ties are pooled first.
    """
    x, y = _rows(score, correct)
    knots, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=y)
    blocks: list[tuple[float, float, float]] = []
    for knot, total, count in zip(knots, sums, counts, strict=True):
        block = (float(total), float(count), float(knot * count))
        while blocks and blocks[-1][0] / blocks[-1][1] >= block[0] / block[1]:
            right, rows, centre = blocks.pop()
            block = (block[0] + right, block[1] + rows, block[2] + centre)
        blocks.append(block)
    table = np.array(blocks)
    return table[:, 2] / table[:, 1], table[:, 0] / table[:, 1]


def _one_parameter(x: FloatArray, y: FloatArray) -> float:
    """Slope (1/temperature) of σ(slope·x) by Newton on its logarithm: it stays positive."""
    log_slope = 0.0
    for _ in range(60):
        slope = np.exp(log_slope)
        p = special.expit(slope * x)
        first = slope * float(x @ (p - y))
        second = first + slope**2 * float((x**2) @ (p * (1 - p)))
        step = first / second if second > 1e-12 else np.sign(first) * 0.5
        log_slope = float(np.clip(log_slope - np.clip(step, -0.5, 0.5), -5.0, 5.0))
        if abs(step) < 1e-10:
            break
    return float(np.exp(log_slope))


def _platt(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Slope and offset, with Platt's prior-corrected targets (Platt 1999; Lin et al. 2007).

    A negative slope would turn the ranking round; a score that deserves one says nothing, and gets
    slope 0.
    """
    right, wrong = y.sum(), len(y) - y.sum()
    targets = np.where(y > 0, (right + 1) / (right + 2), 1 / (wrong + 2))
    centre, scale = x.mean(), max(float(x.std()), 1e-12)
    bias, weight = newton_logistic(((x - centre) / scale)[:, None], targets, ridge=1e-6)
    if weight < 0:
        return 0.0, float(special.logit(targets.mean()))
    return float(weight / scale), float(bias - weight * centre / scale)


def _rows(score: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Rows with a finite score; right from one half on."""
    x, y = np.asarray(score, dtype=float), np.asarray(correct, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(f"score has shape {x.shape} and correct {y.shape}")
    known = np.isfinite(x)
    return x[known], (y[known] >= 0.5).astype(float)


def folds(rows: int, count: int) -> tuple[NDArray[np.intp], ...]:
    """Row numbers of `count` interleaved folds; the same rows always fall into the same fold."""
    numbers = np.random.default_rng(0).permutation(rows)
    return tuple(np.sort(part) for part in np.array_split(numbers, count))


def cross_fitted(features: FloatArray, correct: FloatArray, *, count: int = 5) -> FloatArray:
    """(n,) P(right) of each row by a logistic model that has not seen it."""
    scores = np.empty(len(correct))
    for held in folds(len(correct), count):
        seen = np.setdiff1d(np.arange(len(correct)), held)
        scores[held] = fit_logistic(features[seen], correct[seen]).apply(features[held])
    return scores
