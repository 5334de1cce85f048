"""The mixed model against textbook cases and a slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.quality.mixed_model import RESIDUAL, Column, MixedModel, Observations


def observations(design: list[list[float]], observed: list[float]) -> Observations:
    rows = len(observed)
    return Observations(
        design=np.array(design, dtype=float).reshape(rows, -1),
        observed=np.array(observed),
        noise_weights=np.ones(rows),
        noise_variances=np.full(rows, 1e-6),
    )


def test_many_rows_outvote_the_prior_and_one_row_moves_it_half_way() -> None:
    """Prior N(0, 1) and a row with noise variance 1: the mean is half the observation."""
    data = Observations(
        design=np.ones((1, 1)),
        observed=np.array([2.0]),
        noise_weights=np.zeros(1),
        noise_variances=np.ones(1),
    )
    fitted = MixedModel.fit([Column(0.0, 1.0)], data, scales={RESIDUAL: 0.1})
    assert fitted.mean[0] == pytest.approx(1.0)
    assert fitted.covariance[0, 0] == pytest.approx(0.5)
    assert fitted.gain[0, 0] == pytest.approx(0.5)

    many = MixedModel.fit(
        [Column(0.0, 1.0)], observations([[1.0]] * 200, [2.0] * 200), scales={RESIDUAL: 0.3}
    )
    assert many.mean[0] == pytest.approx(2.0, abs=0.01)


def test_variance_components_are_found() -> None:
    """40 groups of 8 with group sd 1.0 and residual sd 0.3."""
    rng = np.random.default_rng(11)
    groups, each = 40, 8
    effects = rng.normal(0, 1.0, groups)
    observed = (0.5 + np.repeat(effects, each) + rng.normal(0, 0.3, groups * each)).tolist()
    design = np.column_stack([np.ones(groups * each), np.repeat(np.eye(groups), each, axis=0)])
    fitted = MixedModel.fit(
        [Column(0.0, 2.0), *(Column(0.0, "group") for _ in range(groups))],
        observations(design.tolist(), observed),
        scales={"group": 1.0, RESIDUAL: 0.5},
    )
    assert fitted.squares["group"] ** 0.5 == pytest.approx(1.0, rel=0.25)
    assert fitted.squares[RESIDUAL] ** 0.5 == pytest.approx(0.3, rel=0.1)
    new = fitted.predict(
        np.eye(len(fitted.mean))[0], new_effects={"group": 1.0, RESIDUAL: 1.0}, shared=("group",)
    )
    assert new.sd == pytest.approx(np.hypot(1.0, 0.3), rel=0.25)
    assert new.shared_sd == pytest.approx(fitted.squares["group"] ** 0.5)


def test_it_agrees_with_a_brute_force_average_over_variance_components() -> None:
    """The same posterior by summing over a dense grid of both standard deviations."""
    rng = np.random.default_rng(2)
    design = np.column_stack([np.ones(12), np.repeat(np.eye(4), 3, axis=0)])
    observed = np.repeat(rng.normal(0, 0.8, 4), 3) + rng.normal(0, 0.4, 12) + 1.0
    columns = [Column(0.0, 1.0), *(Column(0.0, "group") for _ in range(4))]
    fitted = MixedModel.fit(
        columns,
        observations(design.tolist(), observed.tolist()),
        scales={"group": 0.8, RESIDUAL: 0.4},
    )
    total, mean, second = 0.0, np.zeros(5), np.zeros((5, 5))
    for group in np.linspace(0.01, 3.2, 120):
        for residual in np.linspace(0.01, 1.6, 120):
            prior = np.diag([1.0, *[group**2] * 4])
            marginal = design @ prior @ design.T + (residual**2 + 1e-6) * np.eye(12)
            inverse = np.linalg.inv(marginal)
            weight = np.exp(
                -0.5 * observed @ inverse @ observed
                - 0.5 * np.linalg.slogdet(marginal)[1]
                - 0.5 * (group / 0.8) ** 2
                - 0.5 * (residual / 0.4) ** 2
            )
            gain = prior @ design.T @ inverse
            centre = gain @ observed
            total += weight
            mean += weight * centre
            second += weight * (prior - gain @ design @ prior + np.outer(centre, centre))
    mean, second = mean / total, second / total
    assert fitted.mean == pytest.approx(mean, abs=0.03)
    assert fitted.covariance == pytest.approx(second - np.outer(mean, mean), abs=0.03)


def test_the_same_rows_give_the_same_answer_to_the_last_bit() -> None:
    data = observations([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]], [0.1, 0.7, 0.4])
    columns = [Column(0.0, 1.0), Column(0.0, "group")]
    fits = [MixedModel.fit(columns, data, scales={"group": 0.5, RESIDUAL: 0.5}) for _ in range(2)]
    assert np.array_equal(fits[0].mean, fits[1].mean)
    assert np.array_equal(fits[0].covariance, fits[1].covariance)


def test_without_rows_the_prior_is_left() -> None:
    empty = Observations(np.empty((0, 1)), np.empty(0), np.empty(0), np.empty(0))
    fitted = MixedModel.fit([Column(0.7, 1.2)], empty, scales={RESIDUAL: 0.4})
    assert fitted.mean[0] == pytest.approx(0.7)
    assert fitted.covariance[0, 0] == pytest.approx(1.44)
