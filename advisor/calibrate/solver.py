"""Robust least squares with random effects: how the parameters are found.

An observation is ln(measured); its residual

    r = ln(predicted) − ln(measured) = level of the deployment + shape + noise

is correlated within a deployment (model x accelerator x layout x version x source), so residuals
are quasi-demeaned by deployment (the GLS estimator of a random-effects panel: Wooldridge,
Econometric Analysis of Cross Section and Panel Data, §10.4), weighed by Cauchy's loss against rows
that contradict all others, and minimised by Levenberg–Marquardt with one forward difference per
coefficient, which serves the coefficient and all its deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.problem import (
    DEVIATING,
    Observations,
    Problem,
    log_coefficients,
    log_predictions,
    prior_sd,
    start_of,
)
from advisor.catalog.coefficients import COEFFICIENT_NAMES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEVEL_TO_NOISE = 0.5
"""Variance of the levels of deployments over that of the noise within them, as far as the fit may
believe it: with the true ratio (about 2) it would explain shapes and leave levels biased."""

CAUCHY_SCALE = 2.0
"""Residuals, in standard deviations, beyond which a row counts less and less."""


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A fit."""

    theta: FloatArray
    covariance: FloatArray
    """Of theta, from the Gauss–Newton matrix at the solution."""
    residuals: FloatArray
    """ln(predicted/measured), one an observation."""
    cost: float


def solve(
    problem: Problem,
    *,
    start: FloatArray | None = None,
    use: NDArray[np.bool_] | None = None,
    frozen: Sequence[str] = (),
    deviations: bool = True,
    iterations: int = 25,
    unbounded: bool = False,
) -> Solution:
    """Minimise robust, quasi-demeaned log errors plus priors.

    Args:
        start: parameters to begin at; the priors by default.
        use: which rows to fit on (others are predicted only).
        frozen: coefficients held at `start`.
        deviations: let hardware deviate; otherwise what `start` says stays.
        unbounded: let coefficients leave their bounds, to switch a term off.
    """
    theta = start_of(problem) if start is None else start.copy()
    origin, sd = start_of(problem), prior_sd(problem)
    chosen = np.ones(len(problem.conditions), dtype=bool) if use is None else use
    keep = np.flatnonzero(chosen[problem.observations.row])
    demean = _quasi_demeaning(problem.observations, keep)
    free = np.ones(problem.size, dtype=bool)
    free[[COEFFICIENT_NAMES.index(name) for name in frozen]] = False
    if not deviations:
        free[len(COEFFICIENT_NAMES) : -len(problem.harnesses)] = False

    def scaled(parameters: FloatArray) -> FloatArray:
        errors = _errors(problem, log_coefficients(problem, parameters, unbounded))
        return demean(errors[keep] / problem.observations.noise[keep])

    def cost_of(residuals: FloatArray, parameters: FloatArray) -> float:
        robust = CAUCHY_SCALE**2 * np.log1p((residuals / CAUCHY_SCALE) ** 2).sum()
        return float(robust + (((parameters - origin) / sd) ** 2).sum())

    residuals = scaled(theta)
    cost, damping = cost_of(residuals, theta), 1e-3
    matrix = np.eye(problem.size)
    for _ in range(iterations):
        slopes = demean(
            _slopes(problem, theta, unbounded)[keep] / problem.observations.noise[keep][:, None]
        )
        weights = 1 / (1 + (residuals / CAUCHY_SCALE) ** 2)
        matrix = slopes.T @ (slopes * weights[:, None]) + np.diag(sd**-2.0)
        gradient = slopes.T @ (weights * residuals) + (theta - origin) / sd**2
        gradient[~free] = 0.0
        before = cost
        for _ in range(10):
            step = np.zeros(problem.size)
            damped = matrix + damping * np.diag(np.diag(matrix))
            step[free] = np.linalg.solve(damped[np.ix_(free, free)], -gradient[free])
            trial = theta + step
            trial_residuals = scaled(trial)
            if (trial_cost := cost_of(trial_residuals, trial)) < cost:
                theta, residuals, cost = trial, trial_residuals, trial_cost
                damping = max(damping / 5, 1e-7)
                break
            damping *= 6
        if before - cost < 1e-4 * max(before, 1.0):
            break
    return Solution(
        theta=theta,
        covariance=np.asarray(np.linalg.inv(matrix), dtype=np.float64),
        residuals=_errors(problem, log_coefficients(problem, theta, unbounded)),
        cost=cost,
    )


def _errors(problem: Problem, logs: FloatArray) -> FloatArray:
    predicted = log_predictions(problem, logs)
    seen = problem.observations
    return predicted[seen.metric, seen.row] - seen.log_measured


def _slopes(problem: Problem, theta: FloatArray, unbounded: bool) -> FloatArray:
    """∂(errors)/∂theta: a row depends on its own coefficients alone, so that one forward
    difference a coefficient serves it and all its deviations."""
    logs = log_coefficients(problem, theta, unbounded)
    base = _errors(problem, logs)
    seen, h = problem.observations, 1e-5
    by_coefficient = np.empty((len(base), len(COEFFICIENT_NAMES)))
    for j in range(len(COEFFICIENT_NAMES)):
        moved = logs.copy()
        moved[:, j] += h
        by_coefficient[:, j] = (_errors(problem, moved) - base) / h
    slopes = np.zeros((len(base), problem.size))
    slopes[:, : len(COEFFICIENT_NAMES)] = by_coefficient
    position, each = len(COEFFICIENT_NAMES), np.arange(len(base))
    for name in DEVIATING:
        column = by_coefficient[:, COEFFICIENT_NAMES.index(name)]
        slopes[each, position + problem.family[seen.row]] = column
        position += len(problem.families)
        slopes[each, position + problem.accelerator[seen.row]] = column
        position += len(problem.accelerators)
    overhead = by_coefficient[:, COEFFICIENT_NAMES.index("request_overhead_s")]
    slopes[each, position + problem.harness[seen.row]] = overhead
    return slopes


def _quasi_demeaning(seen: Observations, keep: IntArray) -> Callable[[FloatArray], FloatArray]:
    """y − (1 − 1/√(1 + n·ρ))·(mean of y in its group), n rows a group, ρ = LEVEL_TO_NOISE."""
    _, code = np.unique(seen.group[keep], return_inverse=True)
    count = np.bincount(code).astype(np.float64)
    share = 1 - 1 / np.sqrt(1 + count * LEVEL_TO_NOISE)

    def apply(values: FloatArray) -> FloatArray:
        sums = np.zeros((len(count), *values.shape[1:]))
        np.add.at(sums, code, values)
        shape = (-1,) + (1,) * (values.ndim - 1)
        return np.asarray(values - (share / count).reshape(shape)[code] * sums[code])

    return apply
