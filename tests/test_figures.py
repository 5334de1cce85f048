"""Numbers as the command line, the app and the recommendation show them."""

import math

import pytest

from advisor.figures import (
    dollars,
    in_milliseconds,
    interval,
    likelihood,
    milliseconds,
    percent,
    rate,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.05, "0.050 ms"),
        (9.876, "9.9 ms"),
        (79.6, "80 ms"),
        (123.4, "123 ms"),
        (999.6, "1 s"),
        (8_853, "8.85 s"),
        (30_000, "30 s"),
        (150_000, "2.5 min"),
        (math.inf, "overloaded"),
        (None, "–"),
    ],
)
def test_durations_have_their_unit_and_the_digits_that_mean_something(
    value: float | None, shown: str
) -> None:
    assert milliseconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "$0.00"),
        (0.0000193, "$0.000019"),
        (0.0996, "$0.100"),
        (0.74, "$0.74"),
        (99.994, "$99.99"),
        (5_567.4, "$5,567"),
        (None, "–"),
    ],
)
def test_money_is_never_in_powers_of_ten(value: float | None, shown: str) -> None:
    assert dollars(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 %"),
        (0.0083, "0.83 %"),
        (0.5, "50 %"),
        (0.957, "95.7 %"),
        (0.9928, "99.28 %"),
        (1, "100 %"),
        (None, "–"),
    ],
)
def test_percentages_near_the_ends_get_a_digit_more(value: float | None, shown: str) -> None:
    assert percent(value) == shown


def test_an_open_interval_has_only_a_lower_end() -> None:
    assert interval(10, 25.04, in_milliseconds) == "10 to 25"
    assert interval(10, None, in_milliseconds) == "from 10"


def test_rates() -> None:
    assert [rate(value) for value in (0.123, 231.5, 3718.2, None)] == [
        "0.123",
        "232",
        "3,718",
        "no limit",
    ]


def test_nothing_is_certain() -> None:
    assert [likelihood(value) for value in (0, 0.57, 0.999)] == ["under 1 %", "57 %", "over 99 %"]
