"""From measurements to a file of coefficients: `python -m advisor.calibrate.fit`.

Loops and open loads are approximated in closed form while fitting; after each round every one of
them is simulated, and the ratio of the two corrects the next round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.conditions import Condition, condition_of
from advisor.calibrate.exclusions import exclusion_of
from advisor.calibrate.expectation import frontend_seconds
from advisor.calibrate.measurements import Measurement
from advisor.calibrate.problem import (
    FRONTEND,
    METRICS,
    Problem,
    build_problem,
    coefficients_of_rows,
    log_coefficients,
    log_predictions,
    overhead_seconds,
)
from advisor.calibrate.served import cost_of, serve
from advisor.calibrate.solver import Solution, solve
from advisor.catalog import Catalog
from advisor.catalog.coefficients import COEFFICIENT_NAMES, Coefficients, bounds_of
from advisor.errors import AdvisorError

FloatArray = NDArray[np.float64]

FRONTEND_STEP = 0.3
"""Step of the logarithm for slopes of simulations, which are not smooth."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows that are fitted, and why the others are not."""

    rows: tuple[Measurement, ...]
    conditions: tuple[Condition, ...]
    left_out: Mapping[str, int]
    """Rows by reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fit with everything it was made from."""

    sample: Sample
    problem: Problem
    solution: Solution


def sample_of(
    measurements: Sequence[Measurement],
    catalog: Catalog,
    excluded: Callable[[Measurement], object] = exclusion_of,
) -> Sample:
    """Sort measurements into those that can be used and those that cannot."""
    rows: list[Measurement] = []
    conditions: list[Condition] = []
    left_out: dict[str, int] = {}
    for row in measurements:
        found = excluded(row)
        reason = str(getattr(found, "reason", found)) if found else ""
        if not reason:
            try:
                condition = condition_of(row.setup, catalog)
            except AdvisorError as error:
                reason = str(error)
            else:
                rows.append(row)
                conditions.append(condition)
                continue
        left_out[reason] = left_out.get(reason, 0) + 1
    return Sample(tuple(rows), tuple(conditions), left_out)


def fit_coefficients(
    measurements: Sequence[Measurement], catalog: Catalog, *, rounds: int = 3
) -> Fit:
    """Fit the law to measurements; each round after the first starts from simulated loops."""
    sample = sample_of(measurements, catalog)
    problem = build_problem(sample.rows, sample.conditions)
    solution = solve(problem)
    for _ in range(rounds - 1):
        correct_by_simulation(problem, solution.theta)
        solution = solve(problem, start=solution.theta, iterations=12)
    correct_by_simulation(problem, solution.theta)
    return Fit(sample, problem, solution)


def row_coefficients(logs: FloatArray) -> Coefficients:
    """One row's coefficients as a record."""
    bounds = {name: bounds_of(name) for name in COEFFICIENT_NAMES}
    return Coefficients(
        **{
            name: float(np.clip(np.exp(value), *bounds[name]))
            for name, value in zip(COEFFICIENT_NAMES, logs, strict=True)
        }
    )


def correct_by_simulation(problem: Problem, theta: FloatArray) -> None:
    """Set the problem's corrections: ln(simulated/approximated) of each load that flows.

    Also how the simulated TTFT answers to a slower frontend, which closed forms leave out.
    """
    problem.correction.clear()
    problem.frontend_slopes.clear()
    logs = log_coefficients(problem, theta)
    overhead = overhead_seconds(coefficients_of_rows(logs), problem.columns.loads.input_tokens)
    approximate = np.exp(log_predictions(problem, logs))
    approximate[METRICS.index("ttft")] -= overhead
    simulated = simulated_means(problem, logs)
    ratio = np.log(np.maximum(simulated, 1e-6) / np.maximum(approximate, 1e-6))
    problem.correction.update(zip(METRICS, np.nan_to_num(ratio), strict=True))
    ttft = METRICS.index("ttft")
    for name in FRONTEND:
        column = COEFFICIENT_NAMES.index(name)
        slower = logs.copy()
        slower[:, column] += FRONTEND_STEP
        change = np.log(simulated_means(problem, slower)[ttft] / simulated[ttft])
        problem.frontend_slopes[name] = np.nan_to_num(change) / FRONTEND_STEP
        problem.frontend_origin[name] = float(theta[column])


def simulated_means(problem: Problem, logs: FloatArray) -> FloatArray:
    """Means within the engine by simulation, shape (metrics, rows); NaN where none is needed."""
    columns, loads = coefficients_of_rows(logs), problem.columns.loads
    overhead = overhead_seconds(columns, loads.input_tokens)
    frontend = frontend_seconds(columns, loads.input_tokens)
    means = np.full((len(METRICS), len(logs)), np.nan)
    waiting = loads.concurrency > loads.capacity
    for index in np.flatnonzero(~(loads.static | loads.steady) | waiting):
        condition, offline = problem.conditions[int(index)], bool(loads.static[index])
        cost = cost_of(condition, row_coefficients(logs[index]))
        try:
            served = serve(
                condition,
                cost,
                overhead_s=0.0 if offline else float(overhead[index]),
                frontend_s=0.0 if offline else float(frontend[index]),
            )
        except AdvisorError:
            continue
        first = float(served.ttft_s.mean())
        tpot = float(served.tpot_s.mean()) if len(served.tpot_s) else math.nan
        by_metric = {
            "tpot": tpot,
            "e2e": float(served.e2e_s.max()),
            "prefill": first,
            "ttft": first,
        }
        means[:, index] = [by_metric[metric] for metric in METRICS]
    return means
