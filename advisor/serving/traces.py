"""Recorded loads: requests from a CSV or JSONL file of arrivals and lengths."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from advisor.errors import InputError
from advisor.serving.workload import Requests, cached_prefix

MAX_TRACE_BYTES = 2_000_000_000
"""Largest trace read; the Azure traces have under a megabyte an hour."""

ARRIVAL_COLUMNS = ("arrival_s", "arrived_at", "arrival_time", "timestamp", "time")
INPUT_COLUMNS = (
    "input_tokens",
    "input_toks",
    "contexttokens",
    "prompt_tokens",
    "num_prefill_tokens",
    "request tokens",
    "input_length",
)
OUTPUT_COLUMNS = (
    "output_tokens",
    "output_toks",
    "generatedtokens",
    "completion_tokens",
    "num_decode_tokens",
    "response tokens",
    "output_length",
)
"""Names that the public traces use, lower case: Azure LLM 2023 and 2024, BurstGPT, Mooncake,
Vidur, LLMServingSim."""

MILLISECOND_COLUMNS = frozenset({"input_length"})
"""Traces with this column (Mooncake) give their timestamps in milliseconds."""


def read_trace(
    path: str | Path, *, shared_prefix_tokens: int = 0, block_size: int = 16
) -> Requests:
    """Requests from a trace file, the first arriving at second 0.

    CSV with a header, or JSON lines, by the suffix (`.jsonl`, `.json`, `.ndjson`). Columns are
    found by the names above, without regard to case; arrivals are seconds or ISO 8601 date-times.
    Rows without output tokens (failed requests) are left out. The order of the file does not
    matter.

    Raises:
        InputError: no such file, a column missing, a value that cannot be read, no rows.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_TRACE_BYTES:
            raise InputError(f"trace {path.name}: more than {MAX_TRACE_BYTES:,} bytes")
        with path.open(encoding="utf-8-sig", newline="") as lines:
            is_json = path.suffix.lower() in (".jsonl", ".json", ".ndjson")
            rows = _parse(_json_rows(lines, path.name) if is_json else csv.DictReader(lines), path)
    except FileNotFoundError:
        raise InputError(f"trace: no file {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"trace {path.name}: cannot be read: {error}") from None
    table = np.array([row for row in rows if row[2] > 0], dtype=np.float64)
    if len(table) == 0:
        raise InputError(f"trace {path.name}: no requests with output tokens")
    table = table[np.argsort(table[:, 0], kind="stable")]
    inputs = np.maximum(table[:, 1], 1).astype(np.int64)
    inputs = np.maximum(inputs, shared_prefix_tokens + 1)
    return Requests(
        arrival_s=table[:, 0] - table[0, 0],
        input_tokens=inputs,
        output_tokens=table[:, 2].astype(np.int64),
        cached_tokens=cached_prefix(inputs, shared_prefix_tokens, block_size=block_size),
    )


def _json_rows(lines: Iterable[str], name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                raise InputError(f"trace {name}, line {number}: not JSON") from None
            if not isinstance(row, dict):
                raise InputError(f"trace {name}, line {number}: an object is expected")
            yield row


def _parse(rows: Iterable[dict[str, Any]], path: Path) -> list[tuple[float, float, float]]:
    """(arrival s, input tokens, output tokens) of each row."""
    parsed: list[tuple[float, float, float]] = []
    columns: tuple[str, str, str] | None = None
    scale = 1.0
    for number, row in enumerate(rows, 1):
        if columns is None:
            columns = _columns(list(row), path.name)
            scale = 1e-3 if columns[1].lower() in MILLISECOND_COLUMNS else 1.0
        values = []
        for column, read in zip(columns, (_seconds, _count, _count), strict=True):
            try:
                values.append(read(row[column]))
            except (KeyError, TypeError, ValueError):
                given = row.get(column)
                raise InputError(
                    f"trace {path.name}, row {number}: {column} = {given!r} cannot be read"
                ) from None
        parsed.append((values[0] * scale, values[1], values[2]))
    return parsed


def _columns(names: list[str], file: str) -> tuple[str, str, str]:
    """The columns of arrival, input and output among those of the file."""
    by_lower = {name.strip().lower(): name for name in names if name}
    found = []
    for known in (ARRIVAL_COLUMNS, INPUT_COLUMNS, OUTPUT_COLUMNS):
        match = next((by_lower[name] for name in known if name in by_lower), None)
        if match is None:
            raise InputError(
                f"trace {file}: no column {known[0]} (or {', '.join(known[1:])}); "
                f"it has {', '.join(names)}"
            )
        found.append(match)
    return found[0], found[1], found[2]


def _seconds(value: Any) -> float:
    """A time in seconds, or a date-time (up to 7 digits of a second, as Azure writes them)."""
    try:
        seconds = float(value)
    except ValueError:
        text = str(value).strip().replace("Z", "+00:00")
        head, dot, fraction = text.partition(".")
        digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))] if dot else ""
        zone = fraction[len(digits) :] if dot else ""
        moment = datetime.fromisoformat(head + zone)
        seconds = moment.timestamp() + (float(f"0.{digits}") if digits else 0.0)
    if not np.isfinite(seconds):
        raise ValueError(value)
    return seconds


def _count(value: Any) -> float:
    count = float(value)
    if not (np.isfinite(count) and 0 <= count < 1e9):
        raise ValueError(value)
    return count
