"""Numbers as the command prints them."""

import pytest

from advisor.cli.figures import dollars, duration, interval, milliseconds, percent, rate


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.05, "0.05 ms"),
        (9.876, "9.88 ms"),
        (123.4, "123 ms"),
        (1_000, "1 s"),
        (8_853, "8.85 s"),
        (30_000, "30 s"),
        (123_456, "123 s"),
        (None, "–"),
    ],
)
def test_durations_have_three_digits_and_a_unit(value: float | None, shown: str) -> None:
    assert duration(value) == shown


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
    [(0, "0.0%"), (0.0083, "0.83%"), (0.5, "50.0%"), (0.9928, "99.28%"), (1, "100.0%")],
)
def test_percentages_near_the_ends_get_a_digit_more(value: float, shown: str) -> None:
    assert percent(value) == shown


def test_an_open_interval_has_only_a_lower_end() -> None:
    assert interval(10, 25.04, milliseconds) == "10 to 25"
    assert interval(10, None, milliseconds) == "from 10"


def test_rates() -> None:
    assert [rate(value) for value in (0.123, 231.5, 3718.2, None)] == [
        "0.123",
        "232",
        "3,718",
        "no limit",
    ]
