"""Numbers as people read them: `95 %`, `80 ms`, `$12.3k`, `2.68 GB`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from advisor import figures
from advisor.figures import significant as significant

NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""

_CODE = re.compile(r"(`[^`]*`)")
_MARKDOWN = re.compile(r"([\\`*_\[\]$~<>#|])")
_UNIT = re.compile(r"(?<=[\d.]) (?=(?:%|µs|ms|s|min|GB)(?!\w))")


def plain(text: str) -> str:
    """Text that Markdown shows as it is: two dollar signs would be read as a formula.

    What stands between backticks stays code; a number and its unit stay on one line.
    """
    parts = _CODE.split(text)
    parts[::2] = (_UNIT.sub(NBSP, _MARKDOWN.sub(r"\\\1", part)) for part in parts[::2])
    return "".join(parts)


def usd(value: float) -> str:
    """Money: `$1.23M`, `$12.3k`, `$1,234`, `$4.20`, `$0.0012`."""
    size = abs(value)
    if size >= 999_500:
        return f"${_trimmed(value / 1e6)}M"
    if size >= 10_000:
        return f"${_trimmed(value / 1e3)}k"
    if size >= 100 or size == 0:
        return f"${value:,.0f}"
    return f"${value:,.2f}" if size >= 1 else f"${significant(value, 2)}"


def percent(fraction: float, decimals: int | None = None) -> str:
    """A fraction as percent: 0.95 is `95 %`, 0.9567 `95.7 %`, 0.0004 `0.04 %`."""
    return _unbroken(figures.percent(fraction, decimals))


def likelihood(probability: float) -> str:
    """A probability, never shown as certain: `57 %`, `over 99 %`."""
    return figures.likelihood(probability).replace(" %", f"{NBSP}%")


def milliseconds(value_ms: float) -> str:
    """A duration given in milliseconds: `0.42 ms`, `80 ms`, `1.25 s`, `3.1 min`."""
    return _unbroken(figures.milliseconds(value_ms))


def seconds(value_s: float) -> str:
    """A duration given in seconds, in the unit that suits it: `310 µs`, `12 ms`, `1.25 s`."""
    return _unbroken(figures.seconds(value_s))


def size(value_bytes: float) -> str:
    """Bytes in decimal units: `2.68 GB`."""
    return _scaled(value_bytes, "B")


def operations(flops: float) -> str:
    """Floating-point operations: `7.03 TFLOP`."""
    return _scaled(flops, "FLOP")


def count(value: float) -> str:
    """A count: `1,234`, `12.5 million`."""
    for bound, name in ((1e9, "billion"), (1e6, "million")):
        if abs(value) >= bound:
            return f"{_trimmed(value / bound)}{NBSP}{name}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else significant(value)


def ratio(value: float) -> str:
    """A factor: `×2.1`, `×10`."""
    return f"×{significant(value, 2)}" if value < 100 else f"×{value:,.0f}"


def interval(low: float, high: float | None, show: Callable[[float], str]) -> str:
    """A range in one unit: `62 ms – 95 ms`; open where no upper bound can be given."""
    if high is None:
        return f"{show(low)} or more, no upper bound"
    return f"{show(low)} – {show(high)}"


def _unbroken(text: str) -> str:
    return text.replace(" ", NBSP)


def _trimmed(value: float) -> str:
    text = significant(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, unit: str) -> str:
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    power = 0 if value == 0 else math.floor(math.log10(abs(value)) / 3 + 1e-9)
    power = min(len(prefixes) - 1, max(0, power))
    return f"{significant(value / 1000**power)}{NBSP}{prefixes[power]}{unit}"
