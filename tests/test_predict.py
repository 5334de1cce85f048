"""Rows in, predictions out: every row keeps its place, and nothing measured is read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from advisor.calibrate.measurements import MEASURED_COLUMNS, PUBLIC_TABLE, parse_measurement
from advisor.errors import InputError
from advisor.predict import PREDICTED_COLUMNS, predict

PUBLIC = pd.read_csv(PUBLIC_TABLE, dtype=str, keep_default_na=False)
SOME = PUBLIC.iloc[::60]

ROW = {
    "row_id": "one",
    "model": "meta-llama/Llama-3.1-8B",
    "accelerator": "H100-SXM",
    "load": "closed_loop",
    "concurrency": 8,
    "input_tokens": 512,
    "output_tokens": 128,
}


def test_every_row_comes_back_in_order_with_all_columns() -> None:
    out = predict(SOME)
    assert tuple(out.columns) == PREDICTED_COLUMNS
    assert list(out.row_id) == list(SOME.row_id)
    fine = out.error.isna()
    assert fine.mean() > 0.9
    for metric in ("ttft_mean", "tpot_p50", "e2e_p95"):
        figures = out.loc[fine, [f"{metric}_ms_lo", f"{metric}_ms", f"{metric}_ms_hi"]]
        assert np.all(np.diff(figures.to_numpy(float), axis=1) > 0)


def test_what_was_measured_is_never_read() -> None:
    spoiled = SOME.copy()
    for column in (*MEASURED_COLUMNS, "source", "caveat", "notes"):
        spoiled[column] = "1" if column in MEASURED_COLUMNS else "nonsense"
    pd.testing.assert_frame_equal(predict(SOME), predict(spoiled))


def test_files_tables_and_mappings_are_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    SOME.head(3).to_csv(path, index=False)
    table = predict(SOME.head(3))
    pd.testing.assert_frame_equal(predict(path), table)
    pd.testing.assert_frame_equal(predict(SOME.head(3).to_dict(orient="records")), table)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "nobody/nothing"}, "not in the catalogue"),
        ({"model": "meta-llama/Llama-3.1-70B"}, "GB short"),
        ({"tensor_parallel": 3}, "does not divide"),
        ({"concurrency": "many"}, "concurrency"),
        ({"output_tokens": None}, "output_tokens"),
    ],
)
def test_a_row_that_cannot_be_predicted_keeps_its_place_with_the_reason(
    changes: dict[str, object], reason: str
) -> None:
    out = predict([ROW, {**ROW, **changes}, ROW])
    assert out.error.isna().tolist() == [True, False, True]
    assert reason in out.error[1]
    assert np.isnan(out.tpot_mean_ms[1])


def test_assumptions_and_labels_are_said() -> None:
    out = predict([ROW, {**ROW, "accelerator": "L4", "weights_dtype": "fp8"}])
    assert out.calibration.tolist() == ["calibrated", "transferred"]
    assert "weights_dtype=bf16" in out.assumed[0]
    assert "max_num_seqs" in out.assumed[0]


def test_the_same_rows_give_the_same_predictions() -> None:
    pd.testing.assert_frame_equal(predict([ROW]), predict([ROW]))


def test_own_measurements_move_their_deployment_and_no_other() -> None:
    plain = predict([ROW, {**ROW, "model": "Qwen/Qwen3-8B"}])
    twice = {**ROW, "tpot_mean_ms": 1.5 * plain.tpot_mean_ms[0]}
    moved = predict([ROW, {**ROW, "model": "Qwen/Qwen3-8B"}], own=[parse_measurement(twice)] * 3)
    assert moved.tpot_mean_ms[0] == pytest.approx(1.4 * plain.tpot_mean_ms[0], rel=0.08)
    assert moved.calibration.tolist() == ["measured", "calibrated"]
    assert moved.tpot_mean_ms[1] == plain.tpot_mean_ms[1]


def test_a_missing_file_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        predict(tmp_path / "none.csv")
