"""What a user's own measurements say about their deployment: its levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from advisor.calibrate.conditions import Condition, condition_of
from advisor.calibrate.forecast import Forecast, Forecaster, deployment_identity, overhead_of
from advisor.calibrate.measurements import Measurement
from advisor.calibrate.problem import is_saturated
from advisor.calibrate.uncertainty import Level
from advisor.catalog import Catalog
from advisor.catalog.fits import calibration_of
from advisor.errors import AdvisorError

LARGEST_MOVE = 0.5
"""Of ln(step time), to see how an open load answers to it."""

ELASTICITY = (0.5, 20.0)
"""Bounds of ∂ ln(TPOT)/∂ ln(step time)."""

QUEUE_RATIO = 10.0
"""Upper over lower end of a TTFT's interval beyond which it is a queue's and says nothing of the
time a prompt takes."""

FIRST_TOKEN = ("ttft_mean", "ttft_p50")

LEAST_LEVEL_SHARE = 0.3
"""Of the spread of first tokens, what is between deployments and not along their loads: at least
this much of its standard deviation."""

LEAST_ENGINE_SHARE = 0.2
"""Of a predicted time in the engine, what a measured first token leaves for it after the request
overhead: at least this much, should the overhead be less than was thought."""


@dataclass
class _Own:
    """A deployment's rows."""

    rows: list[Measurement] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)


def learn_levels(forecaster: Forecaster, own: Sequence[Measurement], catalog: Catalog) -> None:
    """Set a forecaster's levels from measurements of the deployments themselves.

    Steps: ln(measured/predicted) of TPOT and of batches' E2E. In an open load a longer step also
    means more requests in it, so that TPOT answers by more than the step; its answer is measured by
    forecasting once more. First tokens: what the steps' level leaves of ln(measured/predicted) of
    the time in the engine, but not where it is a queue's. Rows that cannot be predicted are passed
    over.
    """
    deployments: dict[str, _Own] = {}
    for row in own:
        try:
            condition = condition_of(row.setup, catalog)
        except AdvisorError:
            continue
        mine = deployments.setdefault(deployment_identity(condition), _Own())
        mine.rows.append(row)
        mine.conditions.append(condition)
    for identity, mine in deployments.items():
        _learn(forecaster, identity, mine)


def _learn(forecaster: Forecaster, identity: str, own: _Own) -> None:
    condition = own.conditions[0]
    calibration = calibration_of(forecaster.fit, condition.deployment.accelerator)
    spread = calibration.spread
    forecaster.decode_levels.pop(identity, None)
    forecaster.first_token_levels.pop(identity, None)
    plain = forecaster.forecast(own.conditions)
    priors = forecaster.prior_levels(own.conditions)
    decode = Level(0.0, float(np.median([steps.sd for steps, _ in priors]))).updated(
        np.array(_step_errors(forecaster, identity, own, plain)),
        spread.shape,
        spread.shape_typical,
    )
    if decode.rows:
        forecaster.decode_levels[identity] = decode
    levelled = forecaster.forecast(own.conditions) if decode.rows else plain
    errors = [
        error
        for row, known, before, after in zip(own.rows, own.conditions, plain, levelled, strict=True)
        if not is_saturated(row)
        for error in _prompt_errors(
            row, after, _of_prompts(before), overhead_of(known, calibration)[0]
        )
    ]
    total_sd = float(np.median([first.sd for _, first in priors]))
    along_sd = spread.shape_prefill
    between_sd = math.sqrt(max(total_sd**2 - along_sd**2, (LEAST_LEVEL_SHARE * total_sd) ** 2))
    first = Level(0.0, between_sd).updated(np.array(errors), along_sd, spread.shape_prefill_typical)
    if first.rows:
        forecaster.first_token_levels[identity] = first


def _step_errors(
    forecaster: Forecaster, identity: str, own: _Own, plain: Sequence[Forecast]
) -> list[float]:
    """ln(true/predicted) of the step's time, by each figure that tells of it."""
    errors: list[float] = []
    for row, condition, forecast in zip(own.rows, own.conditions, plain, strict=True):
        found = _log_errors(row, forecast, _step_metrics(row))
        if found and row.setup.request_rate_per_s:
            move = float(np.clip(np.median(found), -LARGEST_MOVE, LARGEST_MOVE))
            forecaster.decode_levels[identity] = Level(move, 0.0, rows=1)
            (moved,) = forecaster.forecast([condition])
            del forecaster.decode_levels[identity]
            left = _log_errors(row, moved, _step_metrics(row))
            found = [
                before / _elasticity(before - after, move)
                for before, after in zip(found, left, strict=True)
            ]
        errors += found
    return errors


def _elasticity(answer: float, move: float) -> float:
    return float(np.clip(answer / move, *ELASTICITY)) if abs(move) > 1e-3 else 1.0


def _of_prompts(forecast: Forecast) -> tuple[str, ...]:
    """Metrics of the first token that are not mostly a queue's."""
    return tuple(
        name
        for name in FIRST_TOKEN
        if (figure := forecast.latency_s.get(name)) and figure.high < QUEUE_RATIO * figure.low
    )


def _step_metrics(row: Measurement) -> tuple[str, ...]:
    static = row.setup.load in ("static_batch", "burst")
    return ("tpot_mean", "tpot_p50", *(("e2e_mean", "e2e_p50") if static else ()))


def _prompt_errors(
    row: Measurement, forecast: Forecast, metrics: tuple[str, ...], overhead_s: float
) -> list[float]:
    """ln(measured/predicted) of the time to first token within the engine."""
    errors = []
    for metric in metrics:
        measured, predicted = row.seconds(metric), forecast.latency_s.get(metric)
        if measured is not None and predicted is not None:
            inside = max(predicted.value - overhead_s, LEAST_ENGINE_SHARE * predicted.value)
            left = max(measured - overhead_s, LEAST_ENGINE_SHARE * inside)
            errors.append(math.log(left / inside))
    return errors


def _log_errors(row: Measurement, forecast: Forecast, metrics: tuple[str, ...]) -> list[float]:
    errors = []
    for metric in metrics:
        measured, predicted = row.seconds(metric), forecast.latency_s.get(metric)
        if measured is not None and predicted is not None:
            errors.append(math.log(measured / predicted.value))
    return errors
