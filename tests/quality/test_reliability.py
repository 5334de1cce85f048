"""Ranking and calibration of a confidence, against definitions and hand-computed tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.quality.reliability import (
    auroc,
    brier_score,
    expected_calibration_error,
    log_odds_ratio,
    reliability_bins,
    risk_coverage,
)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({right for _, right in rows}) == 2
    )
)
def test_auroc_is_the_share_of_ordered_pairs(rows: list[tuple[int, bool]]) -> None:
    right = [score for score, ok in rows if ok]
    wrong = [score for score, ok in rows if not ok]
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    found = auroc([score for score, _ in rows], [ok for _, ok in rows])
    assert found.value == pytest.approx(wins / (len(right) * len(wrong)))


def test_delongs_error_is_the_spread_over_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    values, errors = [], []
    for _ in range(300):
        right = rng.random(400) < 0.8
        found = auroc(rng.normal(size=400) + 1.2 * right, right)
        values.append(found.value)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_one_class_has_no_ranking() -> None:
    with pytest.raises(InputError, match="none of 3 rows is wrong"):
        auroc([0.1, 0.2, 0.3], [1, 1, 1])
    with pytest.raises(InputError, match="none of 2 rows is right"):
        auroc([0.1, 0.2], [0, 0])
    with pytest.raises(InputError, match="no row has a confidence"):
        auroc([np.nan, np.nan], [0, 1])


def test_a_hand_computed_calibration_table() -> None:
    """Two bins: .2 and .8 said, 0 and 1/2 right: ECE = ½·.2 + ½·.3; Brier = mean of squares."""
    said, right = [0.2, 0.2, 0.8, 0.8], [0, 0, 1, 0]
    bins = reliability_bins(said, right, bins=2)
    assert [(b.confidence, b.accuracy, b.rows) for b in bins] == [
        (pytest.approx(0.2), 0.0, 2),
        (pytest.approx(0.8), 0.5, 2),
    ]
    assert expected_calibration_error(said, right, bins=2) == pytest.approx(0.25)
    assert brier_score(said, right) == pytest.approx((0.04 + 0.04 + 0.04 + 0.64) / 4)


def test_ties_stay_in_one_bin() -> None:
    bins = reliability_bins([0.5] * 30 + [0.9] * 3, [1] * 33, bins=15)
    assert [b.rows for b in bins] == [30, 3]


def test_probabilities_are_asked_for() -> None:
    with pytest.raises(InputError, match="probabilities expected"):
        brier_score([-1.5, 0.2], [0, 1])


def test_a_hand_computed_risk_coverage_curve() -> None:
    """Surest first: right, wrong, right, wrong → risks 0, 1/2, 1/3, 1/2."""
    curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.best_area == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)


def test_a_confidence_that_says_nothing_has_the_base_risk_everywhere() -> None:
    curve = risk_coverage([0.5] * 10, [1] * 7 + [0] * 3)
    assert curve.coverage.tolist() == [1.0]
    assert curve.area == pytest.approx(0.3)


def test_odds_ratio_of_a_table() -> None:
    """30 both right, 5 + 5 one of them, 10 neither: (30.5·10.5)/(5.5·5.5)."""
    first = [1] * 30 + [1] * 5 + [0] * 5 + [0] * 10
    second = [1] * 30 + [0] * 5 + [1] * 5 + [0] * 10
    value, error = log_odds_ratio(first, second)
    assert np.exp(value) == pytest.approx(30.5 * 10.5 / 5.5**2)
    assert error == pytest.approx(np.sqrt(1 / 30.5 + 2 / 5.5 + 1 / 10.5))
