"""Thresholds from the small model's labels alone."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.errors import InputError
from advisor.quality.conformal import COVERAGES, certify_accepted, control_risk


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidence c uniform, right with probability c: P(wrong | c > t) = (1 − t)/2."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    return confidence, (rng.random(n) < confidence).astype(float)


def test_accepted_answers_are_as_right_as_certified() -> None:
    """At most 10 % violations in 200 worlds of 4,000 rows at 90 % confidence."""
    violations = certified = 0
    for seed in range(200):
        found = certify_accepted(*world(4000, seed), target=0.9, confidence_level=0.9)
        if found.threshold is not None:
            certified += 1
            violations += (1 - found.threshold) / 2 > 0.1
    assert certified > 100
    assert violations <= 20


def test_twenty_looks_cost_rows() -> None:
    """All right: the union bound needs ln(.05/20)/ln(.95) = 117 rows, not 59."""
    assert len(COVERAGES) == 20
    for rows, expected in ((117, True), (116, False)):
        found = certify_accepted(
            np.linspace(0, 1, rows), np.ones(rows), target=0.95, confidence_level=0.95
        )
        assert found.certified is expected
    assert found.reason


def test_conformal_risk_on_a_hand_computed_case() -> None:
    """99 rows, allowed 0.05: (R·99 + 1)/100 ≤ .05 allows four wrong accepted ones.

    Wrong rows at .1, .2, .3, .4, .5, .6: the cut lies on .2, the fifth from above.
    """
    confidence = np.concatenate([np.arange(1, 7) / 10, np.full(93, 0.9)])
    correct = np.concatenate([np.zeros(6), np.ones(93)])
    found = control_risk(confidence, correct, allowed=0.05)
    assert found.threshold == pytest.approx(0.2)
    assert found.escalation_rate == pytest.approx(2 / 99)
    assert found.accepted_error == pytest.approx(4 / 97)


def test_conformal_risk_holds_on_average() -> None:
    """E[wrong and accepted] = (1 − t)²/2 ≤ allowed over 400 worlds, and not by a wide margin."""
    risks = []
    for seed in range(400):
        found = control_risk(*world(200, seed), allowed=0.08)
        assert found.threshold is not None
        risks.append((1 - max(found.threshold, 0)) ** 2 / 2)
    assert 0.07 < np.mean(risks) <= 0.08


def test_too_few_rows_say_how_many() -> None:
    found = control_risk([0.5] * 10, [1] * 10, allowed=0.05)
    assert not found.certified
    assert "19 rows are needed" in found.reason
    assert control_risk([0.5] * 19, [1] * 19, allowed=0.05).certified


def test_missing_confidence_is_never_accepted() -> None:
    found = control_risk([np.nan, 0.5] * 100, [0, 1] * 100, allowed=0.05)
    assert found.accepted_error == 0.0
    assert found.escalation_rate == 0.5


def test_all_answers_tied_or_wrong() -> None:
    assert not certify_accepted([0.5] * 50, [0] * 50, target=0.9, confidence_level=0.9).certified
    everything = certify_accepted([0.5] * 500, [1] * 500, target=0.9, confidence_level=0.9)
    assert everything.escalation_rate == 0.0
    with pytest.raises(InputError, match="shape"):
        control_risk([0.5], [1, 0], allowed=0.1)
