"""Two ends that share δ: never wrong more often than δ, and more powerful than two halves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from advisor.quality.bounds import binomial_p_value
from advisor.quality.threshold import certify
from advisor.quality.two_ends import levels


@pytest.mark.parametrize(
    ("rows", "allowed", "delta"),
    [(40, 0.05, 0.05), (200, 0.05, 0.05), (200, 0.2, 0.1), (2000, 0.05, 0.05), (2000, 0.08, 0.1)],
)
def test_the_worst_dependence_errs_at_most_delta(rows: int, allowed: float, delta: float) -> None:
    """Every pair of true losses above the limit, with the union bound over any dependence."""
    found = levels(rows, allowed_loss=allowed, delta=delta, binary=True)
    p_values = binomial_p_value(np.arange(rows + 1), rows, allowed_loss=allowed)
    most = {level: int((p_values <= level).sum()) - 1 for level in (found.each, found.whole)}
    losses = np.linspace(allowed, min(1.0, allowed + 12 * np.sqrt(allowed / rows)), 400)
    small = binom.cdf(most[found.each], rows, losses)
    between = binom.cdf(most[found.whole], rows, losses) - small
    hopeless = binom.sf(found.hopeless_from - 1, rows, losses)
    wrong = (
        small[:, None]
        + np.minimum(between[:, None], hopeless[None, :])
        + small[None, :]
        + np.minimum(between[None, :], hopeless[:, None])
    )
    assert wrong.max() <= delta


def test_at_2000_rows_a_hopeless_end_gives_back_nearly_all() -> None:
    found = levels(2000, allowed_loss=0.05, delta=0.05, binary=True)
    assert found.each == pytest.approx(0.024)
    assert 0.045 < found.whole < 0.05
    # 100 wrong rows are allowed; their standard deviation is 9.7, and P(z ≥ 3.09) = δ/50.
    assert 125 <= found.hopeless_from <= 135


@given(
    rows=st.integers(1, 5000),
    allowed=st.floats(0.001, 0.6),
    delta=st.floats(0.01, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_levels_never_exceed_what_there_is(rows: int, allowed: float, delta: float) -> None:
    found = levels(rows, allowed_loss=allowed, delta=delta, binary=True)
    assert 0 < found.each <= delta / 2 < found.whole <= delta
    assert found.hopeless_from > rows * allowed


def test_graded_scores_keep_halves() -> None:
    found = levels(500, allowed_loss=0.1, delta=0.05, binary=False)
    assert (found.each, found.whole) == (0.025, 0.05)
    assert found.hopeless_from == float("inf")


def test_a_hopeless_large_model_lets_the_small_one_spend_nearly_everything() -> None:
    """83 of 2,000 wrong: p lies between δ/2 and δ, so that only the whole δ certifies it."""
    rows = 2000
    small = np.ones(rows)
    small[:83] = 0
    assert 0.025 < binomial_p_value(83, rows, allowed_loss=0.05) < 0.045
    kept = {
        large: certify(
            np.linspace(0, 1, rows)[::-1],
            small,
            np.arange(rows) >= wrong,
            target=0.95,
            confidence_level=0.95,
            start="both",
        ).certified
        for large, wrong in (("hopeless", 200), ("near", 105))
    }
    assert kept == {"hopeless": True, "near": False}
