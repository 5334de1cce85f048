"""From a fit to its file of coefficients, deviations, evidence and spreads."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.fit import Fit, row_coefficients
from advisor.calibrate.measurements import Measurement
from advisor.calibrate.problem import DEVIATING, deviation_log_sds
from advisor.calibrate.solver import Solution
from advisor.calibrate.spread import Spreads, overhead_sd_of, spreads_of
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import DEFAULT_FITS, Evidence, FitFile
from advisor.catalog.operators import family_of


def fit_file(fit: Fit, *, as_of: str | None = None) -> FitFile:
    """The fit as a file, with spreads measured by leaving out models and accelerators."""
    date = as_of or datetime.datetime.now(datetime.UTC).date().isoformat()
    return _file(fit, fit.solution, spreads_of(fit), overhead_sd_of(fit), date, _all(fit))


def refitted(fit: Fit, solution: Solution, like: FitFile, used: NDArray[np.bool_]) -> FitFile:
    """The file of a solution found on part of the rows, with the spreads of the whole fit."""
    spreads = Spreads(
        calibrated=like.calibrated,
        calibrated_known=like.calibrated_known or like.calibrated,
        transferred=like.transferred,
        transferred_known=like.transferred_known or like.transferred,
        assumed=like.assumed,
    )
    return _file(fit, solution, spreads, like.overhead_log_sd, like.as_of, used)


def _all(fit: Fit) -> NDArray[np.bool_]:
    return np.ones(len(fit.sample.rows), dtype=bool)


def _file(
    fit: Fit,
    solution: Solution,
    spreads: Spreads,
    overhead_log_sd: float,
    as_of: str,
    used: NDArray[np.bool_],
) -> FitFile:
    size = len(COEFFICIENT_NAMES)
    families, accelerators = _evidence(fit, solution, used)
    covariance = solution.covariance[:size, :size]
    return FitFile(
        as_of=as_of,
        note="logarithms fitted hierarchically to measurements; see calibration/README.md",
        coefficients=row_coefficients(solution.theta[:size]),
        log_covariance={
            name: tuple(float(f"{value:.3g}") for value in row)
            for name, row in zip(COEFFICIENT_NAMES, covariance, strict=True)
        },
        deviation_log_sd=deviation_log_sds(),
        overhead_log_sd=overhead_log_sd,
        models=_models(fit, used),
        families=families,
        accelerators=accelerators,
        **dataclasses.asdict(spreads),
    )


def _models(fit: Fit, used: NDArray[np.bool_]) -> tuple[str, ...]:
    chosen = [fit.sample.conditions[index] for index in np.flatnonzero(used)]
    return tuple(sorted({one.deployment.model.id for one in chosen}))


def _evidence(
    fit: Fit, solution: Solution, used: NDArray[np.bool_]
) -> tuple[dict[str, Evidence], dict[str, Evidence]]:
    problem, theta = fit.problem, solution.theta
    families: dict[str, dict[str, float]] = {name: {} for name in problem.families}
    own: dict[str, dict[str, float]] = {name: {} for name in problem.accelerators}
    position = len(COEFFICIENT_NAMES)
    for name in DEVIATING:
        for group in (families, own):
            for key, value in zip(group, theta[position : position + len(group)], strict=True):
                if abs(value) >= 5e-4:
                    group[key][name] = round(float(value), 4)
            position += len(group)

    def described(
        deviations: dict[str, dict[str, float]], name_of: Callable[[AcceleratorSpec], str]
    ) -> dict[str, Evidence]:
        found = {key: _rows_of(fit, used, key, name_of) for key in deviations}
        return {key: _described(rows, deviations[key]) for key, rows in found.items() if rows}

    return described(families, family_of), described(own, lambda one: one.id)


def _rows_of(
    fit: Fit, used: NDArray[np.bool_], key: str, name_of: Callable[[AcceleratorSpec], str]
) -> list[Measurement]:
    return [
        fit.sample.rows[index]
        for index in np.flatnonzero(used)
        if name_of(fit.sample.conditions[index].deployment.accelerator) == key
    ]


def _described(rows: list[Measurement], deviations: dict[str, float]) -> Evidence:
    versions = {row.setup.engine_version for row in rows if row.setup.engine_version}
    ordered = sorted(versions, key=lambda one: [int(part) for part in one.split(".")])
    return Evidence(
        rows=len(rows),
        sources=tuple(sorted({row.source for row in rows})),
        engine_versions=tuple(dict.fromkeys((ordered[0], ordered[-1]))) if ordered else (),
        log_deviations=deviations,
    )


def write_fit(file: FitFile, path: Path = DEFAULT_FITS) -> None:
    """Write a fit as JSON that a person can read."""
    document = file.model_dump(mode="json")
    document["coefficients"] = {
        name: float(f"{value:.4g}") for name, value in document["coefficients"].items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
