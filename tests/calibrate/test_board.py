"""The scoreboard says what was predicted, and belongs to the coefficients beside it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calibrate_rows import CATALOG, LOOP, STATIC, measurement

from advisor.calibrate import board as boards
from advisor.calibrate.board import (
    DEFAULT_BOARD,
    SPLITS,
    Ablation,
    Board,
    accuracy_of,
    board_of,
    digest_of,
    figures_of,
    load_board,
    write_board,
)
from advisor.calibrate.conditions import condition_of
from advisor.calibrate.forecast import Figure, Forecast, Forecaster
from advisor.calibrate.measurements import PUBLIC_TABLE, read_measurements
from advisor.calibrate.score import KINDS, Pair, pairs_of
from advisor.catalog.fits import DEFAULT_FITS, load_fits
from advisor.documents import read_json, validate
from advisor.errors import InputError

ROWS = [
    measurement(STATIC, tpot_mean_ms="10", e2e_mean_ms="2000"),
    measurement(LOOP, tpot_mean_ms="10", ttft_mean_ms="100"),
]
FULL = Ablation(term="full law", in_sample={"tpot": 0.04}, source_left_out={"tpot": 0.06})


def pairs(**seconds: float) -> list[Pair]:
    figures = {name: Figure(value, 0.8 * value, 1.2 * value) for name, value in seconds.items()}
    return pairs_of(ROWS, [Forecast(figures, 100.0, "calibrated", "")] * 2, CATALOG)


def small() -> Board:
    """TPOT 10 % too long and E2E halved in sample; one row was made known."""
    whole = pairs(tpot_mean=0.011, e2e_mean=1.0, ttft_mean=0.15)
    return board_of(
        {"nothing": whole, "one_point": [one for one in whole if one.row_id == "loop"]},
        [FULL],
        overhead_s={"here": (0.03, 1e-6)},
        as_of="2026-01-02",
    )


def test_figures_come_back_as_they_were_predicted() -> None:
    figures = figures_of(small(), "nothing").set_index(["row_id", "metric"])
    assert figures.loc[("static", "tpot_mean"), "error"] == pytest.approx(0.1)
    assert figures.loc[("static", "e2e_mean"), "error"] == pytest.approx(-0.5)
    assert figures.loc[("loop", "ttft_mean"), "predicted_s"] == pytest.approx(0.15)
    assert list(figures.kind) == ["TPOT", "Static-batch E2E", "TTFT, uncongested", "TPOT"]
    assert list(figures.inside) == [True, False, False, True]
    assert figures.loc[("loop", "tpot_mean"), "batch"] == 16
    assert np.isclose(figures.loc[("loop", "tpot_mean"), "input_tokens"], 0.9 * 1024)


def test_a_row_made_known_is_not_scored() -> None:
    figures = figures_of(small(), "one_point")
    assert set(figures.row_id) == {"loop"}


def test_an_accuracy_by_hand() -> None:
    """Errors of +10, −20 and +60 %: median 20, mean 30, bias +10."""
    figures = pd.DataFrame(
        {
            "error": [0.1, -0.2, 0.6],
            "inside": [True, True, False],
            "naive_error": [-0.5, -0.6, -0.7],
            "affine_error": [0.1, 0.2, 0.3],
        }
    )
    one = accuracy_of(figures)
    assert (one.median, one.mean, one.bias) == pytest.approx((0.2, 0.3, 0.1))
    assert (one.coverage, one.naive, one.figures) == (pytest.approx(2 / 3), 0.6, 3)


def test_a_board_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    write_board(small(), path)
    assert validate(Board, read_json(path, what="scoreboard"), what="scoreboard") == small()


def test_a_missing_board_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "DEFAULT_BOARD", tmp_path / "none.json")
    load_board.cache_clear()
    with pytest.raises(InputError, match="publish"):
        load_board()
    load_board.cache_clear()


def test_the_shipped_board_is_of_the_shipped_fits_and_rows() -> None:
    shipped = load_board()
    assert shipped.fits_sha256 == digest_of(DEFAULT_FITS)
    assert shipped.measurements_sha256 == digest_of(PUBLIC_TABLE)
    assert shipped.as_of == load_fits().as_of
    assert DEFAULT_BOARD.stat().st_size < 400_000
    assert set(shipped.predictions) == set(SPLITS)


def test_the_shipped_board_is_what_the_shipped_fits_predict() -> None:
    """A hundredth of its rows, predicted again."""
    shipped = load_board()
    figures = figures_of(shipped, "nothing")
    chosen = set(figures.row_id.unique()[::100])
    rows = [row for row in read_measurements() if row.setup.row_id in chosen]
    conditions = []
    for row in rows:
        setup = row.setup
        if setup.load not in ("static_batch", "burst"):
            fixed, a_token = shipped.overhead_s[row.source]
            tokens = condition_of(setup, CATALOG).input_tokens
            update = {"request_overhead_ms": 1000 * (fixed + a_token * tokens)}
            setup = setup.model_copy(update=update)
        conditions.append(condition_of(setup, CATALOG))
    again = pairs_of(rows, Forecaster(load_fits()).forecast(conditions), CATALOG)
    expected = figures.set_index(["row_id", "metric"]).predicted_s
    assert len(again) > 20
    for pair in again:
        assert pair.predicted_s == pytest.approx(expected[(pair.row_id, pair.metric)], rel=2e-3)


def test_intervals_cover_what_was_left_out() -> None:
    for split in SPLITS:
        figures = figures_of(load_board(), split)
        for kind in KINDS:
            coverage = accuracy_of(figures[figures.kind == kind]).coverage
            assert 0.85 <= coverage <= 0.97, (split, kind)
