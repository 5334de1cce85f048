"""What the readers of result files have in common: safe look-ups, and statistics of lists."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Columns = dict[str, Any]
"""Columns of the measurement format, configuration and measured."""

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def number(value: Any) -> float | None:
    """A finite positive number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None


def inside(document: Any, *path: str) -> Any:
    """The value under nested keys, None where one is missing."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def put(columns: Columns, name: str, value: Any, *, factor: float = 1.0) -> None:
    """Set a column where there is a figure for it."""
    figure = number(value)
    if figure is not None:
        columns[name] = round(figure * factor, 6)


def statistics_of(columns: Columns, quantity: str, seconds: Sequence[float]) -> None:
    """Mean and percentiles of a list of durations, as milliseconds."""
    values = np.asarray([one for one in seconds if number(one) is not None])
    if len(values) == 0:
        return
    columns[f"{quantity}_mean_ms"] = round(float(values.mean()) * 1000, 6)
    for name, level in _QUANTILES.items():
        columns[f"{quantity}_{name}_ms"] = round(float(np.quantile(values, level)) * 1000, 6)


def version_of(value: Any) -> str | None:
    """A vLLM version in a text, e.g. `0.19.0` of `vllm/vllm-openai:v0.19.0`."""

    found = re.search(r"(\d+\.\d+(?:\.\d+)?)", value) if isinstance(value, str) else None
    return found[1] if found else None
