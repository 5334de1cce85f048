"""Spreads of a fit, measured by leaving out models and accelerators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.conditions import IN_PROCESS
from advisor.calibrate.fit import Fit
from advisor.calibrate.forecast import deployment_identity
from advisor.calibrate.problem import METRICS, deviation_log_sds, log_coefficients
from advisor.calibrate.solver import solve
from advisor.calibrate.uncertainty import coefficient_spread, deviation_covariance
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import NORMAL_90, Spread

FloatArray = NDArray[np.float64]

ASSUMED_FACTOR = 1.5
"""How much wider than for a transferred accelerator, for another vendor's: by judgement."""

LEAST_ROWS = 12
"""Left-out observations that a spread is taken from, at least."""

UNMEASURED_SD = 0.3
"""Spread where there are fewer."""

LEAST_OF_DEPLOYMENT = 3
"""Rows of a deployment that show how they differ along batch and length, at least."""

MEDIAN_TO_SD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

FOLDS = 8
"""Parts into which the deployments are dealt to leave each out in turn."""


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
    """The model, source or accelerator of each row; by `deployment`, one of `FOLDS` folds of them.

    Rows of one deployment (model, formats, accelerator, layout, engine generation) share a fold.
    """
    if by == "source":
        return [row.source for row in fit.sample.rows]
    if by == "model":
        return [one.deployment.model.id for one in fit.sample.conditions]
    if by == "accelerator":
        return [one.deployment.accelerator.id for one in fit.sample.conditions]
    names = [deployment_identity(one) for one in fit.sample.conditions]
    return [str(code % FOLDS) for code in np.unique(names, return_inverse=True)[1]]


@dataclass(frozen=True, slots=True)
class Spreads:
    """The spreads of a file of fits, under its names."""

    calibrated: Spread
    calibrated_known: Spread
    transferred: Spread
    transferred_known: Spread
    assumed: Spread


@dataclass(frozen=True, slots=True, eq=False)
class _LeftOut:
    """Errors of observations left out, and what the coefficients' doubt explains of them."""

    errors: FloatArray
    known_sd: FloatArray
    counted: NDArray[np.bool_]
    """Observations that tell of the case in question."""


def spreads_of(fit: Fit) -> Spreads:
    """Spreads by what the fit has rows of: the model, the accelerator, both or neither.

    Each is what leaving out that very thing leaves unexplained by the coefficients' covariance;
    rows count where nothing else was left out with it.
    Neither: the variances that an unknown model and an unknown accelerator add, together.
    """
    seen = fit.problem.observations
    every = np.ones(len(seen.row), dtype=bool)
    near = _known_sd(fit, np.zeros((len(COEFFICIENT_NAMES), len(COEFFICIENT_NAMES))))
    far = _known_sd(fit, deviation_covariance(deviation_log_sds()))
    by_model = leave_out(fit, labels_of(fit, "model"))
    by_accelerator = leave_out(fit, labels_of(fit, "accelerator"))
    shapes = _shapes(fit, by_model)

    def spread(left: _LeftOut) -> Spread:
        return _spread(fit, left, shapes)

    known = spread(_LeftOut(leave_out(fit, labels_of(fit, "deployment")), near, every))
    engine_known = _has_engine_elsewhere(fit)[seen.row]
    calibrated = _at_least(spread(_LeftOut(by_model, near, engine_known)), known)
    elsewhere = _has_model_elsewhere(fit)[seen.row]
    transferred_known = _at_least(spread(_LeftOut(by_accelerator, far, elsewhere)), known)
    transferred = _added(calibrated, transferred_known, known)
    return Spreads(
        calibrated=calibrated,
        calibrated_known=known,
        transferred=transferred,
        transferred_known=transferred_known,
        assumed=Spread(
            **{
                name: round(value * ASSUMED_FACTOR, 4)
                for name, value in transferred.model_dump().items()
            }
        ),
    )


def _spread(fit: Fit, left: _LeftOut, shapes: Mapping[str, float]) -> Spread:
    seen = fit.problem.observations
    conditions = fit.sample.conditions
    routed_rows = np.array([one.deployment.model.moe is not None for one in conditions])[seen.row]
    alone = np.array([one.setup.load in IN_PROCESS for one in conditions])[seen.row]
    decode = np.isin(seen.metric, [METRICS.index("tpot"), METRICS.index("e2e")])

    def of(part: NDArray[np.bool_]) -> float:
        chosen = part & left.counted
        return excess_sd(left.errors[chosen], left.known_sd[chosen])

    return Spread(
        decode=of(decode & ~alone & ~routed_rows),
        decode_routed=of(decode & ~alone & routed_rows),
        batch=of(decode & alone),
        prefill=of(~decode & ~routed_rows),
        prefill_routed=of(~decode & routed_rows),
        **shapes,
    )


def _at_least(spread: Spread, floor: Spread) -> Spread:
    """Knowing less never narrows an interval."""
    return _combined(max, spread, floor)


def _added(model: Spread, accelerator: Spread, known: Spread) -> Spread:
    """√(model² + accelerator² − known²): both unknown, what is common counted once."""

    def together(a: float, b: float, common: float) -> float:
        return round(math.sqrt(a * a + max(b * b - common * common, 0.0)), 4)

    return _combined(together, model, accelerator, known)


def _combined(rule: Callable[..., float], *spreads: Spread) -> Spread:
    columns = [spread.model_dump() for spread in spreads]
    return Spread(**{name: rule(*(one[name] for one in columns)) for name in columns[0]})


def _has_model_elsewhere(fit: Fit) -> NDArray[np.bool_]:
    """Rows whose model also has rows on another accelerator."""
    machines: dict[str, set[str]] = {}
    for one in fit.sample.conditions:
        machines.setdefault(one.deployment.model.id, set()).add(one.deployment.accelerator.id)
    return np.array([len(machines[one.deployment.model.id]) > 1 for one in fit.sample.conditions])


def _has_engine_elsewhere(fit: Fit) -> NDArray[np.bool_]:
    """Rows whose engine generation also has rows of another model: leaving out the only model of a
    generation tells of an unknown engine."""
    models: dict[str, set[str]] = {}
    for one in fit.sample.conditions:
        models.setdefault(one.generation, set()).add(one.deployment.model.id)
    return np.array([len(models[one.generation]) > 1 for one in fit.sample.conditions])


def _known_sd(fit: Fit, extra: FloatArray) -> FloatArray:
    """What the coefficients' covariance, and more, explains of each observation's error, 1-sd."""
    size, seen = len(COEFFICIENT_NAMES), fit.problem.observations
    logs = log_coefficients(fit.problem, fit.solution.theta)
    covariance = fit.solution.covariance[:size, :size] + extra
    spread = coefficient_spread(
        fit.problem.columns, logs, np.broadcast_to(covariance, (len(logs), size, size))
    )
    by_metric = {
        "tpot": np.maximum(spread.tpot, spread.e2e),
        "e2e": np.maximum(spread.tpot, spread.e2e),
        "prefill": spread.ttft,
        "ttft": spread.ttft,
    }
    table = np.stack([by_metric[metric] for metric in METRICS])
    return np.asarray(table[seen.metric, seen.row])


def excess_sd(errors: FloatArray, known: FloatArray) -> float:
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


def _shapes(fit: Fit, errors: FloatArray) -> dict[str, float]:
    """Spreads along batch and length of a deployment, with and without their tails.

    From errors left out: in-sample ones would be too small, since the fit has bent to them.
    """
    found = {}
    for name, metrics in (("shape", ("tpot", "e2e")), ("shape_prefill", ("prefill", "ttft"))):
        apart = _from_middle(fit, errors, metrics) / math.sqrt(2)
        if len(apart) >= LEAST_ROWS:
            found[name] = round(float(np.quantile(apart, 0.9)) / NORMAL_90, 4)
            found[f"{name}_typical"] = round(MEDIAN_TO_SD * float(np.median(apart)), 4)
    return {"shape": 0.1} | found


def _from_middle(fit: Fit, errors: FloatArray, metrics: Sequence[str]) -> FloatArray:
    """How far a deployment's errors lie from that of its row of middle load: √2·τ apart."""
    seen = fit.problem.observations
    chosen = np.isin(seen.metric, [METRICS.index(metric) for metric in metrics])
    loads = fit.problem.columns.loads.concurrency[seen.row]
    apart = [np.zeros(0)]
    for group in np.unique(seen.group[chosen]):
        mine = np.flatnonzero(chosen & (seen.group == group) & np.isfinite(errors))
        if len(mine) >= LEAST_OF_DEPLOYMENT:
            ordered = mine[np.argsort(loads[mine], kind="stable")]
            middle = ordered[len(ordered) // 2]
            apart.append(np.abs(errors[ordered[ordered != middle]] - errors[middle]))
    return np.concatenate(apart)


def overhead_sd_of(fit: Fit) -> float:
    """Spread of the request overhead between harnesses, with one pseudo-harness at the prior."""
    levels = fit.solution.theta[-len(fit.problem.harnesses) :]
    return round(float(np.sqrt((levels**2).sum() / max(1, len(levels) - 1) + 0.5**2)), 3)
