"""Spreads of a fit, measured by leaving out models and accelerators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.fit import Fit
from advisor.calibrate.problem import METRICS, log_coefficients
from advisor.calibrate.solver import solve
from advisor.calibrate.uncertainty import NORMAL_90, coefficient_spread
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import Spread

FloatArray = NDArray[np.float64]

ASSUMED_FACTOR = 1.5
"""How much wider than for a transferred accelerator, for another vendor's: by judgement."""

LEAST_ROWS = 12
"""Left-out observations that a spread is taken from, at least."""

UNMEASURED_SD = 0.3
"""Spread where there are fewer."""


def leave_out(fit: Fit, labels: Sequence[str], *, iterations: int = 6) -> FloatArray:
    """ln(predicted/measured) of each observation, predicted without the rows of its label.

    Shape (observations,). The corrections by simulation are those of the whole fit: they hold no
    measured value.
    """
    names = np.array(labels)
    seen = fit.problem.observations
    errors = np.full(len(seen.row), np.nan)
    for name in np.unique(names):
        out = names == name
        part = solve(fit.problem, start=fit.solution.theta, use=~out, iterations=iterations)
        mine = out[seen.row]
        errors[mine] = part.residuals[mine]
    return errors


def labels_of(fit: Fit, by: str) -> list[str]:
    """The model, source or accelerator of each row."""
    if by == "source":
        return [row.source for row in fit.sample.rows]
    if by == "model":
        return [one.deployment.model.id for one in fit.sample.conditions]
    return [one.deployment.accelerator.id for one in fit.sample.conditions]


def spreads_of(fit: Fit) -> tuple[Spread, Spread, Spread]:
    """Spreads of a calibrated, a transferred and an assumed accelerator."""
    by_model = leave_out(fit, labels_of(fit, "model"))
    by_accelerator = leave_out(fit, labels_of(fit, "accelerator"))
    within = fit.solution.residuals
    seen = fit.problem.observations
    routed = np.array([one.deployment.model.moe is not None for one in fit.sample.conditions])
    decode = np.isin(seen.metric, [METRICS.index("tpot"), METRICS.index("e2e")])
    known = _known_sd(fit)

    def spread(of: Callable[[NDArray[np.bool_]], float]) -> Spread:
        mixed = routed[seen.row]
        return Spread(
            decode=of(decode & ~mixed),
            decode_routed=of(decode & mixed),
            prefill=of(~decode & ~mixed),
            prefill_routed=of(~decode & mixed),
            shape=_shape_sd(fit, "tpot", "e2e"),
            shape_prefill=_shape_sd(fit, "prefill", "ttft"),
        )

    def of_model(part: NDArray[np.bool_]) -> float:
        return _excess_sd(by_model[part], known[part])

    def of_both(part: NDArray[np.bool_]) -> float:
        nothing = np.zeros(int(part.sum()))
        more = _excess_sd(by_accelerator[part], nothing) ** 2
        more -= _excess_sd(within[part], nothing) ** 2
        return round(float(np.sqrt(of_model(part) ** 2 + max(more, 0.0))), 4)

    calibrated, transferred = spread(of_model), spread(of_both)
    wider = {
        name: round(value * ASSUMED_FACTOR, 4) for name, value in transferred.model_dump().items()
    }
    return calibrated, transferred, Spread(**wider)


def _known_sd(fit: Fit) -> FloatArray:
    """What the coefficients' covariance explains of each observation's error, 1-sd."""
    size, seen = len(COEFFICIENT_NAMES), fit.problem.observations
    logs = log_coefficients(fit.problem, fit.solution.theta)
    covariance = np.broadcast_to(fit.solution.covariance[:size, :size], (len(logs), size, size))
    spread = coefficient_spread(fit.problem.columns, logs, covariance)
    by_metric = {
        "tpot": spread.tpot,
        "e2e": spread.e2e,
        "prefill": spread.ttft,
        "ttft": spread.ttft,
    }
    table = np.stack([by_metric[metric] for metric in METRICS])
    return np.asarray(table[seen.metric, seen.row])


def _excess_sd(errors: FloatArray, known: FloatArray) -> float:
    """σ for which 90 % of the errors lie within 1.645·√(known² + σ²), by bisection."""
    good = np.isfinite(errors)
    errors, known = np.abs(errors[good]), known[good]
    if len(errors) < LEAST_ROWS:
        return UNMEASURED_SD
    low, high = 0.0, 2.0
    for _ in range(40):
        middle = (low + high) / 2
        inside = np.mean(errors <= NORMAL_90 * np.sqrt(known**2 + middle**2))
        low, high = (low, middle) if inside >= 0.9 else (middle, high)
    return round(high, 4)


def _shape_sd(fit: Fit, *metrics: str) -> float:
    """Spread of errors around the median of their deployment."""
    seen = fit.problem.observations
    errors = fit.solution.residuals
    chosen = np.isin(seen.metric, [METRICS.index(metric) for metric in metrics])
    around = [
        errors[mine] - np.median(errors[mine])
        for group in np.unique(seen.group[chosen])
        if (mine := chosen & (seen.group == group)).sum() >= 5
    ]
    if not around:
        return 0.1
    return round(float(np.quantile(np.abs(np.concatenate(around)), 0.9) / NORMAL_90), 4)


def overhead_sd_of(fit: Fit) -> float:
    """Spread of the request overhead between harnesses, with one pseudo-harness at the prior."""
    levels = fit.solution.theta[-len(fit.problem.harnesses) :]
    return round(float(np.sqrt((levels**2).sum() / max(1, len(levels) - 1) + 0.5**2)), 3)
