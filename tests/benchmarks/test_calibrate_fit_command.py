"""`advisor calibrate fit` on all public rows: how long it takes, and that `predict` reads it."""

import csv
import time
from pathlib import Path

import pytest

from advisor.catalog.locations import CALIBRATION
from advisor.cli import main

PUBLIC = CALIBRATION / "measurements" / "public.csv"


@pytest.mark.benchmark
def test_calibrate_fit_writes_what_predict_reads(tmp_path: Path) -> None:
    fits, rows, output = (tmp_path / name for name in ("fits.json", "rows.csv", "out.csv"))
    lines = PUBLIC.read_text(encoding="utf-8").splitlines(keepends=True)
    rows.write_text("".join([lines[0], *lines[1::200]]), encoding="utf-8")

    begin = time.perf_counter()
    assert main(["calibrate", "fit", "--output", str(fits)]) == 0
    print(f"calibrate fit: {len(lines) - 1:,} rows in {time.perf_counter() - begin:.0f} s")

    assert main(["predict", str(rows), "--output", str(output), "--fits", str(fits)]) == 0
    with output.open(encoding="utf-8", newline="") as file:
        predicted = list(csv.DictReader(file))
    assert len(predicted) == len(lines[1::200])
    assert all(float(row["tpot_mean_ms"]) > 0 for row in predicted if row["tpot_mean_ms"])
