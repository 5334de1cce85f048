"""Reading logs, and what labels do to an estimate."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.quality.estimate import QualityEstimate
from advisor.quality.labels import read_log, read_log_pairs, transfer, update


def prior(mean: float = 2.4, sd: float = 1.2, shared: float = 0.9) -> QualityEstimate:
    return QualityEstimate.from_logit(
        mean=mean, sd=sd, shared_sd=shared, basis="prior", note="40 scores"
    )


def written(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_both_forms_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {
            "id": "a",
            "input": [{"role": "user", "content": "where is my parcel"}],
            "expected": "delivery",
            "risk": "high",
            "outputs": {
                "slm": {"text": "delivery", "latency_ms": 31, "correct": True},
                "llm": {"text": "order", "cost_usd": 0.001, "correct": 0},
                "other": {"text": "x"},
            },
        },
        "",
        {"slm_correct": 0, "llm_correct": 1, "confidence": 0.4, "gate_passed": False},
    )
    log = read_log(path)
    assert log.models == ("slm", "llm", "other")
    assert [row.id for row in log.rows] == ["a", "3"]
    assert log.rows[0].input_text == "where is my parcel"
    assert log.rows[0].outputs["slm"].latency_ms == 31
    assert log.correct("slm").tolist() == [1, 0]
    pairs = log.pairs()
    assert pairs.slm_correct.tolist() == [1, 0]
    assert pairs.llm_correct.tolist() == [0, 1]
    assert math.isnan(pairs.confidence[0]) and pairs.confidence[1] == 0.4
    assert pairs.gate_passed.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 1: not JSON"),
        ("[1, 2]", "an object was expected, not list"),
        ({"id": 1}, "'outputs', or 'slm_correct' and 'llm_correct', is missing"),
        ({"outputs": ["x"]}, "outputs must be an object by model name"),
        ({"outputs": {"slm": "x"}}, "outputs.slm: an object was expected, not str"),
        ({"outputs": {"slm": {"correct": 2}}}, "correct = 2: true, false or a score"),
        ({"outputs": {"slm": {"latency_ms": "fast"}}}, "latency_ms must be a number, not str"),
        ({"outputs": {"slm": {"text": 3}}}, "text must be text, not int"),
        ({"slm_correct": "yes", "llm_correct": 1}, "slm_correct = 'yes': true, false or a score"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(InputError, match="line 1") as caught:
        read_log(written(tmp_path, line))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_alone_are_read_as_from_the_whole_log(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"outputs": {"slm": {"correct": 1}, "llm": {"correct": 0.5}}, "confidence": 0.25},
        {"slm_correct": 0, "llm_correct": True, "gate_passed": 0},
        {"slm_correct": 1},
        {"outputs": {"llm": {"correct": 1}}},
    )
    whole, alone = read_log(path).pairs(), read_log_pairs(path)
    assert len(alone.slm_correct) == 2
    for name in ("confidence", "slm_correct", "llm_correct", "gate_passed"):
        assert np.array_equal(getattr(whole, name), getattr(alone, name), equal_nan=True)
    with pytest.raises(InputError, match="no row states 'correct' for both 'slm' and 'big'"):
        read_log_pairs(path, llm="big")


def test_files_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (empty, "is empty"),
        (binary, "not UTF-8"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.jsonl", "no file"),
    ):
        with pytest.raises(InputError, match=message):
            read_log(path)


def test_a_posterior_against_a_million_draws() -> None:
    """Importance sampling of the same prior and likelihood: 45 of 50 right."""
    rng = np.random.default_rng(0)
    x = rng.normal(2.4, 1.2, 1_000_000)
    log_weights = 45 * -np.log1p(np.exp(-x)) + 5 * -np.log1p(np.exp(x))
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    after = update(prior(), 45, 50)
    assert after.logit_mean == pytest.approx(weights @ x, abs=0.01)
    order = np.argsort(x)
    cumulative = np.cumsum(weights[order])
    for share, value in ((0.05, after.low), (0.5, after.median), (0.95, after.high)):
        exact = 1 / (1 + np.exp(-x[order][np.searchsorted(cumulative, share)]))
        assert value == pytest.approx(exact, abs=0.003)
    assert (after.basis, after.labels) == ("mixed", 50)
    assert "45 of 50" in after.note and "40 scores" in after.note


def test_many_labels_decide() -> None:
    after = update(prior(), 900, 1000)
    assert after.basis == "labels"
    assert after.median == pytest.approx(0.9, abs=0.003)
    assert after.high - after.low == pytest.approx(2 * 1.645 * math.sqrt(0.09 / 1000), rel=0.05)


@given(
    total=st.integers(0, 2000), share=st.floats(0, 1), mean=st.floats(-3, 5), sd=st.floats(0.1, 3)
)
def test_labels_never_widen_and_pull_towards_themselves(
    total: int, share: float, mean: float, sd: float
) -> None:
    before = QualityEstimate.from_logit(mean=mean, sd=sd, basis="prior")
    correct = round(share * total)
    after = update(before, correct, total)
    assert after.low <= after.median <= after.high
    assert after.logit_sd <= before.logit_sd * (1 + 1e-6)
    if total:
        observed = correct / total
        low, high = sorted((before.median, observed))
        assert low - 0.02 <= after.median <= high + 0.02


@pytest.mark.parametrize(("correct", "total"), [(5, 4), (-1, 4), (0, -1)])
def test_impossible_counts_are_refused(correct: int, total: int) -> None:
    with pytest.raises(InputError, match="correct"):
        update(prior(), correct, total)


def test_one_models_labels_say_something_about_the_other() -> None:
    small, large = prior(2.4), prior(2.8)
    after = update(small, 99, 100)
    moved = transfer(large, before=small, after=after)
    share = 0.9**2 / 1.2**2
    assert moved.logit_mean == pytest.approx(2.8 + share * (after.logit_mean - 2.4))
    assert after.logit_sd < moved.logit_sd < large.logit_sd
    assert moved.shared_sd < large.shared_sd
    assert transfer(prior(shared=0.0), before=small, after=after) == prior(shared=0.0)


def test_planning_follows_from_the_median() -> None:
    estimate = QualityEstimate.from_logit(mean=math.log(0.98 / 0.02), sd=0.5, basis="prior")
    assert estimate.labels_to_settle(0.95, 0.95) == 124
    assert estimate.labels_to_settle(0.98, 0.95) is None
    assert estimate.probability_at_least(0.98) == pytest.approx(0.5)
    assert estimate.probability_at_least(0.0) == 1.0
    assert estimate.probability_at_least(1.0) == 0.0
