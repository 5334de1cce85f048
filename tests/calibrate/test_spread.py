"""How wide intervals must be is measured on what was left out."""

import numpy as np
import pytest

from advisor.calibrate.spread import excess_sd
from advisor.catalog.fits import Spread, interval_90, load_fits


def test_the_spread_beyond_what_is_known_by_hand() -> None:
    """Errors of 1-sd 0.5, of which 0.3 is known: the rest is √(0.25 − 0.09) = 0.4."""
    errors = np.random.default_rng(1).normal(0, 0.5, 20_000)
    assert excess_sd(errors, np.full(20_000, 0.3)) == pytest.approx(0.4, abs=0.01)
    assert excess_sd(errors, np.full(20_000, 0.9)) == pytest.approx(0, abs=1e-3)


def test_too_few_errors_are_no_measurement() -> None:
    assert excess_sd(np.full(5, 0.01), np.zeros(5)) == pytest.approx(0.3)


def test_ninety_in_a_hundred_lie_inside() -> None:
    """σ = 0.2: 1.6449·0.2 = 0.329, a factor of 1.39."""
    low, high = interval_90(10.0, 0.2)
    assert (low, high) == pytest.approx((10 / 1.3896, 13.896), rel=1e-3)


def test_knowing_less_never_narrows() -> None:
    fit = load_fits()
    assert fit.calibrated_known and fit.transferred_known
    for narrow, wide in (
        (fit.calibrated_known, fit.calibrated),
        (fit.calibrated_known, fit.transferred_known),
        (fit.calibrated, fit.transferred),
        (fit.transferred_known, fit.transferred),
        (fit.transferred, fit.assumed),
    ):
        for name in Spread.model_fields:
            sure, unsure = getattr(narrow, name), getattr(wide, name)
            assert sure is unsure is None or sure <= unsure
