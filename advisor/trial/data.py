"""The rows of a trial: requests, and what is expected of their answers where that is known."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from advisor.documents import read_text
from advisor.errors import InputError
from advisor.quality.gates import Gates
from advisor.task import TaskProfile

MAX_DATA_BYTES = 200_000_000
MAX_ROWS = 200_000

FEW_ROWS = 100
"""Distinct labelled rows below which a trial can say little of quality."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One request."""

    id: str
    messages: tuple[dict[str, Any], ...]
    """Chat messages."""
    expected: Any = None
    """The right answer; None: not known."""
    risk: str | None = None
    type: str | None = None

    @property
    def text(self) -> str:
        """The last message, as it may be shown."""
        content = self.messages[-1].get("content")
        return content if isinstance(content, str) else json.dumps(content)


@dataclass(frozen=True)
class DataFinding:
    """One thing about the rows of a trial."""

    severity: Literal["good", "note", "problem"]
    text: str


def read_rows(path: Path) -> tuple[TrialRow, ...]:
    """Rows of a JSONL or CSV file: `input`, optionally `id`, `expected`, `risk`, `type`.

    `input` is text or, in JSONL, a list of chat messages. Other keys, such as logged outputs, are
    left alone.

    Raises:
        InputError: one line naming the file, the line and what was expected there.
    """
    text = read_text(path, what="trial data", max_bytes=MAX_DATA_BYTES)
    lines = _csv_lines(text) if path.suffix.lower() == ".csv" else _json_lines(text)
    rows = []
    while True:
        try:
            number, value = next(lines)
            rows.append(_row(value, number))
        except StopIteration:
            break
        except InputError as error:
            raise InputError(f"trial data {path.name}{error}") from None
        if len(rows) > MAX_ROWS:
            raise InputError(f"trial data {path.name}: more than {MAX_ROWS:,} rows")
    if not rows:
        raise InputError(f"trial data {path.name}: no row")
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"trial data {path.name}: id '{twice[0]}' is given twice")
    return tuple(rows)


def check_rows(rows: Sequence[TrialRow], task: TaskProfile) -> tuple[DataFinding, ...]:
    """What to know of the rows before they are sent; never empty."""
    return tuple(_findings(rows, task))


def split_rows(
    rows: Sequence[TrialRow], *, calibration_share: float, seed: int
) -> tuple[tuple[TrialRow, ...], tuple[TrialRow, ...]]:
    """Rows to calibrate with, and the others to try: no row is in both.

    Raises:
        InputError: too few rows for two parts.
    """
    if len(rows) < 2:
        raise InputError(f"trial data: at least 2 rows are expected, not {len(rows)}")
    order = np.random.default_rng(seed).permutation(len(rows))
    count = min(max(round(calibration_share * len(rows)), 1), len(rows) - 1)
    return tuple(rows[i] for i in order[:count]), tuple(rows[i] for i in order[count:])


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f" line {number}: not JSON") from None
        if not isinstance(value, dict):
            raise InputError(f" line {number}: an object was expected")
        yield number, value


def _csv_lines(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        if "input" not in (reader.fieldnames or ()):
            raise InputError(": a column 'input' is missing")
        for value in reader:
            yield reader.line_num, {key: cell for key, cell in value.items() if cell}
    except csv.Error as error:
        raise InputError(f" line {reader.line_num}: {error}") from None


def _row(value: dict[str, Any], number: int) -> TrialRow:
    given = value.get("input")
    if isinstance(given, str):
        messages: tuple[dict[str, Any], ...] = ({"role": "user", "content": given},)
    elif isinstance(given, list) and given and all(_is_message(one) for one in given):
        messages = tuple(given)
    else:
        raise InputError(f" line {number}: input must be a text or a list of chat messages")
    for name in ("risk", "type"):
        if not isinstance(value.get(name, ""), str | None):
            raise InputError(f" line {number}: {name} must be a text")
    return TrialRow(
        id=str(value.get("id", number)),
        messages=messages,
        expected=value.get("expected"),
        risk=value.get("risk"),
        type=value.get("type"),
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and "content" in value


def _findings(rows: Sequence[TrialRow], task: TaskProfile) -> Iterator[DataFinding]:
    labelled = [row for row in rows if row.expected is not None]
    yield DataFinding("good", f"{len(rows):,} rows, {len(labelled):,} with what is expected")
    if not labelled:
        yield DataFinding(
            "note",
            "no row says what is expected: latency, escalation and agreement are measured, "
            "quality is not",
        )
    elif len(labelled) < FEW_ROWS:
        yield DataFinding("note", f"only {len(labelled):,} labelled rows: quality stays uncertain")
    copies = len(rows) - len({json.dumps(row.messages) for row in rows})
    if copies:
        yield DataFinding(
            "note", f"{copies:,} rows repeat another request: the server may have it cached"
        )
    yield from _expected_findings(labelled, task)


def _expected_findings(labelled: list[TrialRow], task: TaskProfile) -> Iterator[DataFinding]:
    """Whether what is expected would itself pass the gates."""
    gates = Gates.of_task(task.task)
    for row in labelled[:1000]:
        text = row.expected if isinstance(row.expected, str) else json.dumps(row.expected)
        report = gates.check(text)
        if not report.passed:
            yield DataFinding(
                "problem",
                f"row {row.id}: what is expected fails the task's own gate "
                f"({report.failures[0].detail})",
            )
            return


def cycled(rows: Sequence[TrialRow], count: int) -> list[TrialRow]:
    """So many rows, from the first again after the last."""
    return [rows[place % len(rows)] for place in range(count)]
