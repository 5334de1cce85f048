"""What is believed of a deployment before its steps are timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.bench.law import BOUNDS, KNOTS, SHAPE_LOG_SD, Belief, Law, Steps
from advisor.calibrate.bench.points import Point
from advisor.calibrate.bench.products import IN_STEP_LOG_SD, STRAIGHT, Bends, timed_products
from advisor.calibrate.uncertainty import covariance_for
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import FitFile, calibration_of

FloatArray = NDArray[np.float64]

DEPLOYMENT_LOG_SD = 0.25
"""By which a deployment's own flags, kernels and host may move each coefficient of a known
accelerator: by judgement, twice the spread of deployments' levels in the shipped fit."""

PROCESSOR_LOG_SD = 1.5
"""How well a processor's coefficients are known before it is measured: within a factor of ten."""

PROCESSOR_START = {
    "layer_s": 300e-6,
    "mixed_layer_s": 50e-6,
    "host_step_v1_s": 2e-3,
    "host_sequence_v1_s": 35e-6,
    "kv_bandwidth": 0.3,
    "linear_bandwidth": 0.8,
}
"""Where a processor's prior starts: kernels launched one by one from Python, nothing hidden behind
a GPU. Assumed, and soon forgotten once there are points."""

CEILING_LOG_SD = 0.8
OF_PRODUCTS = ("linear_bandwidth", "linear_compute_16bit", "head_bandwidth")
BY_CEILINGS = (*OF_PRODUCTS, "activation_bandwidth")
"""A processor's shares of what was measured on it as a copy and a product: better known."""

SEQUENCE_LOG_SD = 0.5
"""So is what the engine's Python does for each sequence: the same lines as beside a GPU, where the
shipped fit finds 17 µs, on a core that also computes. Small batches hardly tell it from the
products of more rows, and beyond them it decides."""

LEFT_BY_PRODUCTS = 0.5
"""Of that spread, where products were timed alone. By judgement: what remains is smoother work."""

KNOT_LOG_SD, KNOT_LENGTH = 0.2, 1.5
"""Of g: by how much products of one width may be off, and over which ratio of tokens (its ln) it
forgets. Taken from the spread of oneDNN's paths, before any fit."""


def prior_belief(law: Law, fit: FitFile) -> Belief:
    """What is believed before anything is measured."""
    accelerator = law.deployment.accelerator
    calibration = calibration_of(fit, accelerator)
    known = np.log([getattr(calibration.coefficients, name) for name in COEFFICIENT_NAMES])
    logs = np.concatenate([known, np.zeros(len(KNOTS))])
    active = _active(law, logs)
    if calibration.label == "assumed":
        for name, value in PROCESSOR_START.items():
            logs[COEFFICIENT_NAMES.index(name)] = np.log(value)
        covariance = np.diag([_processor_log_sd(COEFFICIENT_NAMES[index]) ** 2 for index in active])
        count, knots = len(active), np.log(KNOTS[law.budget >= KNOTS])
        active += tuple(len(COEFFICIENT_NAMES) + place for place in range(len(knots)))
        whole = np.zeros((len(active), len(active)))
        whole[:count, :count] = covariance
        distance = np.abs(knots[:, None] - knots[None, :])
        whole[count:, count:] = KNOT_LOG_SD**2 * np.exp(-distance / KNOT_LENGTH)
        covariance = whole
    else:
        whole = covariance_for(fit, calibration.label)
        covariance = whole[np.ix_(active, active)] + DEPLOYMENT_LOG_SD**2 * np.eye(len(active))
    return Belief(law, logs, covariance, active)


def with_products(prior: Belief, points: Sequence[Point]) -> Belief:
    """The prior of a processor whose products were timed alone; as it is where none were.

    The coefficients of products become those that meet the timed ones best (least squares of ln,
    beside the prior); what those leave are the law's bends.
    """
    from scipy.optimize import least_squares

    rows, seconds, log_sd = timed_products(points)
    if not len(rows):
        return prior
    law = replace(prior.law, bends=STRAIGHT)
    places = [
        place
        for place, index in enumerate(prior.active)
        if index < len(COEFFICIENT_NAMES) and COEFFICIENT_NAMES[index] in OF_PRODUCTS
    ]
    chosen = [prior.active[place] for place in places]
    noise = np.hypot(log_sd, SHAPE_LOG_SD)

    def logs_at(values: FloatArray) -> FloatArray:
        logs = prior.logs.copy()
        logs[chosen] = values
        return logs

    def errors(values: FloatArray) -> FloatArray:
        return np.asarray(np.log(law.products_s(logs_at(values), rows, rows) / seconds))

    def misfit(values: FloatArray) -> FloatArray:
        return np.concatenate(
            [errors(values) / noise, (values - prior.logs[chosen]) / CEILING_LOG_SD]
        )

    low, high = BOUNDS[:, chosen]
    inside = np.clip(prior.logs[chosen], low + 1e-6, high - 1e-6)
    logs = logs_at(least_squares(misfit, inside, bounds=(low, high), loss="soft_l1").x)
    covariance = prior.covariance.copy()
    covariance[places, :] = covariance[:, places] = 0.0
    covariance[places, places] = IN_STEP_LOG_SD**2
    knots = [place for place, index in enumerate(prior.active) if index >= len(COEFFICIENT_NAMES)]
    covariance[np.ix_(knots, knots)] *= LEFT_BY_PRODUCTS**2
    ratios = np.exp(-errors(logs[chosen]))
    bends = Bends(tuple(rows.tolist()), tuple(ratios.tolist()))
    return replace(prior, law=replace(law, bends=bends), logs=logs, covariance=covariance)


def _processor_log_sd(name: str) -> float:
    """How well a processor's coefficient is known before it is measured."""
    if name.startswith("host_sequence"):
        return SEQUENCE_LOG_SD
    return CEILING_LOG_SD if name in BY_CEILINGS else PROCESSOR_LOG_SD


def _active(law: Law, logs: FloatArray) -> tuple[int, ...]:
    """Coefficients that steps of this deployment depend on, over batches and lengths."""
    batch, context, prompt = np.meshgrid([0.0, 1, 16, 256], [64.0, 4096], [0.0, 64, 2048])
    used = (batch + prompt).ravel() > 0
    steps = Steps(batch.ravel()[used], context.ravel()[used], prompt.ravel()[used])
    slopes = law.slopes(logs, steps, range(len(COEFFICIENT_NAMES)))
    return tuple(int(index) for index in np.flatnonzero(np.abs(slopes).max(axis=0) > 1e-3))
