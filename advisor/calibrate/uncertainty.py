"""How far predictions can be off: coefficients, the deployment's own level, the serving set-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.expectation import Columns, Expected, expected
from advisor.calibrate.problem import PRIOR_LOG_SD, coefficients_of_rows
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import FitFile, Label

FloatArray = NDArray[np.float64]

_STEP = 1e-4


@dataclass(frozen=True, slots=True)
class LogSpread:
    """1-sd of the logarithm of the engine-side means, one entry a condition."""

    ttft: FloatArray
    tpot: FloatArray
    e2e: FloatArray


def coefficient_spread(columns: Columns, logs: FloatArray, covariances: FloatArray) -> LogSpread:
    """What the coefficients' uncertainty alone makes of each prediction: √(gᵀΣg).

    g are the derivatives of ln(prediction) by each ln(coefficient); logs has shape (conditions,
    coefficients), covariances (conditions, coefficients, coefficients).
    """
    base = _logs_of(expected(columns, coefficients_of_rows(logs)))
    slopes = np.empty((*base.shape, logs.shape[1]))
    for j in range(logs.shape[1]):
        moved = logs.copy()
        moved[:, j] += _STEP
        slopes[..., j] = (_logs_of(expected(columns, coefficients_of_rows(moved))) - base) / _STEP
    variance = np.einsum("mrj,rjk,mrk->mr", slopes, covariances, slopes)
    ttft, tpot, e2e = np.sqrt(np.maximum(variance, 0.0))
    return LogSpread(ttft=ttft, tpot=tpot, e2e=e2e)


def covariance_for(fit: FitFile, label: Label) -> FloatArray:
    """Covariance of the log-coefficients of an accelerator with a label.

    An accelerator without rows may differ from its family, or from all others.
    """
    if not fit.log_covariance:
        return np.zeros((len(COEFFICIENT_NAMES), len(COEFFICIENT_NAMES)))
    matrix = _in_order(fit.log_covariance)
    if label not in ("measured", "calibrated"):
        matrix = matrix + deviation_covariance(fit.deviation_log_sd)
    return matrix


def _in_order(log_covariance: Mapping[str, tuple[float, ...]]) -> FloatArray:
    """The covariance in the order of the coefficients; one that an older file does not know is as
    doubtful as its prior."""
    matrix = np.diag(np.full(len(COEFFICIENT_NAMES), PRIOR_LOG_SD**2))
    known = [name for name in log_covariance if name in COEFFICIENT_NAMES]
    theirs = [list(log_covariance).index(name) for name in known]
    ours = [COEFFICIENT_NAMES.index(name) for name in known]
    table = np.array(list(log_covariance.values()))
    matrix[np.ix_(ours, ours)] = table[np.ix_(theirs, theirs)]
    return matrix


def deviation_covariance(log_sd: Mapping[str, float]) -> FloatArray:
    """What an accelerator without rows adds: its own, independent deviations."""
    return np.diag(np.square([log_sd.get(name, 0.0) for name in COEFFICIENT_NAMES]))


def _logs_of(values: Expected) -> FloatArray:
    return np.log(np.stack([values.ttft_s, values.tpot_s, values.e2e_s]))


@dataclass(frozen=True, slots=True)
class Level:
    """ln(true/predicted) of one deployment: normal with this mean and standard deviation."""

    mean: float
    sd: float
    rows: int = 0
    """Measurements of the deployment itself that it rests on."""

    def updated(self, errors: FloatArray, shape_sd: float, typical_sd: float) -> Level:
        """After seeing ln(measured/predicted) of the deployment's own rows.

        A normal prior N(0, σ²) and n rows around the level with spread τ₀ give the rows the weight
        w = n/τ₀² / (1/σ² + n/τ₀²) against the prior; the level is w·(median error). Rows have
        heavy tails: τ₀ (`typical_sd`) is their spread without them, τ (`shape_sd`) with them. A
        row of the same deployment then has variance (1 − w)²·σ² + w²·τ²/n + τ².
        """
        n = len(errors)
        if n == 0:
            return self
        rows = n / max(typical_sd, 1e-3) ** 2
        weight = rows / (1 / max(self.sd, 1e-6) ** 2 + rows)
        variance = ((1 - weight) * self.sd) ** 2 + (weight * shape_sd) ** 2 / n + shape_sd**2
        return Level(weight * float(np.median(errors)), float(np.sqrt(variance)), rows=n)
