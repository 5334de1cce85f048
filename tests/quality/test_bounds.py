"""Exact bounds against tables and against the sums they abbreviate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.quality.bounds import (
    binomial_p_value,
    hoeffding_bentkus_p_value,
    lower_bound,
    rows_to_certify,
    upper_bound,
)


def at_most(successes: int, rows: int, probability: float) -> float:
    """P(Bin(rows, probability) ≤ successes), summed term by term."""
    return sum(
        math.comb(rows, k) * probability**k * (1 - probability) ** (rows - k)
        for k in range(successes + 1)
    )


def test_zero_failures_in_59_rows_prove_95_percent_and_58_do_not() -> None:
    assert 0.95**59 < 0.05 < 0.95**58
    assert binomial_p_value(0, 59, allowed_loss=0.05) == pytest.approx(0.95**59)
    assert lower_bound(59, 59, confidence=0.95) > 0.95
    assert lower_bound(58, 58, confidence=0.95) < 0.95


@given(
    rows=st.integers(1, 60),
    share=st.floats(0, 1),
    allowed=st.floats(0.01, 0.99),
)
def test_the_p_value_is_the_binomial_sum(rows: int, share: float, allowed: float) -> None:
    losses = round(share * rows)
    assert binomial_p_value(losses, rows, allowed_loss=allowed) == pytest.approx(
        at_most(losses, rows, allowed), abs=1e-12
    )


def test_a_fixed_look_alarms_from_these_counts_on() -> None:
    """Escalations out of 50, 100, 200 and 1,000 whose 95 % lower bound passes 20 %."""
    first = {
        rows: next(k for k in range(rows) if lower_bound(k, rows, confidence=0.95) > 0.20)
        for rows in (50, 100, 200, 1000)
    }
    assert first == {50: 16, 100: 28, 200: 50, 1000: 222}


@given(correct=st.integers(0, 40), more=st.integers(0, 40), confidence=st.floats(0.6, 0.99))
def test_bounds_mirror_each_other_and_enclose_the_observed_share(
    correct: int, more: int, confidence: float
) -> None:
    rows = correct + more
    if rows == 0:
        with pytest.raises(ValueError, match="rows > 0"):
            lower_bound(correct, rows, confidence=confidence)
        return
    low = lower_bound(correct, rows, confidence=confidence)
    assert low == pytest.approx(1 - upper_bound(more, rows, confidence=confidence), abs=1e-9)
    assert low <= correct / rows <= upper_bound(correct, rows, confidence=confidence)


@pytest.mark.parametrize(
    ("target", "observed", "rows"),
    [
        (0.95, 1.00, 59),
        (0.95, 0.99, 93),
        (0.95, 0.98, 124),
        (0.95, 0.97, 311),
        (0.90, 0.96, 61),
        (0.90, 0.94, 154),
    ],
)
def test_rows_needed_for_an_observed_quality(target: float, observed: float, rows: int) -> None:
    assert rows_to_certify(observed, target=target, confidence=0.95) == rows


@given(
    target=st.floats(0.5, 0.95),
    margin=st.floats(0.02, 0.3),
    confidence=st.sampled_from([0.8, 0.9, 0.95]),
)
def test_rows_needed_certify_and_are_the_first_to_do_so(
    target: float, margin: float, confidence: float
) -> None:
    observed = min(1.0, target + margin)

    def certifies(rows: int) -> bool:
        wrong = math.floor(rows * (1 - observed) + 0.5 + 1e-9)
        return bool(binomial_p_value(wrong, rows, allowed_loss=1 - target) <= 1 - confidence)

    needed = rows_to_certify(observed, target=target, confidence=confidence)
    assert needed is not None
    assert certifies(needed)
    assert not any(certifies(rows) for rows in range(1, needed))


def test_no_number_of_rows_proves_what_is_not_observed() -> None:
    assert rows_to_certify(0.95, target=0.95, confidence=0.95) is None
    assert rows_to_certify(0.950001, target=0.95, confidence=0.95) is None


def test_graded_losses_get_a_valid_p_value() -> None:
    """Losses of 0 or 1 with mean exactly α: P(p ≤ δ) ≤ δ, whatever δ."""
    rng = np.random.default_rng(4)
    rows, allowed = 150, 0.1
    means = rng.binomial(rows, allowed, size=20_000) / rows
    p = hoeffding_bentkus_p_value(means, rows, allowed_loss=allowed)
    for delta in (0.05, 0.2):
        assert np.mean(p <= delta) <= delta


@given(mean=st.floats(0, 1), allowed=st.floats(0.01, 0.5))
def test_a_graded_p_value_never_beats_what_a_larger_loss_gives(mean: float, allowed: float) -> None:
    smaller, larger = hoeffding_bentkus_p_value([mean / 2, mean], 100, allowed_loss=allowed)
    assert 0 <= smaller <= larger <= 1


def test_the_planned_rows_are_the_fewest_that_prove_it() -> None:
    """96 % observed needs 1,237 rows: 49 wrong have p ≤ 0.05, and no smaller n does."""
    planned = rows_to_certify(0.96, target=0.95, confidence=0.95)
    slowly = next(
        n
        for n in range(1, 2000)
        if binomial_p_value(math.floor(0.04 * n + 0.5), n, allowed_loss=0.05) <= 0.05
    )
    assert planned == slowly == 1237
