"""The honest test: predict what was left out, and say by how much it missed.

`python -m advisor.calibrate.scoreboard` prints errors and interval coverage of the public rows with
each source, model and accelerator left out in turn, with nothing left out, and with one measured
point of the deployment known; and what each term of the law is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.conditions import Condition, condition_of
from advisor.calibrate.fit import Fit, fit_coefficients
from advisor.calibrate.forecast import Forecaster, deployment_identity
from advisor.calibrate.levels import learn_levels
from advisor.calibrate.measurements import Measurement, read_measurements
from advisor.calibrate.problem import METRICS, harness_overheads
from advisor.calibrate.publish import fit_file, refitted
from advisor.calibrate.score import (
    FIRST_TOKENS_OF_BATCHES,
    Pair,
    describe,
    headline,
    pairs_of,
)
from advisor.calibrate.solver import solve
from advisor.calibrate.spread import labels_of
from advisor.catalog import Catalog, load_catalog
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import FitFile

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEFT_OUT = ("source", "model", "accelerator")


def left_out_pairs(fit: Fit, file: FitFile, by: str, catalog: Catalog) -> list[Pair]:
    """Predict each label's rows with coefficients fitted without them, by simulation.

    The overhead of the harness is taken as known (it is a property of the client, not of the
    engine); spreads are those of the file.
    """
    names = np.array(labels_of(fit, by))
    pairs: list[Pair] = []
    for name in np.unique(names):
        out = names == name
        part = solve(fit.problem, start=fit.solution.theta, use=~out, iterations=8)
        held = refitted(fit, part, file, ~out)
        rows, conditions = _with_overhead(fit, np.flatnonzero(out), catalog)
        forecasts = Forecaster(held).forecast(conditions)
        pairs += pairs_of(rows, forecasts, catalog, fit=held)
    return pairs


def in_sample_pairs(fit: Fit, file: FitFile, catalog: Catalog) -> list[Pair]:
    """Predict the rows that were fitted."""
    rows, conditions = _with_overhead(fit, np.arange(len(fit.sample.rows)), catalog)
    return pairs_of(rows, Forecaster(file).forecast(conditions), catalog, fit=file)


def one_point_pairs(fit: Fit, file: FitFile, catalog: Catalog) -> list[Pair]:
    """Each model left out, then one row of each of its deployments made known.

    The row known is the middle one by load (users or batch); the deployment's other rows are
    predicted at the level it shows.
    """
    names = np.array(labels_of(fit, "model"))
    pairs: list[Pair] = []
    for name in np.unique(names):
        out = names == name
        part = solve(fit.problem, start=fit.solution.theta, use=~out, iterations=8)
        held = Forecaster(refitted(fit, part, file, ~out))
        rows, conditions = _with_overhead(fit, np.flatnonzero(out), catalog)
        for members in _deployments(rows, conditions):
            known = members[len(members) // 2]
            held.decode_levels.clear()
            held.first_token_levels.clear()
            learn_levels(held, [rows[known]], catalog)
            others = [index for index in members if index != known]
            found = held.forecast([conditions[index] for index in others])
            pairs += pairs_of([rows[i] for i in others], found, catalog, fit=held.fit)
    return pairs


def _deployments(rows: Sequence[Measurement], conditions: Sequence[Condition]) -> list[list[int]]:
    """Indices of deployments with three rows or more, each ordered by load."""
    groups: dict[str, list[int]] = {}
    for index, (row, condition) in enumerate(zip(rows, conditions, strict=True)):
        key = f"{row.source}|{row.setup.engine_version}|{deployment_identity(condition)}"
        groups.setdefault(key, []).append(index)

    def load(index: int) -> tuple[int, int]:
        setup = rows[index].setup
        return setup.batch_size or setup.concurrency or 0, index

    return [sorted(members, key=load) for members in groups.values() if len(members) >= 3]


def _with_overhead(
    fit: Fit, chosen: IntArray, catalog: Catalog
) -> tuple[list[Measurement], list[Condition]]:
    """Rows with their harness's overhead filled in, as a user knows their own."""
    overheads = harness_overheads(fit.problem, fit.solution.theta)
    rows, conditions = [], []
    for index in chosen:
        row = fit.sample.rows[index]
        if row.setup.load not in FIRST_TOKENS_OF_BATCHES:
            fixed, a_token = overheads[row.source]
            milliseconds = 1000 * (fixed + a_token * fit.sample.conditions[index].input_tokens)
            setup = row.setup.model_copy(update={"request_overhead_ms": milliseconds})
            row = row.model_copy(update={"setup": setup})
        rows.append(row)
        conditions.append(condition_of(row.setup, catalog))
    return rows, conditions


def ablations(fit: Fit) -> dict[str, dict[str, float]]:
    """Median error of each headline metric with one term of the law switched off and all others
    fitted again (closed form, in sample; fractions)."""
    found = {"full law": _medians(fit, fit.solution.residuals)}
    for label, values in WITHOUT.items():
        start = fit.solution.theta.copy()
        for name, value in values.items():
            start[COEFFICIENT_NAMES.index(name)] = np.log(value)
        part = solve(fit.problem, start=start, frozen=tuple(values), iterations=12, unbounded=True)
        found[label] = _medians(fit, part.residuals)
    return found


def _medians(fit: Fit, errors: FloatArray) -> dict[str, float]:
    seen = fit.problem.observations
    relative = np.abs(np.expm1(errors))
    return {
        metric: float(np.median(relative[seen.metric == code]))
        for code, metric in enumerate(METRICS)
    }


NONE = 1e-12
WITHOUT: dict[str, dict[str, float]] = {
    "host time a step": {
        "host_step_early_s": NONE,
        "host_step_v0_s": NONE,
        "host_step_v1_s": NONE,
    },
    "host time a sequence": {
        "host_sequence_early_s": NONE,
        "host_sequence_v0_s": NONE,
        "host_sequence_v1_s": NONE,
    },
    "kernel launches a layer": {
        "layer_s": NONE,
        "moe_layer_16bit_s": NONE,
        "moe_layer_8bit_s": NONE,
        "moe_layer_fp4_s": NONE,
        "moe_layer_weight_only_s": NONE,
        "latent_layer_s": NONE,
        "quantize_layer_s": NONE,
    },
    "engine releases (0.15, 0.18)": {"recent_layer_factor": 1.0, "latest_moe_factor": 1.0},
    "all-reduce latency": {"reduce_s": NONE, "reduce_hop_s": NONE},
    "all-reduce bytes": {"link_bandwidth": 1e6},
    "tensor-parallel workers": {
        "worker_early_s": NONE,
        "worker_v0_s": NONE,
        "worker_v1_s": NONE,
    },
    "cache reads": {"kv_bandwidth": 1e6, "kv_bandwidth_8bit": 1e6, "kv_bandwidth_v0": 1e6},
    "prefill attention": {"prefill_attention": 1e6},
    "uneven routing": {"routing_evenness": 1e6},
    "expert padding": {
        f"expert_padding_{kind}": NONE for kind in ("16bit", "8bit", "fp4", "weight_only")
    },
    "sampler": {"sampling_bandwidth": 1e6},
    "request overhead": {"request_overhead_s": NONE},
    "serial frontend": {"frontend_request_s": NONE, "frontend_token_s": NONE},
}


def main() -> None:
    """Print the scoreboard of the public rows."""
    catalog = load_catalog()
    fit = fit_coefficients(read_measurements(), catalog)
    file = fit_file(fit)
    boards = {by: left_out_pairs(fit, file, by, catalog) for by in LEFT_OUT}
    boards["nothing"] = in_sample_pairs(fit, file, catalog)
    boards["one point"] = one_point_pairs(fit, file, catalog)
    for left_out, pairs in boards.items():
        for kind, chosen in headline(pairs).items():
            print(f"{left_out:12s} {kind:20s} {describe(chosen)}")
    for term, errors in ablations(fit).items():
        line = "  ".join(f"{metric} {100 * value:.1f}" for metric, value in errors.items())
        print(f"without {term:30s} {line}")


if __name__ == "__main__":
    main()
