"""Measured confidence replaces the assumed one as rows come in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from advisor.quality.escalation import ConfidencePrior
from advisor.quality.measured import measured_confidence
from advisor.quality.pairs import Pairs


def pairs(n: int, *, separation: float = 2.2, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    s = rng.random(n) < 0.8
    large = rng.random(n) < np.where(s, 0.95, 0.6)
    return Pairs(rng.normal(size=n) + separation * s, s * 1.0, large * 1.0, np.ones(n))


def test_few_rows_move_little_and_many_decide() -> None:
    assumed = ConfidencePrior.for_task("sql")
    truth = float(special.ndtr(2.2 / np.sqrt(2)))
    few = measured_confidence(pairs(30), assumed)
    many = measured_confidence(pairs(20_000), assumed)
    assert few.basis == "mixed" and many.basis == "labels"
    assert assumed.auroc.value < few.auroc.value < truth
    assert many.auroc.value == pytest.approx(truth, abs=0.01)
    assert many.error_dependence.value == pytest.approx((0.95 / 0.05) / (0.6 / 0.4), rel=0.15)
    assert many.auroc.high - many.auroc.low < few.auroc.high - few.auroc.low


def test_what_the_rows_cannot_say_stays_assumed() -> None:
    assumed = ConfidencePrior.for_task("classification")
    n = 200
    rng = np.random.default_rng(1)
    always_right = Pairs(rng.random(n), np.ones(n), np.ones(n), np.ones(n))
    found = measured_confidence(always_right, assumed)
    assert found.auroc.value == pytest.approx(assumed.auroc.value)
    assert "stays assumed" in found.note
    silent = pairs(n)
    no_scores = Pairs(np.full(n, np.nan), silent.slm_correct, silent.llm_correct, np.ones(n))
    assert "stays assumed" in measured_confidence(no_scores, assumed).note


def test_a_perfect_ranking_of_few_rows_is_not_certainty() -> None:
    perfect = Pairs(np.arange(20.0), (np.arange(20) >= 5) * 1.0, np.ones(20), np.ones(20))
    found = measured_confidence(perfect, ConfidencePrior.for_task("classification"))
    assert found.auroc.value < 1
    assert found.auroc.low < 0.99
