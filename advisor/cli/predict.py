"""`advisor predict`: a latency prediction for each row of a table of configurations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli.arguments import Verbs
from advisor.cli.output import say
from advisor.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION = """\
Predict each row of a CSV file in the measurement format (calibration/README.md): every
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Predict and write.

    Raises:
        InputError: the rows cannot be read, or the output cannot be written.
    """
    from advisor.predict import predict
    from advisor.serving.compilation import ensure_compiled

    ensure_compiled(say)
    table = predict(arguments.rows)
    _write(table, arguments.output)
    failed = int(table["error"].fillna("").astype(bool).sum())
    say(
        f"{len(table) - failed:,} of {len(table):,} rows predicted: {arguments.output}"
        + (f" ({failed:,} say in `error` why not)" if failed else "")
    )
    return 0


def _write(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        try:
            table.to_csv(partial, index=False)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written: {error.strerror or error}") from None
