"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.screens import formatting


def read(text: str) -> str:
    return text.replace(formatting.NBSP, " ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "$0"),
        (0.00123, "$0.0012"),
        (0.5, "$0.50"),
        (4.2, "$4.20"),
        (123.4, "$123"),
        (1234.4, "$1,234"),
        (12_345, "$12.3k"),
        (37_000, "$37k"),
        (999_600, "$1M"),
        (1_234_567, "$1.23M"),
    ],
)
def test_money(value: float, text: str) -> None:
    assert formatting.usd(value) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "0 %"),
        (0.95, "95 %"),
        (0.957, "95.7 %"),
        (1, "100 %"),
        (0.0004, "0.04 %"),
        (0.9995, "99.95 %"),
    ],
)
def test_percent(fraction: float, text: str) -> None:
    assert read(formatting.percent(fraction)) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.42, "0.42 ms"), (8, "8.0 ms"), (79.6, "80 ms"), (119.7, "120 ms"), (999.6, "1 s"),
     (1250, "1.25 s"), (61_000, "61 s"), (150_000, "2.5 min")],
)  # fmt: skip
def test_durations(ms: float, text: str) -> None:
    assert read(formatting.milliseconds(ms)) == text


def test_microseconds() -> None:
    assert read(formatting.seconds(310e-6)) == "310 µs"


def test_units_of_bytes_and_operations() -> None:
    assert read(formatting.size(2_684_354_560)) == "2.68 GB"
    assert read(formatting.size(131_072)) == "131 kB"
    assert read(formatting.operations(7.03e12)) == "7.03 TFLOP"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234, "1,234"), (7, "7"), (1.5, "1.50"), (10_000_000, "10 million"),
     (12_500_000, "12.5 million"), (8.03e9, "8.03 billion")],
)  # fmt: skip
def test_counts(value: float, text: str) -> None:
    assert read(formatting.count(value)) == text


def test_an_open_interval_says_so() -> None:
    assert "no upper bound" in formatting.interval(10, None, formatting.milliseconds)
    assert read(formatting.interval(62, 95, formatting.milliseconds)) == "62 ms – 95 ms"


def test_markdown_is_shown_as_written_and_code_stays_code() -> None:
    assert formatting.plain("$5 to $6, a_b [x]") == r"\$5 to \$6, a\_b \[x\]"
    assert formatting.plain("run `vllm bench_serve` now") == "run `vllm bench_serve` now"


@given(st.floats(min_value=1e-6, max_value=1e12), st.integers(min_value=1, max_value=6))
def test_significant_digits_lose_at_most_half_a_unit(value: float, digits: int) -> None:
    shown = float(formatting.significant(value, digits).replace(",", ""))
    assert abs(shown - value) <= 0.5000001 * 10 ** (math.floor(math.log10(value)) + 1 - digits)


def test_a_number_in_a_sentence_keeps_its_unit() -> None:
    shown = formatting.plain("p95 64 ms in 3 small steps, 46 % likely, of 95.")
    assert shown.split(" ") == [
        "p95",
        "64\u00a0ms",
        "in",
        "3",
        "small",
        "steps,",
        "46\u00a0%",
        "likely,",
        "of",
        "95.",
    ]
