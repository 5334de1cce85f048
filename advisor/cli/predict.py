"""`advisor predict`: a latency prediction for each row of a table of configurations."""

from __future__ import annotations

import argparse
from pathlib import Path

from advisor.cli.arguments import Verbs
from advisor.cli.output import say, writing

DESCRIPTION = """\
Predict each row of a CSV file such as calibration/measurements/public.csv: every
metric as X_ms with a 90 % interval X_ms_lo to X_ms_hi. Only the configuration columns
are read; what was measured is not. A row that cannot be predicted says why in `error`."""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "predict",
        help="latency predictions for a table of configurations",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", type=Path, metavar="ROWS.csv", help="one configuration a row")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="OUT.csv", help="file to write"
    )
    parser.add_argument(
        "--own",
        type=Path,
        metavar="MEASURED.csv",
        help="your own measurements: their deployments are predicted at the level they show",
    )
    parser.add_argument(
        "--fits",
        type=Path,
        metavar="FITS.json",
        help="coefficients from `calibrate fit` or `calibrate run`; rows of a run that lie beside "
        "its coefficients count as --own",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Predict and write.

    Raises:
        InputError: a file cannot be read, or the output cannot be written.
    """
    from advisor.calibrate.measurements import read_measurements
    from advisor.predict import predict
    from advisor.serving.compilation import ensure_compiled

    ensure_compiled(say)
    own = read_measurements((arguments.own,)) if arguments.own else ()
    table = predict(arguments.rows, own=own, fits=arguments.fits)
    with writing(arguments.output, option="--output") as file:
        table.to_csv(file, index=False)
    failed = int(table["error"].fillna("").astype(bool).sum())
    say(
        f"{len(table) - failed:,} of {len(table):,} rows predicted: {arguments.output}"
        + (f" ({failed:,} say in `error` why not)" if failed else "")
    )
    return 0
