"""What is fitted to what: observations, the layout of the parameters, and predictions from them.

Every coefficient has a logarithm with a physical prior; hardware families and accelerators add
deviations that are shrunk towards 0; each load harness has a request overhead of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.conditions import Condition
from advisor.calibrate.expectation import (
    Columns,
    Expected,
    columns_of,
    expected,
    frontend_seconds,
)
from advisor.calibrate.measurements import Measurement
from advisor.catalog.coefficients import COEFFICIENT_NAMES, Coefficients, bounds_of
from advisor.catalog.operators import family_of, operator_offsets

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PRIOR_LOG_SD = 0.3
"""How well a coefficient is known before any measurement."""

WIDE_PRIORS = {
    "mixed_layer_s": 0.4,
    "mixed_moe_layer_s": 0.6,
    "mixed_latent_layer_s": 0.7,
    "mixed_reduce_s": 0.5,
    "routing_evenness": 0.7,
    "kv_sharing_v0": 0.7,
    "kv_sharing_early": 0.7,
    "kv_split_v0": 0.7,
    "worker_v0_s": 0.6,
    "worker_v1_s": 0.7,
    "worker_early_s": 0.6,
    "host_step_early_s": 0.6,
    "request_overhead_s": 0.5,
    "frontend_request_s": 0.8,
    "frontend_token_s": 0.7,
}
FIRM_PRIORS = {
    "head_bandwidth": 0.1,
    "linear_bandwidth": 0.1,
    "linear_bandwidth_8bit": 0.12,
    "linear_bandwidth_4bit": 0.15,
    "linear_compute_16bit": 0.15,
    "linear_compute_8bit": 0.2,
    "linear_compute_4bit": 0.2,
    "kv_bandwidth": 0.12,
    "kv_bandwidth_8bit": 0.15,
    "prefill_attention": 0.2,
    "expert_bandwidth_16bit": 0.15,
    "expert_bandwidth_8bit": 0.2,
    "expert_bandwidth_fp4": 0.2,
    "expert_bandwidth_mxfp4": 0.2,
}
"""What kernel tables (calibration/operators.yaml) tell already."""

DEVIATING = (
    "linear_bandwidth",
    "linear_bandwidth_8bit",
    "linear_bandwidth_4bit",
    "linear_compute_16bit",
    "linear_compute_8bit",
    "kv_bandwidth",
    "kv_bandwidth_8bit",
    "prefill_attention",
    "head_bandwidth",
    "expert_bandwidth_8bit",
    "expert_bandwidth_fp4",
    "expert_bandwidth_weight_only",
    "expert_bandwidth_mxfp4",
    "expert_compute_8bit",
    "expert_compute_fp4",
    "expert_compute_mxfp4",
    "layer_s",
    "moe_layer_8bit_s",
    "moe_layer_fp4_s",
    "moe_layer_weight_only_s",
    "moe_layer_mxfp4_s",
    "reduce_s",
    "link_bandwidth",
    "worker_early_s",
)
"""Coefficients that may differ between accelerators beyond what kernel tables tell."""

FAMILY_LOG_SD, ACCELERATOR_LOG_SD = 0.08, 0.05
WIDE_FAMILY_LOG_SD = {
    "expert_compute_mxfp4": 0.25,
    "moe_layer_weight_only_s": 0.25,
    "moe_layer_mxfp4_s": 0.25,
    "worker_early_s": 0.3,
}
"""Kernels written for one generation of hardware, and host machines, differ more."""

NOISE_LOG_SD = {"tpot": 0.06, "e2e": 0.04, "prefill": 0.12, "ttft": 0.15}
"""Within a deployment, along batch and length."""

UNCONGESTED = 0.9
"""Share of the engine's capacity (sequences) up to which TTFT says something about steps."""


FRONTEND = ("frontend_request_s", "frontend_token_s")
LARGEST_SHIFT = 0.5


@dataclass(frozen=True, slots=True)
class Observations:
    """What is compared, one entry an observed figure."""

    row: IntArray
    """Index into the conditions."""
    metric: IntArray
    """Index into METRICS."""
    log_measured: FloatArray
    noise: FloatArray
    group: IntArray
    """Deployment and metric: the unit of a level."""


METRICS = ("tpot", "e2e", "prefill", "ttft")
"""`e2e` and `prefill` are of static batches, `ttft` of requests that come and go."""


@dataclass(eq=False)
class Problem:
    """Conditions, observations and the layout of the parameter vector."""

    conditions: Sequence[Condition]
    columns: Columns
    observations: Observations
    family: IntArray
    accelerator: IntArray
    harness: IntArray
    offsets: FloatArray
    """ln of each row's accelerator over the base, from kernel tables: (rows, coefficients)."""
    families: tuple[str, ...]
    accelerators: tuple[str, ...]
    harnesses: tuple[str, ...]
    correction: dict[str, FloatArray] = field(default_factory=dict)
    """ln(simulated/approximated) by metric and row."""
    frontend_slopes: dict[str, FloatArray] = field(default_factory=dict)
    """∂ ln(simulated TTFT within the engine)/∂ ln(coefficient), for those of the frontend: a burst
    that reaches the engine more slowly waits outside instead of inside."""
    frontend_origin: dict[str, float] = field(default_factory=dict)
    """ln of those coefficients where the slopes were taken."""

    @property
    def size(self) -> int:
        """Parameters: coefficients, deviations, and one overhead a harness."""
        groups = len(self.families) + len(self.accelerators)
        return len(COEFFICIENT_NAMES) + len(DEVIATING) * groups + len(self.harnesses)


def build_problem(rows: Sequence[Measurement], conditions: Sequence[Condition]) -> Problem:
    """Lay out the observations of some rows (in the order of their conditions)."""
    columns = columns_of(list(conditions))
    families, family = _coded([family_of(one.deployment.accelerator) for one in conditions])
    accelerators, accelerator = _coded([one.deployment.accelerator.id for one in conditions])
    harnesses, harness = _coded([row.source for row in rows])
    return Problem(
        conditions=conditions,
        columns=columns,
        observations=_observations(rows, conditions, columns),
        family=family,
        accelerator=accelerator,
        harness=harness,
        offsets=_offsets(conditions),
        families=families,
        accelerators=accelerators,
        harnesses=harnesses,
    )


def _offsets(conditions: Sequence[Condition]) -> FloatArray:
    rows = []
    for one in conditions:
        known = operator_offsets(one.deployment.accelerator)
        rows.append([known.get(name, 0.0) for name in COEFFICIENT_NAMES])
    return np.array(rows, dtype=np.float64)


def deployment_key(row: Measurement, condition: Condition) -> str:
    """Rows with the same key share a level."""
    one = condition.deployment
    parts = (
        row.source,
        one.model.id,
        one.weights_dtype,
        one.kv_dtype,
        one.accelerator.id,
        one.tensor_parallel,
        one.data_parallel,
        one.expert_parallel,
        condition.setup.engine_version,
    )
    return "|".join(str(part) for part in parts)


def _coded(names: Sequence[str]) -> tuple[tuple[str, ...], IntArray]:
    unique, codes = np.unique(np.array(names), return_inverse=True)
    return tuple(str(one) for one in unique), codes.astype(np.int64)


def is_saturated(row: Measurement) -> bool:
    """Whether an open load offered more than was served: less than 97 % came through."""
    offered, served = row.setup.request_rate_per_s, row.measured.get("requests_per_s")
    return bool(offered and served and served < 0.97 * offered)


def _observations(
    rows: Sequence[Measurement], conditions: Sequence[Condition], columns: Columns
) -> Observations:
    loads = columns.loads
    congested = loads.concurrency > UNCONGESTED * loads.capacity
    found: list[tuple[int, int, float, str]] = []
    for index, (row, condition) in enumerate(zip(rows, conditions, strict=True)):
        key = deployment_key(row, condition)
        static = row.setup.load in ("static_batch", "burst")
        for quantity, metric in (("tpot", "tpot"), ("e2e", "e2e"), ("ttft", "ttft")):
            value = row.seconds(f"{quantity}_mean") or row.seconds(f"{quantity}_p50")
            if value is None or (metric == "e2e" and not static):
                continue
            if metric == "e2e" and row.seconds("ttft_p50") is not None:
                continue  # the sum of two figures that are there already
            if metric == "ttft":
                if not static and (congested[index] or is_saturated(row)):
                    continue  # the queue multiplies any error of the step time
                metric = "prefill" if static else "ttft"
            found.append((index, METRICS.index(metric), float(np.log(value)), f"{key}|{metric}"))
    _, group = _coded([one[3] for one in found])
    metric_codes = np.array([one[1] for one in found], dtype=np.int64)
    noise = np.array([NOISE_LOG_SD[METRICS[code]] for code in metric_codes])
    return Observations(
        row=np.array([one[0] for one in found], dtype=np.int64),
        metric=metric_codes,
        log_measured=np.array([one[2] for one in found]),
        noise=noise,
        group=group,
    )


def start_of(problem: Problem) -> FloatArray:
    """The priors: defaults of the coefficients, no deviations."""
    theta = np.zeros(problem.size)
    defaults = Coefficients()
    theta[: len(COEFFICIENT_NAMES)] = [
        np.log(getattr(defaults, name)) for name in COEFFICIENT_NAMES
    ]
    return theta


def prior_sd(problem: Problem) -> FloatArray:
    """Standard deviation of each parameter's prior."""
    sd = [WIDE_PRIORS.get(name, FIRM_PRIORS.get(name, PRIOR_LOG_SD)) for name in COEFFICIENT_NAMES]
    for name in DEVIATING:
        sd += [WIDE_FAMILY_LOG_SD.get(name, FAMILY_LOG_SD)] * len(problem.families)
        sd += [ACCELERATOR_LOG_SD] * len(problem.accelerators)
    return np.array(sd + [WIDE_PRIORS["request_overhead_s"]] * len(problem.harnesses))


def deviation_log_sds() -> dict[str, float]:
    """1-sd of the deviations of an accelerator without rows, by coefficient: family and own."""
    of_family = {name: WIDE_FAMILY_LOG_SD.get(name, FAMILY_LOG_SD) for name in DEVIATING}
    return {name: round(math.hypot(sd, ACCELERATOR_LOG_SD), 4) for name, sd in of_family.items()}


def log_coefficients(problem: Problem, theta: FloatArray, unbounded: bool = False) -> FloatArray:
    """ln of every row's coefficients, shape (rows, coefficients), inside their bounds."""
    count = len(COEFFICIENT_NAMES)
    logs = theta[:count] + problem.offsets
    position = count
    for name in DEVIATING:
        column = COEFFICIENT_NAMES.index(name)
        logs[:, column] += theta[position : position + len(problem.families)][problem.family]
        position += len(problem.families)
        own = theta[position : position + len(problem.accelerators)]
        logs[:, column] += own[problem.accelerator]
        position += len(problem.accelerators)
    logs[:, COEFFICIENT_NAMES.index("request_overhead_s")] += theta[position:][problem.harness]
    return logs if unbounded else np.clip(logs, *_log_bounds())


def _log_bounds() -> tuple[FloatArray, FloatArray]:
    bounds = np.log([bounds_of(name) for name in COEFFICIENT_NAMES])
    return bounds[:, 0], bounds[:, 1]


def coefficients_of_rows(logs: FloatArray) -> Coefficients:
    """Columns with the names of coefficients, for the vectorised law."""
    columns = {name: np.exp(logs[:, j]) for j, name in enumerate(COEFFICIENT_NAMES)}
    return cast(Coefficients, SimpleNamespace(**columns))


def overhead_seconds(coefficients: Coefficients, input_tokens: FloatArray) -> FloatArray:
    """Time of one request outside the engine, with nothing ahead of it."""
    serial = frontend_seconds(coefficients, input_tokens)
    return np.asarray(coefficients.request_overhead_s + serial, dtype=np.float64)


def log_predictions(problem: Problem, logs: FloatArray) -> FloatArray:
    """ln of each metric for each row, shape (metrics, rows)."""
    coefficients = coefficients_of_rows(logs)
    engine: Expected = expected(problem.columns, coefficients)
    overhead = overhead_seconds(coefficients, problem.columns.loads.input_tokens)
    zero = np.zeros(len(logs))

    def corrected(metric: str, values: FloatArray) -> FloatArray:
        return values * np.exp(problem.correction.get(metric, zero))

    return np.log(
        np.stack(
            [
                corrected("tpot", engine.tpot_s),
                corrected("e2e", engine.e2e_s),
                corrected("prefill", engine.ttft_s),
                corrected("ttft", engine.ttft_s) * np.exp(_of_frontend(problem, logs)) + overhead,
            ]
        )
    )


def _of_frontend(problem: Problem, logs: FloatArray) -> FloatArray:
    """First-order change of ln(TTFT) since the last simulation, within ±LARGEST_SHIFT."""
    shift = np.zeros(len(logs))
    for name, slopes in problem.frontend_slopes.items():
        column = logs[:, COEFFICIENT_NAMES.index(name)]
        shift += slopes * (column - problem.frontend_origin[name])
    return np.clip(shift, -LARGEST_SHIFT, LARGEST_SHIFT)


def harness_overheads(problem: Problem, theta: FloatArray) -> dict[str, tuple[float, float]]:
    """Request overhead of each harness: seconds, and seconds an input token."""
    base = dict(zip(COEFFICIENT_NAMES, np.exp(theta[: len(COEFFICIENT_NAMES)]), strict=True))
    own = np.exp(theta[-len(problem.harnesses) :])
    return {
        name: (
            float(base["request_overhead_s"] * factor + base["frontend_request_s"]),
            float(base["frontend_token_s"]),
        )
        for name, factor in zip(problem.harnesses, own, strict=True)
    }
