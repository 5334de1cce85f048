"""What is wrong with a log is said before anybody believes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import InputError
from advisor.quality.labels import LabelledLog, read_log
from advisor.quality.log_checks import check_log

Row = Mapping[str, Any]


def log_of(rows: Sequence[Row], tmp_path: Path) -> LabelledLog:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return read_log(path)


def row(number: int, **changes: Any) -> Row:
    return {
        "input": f"request {number}",
        "confidence": number / 100,
        "slm_correct": number % 7 > 0,
        "llm_correct": number % 9 > 0,
    } | changes


@pytest.mark.parametrize(
    ("changes", "severity", "said"),
    [
        ({}, "good", "100 rows read, of slm and llm"),
        ({"slm_correct": True}, "note", "every labelled answer of slm is right"),
        ({"llm_correct": 0}, "problem", "no labelled answer of llm is right"),
        ({"llm_correct": None}, "problem", "llm has no labels"),
        ({"confidence": None}, "problem", "no row has a confidence"),
        ({"confidence": float("nan")}, "problem", "no row has a confidence"),
        ({"confidence": 0.9}, "problem", "the same confidence"),
        ({"input": "again"}, "note", "99 of 100 requests occur again"),
    ],
)
def test_each_weakness_is_told(changes: Row, severity: str, said: str, tmp_path: Path) -> None:
    found = check_log(log_of([row(k, **changes) for k in range(100)], tmp_path))
    assert (severity, True) in [(one.severity, said in one.text) for one in found]


def test_gaps_are_counted(tmp_path: Path) -> None:
    rows = [row(k) for k in range(100)]
    rows[:10] = [row(k, confidence=None) for k in range(10)]
    rows[10:30] = [row(k, llm_correct=None) for k in range(10, 30)]
    texts = " ".join(one.text for one in check_log(log_of(rows, tmp_path)))
    assert "20 rows are not labelled for both models" in texts
    assert "10 rows (12.5 %) have no confidence" in texts


def test_a_csv_of_pairs_is_a_log(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("confidence,slm_correct,llm_correct\n0.9,1,0\n,0,1\n", encoding="utf-8")
    log = read_log(path)
    assert log.models == ("slm", "llm")
    assert log.rows[0].confidence == 0.9
    assert log.rows[1].confidence is None
    assert log.correct("llm").tolist() == [0, 1]
    path.write_text("confidence,slm_correct,llm_correct\n0.9,2,0\n", encoding="utf-8")
    with pytest.raises(InputError, match="slm_correct = 2 in row 1"):
        read_log(path)


def test_log_probabilities_stand_in_for_a_confidence(tmp_path: Path) -> None:
    """ln 0.5 on the one value token: a confidence of one half."""
    answer = {
        "text": "refund",
        "logprobs": {"content": [{"token": "refund", "logprob": -0.6931471805599453}]},
        "correct": 1,
    }
    log = log_of([{"outputs": {"slm": answer, "llm": {"correct": 1}}}], tmp_path)
    assert log.pairs().confidence.tolist() == pytest.approx([0.5])
