"""The simulated log: it reads back, repeats itself, and has the shares that it states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advisor.quality.example_log import COMPOUND_SHARE, RIGHT, simulated_log
from advisor.quality.labels import read_log
from advisor.quality.log_checks import check_log
from advisor.quality.reliability import auroc


def test_the_simulated_log_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(simulated_log(20_000), encoding="utf-8")
    log = read_log(path)
    for index, model in enumerate(("slm", "llm")):
        stated = (1 - COMPOUND_SHARE) * RIGHT[False][index] + COMPOUND_SHARE * RIGHT[True][index]
        # Four standard errors of a share near 0.95 of 20,000 rows are 0.006.
        assert log.correct(model).mean() == pytest.approx(stated, abs=0.006)
    pairs = log.pairs()
    # AUROC of a binormal confidence is Φ(1.6/√2) = 0.871.
    assert auroc(pairs.confidence, pairs.slm_correct).value == pytest.approx(0.871, abs=0.02)
    assert not np.isnan(pairs.confidence).any()
    assert [finding.severity for finding in check_log(log)] == ["good"]


def test_it_is_the_same_every_time_and_another_with_another_seed() -> None:
    assert simulated_log(50) == simulated_log(50)
    assert simulated_log(50) != simulated_log(50, seed=8)
