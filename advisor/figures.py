"""Numbers as people read them: `95 %`, `80 ms`, `11.6 s`, `$5,567`; the same on every surface."""

from __future__ import annotations

import math
from collections.abc import Callable

NONE = "–"
"""Stands where there is no figure."""


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and thousands separators."""
    if not math.isfinite(value):
        return "∞"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def percent(fraction: float | None, decimals: int | None = None) -> str:
    """A fraction as percent, with a digit more near the ends: 0.95 is `95 %`, 0.9928 `99.28 %`."""
    if fraction is None:
        return NONE
    value = 100 * fraction
    if decimals is not None:
        return f"{value:,.{decimals}f} %"
    near_end = min(abs(value), abs(100 - value))
    decimals = 1 if near_end >= 1 or near_end == 0 else 2
    return f"{value:,.{decimals}f}".rstrip("0").rstrip(".") + " %"


def likelihood(probability: float) -> str:
    """A probability, never shown as certain: `57 %`, `over 99 %`."""
    if probability < 0.01:
        return "under 1 %"
    return "over 99 %" if probability > 0.99 else percent(probability, 0)


def milliseconds(value_ms: float | None) -> str:
    """A duration given in milliseconds: `0.42 ms`, `80 ms`, `1.25 s`, `3.1 min`."""
    if value_ms is None:
        return NONE
    if math.isinf(value_ms):
        return "overloaded"
    if value_ms >= 120_000:
        return f"{_trimmed(value_ms / 60_000)} min"
    if value_ms >= 999.5:
        return f"{_trimmed(value_ms / 1000)} s"
    return f"{significant(value_ms, 3 if value_ms >= 100 else 2)} ms"


def seconds(value_s: float) -> str:
    """A duration given in seconds, in the unit that suits it: `310 µs`, `12 ms`, `1.25 s`."""
    if value_s < 1e-3:
        return f"{significant(value_s * 1e6, 2)} µs"
    return milliseconds(value_s * 1000)


def in_milliseconds(value_ms: float | None) -> str:
    """A duration without its unit, for a column that names it."""
    if value_ms is None:
        return NONE
    return f"{value_ms:,.0f}" if value_ms >= 100 else f"{value_ms:.3g}"


def dollars(value: float | None) -> str:
    """USD: whole from 100 up, with cents below, two significant digits of less than 10 cents."""
    if value is None:
        return NONE
    if value >= 100:
        return f"${value:,.0f}"
    if value >= 0.1 or value <= 0:
        return f"${value:.2f}"
    return f"${value:.{1 - math.floor(math.log10(value))}f}"


def rate(value: float | None) -> str:
    """Requests a second."""
    return "no limit" if value is None else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def interval(low: float, high: float | None, show: Callable[[float | None], str]) -> str:
    """The ends of an interval; an open one has no upper end."""
    return f"from {show(low)}" if high is None else f"{show(low)} to {show(high)}"


def _trimmed(value: float) -> str:
    text = significant(value)
    return text.rstrip("0").rstrip(".") if "." in text else text
