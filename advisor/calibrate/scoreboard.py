"""The honest test: predict what was left out, and say by how much it missed.

Each source, model and accelerator is left out in turn; nothing is; and one measured point of the
deployment is known. `python -m advisor.calibrate.publish` does all this and writes it down;
`python -m advisor.calibrate.scoreboard` prints what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.board import SPLITS, Board, accuracy_of, figures_of, load_board
from advisor.calibrate.conditions import Condition, condition_of
from advisor.calibrate.fit import Fit
from advisor.calibrate.fitted import refitted
from advisor.calibrate.forecast import Forecaster, deployment_identity
from advisor.calibrate.levels import learn_levels
from advisor.calibrate.measurements import Measurement
from advisor.calibrate.problem import harness_overheads
from advisor.calibrate.score import FIRST_TOKENS_OF_BATCHES, KINDS, Pair, pairs_of
from advisor.calibrate.solver import solve
from advisor.calibrate.spread import labels_of
from advisor.catalog import Catalog
from advisor.catalog.fits import FitFile

IntArray = NDArray[np.int64]


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

    def load(index: int) -> tuple[float, int]:
        setup = rows[index].setup
        return setup.batch_size or setup.concurrency or setup.request_rate_per_s or 0.0, index

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


def splits_of(
    fit: Fit, file: FitFile, catalog: Catalog, progress: Callable[[str], None] = lambda split: None
) -> dict[str, list[Pair]]:
    """Predictions under each split of `SPLITS`."""
    found = {}
    for split in SPLITS:
        progress(split)
        if split == "nothing":
            found[split] = in_sample_pairs(fit, file, catalog)
        elif split == "one_point":
            found[split] = one_point_pairs(fit, file, catalog)
        else:
            found[split] = left_out_pairs(fit, file, split, catalog)
    return found


def text_of(board: Board) -> str:
    """The scoreboard and the ablations, as lines to print."""
    lines = [
        "median/mean/90th percentile of |predicted/measured - 1|; bias: median signed error;",
        "inside: share within the 90 % interval; medians of the roofline and the affine baseline",
        "",
    ]
    for split, title in SPLITS.items():
        figures = figures_of(board, split)
        for kind in KINDS:
            one = accuracy_of(figures[figures.kind == kind])
            lines.append(
                f"{title:40s} {kind:18s} {100 * one.median:5.1f}/{100 * one.mean:.1f}/"
                f"{100 * one.p90:.1f} %  bias {100 * one.bias:+.1f} %  inside "
                f"{100 * one.coverage:.0f} %  roofline {100 * one.naive:.0f} %  affine "
                f"{100 * one.affine:.0f} %  n {one.figures:,}"
            )
    lines += ["", "median error without a term (in sample; a source left out), %"]
    for term in board.ablations:
        cells = "  ".join(
            f"{metric} {100 * value:5.1f}; {100 * term.source_left_out[metric]:5.1f}"
            for metric, value in term.in_sample.items()
        )
        lines.append(f"{term.term:34s} {cells}")
    return "\n".join(lines)


def main() -> None:
    """Print the published scoreboard."""
    print(text_of(load_board()))


if __name__ == "__main__":
    main()
