"""Any known result file in, measurements out."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.calibrate.importers import aiperf, guidellm, inference_perf, vllm_bench
from advisor.calibrate.importers.figures import Columns
from advisor.calibrate.measurements import MEASURED_COLUMNS, Measurement, Setup, parse_measurement
from advisor.documents import read_text
from advisor.errors import InputError

MAX_FILE_BYTES = 512 * 2**20
"""Detailed results of long runs hold every token's time."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of result file."""

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], list[Columns]]


FORMATS: tuple[Format, ...] = (
    Format("vllm bench serve", vllm_bench.is_serve, vllm_bench.read_serve),
    Format("vllm bench latency", vllm_bench.is_latency, vllm_bench.read_latency),
    Format("vllm bench throughput", vllm_bench.is_throughput, vllm_bench.read_throughput),
    Format("GuideLLM", guidellm.is_report, guidellm.read_report),
    Format("inference-perf", inference_perf.is_stage, inference_perf.read_stage),
    Format("AIPerf", aiperf.is_export, aiperf.read_export),
)


def import_results(
    path: Path, *, setup: Mapping[str, Any] | None = None, source: str | None = None
) -> list[Measurement]:
    """Measurements of a result file (JSON, or one JSON a line).

    Args:
        path: a file of any of FORMATS.
        setup: configuration columns that the file does not hold (`accelerator`, `weights_dtype`,
            `tensor_parallel`, `engine_version` …); they overrule what it does hold.
        source: name of the run in the table; the file's name by default.

    Raises:
        InputError: not such a file, an incomplete run, or a configuration column is missing.
    """
    given = {key: value for key, value in (setup or {}).items() if value is not None}
    unknown = sorted(set(given) - set(Setup.model_fields))
    if unknown:
        raise InputError(f"setup: unknown column {', '.join(unknown)}")
    rows: list[Measurement] = []
    for document in _documents(path):
        found = next((one for one in FORMATS if one.recognises(document)), None)
        if found is None:
            names = ", ".join(one.name for one in FORMATS)
            raise InputError(f"{path}: not a result file of {names}")
        for columns in found.read(document):
            identity = f"{path.stem}-{len(rows) + 1}"
            row = {"row_id": identity, **columns, **given, "source": source or path.stem}
            missing = [
                name
                for name, field in Setup.model_fields.items()
                if field.is_required() and row.get(name) is None
            ]
            if missing:
                raise InputError(
                    f"{path}: {found.name} does not record {', '.join(missing)}: state it"
                )
            rows.append(parse_measurement(row))
    if not rows:
        raise InputError(f"{path}: no successful request in it")
    return rows


def _documents(path: Path) -> list[Mapping[str, Any]]:
    text = read_text(path, what="results", max_bytes=MAX_FILE_BYTES)
    try:
        values: Sequence[Any] = [json.loads(text)]
    except (json.JSONDecodeError, RecursionError):
        try:
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path}: neither JSON nor one JSON a line: {error}") from None
    documents = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    if not documents or not all(isinstance(one, Mapping) for one in documents):
        raise InputError(f"{path}: a JSON object (or several) was expected")
    return list(documents)


def write_measurements(rows: Sequence[Measurement], path: Path) -> None:
    """Write rows as a CSV file in the measurement format, whole or not at all."""
    columns = [*Setup.model_fields, "source", *MEASURED_COLUMNS, "caveat", "notes"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        configuration = {
            name: ("on" if value else "off") if isinstance(value, bool) else value
            for name, value in row.setup.model_dump().items()
            if value is not None
        }
        rest = {"source": row.source, "caveat": row.caveat, "notes": row.notes}
        writer.writerow(configuration | rest | row.measured)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text.getvalue(), encoding="utf-8")
    partial.replace(path)
