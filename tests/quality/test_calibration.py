"""Calibration: the method grows with the rows, and none turns a ranking round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from advisor.errors import InputError
from advisor.quality.calibration import (
    Calibration,
    cross_fitted,
    fit_calibration,
    fit_logistic,
    folds,
    isotonic,
    newton_logistic,
)
from advisor.quality.reliability import expected_calibration_error


def overconfident(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Says σ(3x) where the truth is σ(x): a temperature of 3."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.8, 1.2, n)
    return special.expit(3 * x), (rng.random(n) < special.expit(x)).astype(float)


@pytest.mark.parametrize(
    ("rows", "method"), [(10, "none"), (100, "temperature"), (500, "platt"), (3000, "isotonic")]
)
def test_the_method_is_what_the_rows_can_bear(rows: int, method: str) -> None:
    assert fit_calibration(*overconfident(rows)).method == method


@pytest.mark.parametrize("rows", [150, 800, 5000])
def test_overconfidence_is_undone_on_rows_not_seen(rows: int) -> None:
    said, right = overconfident(rows)
    fresh, outcome = overconfident(20_000, seed=1)
    calibrated = fit_calibration(said, right).apply(fresh)
    assert expected_calibration_error(fresh, outcome) > 0.1
    assert expected_calibration_error(calibrated, outcome) < 0.06
    if rows == 150:
        assert fit_calibration(said, right).slope == pytest.approx(1 / 3, abs=0.15)


def test_scores_that_are_no_probabilities_get_platts_line() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(-4, 2, 4000)
    right = rng.random(4000) < special.expit(1.5 * x + 6)
    fitted = fit_calibration(x[:900], right[:900])
    assert fitted.method == "platt" and not fitted.on_log_odds
    assert fitted.slope == pytest.approx(1.5, abs=0.25)
    assert fitted.offset == pytest.approx(6, abs=1)


def test_a_score_that_ranks_backwards_is_not_turned_round() -> None:
    rng = np.random.default_rng(3)
    said = rng.random(500)
    right = (rng.random(500) < 1 - said).astype(float)
    fitted = fit_calibration(said, right)
    assert fitted.slope == 0.0
    assert fitted.apply([0.1, 0.9]) == pytest.approx([right.mean()] * 2, abs=0.01)


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40),
)
def test_isotonic_is_the_best_rising_fit(rows: list[tuple[int, bool]]) -> None:
    """No rising step function on the same scores has a smaller squared error (max–min formula)."""
    x = np.array([score for score, _ in rows], dtype=float)
    y = np.array([right for _, right in rows], dtype=float)
    knots, values = isotonic(x, y)
    assert (np.diff(values) > 0).all() and (np.diff(knots) > 0).all()
    levels = np.unique(x)
    for level in levels:
        best = max(
            min(y[(x >= low) & (x <= high)].mean() for high in levels[levels >= level])
            for low in levels[levels <= level]
        )
        assert any(abs(best - value) < 1e-9 for value in values)


def test_calibrated_probabilities_never_fall_as_the_score_rises() -> None:
    for rows in (100, 600, 3000):
        fitted = fit_calibration(*overconfident(rows))
        assert (np.diff(fitted.apply(np.linspace(0, 1, 500))) >= -1e-12).all()


def test_nothing_is_learnt_from_one_class() -> None:
    fitted = fit_calibration(np.linspace(0, 1, 500), np.ones(500))
    assert fitted.method == "none"
    assert fitted.apply([0.3, np.nan]) == pytest.approx([0.3, np.nan], nan_ok=True)


def test_a_calibration_survives_a_file() -> None:
    fitted = fit_calibration(*overconfident(3000))
    again = Calibration.model_validate_json(fitted.model_dump_json())
    x = np.linspace(0, 1, 50)
    assert np.array_equal(again.apply(x), fitted.apply(x))


def test_newtons_logistic_regression_meets_its_condition() -> None:
    """At the optimum the gradient of the penalised likelihood is zero."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 3))
    y = (rng.random(400) < special.expit(x @ [1.0, -2.0, 0.0] + 0.5)).astype(float)
    weights = newton_logistic(x, y, ridge=1.0)
    error = special.expit(x @ weights[1:] + weights[0]) - y
    assert x.T @ error + weights[1:] == pytest.approx(0, abs=1e-6)
    assert error.sum() == pytest.approx(0, abs=1e-6)
    assert weights[1:] == pytest.approx([1.0, -2.0, 0.0], abs=0.4)


def test_separable_rows_have_a_finite_answer() -> None:
    x = np.concatenate([np.full((100, 1), -1.0), np.full((100, 1), 1.0)])
    fitted = fit_logistic(x, np.repeat([0, 1], 100))
    assert np.isfinite(fitted.weights).all()
    assert fitted.apply([[1.0]])[0] > 0.95


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="needs 200"):
        fit_logistic(np.ones((50, 2)), np.ones(50))
    with pytest.raises(InputError, match="all rows are right"):
        fit_logistic(np.ones((300, 2)), np.ones(300))
    with pytest.raises(InputError, match="shape"):
        fit_logistic(np.ones(300), np.ones(300))
    constant = fit_logistic(np.ones((300, 1)), np.arange(300) % 3 == 0)
    assert constant.apply(np.ones((1, 1)))[0] == pytest.approx(1 / 3, abs=0.01)


def test_cross_fitting_never_scores_a_row_that_it_saw() -> None:
    """Pure noise: scores of rows that were seen would rank better than chance."""
    parts = folds(101, 5)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(101))
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(600, 20))
    right = (rng.random(600) < 0.5).astype(float)
    seen = fit_logistic(noise, right).apply(noise)
    unseen = cross_fitted(noise, right)
    assert np.corrcoef(seen, right)[0, 1] > 0.1
    assert abs(np.corrcoef(unseen, right)[0, 1]) < 0.1
