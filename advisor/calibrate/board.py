"""The published scoreboard: predictions of what was left out, beside what was measured.

`python -m advisor.calibrate.publish` writes it together with the fits it is of; screens and
documents read it, and compute nothing but summaries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from advisor.calibrate.measurements import PUBLIC_TABLE
from advisor.calibrate.score import Pair, kind_of
from advisor.catalog.fits import DEFAULT_FITS
from advisor.catalog.locations import CALIBRATION
from advisor.documents import read_json, validate
from advisor.errors import InputError
from advisor.records import Record

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_BOARD = CALIBRATION / "fits" / "scoreboard.json"

SPLITS = {
    "source": "a source",
    "model": "a model",
    "accelerator": "an accelerator",
    "nothing": "nothing (in sample)",
    "one_point": "a model, one row known",
}
"""What was left out of the fit that predicts, by key of `Board.predictions`."""


class Coded(Record):
    """A column of repeated names."""

    names: tuple[str, ...]
    codes: tuple[int, ...]
    """Index into the names, one entry a row."""


class Predictions(Record):
    """Predictions of every figure under one split."""

    ratio: tuple[float | None, ...]
    """Predicted over measured; None for the row that was made known."""
    inside: tuple[int, ...]
    """1 where the measured value lay within the 90 % interval."""


class Ablation(Record):
    """Median errors of the law without one term, fractions, by metric (tpot, e2e, ttft)."""

    term: str
    in_sample: dict[str, float]
    source_left_out: dict[str, float]


class Board(Record):
    """calibration/fits/scoreboard.json."""

    as_of: str
    fits_sha256: str
    """Of the coefficients that it is the scoreboard of."""
    measurements_sha256: str
    """Of the table of measurements."""
    rows: dict[str, Coded]
    """`row_id`, source, model, accelerator and load of the rows that were predicted."""
    numbers: dict[str, tuple[float | None, ...]]
    """Batch or users, input tokens, mean context and tensor-parallel size of the same rows."""
    overhead_s: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Request overhead of each source's harness, taken as known: seconds, and a prompt token."""
    row: tuple[int, ...]
    """Which row each figure is of."""
    metric: Coded
    """Which latency each figure is, e.g. `tpot_mean`."""
    congested: tuple[int, ...]
    measured_ms: tuple[float, ...]
    naive: tuple[float, ...]
    """Datasheet roofline over measured."""
    affine: tuple[float, ...]
    """5.0 ms + 1.55 × roofline, over measured."""
    predictions: dict[str, Predictions]
    """By split (`SPLITS`)."""
    ablations: tuple[Ablation, ...] = Field(default=())
    """The full law first."""


_NAMES = ("row_id", "source", "model", "accelerator", "load")
_NUMBERS = ("batch", "input_tokens", "context_tokens", "tensor_parallel")


def board_of(
    splits: Mapping[str, Sequence[Pair]],
    ablations: Sequence[Ablation],
    *,
    overhead_s: Mapping[str, tuple[float, float]],
    as_of: str,
) -> Board:
    """The scoreboard of predictions; every split is of the figures of `nothing`, or of some.

    The digests are those of the shipped files as they lie there.
    """
    whole = list(splits["nothing"])
    first = {pair.row_id: pair for pair in reversed(whole)}
    row_ids = list(first)
    place = {row_id: index for index, row_id in enumerate(row_ids)}
    return Board(
        as_of=as_of,
        fits_sha256=digest_of(DEFAULT_FITS),
        measurements_sha256=digest_of(PUBLIC_TABLE),
        rows={
            name: _coded([str(getattr(first[row_id], name)) for row_id in row_ids])
            for name in _NAMES
        },
        numbers={
            name: tuple(_number(getattr(first[row_id], name)) for row_id in row_ids)
            for name in _NUMBERS
        },
        overhead_s={
            name: (float(f"{fixed:.6g}"), float(f"{a_token:.6g}"))
            for name, (fixed, a_token) in overhead_s.items()
        },
        row=tuple(place[pair.row_id] for pair in whole),
        metric=_coded([pair.metric for pair in whole]),
        congested=tuple(int(pair.congested) for pair in whole),
        measured_ms=tuple(float(f"{1000 * pair.measured_s:.5g}") for pair in whole),
        naive=tuple(_short(pair.naive_s / pair.measured_s) for pair in whole),
        affine=tuple(_short(pair.affine_s / pair.measured_s) for pair in whole),
        predictions={name: _predictions(whole, pairs) for name, pairs in splits.items()},
        ablations=tuple(ablations),
    )


def _predictions(whole: Sequence[Pair], pairs: Sequence[Pair]) -> Predictions:
    found = {(pair.row_id, pair.metric): pair for pair in pairs}
    matched = [found.get((pair.row_id, pair.metric)) for pair in whole]
    return Predictions(
        ratio=tuple(one and _short(one.predicted_s / one.measured_s) for one in matched),
        inside=tuple(
            int(one is not None and one.low_s <= one.measured_s <= one.high_s) for one in matched
        ),
    )


def _coded(values: Sequence[str]) -> Coded:
    names = tuple(sorted(set(values)))
    place = {name: index for index, name in enumerate(names)}
    return Coded(names=names, codes=tuple(place[value] for value in values))


def _number(value: float) -> float | None:
    return None if value != value else float(f"{value:.6g}")


def _short(ratio: float) -> float:
    return float(f"{ratio:.4g}")


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_board(board: Board, path: Path = DEFAULT_BOARD) -> None:
    """Write the scoreboard as JSON, compactly."""
    text = json.dumps(board.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


@lru_cache(maxsize=1)
def load_board() -> Board:
    """The shipped scoreboard.

    Raises:
        InputError: it is missing or broken.
    """
    if not DEFAULT_BOARD.is_file():
        raise InputError("no scoreboard: python -m advisor.calibrate.publish writes one")
    return validate(Board, read_json(DEFAULT_BOARD, what="scoreboard"), what="scoreboard")


def figures_of(board: Board, split: str) -> pd.DataFrame:
    """The figures of a split as a table, one row each.

    Columns: those of the rows, `metric`, `kind` (of the headline, or empty), `congested`,
    `measured_s`, `predicted_s`, `error` = predicted/measured − 1, `inside`, `naive_error`,
    `affine_error`.
    """
    import pandas as pd

    rows = pd.DataFrame(
        {
            name: pd.Categorical.from_codes(list(c.codes), list(c.names))
            for name, c in board.rows.items()
        }
        | {name: pd.Series(values, dtype=float) for name, values in board.numbers.items()}
    )
    table = rows.iloc[list(board.row)].reset_index(drop=True)
    predictions = board.predictions[split]
    table["metric"] = [board.metric.names[code] for code in board.metric.codes]
    table["congested"] = pd.Series(board.congested, dtype=bool)
    table["kind"] = [
        kind_of(str(one.metric), str(one.load), bool(one.congested))
        for one in table[["metric", "load", "congested"]].itertuples()
    ]
    table["measured_s"] = pd.Series(board.measured_ms, dtype=float) / 1000
    ratio = pd.Series(predictions.ratio, dtype=float)
    table["predicted_s"] = ratio * table.measured_s
    table["error"] = ratio - 1
    table["inside"] = pd.Series(predictions.inside, dtype=bool)
    table["naive_error"] = pd.Series(board.naive, dtype=float) - 1
    table["affine_error"] = pd.Series(board.affine, dtype=float) - 1
    return table[ratio.notna()].reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far some predictions were off; fractions."""

    figures: int
    median: float
    """Of |predicted/measured − 1|, as are mean and p90."""
    mean: float
    p90: float
    bias: float
    """Median of predicted/measured − 1."""
    coverage: float
    """Share of measured values within their 90 % intervals."""
    naive: float
    """Median error of the datasheet roofline."""
    affine: float
    """Median error of 5.0 ms + 1.55 × roofline."""


def accuracy_of(figures: pd.DataFrame) -> Accuracy:
    """Summary of some rows of `figures_of`, at least one."""
    size = figures.error.abs()
    return Accuracy(
        figures=len(figures),
        median=float(size.median()),
        mean=float(size.mean()),
        p90=float(size.quantile(0.9)),
        bias=float(figures.error.median()),
        coverage=float(figures.inside.mean()),
        naive=float(figures.naive_error.abs().median()),
        affine=float(figures.affine_error.abs().median()),
    )
