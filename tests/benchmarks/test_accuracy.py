"""Accuracy on the public rows: what is left out must be predicted about as well as claimed."""

import time

import numpy as np
import pytest

from advisor.calibrate.fit import Fit, fit_coefficients
from advisor.calibrate.measurements import PUBLIC_TABLE, read_measurements
from advisor.calibrate.score import Pair, describe, headline
from advisor.calibrate.scoreboard import left_out_pairs
from advisor.catalog import load_catalog
from advisor.catalog.fits import load_fits
from advisor.predict import predict

pytestmark = pytest.mark.benchmark

FLOORS = {
    "source": {"TPOT": 0.11, "Static-batch E2E": 0.09, "TTFT, uncongested": 0.20},
    "model": {"TPOT": 0.14, "Static-batch E2E": 0.06, "TTFT, uncongested": 0.25},
    "accelerator": {"TPOT": 0.11, "Static-batch E2E": 0.10, "TTFT, uncongested": 0.22},
}
"""Median errors to stay under."""


@pytest.fixture(scope="module")
def fit() -> Fit:
    return fit_coefficients(read_measurements(), load_catalog())


def median_error(pairs: list[Pair]) -> float:
    return float(np.median([abs(one.predicted_s / one.measured_s - 1) for one in pairs]))


@pytest.mark.parametrize("by", FLOORS)
def test_what_was_left_out_is_predicted(fit: Fit, by: str) -> None:
    kinds = headline(left_out_pairs(fit, load_fits(), by, load_catalog()))
    for kind, pairs in kinds.items():
        print(f"{by} left out, {kind}: {describe(pairs)}")
    for kind, floor in FLOORS[by].items():
        assert median_error(kinds[kind]) < floor, kind
        inside = np.mean([one.low_s <= one.measured_s <= one.high_s for one in kinds[kind]])
        assert inside > 0.85, kind


def test_the_public_table_in_one_go() -> None:
    begin = time.perf_counter()
    table = predict(PUBLIC_TABLE)
    print(f"{len(table)} rows in {time.perf_counter() - begin:.1f} s, simulation included")
    assert len(table) == 1794
