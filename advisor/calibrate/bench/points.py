"""Measured points: one JSON object a line, on disk before the next one is begun."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, ValidationError

from advisor.calibrate.bench.hardware import Machine
from advisor.errors import InputError
from advisor.records import Record

Kind = Literal[
    "start", "copy", "matmul", "products", "decode", "prefill", "mixed", "overhead", "load"
]
"""`start`: engine start-up. `copy`, `matmul`: the ceilings. `products`: the model's own, of `batch`
rows. `decode`, `prefill`, `mixed`: engine steps. `overhead`: what HTTP adds to a request. `load`:
an open loop, predicted before."""

STEPS: tuple[Kind, ...] = ("decode", "prefill", "mixed")


class Shape(Record):
    """What is measured; a shape that has a point is not measured again."""

    kind: Kind
    batch: NonNegativeInt = 0
    """Decoding sequences."""
    context_tokens: NonNegativeInt = 0
    """Prompt tokens of each of them."""
    prompt_tokens: NonNegativeInt = 0
    """Tokens prefilled; of a load, of each request."""
    output_tokens: NonNegativeInt = 0
    rate_per_s: PositiveFloat | None = None
    repeat: NonNegativeInt = 0

    @property
    def title(self) -> str:
        """In words, for progress lines."""
        parts = {
            "products": f"of {self.batch} tokens",
            "decode": f"{self.batch} × {self.context_tokens:,} tokens",
            "prefill": f"{self.prompt_tokens:,} tokens",
            "mixed": f"{self.prompt_tokens:,} tokens beside {self.batch} × {self.context_tokens:,}",
            "overhead": f"{self.prompt_tokens:,} tokens",
            "load": f"{self.rate_per_s or 0:.3g} requests/s of {self.prompt_tokens:,} + "
            f"{self.output_tokens:,} tokens",
        }
        again = f" (again, {self.repeat})" if self.repeat else ""
        return f"{self.kind} {parts.get(self.kind, '')}".strip() + again


class Times(Record):
    """Quantiles of repeated timings, seconds."""

    count: NonNegativeInt
    low_s: float
    """10th percentile."""
    quarter_s: float
    median_s: float
    high_s: float
    """90th percentile."""


class EngineFacts(Record):
    """What was measured: model, versions, settings; recorded with every point."""

    model: str
    model_digest: str
    """Of its config.json (SHA-256, first 12 digits)."""
    weights: Literal["random", "checkpoint", "unknown"] = "unknown"
    arguments: dict[str, Any] = Field(default_factory=dict)
    """vLLM settings that were asked for."""
    url: str | None = None
    """Of a server measured from outside, without credentials."""
    accelerator: str
    vllm_version: str = ""
    torch_version: str = ""
    device: str = ""
    threads: NonNegativeInt = 0
    dtype: str = ""
    max_num_seqs: int = Field(256, ge=1)
    max_num_batched_tokens: int = Field(2048, ge=1)
    max_model_len: int = Field(2048, ge=1)
    block_size: int = Field(16, ge=1)
    kv_tokens: NonNegativeInt = 0
    """Tokens that the KV cache holds; 0: not known."""
    async_scheduling: bool = False
    enforce_eager: bool = False
    prefix_caching: bool = False
    machine: Machine

    @property
    def key(self) -> str:
        """Equal where points may stand side by side: everything but the machine's state."""
        document = self.model_dump(exclude={"machine"})
        document["machine"] = self.machine.identity
        return json.dumps(document, sort_keys=True)


class Point(Record):
    """One measurement."""

    shape: Shape
    facts: EngineFacts
    at: str
    """When it ended, UTC."""
    wall: Times | None = None
    cpu: Times | None = None
    """Processor time of the engine's process; None where it is not known."""
    mean_context: NonNegativeFloat = 0.0
    """Tokens in the cache of a decoding sequence while it was timed, its own included."""
    value_s: NonNegativeFloat = 0.0
    """The figure that is fitted."""
    basis: Literal["processor time", "wall time", ""] = ""
    log_sd: NonNegativeFloat = 0.0
    """1-sd of its logarithm, from its repetitions and the machine's unrest."""
    slowdown: PositiveFloat = 1.0
    """What a fixed short decode took around it, over the fastest of the run."""
    notes: tuple[str, ...] = ()
    """What disturbed it: a neighbour, throttling."""
    spent_s: NonNegativeFloat = 0.0
    results: dict[str, float] = Field(default_factory=dict)
    """Further figures: ceilings, percentiles of a load (`ttft_p50_ms` …), server metrics."""
    predicted: dict[str, float] = Field(default_factory=dict)
    """Of a load: what was predicted before it ran."""
    series: dict[str, list[float]] = Field(default_factory=dict)
    """Raw seconds, by name."""


class PointFile:
    """The points of a run; each is appended, flushed and synced at once.

    A last line that an interruption cut off is passed over, and begun anew.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            InputError: the file cannot be read or written, or holds something else.
        """
        self.path = path
        self.points: list[Point] = list(_read(path))
        self._end_last_line()

    def __len__(self) -> int:
        return len(self.points)

    def of(self, facts: EngineFacts) -> list[Point]:
        """Points of the same engine on the same machine."""
        return [point for point in self.points if point.facts.key == facts.key]

    def has(self, shape: Shape, facts: EngineFacts) -> bool:
        """Whether a shape was measured already."""
        return any(point.shape == shape for point in self.of(facts))

    def append(self, point: Point) -> None:
        """Write a point.

        Raises:
            InputError: the disk is full or the file cannot be written; what is there stays.
        """
        line = point.model_dump_json(exclude_defaults=True) + "\n"
        try:
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                if self.path.exists():
                    os.truncate(self.path, size)
                raise
        except OSError as error:
            raise InputError(
                f"--output {self.path}: cannot be written: {error.strerror}; "
                f"its {len(self.points)} measured points are kept"
            ) from None
        self.points.append(point)

    def _end_last_line(self) -> None:
        """Cut a line that was begun and not ended, so that the next point stands alone."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                file.seek(0)
                text = file.read()
                if text and not text.endswith(b"\n"):
                    file.truncate(text.rfind(b"\n") + 1)
            if not text and self.path.is_file():
                self.path.unlink()  # it can be written, and no empty file stays behind
        except OSError as error:
            raise InputError(f"--output {self.path}: cannot be written: {error.strerror}") from None


def read_points(path: Path) -> list[Point]:
    """The points of a file.

    Raises:
        InputError: no such file, no point in it, or a line that is not a point.
    """
    if not path.is_file():
        raise InputError(f"points: no file {path}")
    points = list(_read(path))
    if not points:
        raise InputError(f"points: {path} holds no point")
    return points


def _read(path: Path) -> Iterator[Point]:
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except OSError as error:
        raise InputError(f"points: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"points: {path} is not UTF-8 text") from None
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not line.strip() or not line.endswith("\n"):
            continue
        try:
            yield Point.model_validate_json(line)
        except ValidationError:
            raise InputError(
                f"points: line {number} of {path} is not a point of `advisor calibrate run`"
            ) from None
