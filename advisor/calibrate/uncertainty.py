"""How far predictions can be off: coefficients, the deployment's own level, the serving set-up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.expectation import Columns, Expected, expected
from advisor.calibrate.problem import coefficients_of_rows
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import FitFile, Label

FloatArray = NDArray[np.float64]

NORMAL_90 = 1.6449
"""Half-width of a normal distribution's central 90 %, in standard deviations."""

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
    matrix = np.array([fit.log_covariance[name] for name in COEFFICIENT_NAMES])
    if label not in ("measured", "calibrated"):
        extra = [fit.deviation_log_sd.get(name, 0.0) for name in COEFFICIENT_NAMES]
        matrix = matrix + np.diag(np.square(extra))
    return matrix


def _logs_of(values: Expected) -> FloatArray:
    return np.log(np.stack([values.ttft_s, values.tpot_s, values.e2e_s]))


@dataclass(frozen=True, slots=True)
class Level:
    """ln(true/predicted) of one deployment: normal with this mean and standard deviation."""

    mean: float
    sd: float
    rows: int = 0
    """Measurements of the deployment itself that it rests on."""

    def updated(self, errors: FloatArray, shape_sd: float) -> Level:
        """After seeing ln(measured/predicted) of the deployment's own rows.

        A normal prior N(0, σ²) and n rows around the level with spread τ give precision
        1/σ² + n/τ² and mean n·(median error)/τ² over it; a row of the same deployment then has
        variance 1/precision + τ².
        """
        n = len(errors)
        if n == 0:
            return self
        tau = max(shape_sd, 1e-3)
        precision = 1 / max(self.sd, 1e-6) ** 2 + n / tau**2
        mean = n * float(np.median(errors)) / tau**2 / precision
        return Level(mean=mean, sd=float(np.sqrt(1 / precision + tau**2)), rows=n)
