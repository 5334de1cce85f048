"""What a user's own measurements say about their deployment: its level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from advisor.calibrate.conditions import Condition, condition_of
from advisor.calibrate.forecast import Forecast, Forecaster, deployment_identity
from advisor.calibrate.measurements import Measurement
from advisor.calibrate.uncertainty import Level
from advisor.catalog import Catalog
from advisor.catalog.fits import calibration_of
from advisor.errors import AdvisorError


def learn_levels(forecaster: Forecaster, own: Sequence[Measurement], catalog: Catalog) -> None:
    """Set a forecaster's levels from measurements of the deployments themselves.

    ln(measured/predicted) of TPOT and of batches' E2E moves the steps, that of TTFT the time to
    first token. Rows that cannot be predicted are passed over.
    """
    usable: list[tuple[Measurement, Condition]] = []
    for row in own:
        try:
            usable.append((row, condition_of(row.setup, catalog)))
        except AdvisorError:
            continue
    forecasts = forecaster.forecast([condition for _, condition in usable])
    steps: dict[str, list[float]] = {}
    firsts: dict[str, list[float]] = {}
    examples: dict[str, Condition] = {}
    for (row, condition), forecast in zip(usable, forecasts, strict=True):
        identity = deployment_identity(condition)
        examples[identity] = condition
        steps.setdefault(identity, []).extend(_log_errors(row, forecast, _step_metrics(row)))
        firsts.setdefault(identity, []).extend(
            _log_errors(row, forecast, ("ttft_mean", "ttft_p50"))
        )
    for identity, condition in examples.items():
        calibration = calibration_of(forecaster.fit, condition.deployment.accelerator)
        model, spread = condition.deployment.model, calibration.spread
        prior = Level(0.0, calibration.decode_log_sd(model))
        decode = prior.updated(np.array(steps[identity]), spread.shape, spread.shape_typical)
        if decode.rows:
            forecaster.decode_levels[identity] = decode
        first = Level(0.0, calibration.prefill_log_sd(model))
        first = first.updated(
            np.array(firsts[identity]), spread.shape_prefill, spread.shape_prefill_typical
        )
        if first.rows:
            forecaster.first_token_levels[identity] = first


def _step_metrics(row: Measurement) -> tuple[str, ...]:
    static = row.setup.load in ("static_batch", "burst")
    return ("tpot_mean", "tpot_p50", *(("e2e_mean", "e2e_p50") if static else ()))


def _log_errors(row: Measurement, forecast: Forecast, metrics: tuple[str, ...]) -> list[float]:
    errors = []
    for metric in metrics:
        measured, predicted = row.seconds(metric), forecast.latency_s.get(metric)
        if measured is not None and predicted is not None:
            errors.append(math.log(measured / predicted.value))
    return errors
