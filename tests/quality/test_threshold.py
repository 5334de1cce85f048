"""The certified threshold: known answers, a slow reference, hostile columns."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.quality.threshold import Start, certify, certify_file, fixed_grid


def world(
    n: int, *, seed: int, slm: float = 0.85, rescued: float = 0.8, right: float = 0.97
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    s = rng.random(n) < slm
    confidence = 1 / (1 + np.exp(-(rng.normal(size=n) + 2.0 * s)))
    large = rng.random(n) < np.where(s, right, rescued)
    return confidence, s.astype(float), large.astype(float)


@pytest.mark.parametrize("start", ["llm", "slm"])
def test_59_rows_without_a_failure_certify_95_percent_and_58_do_not(start: Start) -> None:
    for rows, expected in ((59, True), (58, False)):
        found = certify(
            np.linspace(0.5, 1, rows),
            np.ones(rows),
            np.ones(rows),
            target=0.95,
            confidence_level=0.95,
            start=start,
        )
        assert found.certified is expected
        assert found.rows_needed == 59


def test_from_both_ends_each_spends_a_little_less_than_half_the_error() -> None:
    """0.05/2 less a fiftieth of 0.05 is 0.024: .95^73 = .0236, .95^72 = .0249."""
    for rows, expected in ((73, True), (72, False)):
        found = certify(
            np.linspace(0, 1, rows),
            np.ones(rows),
            np.ones(rows),
            target=0.95,
            confidence_level=0.95,
            start="both",
        )
        assert found.certified is expected


def test_a_small_hand_computed_sequence() -> None:
    """40 rows, target 0.5 at 90 %: accepting from the surest down, until errors are too many.

    The large model is always right, the small one right above 0.5 and wrong below. Thresholds at
    .75, .5, .25: wrong rows 0, 0, 10, 20. P(Bin(40, .5) ≤ 10) = .0011, P(Bin(40, .5) ≤ 20) = .56.
    """
    confidence = np.arange(40) / 40
    found = certify(
        confidence,
        confidence >= 0.5,
        np.ones(40),
        target=0.5,
        confidence_level=0.9,
        start="llm",
        grid=[0.25, 0.5, 0.75],
    )
    assert found.certified
    assert found.threshold == 0.25
    assert found.escalation_rate == pytest.approx(10 / 40)
    assert found.quality.value == pytest.approx(30 / 40)


@given(seed=st.integers(0, 50), n=st.integers(20, 300), target=st.floats(0.6, 0.95))
def test_it_agrees_with_testing_one_threshold_after_the_other(
    seed: int, n: int, target: float
) -> None:
    confidence, s, large = world(n, seed=seed)
    found = certify(confidence, s, large, target=target, confidence_level=0.9, start="llm")
    certified = None
    for threshold in [2.0, *np.sort(fixed_grid(confidence))[::-1], 0.0]:
        wrong = sum(
            1 - (si if ci >= threshold else li)
            for ci, si, li in zip(confidence, s, large, strict=True)
        )
        tail = sum(
            math.comb(n, k) * (1 - target) ** k * target ** (n - k) for k in range(int(wrong) + 1)
        )
        if tail > 0.1:
            break
        certified = threshold
    assert found.certified is (certified is not None)
    if certified is not None and certified <= 1:
        assert found.threshold == pytest.approx(certified)
        assert found.escalation_rate == pytest.approx(np.mean(confidence < certified))


def test_a_better_small_model_certifies_from_its_own_end_only() -> None:
    confidence, s, large = world(3000, seed=5, slm=0.97, rescued=0.3, right=0.8)
    results = {
        start: certify(confidence, s, large, target=0.95, confidence_level=0.95, start=start)
        for start in ("llm", "slm", "both")
    }
    assert not results["llm"].certified
    assert results["slm"].escalation_rate == results["both"].escalation_rate == 0.0


def test_a_hybrid_above_both_models_needs_a_pilot() -> None:
    """Both models at about 92 %, together 96 %: neither end can certify 94 %."""
    confidence, s, large = world(6000, seed=6, slm=0.92, rescued=0.75, right=0.935)
    both = certify(confidence, s, large, target=0.94, confidence_level=0.95, start="both")
    pilot = certify(confidence, s, large, target=0.94, confidence_level=0.95, start="pilot")
    assert not both.certified
    assert "pilot" in both.reason
    assert pilot.certified
    assert pilot.rows == 4500
    assert 0 < (pilot.escalation_rate or 0) < 1


def test_a_failed_gate_is_handed_up_however_sure() -> None:
    confidence, s, large = np.full(200, 0.99), np.zeros(200), np.ones(200)
    gate = np.zeros(200)
    found = certify(confidence, s, large, gate, target=0.95, confidence_level=0.95, start="both")
    assert found.certified
    assert found.escalation_rate == 1.0


def test_graded_scores_certify_more_cautiously_than_right_or_wrong() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    confidence = rng.random(n)
    graded = np.clip(rng.normal(0.95, 0.05, n), 0, 1)
    found = certify(confidence, graded, graded, target=0.92, confidence_level=0.95, start="slm")
    assert found.certified
    tight = certify(
        confidence,
        graded,
        graded,
        target=float(graded.mean()) - 0.001,
        confidence_level=0.95,
        start="slm",
    )
    assert not tight.certified


@pytest.mark.parametrize(
    ("confidence", "s", "large", "certified"),
    [
        (np.full(100, 0.7), np.ones(100), np.ones(100), True),
        (np.full(100, 0.7), np.zeros(100), np.zeros(100), False),
        (np.full(100, np.nan), np.ones(100), np.ones(100), True),
        (np.array([np.inf, -np.inf] * 50), np.ones(100), np.ones(100), True),
        (np.linspace(-9, 0, 100), np.ones(100), np.ones(100), True),
        (np.ones(1), np.ones(1), np.ones(1), False),
    ],
    ids=["ties", "none correct", "no confidence", "infinite", "log-probabilities", "one row"],
)
def test_hostile_columns_give_a_result_or_a_reason(
    confidence: np.ndarray, s: np.ndarray, large: np.ndarray, certified: bool
) -> None:
    for start in ("llm", "slm", "both"):
        found = certify(confidence, s, large, target=0.9, confidence_level=0.9, start=start)
        assert found.certified is certified
        assert found.reason
        json.loads(found.model_dump_json(), parse_constant=pytest.fail)


def test_rows_without_confidence_are_handed_up_and_counted() -> None:
    confidence = np.where(np.arange(400) % 4 == 0, np.nan, 0.9)
    found = certify(
        confidence, np.ones(400), np.ones(400), target=0.9, confidence_level=0.9, start="slm"
    )
    assert found.escalation_rate == 0.25
    assert "100 of 400 rows have no confidence" in found.warnings[0]


def test_copied_rows_are_noticed() -> None:
    confidence, s, large = world(200, seed=1)
    copied = [np.repeat(column, 5) for column in (confidence, s, large)]
    found = certify(*copied, target=0.8, confidence_level=0.9, start="both")
    assert any("copies" in warning for warning in found.warnings)
    fresh = certify(confidence, s, large, target=0.8, confidence_level=0.9, start="both")
    assert fresh.warnings == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slm_correct": [2.0, 1.0]}, "slm_correct = 2 in row 1"),
        ({"llm_correct": [1.0, math.nan]}, "llm_correct = nan in row 2"),
        ({"llm_correct": [1.0]}, "llm_correct: 1 rows, but confidence has 2"),
        ({"confidence": []}, "at least one row"),
        ({"confidence": ["a", "b"]}, "numbers were expected"),
        ({"target": 95.0}, "target = 95"),
        ({"confidence_level": 1.0}, "confidence = 1"),
        ({"grid": [math.inf]}, "finite thresholds"),
    ],
)
def test_bad_input_is_one_clear_line(changes: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "confidence": [0.5, 0.6],
        "slm_correct": [1, 0],
        "llm_correct": [1, 1],
        "target": 0.9,
        "confidence_level": 0.9,
    }
    with pytest.raises(InputError, match=message):
        certify(**{**good, **changes})  # type: ignore[arg-type]


def test_the_same_certificate_from_csv_and_from_a_log(tmp_path: Path) -> None:
    confidence, s, large = world(500, seed=9)
    confidence = confidence.round(6)
    csv = tmp_path / "pairs.csv"
    csv.write_text(
        "id,confidence,slm_correct,llm_correct\n"
        + "\n".join(
            f"{i},{c},{a:g},{b:g}"
            for i, (c, a, b) in enumerate(zip(confidence, s, large, strict=True))
        )
    )
    log = tmp_path / "log.jsonl"
    log.write_text(
        "\n".join(
            json.dumps({"confidence": c, "slm_correct": a, "llm_correct": b})
            for c, a, b in zip(confidence.tolist(), s.tolist(), large.tolist(), strict=True)
        )
    )
    direct = certify(confidence, s, large, target=0.9, confidence_level=0.9, start="llm")
    assert direct.certified
    for path in (csv, log):
        assert certify_file(path, target=0.9, confidence_level=0.9, start="llm") == direct
