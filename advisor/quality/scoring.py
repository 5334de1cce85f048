"""Scores of logged answers that state none, by comparison with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from advisor.errors import InputError
from advisor.quality.labels import LabelledLog, LoggedOutput, LoggedRow
from advisor.quality.metrics import METRICS
from advisor.quality.sql_execution import SqlRunner


def check_metric(name: str) -> None:
    """Whether a metric is known.

    Raises:
        InputError: it is not.
    """
    from advisor.task import Metric

    known = sorted({*METRICS, *get_args(Metric)})
    if name not in known:
        raise InputError(f"metric = '{name}': one of {', '.join(known)} is expected")


def scored(log: LabelledLog, metric: str, *, database: Path | None = None) -> LabelledLog:
    """The log with a score for every answer that has a text and an expected answer but no label.

    Raises:
        InputError: answers to be scored by a metric that needs more than their text.
    """
    if not any(_unscored(row, out) for row in log.rows for out in row.outputs.values()):
        return log
    if metric == "execution_match" and database is not None:
        with SqlRunner() as runner:
            return _with_scores(
                log, lambda answer, wanted: runner.matches(database, answer, str(wanted))
            )
    if metric not in METRICS:
        raise InputError(
            f"metric {metric}: the log must state 'correct' for each answer; "
            f"computed here: {', '.join(METRICS)}, and execution_match on a database"
        )
    return _with_scores(log, METRICS[metric])


def _unscored(row: LoggedRow, out: LoggedOutput) -> bool:
    return out.correct is None and out.text is not None and row.expected is not None


def _with_scores(log: LabelledLog, score: Callable[[str, Any], float]) -> LabelledLog:
    def scored_output(row: LoggedRow, out: LoggedOutput) -> LoggedOutput:
        if not _unscored(row, out):
            return out
        return replace(out, correct=score(out.text or "", row.expected))

    return LabelledLog(
        tuple(
            replace(row, outputs={k: scored_output(row, out) for k, out in row.outputs.items()})
            for row in log.rows
        )
    )
