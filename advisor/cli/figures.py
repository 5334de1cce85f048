"""Numbers as people read them: three significant digits, a unit, nothing more."""

from __future__ import annotations

import math
from collections.abc import Callable

NONE = "–"


def milliseconds(value: float | None) -> str:
    """Milliseconds without their unit."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(value_ms: float | None) -> str:
    """A duration with its unit: seconds from 1 s up."""
    if value_ms is None:
        return NONE
    if value_ms >= 1000:
        return f"{value_ms / 1e3:,.0f} s" if value_ms >= 1e5 else f"{value_ms / 1e3:.3g} s"
    return f"{milliseconds(value_ms)} ms"


def dollars(value: float | None) -> str:
    """USD: whole from 100 up, with cents below, two significant digits of less than 10 cents."""
    if value is None:
        return NONE
    if value >= 100:
        return f"${value:,.0f}"
    if value >= 0.1 or value <= 0:
        return f"${value:.2f}"
    return f"${value:.{1 - math.floor(math.log10(value))}f}"


def percent(value: float | None) -> str:
    """A fraction as a percentage; one more digit near 0 and 100."""
    if value is None:
        return NONE
    return f"{value:.2%}" if 0 < value < 0.01 or 0.99 < value < 1 else f"{value:.1%}"


def rate(value: float | None) -> str:
    """Requests a second."""
    return "no limit" if value is None else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def interval(low: float, high: float | None, show: Callable[[float | None], str]) -> str:
    """The ends of an interval; an open one has no upper end."""
    return f"from {show(low)}" if high is None else f"{show(low)} to {show(high)}"
