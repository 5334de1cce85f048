"""The measurement format: one row a measured condition, as in calibration/measurements/*.csv."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from advisor.catalog.locations import CALIBRATION
from advisor.catalog.models import Precision
from advisor.documents import validate
from advisor.errors import InputError
from advisor.records import Record

PUBLIC_TABLE = CALIBRATION / "measurements" / "public.csv"

Load = Literal[
    "static_batch", "steady_batch", "closed_loop", "poisson", "constant_rate", "gamma", "burst"
]

STATISTICS = ("mean", "p50", "p95", "p99")
METRICS: tuple[str, ...] = tuple(
    f"{quantity}_{statistic}"
    for quantity in ("ttft", "tpot", "itl", "e2e")
    for statistic in STATISTICS
)
"""Latency metrics, without their unit; columns of a file carry `_ms`."""

MEASURED_COLUMNS = (*(f"{name}_ms" for name in METRICS), "output_tokens_per_s", "requests_per_s")


FORMAT_NAMES: dict[str, Precision | None] = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "fp8_w8a8": "fp8",
    "w8a8": "int8",
    "w8a16": "int8",
    "w4a16": "int4",
    "awq": "int4",
    "gptq": "int4",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "auto": None,
}
"""Other names of number formats, as engines and their flags spell them."""

FORMAT_PARTS: dict[str, Precision] = {
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "fp4": "fp4",
    "fp8": "fp8",
    "w8a8": "int8",
    "int8": "int8",
    "8bit": "int8",
    "w4a16": "int4",
    "int4": "int4",
    "4bit": "int4",
    "awq": "int4",
    "gptq": "int4",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "float16": "fp16",
}
"""Parts of longer names of formats (`awq_marlin`, `w8a8-fp8`), the most telling first."""

SWITCHES = dict.fromkeys(("on", "true", "1", "1.0", "yes", "y", "t", "enabled"), True) | (
    dict.fromkeys(("off", "false", "0", "0.0", "no", "n", "f", "disabled"), False)
)
"""How people write that a setting is on or off."""

UNSET_BY_ZERO = ("n_accelerators", "tensor_parallel", "replicas")
"""Counts whose 0 says no more than a blank."""


class Setup(Record):
    """The configuration columns of a row: what was run, and under which load.

    None is a blank: the source does not say. What a person measured is not here, so that nothing
    that predicts from a Setup can have seen the answer.
    """

    row_id: str = ""
    engine: str = "vllm"
    engine_version: str | None = None
    model: str
    weights_dtype: Precision | None = None
    kv_dtype: Precision | None = None
    accelerator: str
    n_accelerators: PositiveInt | None = None
    tensor_parallel: PositiveInt | None = None
    pipeline_parallel: NonNegativeInt | None = None
    data_parallel: NonNegativeInt | None = None
    expert_parallel: NonNegativeInt | None = None
    """0 and 1 both mean none."""
    replicas: PositiveInt | None = None
    load: Load
    batch_size: PositiveInt | None = None
    concurrency: PositiveInt | None = None
    request_rate_per_s: PositiveFloat | None = None
    burstiness: PositiveFloat | None = None
    input_tokens: float = Field(ge=1)
    """Mean prompt length (nominal where `length_spread` says so)."""
    output_tokens: float = Field(ge=1)
    length_spread: str | None = None
    """`fixed`, `uniform[0.8,1.0]x`, `sharegpt`, `distribution`."""
    shared_prefix_tokens: NonNegativeFloat | None = None
    prefix_caching: bool | None = None
    chunked_prefill: bool | None = None
    max_num_seqs: PositiveInt | None = None
    max_num_batched_tokens: PositiveInt | None = None
    requests: PositiveInt | None = None
    request_overhead_ms: NonNegativeFloat | None = None
    """Client, HTTP and tokenising in TTFT and E2E, where known."""


class Measurement(Record):
    """A row: its setup, and the figures measured under it (milliseconds, tokens a second)."""

    setup: Setup
    source: str
    measured: dict[str, float]
    """By column name, e.g. `tpot_mean_ms`."""
    caveat: str = ""
    notes: str = ""

    def seconds(self, metric: str) -> float | None:
        """A latency metric in seconds, None where the row does not have it."""
        value = self.measured.get(f"{metric}_ms")
        return None if value is None else value / 1000


def parse_setup(row: Mapping[str, Any]) -> Setup:
    """The configuration of a raw row; every other column is ignored.

    Raises:
        InputError: names the first wrong column, its value and what is accepted.
    """
    values = {
        name: value for name in Setup.model_fields if (value := _cell(row.get(name))) is not None
    }
    for name in ("weights_dtype", "kv_dtype"):
        if isinstance(values.get(name), str):
            values[name] = _format(values[name].lower())
    if isinstance(values.get("load"), str):
        values["load"] = re.sub(r"[\s-]+", "_", values["load"].lower())
    if isinstance(values.get("engine_version"), str):
        values["engine_version"] = re.sub(r"(?i)^vllm[\s_:=-]*", "", values["engine_version"])
    if str(values.get("expert_parallel")).lower() in ("true", "false"):
        values["expert_parallel"] = _expert_parallel(values)
    for name in ("prefix_caching", "chunked_prefill"):
        if isinstance(values.get(name), str):
            values[name] = _switch(name, values[name])
    for name, field in Setup.model_fields.items():
        if name in values and "int" in str(field.annotation).lower():
            values[name] = _whole(values[name])
        elif name in values and "str" in str(field.annotation):
            values[name] = str(values[name])
    values = {k: v for k, v in values.items() if k not in UNSET_BY_ZERO or v != 0}
    identity = values.get("row_id", "")
    return validate(Setup, values, what=f"row {identity}".strip())


def parse_measurement(row: Mapping[str, Any]) -> Measurement:
    """A raw row with its measured columns.

    Raises:
        InputError: a wrong configuration, or a measured value that is not a positive number.
    """
    setup = parse_setup(row)
    measured = {}
    for column in MEASURED_COLUMNS:
        cell = _cell(row.get(column))
        if cell is None:
            continue
        try:
            value = float(cell)
        except (TypeError, ValueError):
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise InputError(
                f"row {setup.row_id}: {column} = {cell!r}: a positive number is expected"
            )
        measured[column] = value
    return Measurement(
        setup=setup,
        source=str(_cell(row.get("source")) or ""),
        measured=measured,
        caveat=str(_cell(row.get("caveat")) or ""),
        notes=str(_cell(row.get("notes")) or ""),
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """The raw rows of a CSV file in the measurement format.

    Raises:
        InputError: unreadable, empty, or without the columns that every row needs.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            missing = [
                name
                for name, field in Setup.model_fields.items()
                if field.is_required() and name not in columns
            ]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)}")
            return [{key: value for key, value in row.items() if key} for row in reader]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from None


def read_measurements(paths: Iterable[Path] = (PUBLIC_TABLE,)) -> list[Measurement]:
    """Every row of some tables.

    Raises:
        InputError: as `read_rows` and `parse_measurement`; the first wrong row ends the reading.
    """
    return [parse_measurement(row) for path in paths for row in read_rows(path)]


def _cell(value: Any) -> Any:
    """A cell's content, None for a blank one (also pandas' NaN)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        value = value.strip()
        return value or None
    return value


def _format(stated: str) -> str | None:
    """A number format by any of its names; an unknown one as it is, to be refused by name."""
    if stated in FORMAT_NAMES:
        return FORMAT_NAMES[stated]
    parts = re.split(r"[^a-z0-9]+", stated)
    return next((FORMAT_PARTS[part] for part in FORMAT_PARTS if part in parts), stated)


def _expert_parallel(values: Mapping[str, Any]) -> int:
    """Groups that vLLM's switch means: on, one for every tensor- and data-parallel rank."""
    if str(values["expert_parallel"]).lower() == "false":
        return 1
    sizes = [_whole(values.get(name, 1)) for name in ("tensor_parallel", "data_parallel")]
    return math.prod(size if isinstance(size, int) and size > 0 else 1 for size in sizes)


def _whole(value: Any) -> Any:
    """`8.0` from a spreadsheet is 8; anything else stays as it is, to be refused by name."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return int(number) if number.is_integer() else value


def _switch(name: str, text: str) -> bool:
    state = SWITCHES.get(text.lower())
    if state is None:
        raise InputError(f"{name} = '{text}': on or off is expected")
    return state
