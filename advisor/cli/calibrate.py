"""`advisor calibrate`: coefficients from measurements, and how well they predict them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli import calibrate_run
from advisor.cli.arguments import Verbs
from advisor.cli.output import print_text, say, table, writing
from advisor.errors import InputError
from advisor.figures import percent

if TYPE_CHECKING:
    import pandas as pd

    from advisor.calibrate.measurements import Measurement
    from advisor.calibrate.score import Pair
    from advisor.catalog.fits import FitFile

DESCRIPTION = """\
Read other tools' result files into measurements, fit the latency model's coefficients to
measurements, and score its predictions on them. Tables are CSV files in the measurement
format, such as calibration/measurements/public.csv."""


def add_to(verbs: Verbs) -> None:
    """Add the verb and its own verbs."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = verbs.add_parser(
        "calibrate",
        help="coefficients from measurements, and their accuracy",
        description=DESCRIPTION,
        formatter_class=layout,
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    calibrate_run.add_to(steps)
    read = steps.add_parser(
        "import",
        help="rows from result files of load tools",
        description="Read JSON results of vllm bench (serve, latency, throughput), GuideLLM, "
        "inference-perf and AIPerf into one table.",
    )
    read.add_argument("results", type=Path, nargs="+", metavar="RESULT.json")
    read.add_argument("--output", type=Path, required=True, metavar="ROWS.csv")
    read.add_argument(
        "--set",
        dest="columns",
        metavar="COLUMN=VALUE",
        action="append",
        default=[],
        help="what the files do not say, e.g. accelerator=H100-SXM; may be repeated",
    )
    read.add_argument("--source", metavar="NAME", help="name of the runs (each file's own)")
    read.set_defaults(run=run_import)
    fit = steps.add_parser("fit", help="fit coefficients to the public rows and your own")
    fit.add_argument("tables", type=Path, nargs="*", metavar="ROWS.csv", help="your own rows")
    fit.add_argument("--output", type=Path, required=True, metavar="FITS.json")
    fit.add_argument("--without-public", action="store_true", help="fit your own rows alone")
    fit.set_defaults(run=run_fit)
    score = steps.add_parser("score", help="errors of the predictions of measured rows")
    score.add_argument("tables", type=Path, nargs="*", metavar="ROWS.csv", help="the public rows")
    score.add_argument("--fits", type=Path, metavar="FITS.json", help="the shipped coefficients")
    score.add_argument(
        "--by", default="metric", metavar="COLUMNS", help="metric, load, accelerator, model …"
    )
    score.add_argument("--output", type=Path, metavar="OUT.csv", help="also write the table")
    score.set_defaults(run=run_score)


def run_import(arguments: argparse.Namespace) -> int:
    """Read result files and write their rows.

    Raises:
        InputError: a file of no known format, a column that nobody states, or the output cannot be
            written.
    """
    from advisor.calibrate.importers import import_results, write_measurements

    setup = dict(_column(setting) for setting in arguments.columns)
    rows = [
        row
        for path in arguments.results
        for row in import_results(path, setup=setup, source=arguments.source)
    ]
    try:
        write_measurements(rows, arguments.output)
    except OSError as error:
        raise _unwritable(arguments.output, error) from None
    say(f"{len(rows):,} rows written: {arguments.output}")
    return 0


def _column(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {setting}: column=value is expected")
    return name.strip(), value.strip()


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"--output {path}: cannot be written: {error.strerror}")


def run_fit(arguments: argparse.Namespace) -> int:
    """Fit and write.

    Raises:
        InputError: a table cannot be read, has no usable rows, or the output cannot be written.
    """
    from advisor.calibrate.fit import fit_coefficients
    from advisor.calibrate.fitted import fit_file, write_fit
    from advisor.calibrate.measurements import PUBLIC_TABLE, read_measurements
    from advisor.catalog import load_catalog
    from advisor.serving.compilation import ensure_compiled

    public = () if arguments.without_public else (PUBLIC_TABLE,)
    rows = read_measurements((*public, *arguments.tables))
    if not rows:
        raise InputError("calibrate fit: no rows; name a table, or leave out --without-public")
    ensure_compiled(say)
    fit = fit_coefficients(rows, load_catalog())
    for reason, count in fit.sample.left_out.items():
        say(f"{count:,} rows left out: {reason}")
    try:
        write_fit(fit_file(fit), arguments.output)
    except OSError as error:
        raise _unwritable(arguments.output, error) from None
    say(f"{len(fit.sample.rows):,} rows fitted: {arguments.output}")
    return 0


def run_score(arguments: argparse.Namespace) -> int:
    """Predict measured rows and print the errors.

    Raises:
        InputError: a table or the fits cannot be read, or a grouping that does not exist.
    """
    from advisor.calibrate.measurements import PUBLIC_TABLE, read_measurements
    from advisor.calibrate.score import GROUPINGS, summarize
    from advisor.catalog.fits import load_fits
    from advisor.serving.compilation import ensure_compiled

    by = tuple(arguments.by.split(","))
    if unknown := [name for name in by if name not in GROUPINGS]:
        raise InputError(f"--by {unknown[0]}: one of {', '.join(GROUPINGS)} is expected")
    rows = read_measurements(tuple(arguments.tables) or (PUBLIC_TABLE,))
    ensure_compiled(say)
    found = summarize(_pairs(rows, load_fits(arguments.fits)), by)
    if found.empty:
        raise InputError("calibrate score: no row has a measured latency that can be predicted")
    if arguments.output:
        with writing(arguments.output, option="--output") as file:
            found.to_csv(file, index=False)
    print_text(_text(found, by))
    return 0


def _pairs(rows: Sequence[Measurement], fits: FitFile) -> Sequence[Pair]:
    from advisor.calibrate.own import score_rows
    from advisor.catalog import load_catalog

    scored = score_rows(rows, fits, load_catalog())
    for reason, count in scored.left_out.items():
        say(f"{count:,} rows left out: {reason}")
    return scored.pairs


def _text(found: pd.DataFrame, by: Sequence[str]) -> str:
    head = (*by, "figures", "median", "mean", "p90", "bias", "inside", "roofline")
    rows = [
        (
            *(str(row[name]) for name in by),
            f"{row['figures']:,.0f}",
            *(percent(row[name]) for name in ("median_error", "mean_error", "p90_error", "bias")),
            percent(row["coverage"]),
            percent(row["naive_median_error"]),
        )
        for row in found.to_dict("records")
    ]
    return "\n".join(
        [
            table([head, *rows], left=len(by)),
            "",
            "errors: |predicted/measured - 1|; bias: median of predicted/measured - 1;",
            "inside: measured within the 90 % interval; roofline: median error of the datasheet",
        ]
    )
