"""What a condition's client will measure, with 90 % intervals: the simulator and its doubts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.conditions import IN_PROCESS, Condition
from advisor.calibrate.expectation import columns_of, expected
from advisor.calibrate.measurements import METRICS, STATISTICS
from advisor.calibrate.problem import coefficients_of_rows
from advisor.calibrate.served import Served, cost_of, kv_blocks_of, serve
from advisor.calibrate.uncertainty import (
    Level,
    LogSpread,
    coefficient_spread,
    covariance_for,
)
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import NORMAL_90, Calibration, FitFile, OwnSteps, calibration_of
from advisor.errors import AdvisorError
from advisor.physics.own_steps import extra_s, identity_of, in_unrest, own_cost
from advisor.physics.step_cost import StepCost

FloatArray = NDArray[np.float64]

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

OVERHEAD_JITTER = 0.15
"""1-sd of ln of the request overhead from one request to the next (networks, event loops)."""

LARGEST_LOG_SD = 2.0
"""1-sd of ln of a wait, at most: beyond it all that is known is that the load is near capacity."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is predicted of one condition."""

    latency_s: dict[str, Figure]
    """By metric (`ttft_mean` … `e2e_p99`)."""
    output_tokens_per_s: float
    label: str
    basis: str
    error: str = ""


@dataclass
class Forecaster:
    """Predicts many conditions from one fit, sharing what deployments have in common."""

    fit: FitFile
    decode_levels: dict[str, Level] = field(default_factory=dict)
    """Of deployments that were measured themselves, by `deployment_identity`."""
    first_token_levels: dict[str, Level] = field(default_factory=dict)
    _costs: dict[tuple[object, ...], StepCost] = field(default_factory=dict)

    def forecast(self, conditions: Sequence[Condition]) -> list[Forecast]:
        """One forecast a condition, in order; what cannot be predicted says why in `error`."""
        if not conditions:
            return []
        calibrations = self._calibrations(conditions)
        priors = self.prior_levels(conditions)
        forecasts = []
        for condition, calibration, prior in zip(conditions, calibrations, priors, strict=True):
            decode, first = self._levels(condition, prior)
            try:
                forecasts.append(self._one(condition, calibration, decode, first))
            except AdvisorError as error:
                forecasts.append(
                    Forecast({}, math.nan, calibration.label, calibration.basis, str(error))
                )
        return forecasts

    def prior_levels(self, conditions: Sequence[Condition]) -> list[tuple[Level, Level]]:
        """ln(true/predicted) of steps, and of the time to first token that those steps give, of
        deployments that were not measured: what the coefficients' doubt and the spread between
        deployments leave open."""
        calibrations = self._calibrations(conditions)
        spread = self._coefficient_spread(conditions, calibrations)
        return [
            _prior_levels(condition, calibration, spread, index)
            for index, (condition, calibration) in enumerate(
                zip(conditions, calibrations, strict=True)
            )
        ]

    def _calibrations(self, conditions: Sequence[Condition]) -> list[Calibration]:
        return [
            calibration_of(
                self.fit, one.deployment.accelerator, engine_version=one.setup.engine_version
            )
            for one in conditions
        ]

    def _coefficient_spread(
        self, conditions: Sequence[Condition], calibrations: Sequence[Calibration]
    ) -> LogSpread:
        logs = np.log(
            [
                [getattr(one.coefficients, name) for name in COEFFICIENT_NAMES]
                for one in calibrations
            ]
        )
        by_label = {one.label: covariance_for(self.fit, one.label) for one in calibrations}
        covariances = np.stack([by_label[one.label] for one in calibrations])
        return coefficient_spread(columns_of(list(conditions)), logs, covariances)

    def _levels(self, condition: Condition, priors: tuple[Level, Level]) -> tuple[Level, Level]:
        """ln(true/predicted) of steps, and of the time to first token that those steps give."""
        identity = deployment_identity(condition)
        decode, first = priors
        own = self.fit.deployments.get(identity)
        if own:
            decode = first = Level(0.0, own.log_sd, rows=own.points)
        return (
            self.decode_levels.get(identity, decode),
            self.first_token_levels.get(identity, first),
        )

    def _one(
        self, condition: Condition, calibration: Calibration, decode: Level, first: Level
    ) -> Forecast:
        own = self.fit.deployments.get(deployment_identity(condition))
        overhead_s, overhead_sd = overhead_of(condition, calibration)
        frontend_s, unrest = _frontend_of(condition, calibration), 0.0
        if own and own.served and condition.setup.load not in IN_PROCESS:
            # Closed loops told them apart without a frontend beside.
            frontend_s, unrest = 0.0, own.served.unrest_log_sd
            if condition.setup.request_overhead_ms is None:
                overhead_s = own.served.request_s
        cost = self._cost(condition, calibration).scaled(math.exp(decode.mean))
        if condition.setup.load == "steady_batch":
            middle, slow, fast = (
                _steady(condition, calibration, math.exp(decode.mean + shift), own)
                for shift in (0.0, decode.sd, -decode.sd)
            )
        else:
            middle, slow, fast = (
                _statistics(
                    serve(
                        condition,
                        cost.scaled(factor),
                        overhead_s=overhead_s,
                        frontend_s=frontend_s,
                    ),
                    overhead_s,
                    whole_batch=condition.setup.load == "static_batch",
                    unrest=unrest,
                )
                for factor in (1.0, math.exp(decode.sd), math.exp(-decode.sd))
            )
        alone = condition.setup.load in IN_PROCESS
        label = "measured" if decode.rows else calibration.label
        return Forecast(
            latency_s={
                name: _figure(
                    name,
                    middle[name],
                    slow[name],
                    fast[name],
                    decode,
                    first,
                    overhead_s,
                    overhead_sd,
                    0.0 if alone else middle.get("ttft_mean", 0.0),
                )
                for name in METRICS
                if math.isfinite(middle.get(name, math.nan))
            },
            output_tokens_per_s=middle["output_tokens_per_s"] * condition.parts,
            label=label,
            basis=f"{decode.rows} rows of this deployment" if decode.rows else calibration.basis,
        )

    def _cost(self, condition: Condition, calibration: Calibration) -> StepCost:
        in_process = condition.setup.load in IN_PROCESS
        key = (
            deployment_identity(condition),
            condition.engine.max_num_batched_tokens,
            condition.engine.max_num_seqs,
            in_process,
        )
        if key not in self._costs:
            cost = cost_of(condition, calibration.coefficients)
            own = self.fit.deployments.get(deployment_identity(condition))
            self._costs[key] = own_cost(cost, own, in_process=in_process) if own else cost
        return self._costs[key]


def _prior_levels(
    condition: Condition, calibration: Calibration, spread: LogSpread, index: int
) -> tuple[Level, Level]:
    model, alone = condition.deployment.model, condition.setup.load in IN_PROCESS
    steps = float(max(spread.tpot[index], spread.e2e[index]))
    decode = math.hypot(steps, calibration.decode_log_sd(model, in_process=alone))
    first = math.hypot(float(spread.ttft[index]), calibration.prefill_log_sd(model))
    return Level(0.0, decode), Level(0.0, first)


def deployment_identity(condition: Condition) -> str:
    """What a level belongs to: model, formats, accelerator, layout, engine generation."""
    return identity_of(condition.deployment, condition.generation)


def overhead_of(condition: Condition, calibration: Calibration) -> tuple[float, float]:
    """Request overhead in seconds, and 1-sd of its logarithm.

    As stated by the row; 0 for batches handed to the engine in process; else that of the serving
    set-ups measured so far, which differ widely.
    """
    if condition.setup.request_overhead_ms is not None:
        return condition.setup.request_overhead_ms / 1000, 0.0
    if condition.setup.load in IN_PROCESS:
        return 0.0, 0.0
    return calibration.request_overhead_s(condition.input_tokens), calibration.overhead_log_sd


def _frontend_of(condition: Condition, calibration: Calibration) -> float:
    """Serial time of the frontend for one request: no more than the overhead where that is known,
    none for batches handed over in process."""
    if condition.setup.load in IN_PROCESS:
        return 0.0
    seconds = calibration.frontend_s(condition.input_tokens)
    known_ms = condition.setup.request_overhead_ms
    return seconds if known_ms is None else min(seconds, known_ms / 1000)


def _statistics(
    served: Served, overhead_s: float, *, whole_batch: bool = False, unrest: float = 0.0
) -> dict[str, float]:
    """The metrics of a simulated load, seconds; the E2E of a static batch is the batch's.

    The request overhead varies from request to request around its mean; it is in TTFT and E2E.
    `unrest` is the 1-sd of ln of what one and the same request takes on that machine.
    """
    found = {"output_tokens_per_s": served.output_tokens_per_s}
    noise = np.random.default_rng(0).standard_normal(len(served.ttft_s))
    overheads = overhead_s * np.exp(OVERHEAD_JITTER * noise - OVERHEAD_JITTER**2 / 2)
    for quantity in ("ttft", "tpot", "e2e"):
        values = getattr(served, f"{quantity}_s")
        if quantity == "e2e" and whole_batch:
            values = np.full_like(values, values.max())
        if quantity != "tpot":
            values = values + overheads
        values = in_unrest(values, unrest)
        if len(values):
            found[f"{quantity}_mean"] = float(values.mean())
            quantiles = np.quantile(values, list(_QUANTILES.values()))
            found |= {
                f"{quantity}_{name}": float(value)
                for name, value in zip(_QUANTILES, quantiles, strict=True)
            }
    if len(served.tpot_s):
        for statistic in STATISTICS:
            found[f"itl_{statistic}"] = float(getattr(served.itl_s, statistic))
    return found


def _steady(
    condition: Condition, calibration: Calibration, scale: float, own: OwnSteps | None
) -> dict[str, float]:
    """A batch that only decodes, in closed form."""
    kv_blocks_of(condition, math.ceil(condition.input_tokens + condition.output_tokens))
    logs = np.log([[getattr(calibration.coefficients, name) for name in COEFFICIENT_NAMES]])
    means = expected(columns_of([condition]), coefficients_of_rows(logs))
    more_s = float(extra_s(own, means.decoding[:1])[0]) if own else 0.0
    seconds = {
        "ttft": (float(means.ttft_s[0]) + more_s) * scale,
        "tpot": (float(means.tpot_s[0]) + more_s) * scale,
        "itl": (float(means.tpot_s[0]) + more_s) * scale,
        "e2e": (float(means.e2e_s[0]) + more_s * condition.output_tokens) * scale,
    }
    found = {f"{name}_{one}": value for name, value in seconds.items() for one in STATISTICS}
    return found | {"output_tokens_per_s": float(means.decoding[0]) / seconds["tpot"]}


def _figure(
    name: str,
    middle: float,
    slow: float,
    fast: float,
    decode: Level,
    first: Level,
    overhead_s: float,
    overhead_sd: float,
    first_token_s: float,
) -> Figure:
    """Median and 90 % interval of a metric.

    `slow` and `fast` are the engine with every step one standard deviation longer or shorter, so
    that near saturation the interval widens by itself. What starts with a request also carries the
    request overhead, whose doubt is independent; an E2E holds a mean first token of
    `first_token_s`, with its level and its doubt (0 for batches, whose E2E was fitted itself).
    """
    quantity = name.partition("_")[0]
    with_overhead = quantity in ("ttft", "e2e")
    outside = overhead_s if with_overhead else 0.0
    engine = max(middle - outside, 1e-9)
    up = math.log(max(slow - outside, 1e-9) / engine)
    down = math.log(engine / max(fast - outside, 1e-9))
    share = engine / middle if middle > 0 else 1.0
    total, prompt_sd = middle, 0.0
    if quantity == "ttft":
        total = middle + engine * math.expm1(first.mean)
        # Prompts are more doubtful than steps, and a queue makes as much more of it.
        ratio = first.sd / max(decode.sd, 1e-9)
        up, down = up * ratio, down * ratio
    elif quantity == "e2e":
        waiting_s = max(first_token_s - outside, 0.0)
        total = middle + waiting_s * math.expm1(first.mean)
        prompt_sd = first.sd * waiting_s / max(middle, first_token_s, 1e-9)
    own = first.sd if quantity == "ttft" else 0.3 * decode.sd
    up, down = (max(share * min(one, LARGEST_LOG_SD), own) for one in (up, down))
    extra = math.hypot((1 - share) * overhead_sd, prompt_sd)
    return Figure(
        value=total,
        low=total * math.exp(-NORMAL_90 * math.hypot(down, extra)),
        high=total * math.exp(NORMAL_90 * math.hypot(up, extra)),
    )
