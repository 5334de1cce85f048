"""Trials out of their store: the report again, two side by side, every request as a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from advisor.documents import validate
from advisor.errors import InputError
from advisor.trial.records import ARMS, COLUMNS
from advisor.trial.reporting.comparing import UNITS
from advisor.trial.reporting.report import TrialReport
from advisor.trial.store import TrialStore

FORMATS = (".csv", ".parquet")


def report_of_trial(store: TrialStore, trial: str) -> TrialReport | None:
    """The report that a trial ended with; None: it has none.

    Raises:
        InputError: no such trial, or a report of another version.
    """
    store.summary(trial)
    document = store.document(trial, "report")
    return None if document is None else validate(TrialReport, document, what=f"trial {trial}")


def compared_trials(
    store: TrialStore, first: str, second: str
) -> Iterator[tuple[str, str, float | None, float | None]]:
    """(arm, measure, measured in the first, in the second) of every figure that either has.

    Raises:
        InputError: no such trial, or one without a report.
    """
    reports = []
    for trial in (first, second):
        report = report_of_trial(store, trial)
        if report is None:
            raise InputError(f"trial {trial} has no report to compare")
        reports.append(report)
    for arm in ARMS:
        found = [report.measurements.get(arm) for report in reports]
        for measure in UNITS:
            figures = [getattr(one, measure) if one is not None else None for one in found]
            if any(figures):
                one, other = (figure.value if figure else None for figure in figures)
                yield arm, measure, one, other


def export_requests(store: TrialStore, trial: str, path: Path) -> int:
    """Every request of a trial to a CSV or Parquet file, one row each; returns how many.

    Raises:
        InputError: no such trial, another format, or a file that cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a name ending in {' or '.join(FORMATS)} is expected")
    header = ("trial", "arm", *COLUMNS)
    rows = [
        (trial, arm.name, *astuple(record))
        for arm in store.summary(trial).arms
        for record in store.requests(trial, arm.name)
    ]
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix.lower() == ".csv":
            with partial.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows(rows)
        else:
            _write_parquet(partial, header, rows)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return len(rows)


def _write_parquet(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    parquet.write_table(
        pa.table({name: list(column) for name, column in zip(header, columns, strict=True)}), path
    )
