"""Evaluating a log from end to end."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advisor.errors import InputError
from advisor.quality.evaluate import evaluate_log
from advisor.task import TaskProfile


def written(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def answered(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Requests with one of five labels, log-probabilities, latencies and costs."""
    rng = np.random.default_rng(seed)
    labels = ["refund", "card", "login", "price", "order"]
    rows = []
    for k in range(n):
        label = labels[k % 5]
        right = rng.random() < 0.85
        wrong_label = labels[(k + 1) % 5]
        sure = -abs(rng.normal(0.05 if right else 0.6, 0.2))
        rows.append(
            {
                "input": f"{'urgent ' if not right else ''}question {k % 7} about {label}",
                "expected": label,
                "outputs": {
                    "slm": {
                        "text": label if right else wrong_label,
                        "logprobs": {"content": [{"token": label, "logprob": sure}]},
                        "latency_ms": 20 + k % 10,
                        "cost_usd": 1e-5,
                    },
                    "llm": {
                        "text": label if rng.random() < 0.96 else "nonsense",
                        "latency_ms": 300,
                        "cost_usd": 1e-3,
                    },
                },
            }
        )
    return rows


def profile() -> TaskProfile:
    return TaskProfile.model_validate(
        {
            "name": "labels",
            "task": {
                "type": "classification",
                "output": "label",
                "labels": ["refund", "card", "login", "price", "order"],
            },
            "quality": {"metric": "exact_match", "threshold": 0.93},
            "traffic": {"requests_per_day": 1000, "input_tokens": 50, "output_tokens": 3},
        }
    )


def test_a_log_of_answers(tmp_path: Path) -> None:
    report = evaluate_log(written(tmp_path, answered(600)), task=profile())
    small, large = report.models
    assert (small.model, large.model) == ("slm", "llm")
    assert small.quality == pytest.approx(0.85, abs=0.04)
    assert small.low < small.quality < small.high
    assert small.macro_f1 == pytest.approx(small.quality, abs=0.02)
    assert small.latency_p95_ms == pytest.approx(29, abs=1)
    assert small.gate_failures == {}
    assert 0 < large.gate_failures["label"] == round(600 * (1 - large.quality))
    assert report.confidence is not None
    assert "cross-fitted" in report.confidence.source
    assert report.confidence.auroc is not None and report.confidence.auroc > 0.8
    assert report.confidence.ece is not None and report.confidence.ece < 0.1
    assert report.policies is not None and report.policies.pays
    assert report.labels_to_settle["slm"] is None
    assert report.labels_to_settle["llm"] is not None
    json.loads(report.model_dump_json())


def test_a_flat_log(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    right = rng.random(300) < 0.8
    rows = [
        {"slm_correct": int(r), "llm_correct": 1, "confidence": float(c)}
        for r, c in zip(right, np.clip(0.4 * right + 0.6 * rng.random(300), 0, 1), strict=True)
    ]
    rows.append({"slm_correct": 1})
    report = evaluate_log(written(tmp_path, rows), target=0.9)
    assert report.models[0].labelled == 301
    assert report.confidence is not None
    assert report.confidence.source == "the log's own confidence"
    assert sum(count for _, _, count in report.confidence.bins) == 300
    assert report.policies is not None and report.policies.rows == 300
    assert report.notes == ("llm: 1 of 301 rows unlabelled",)


def test_few_rows_use_the_weakest_token_and_say_little(tmp_path: Path) -> None:
    report = evaluate_log(written(tmp_path, answered(40)))
    assert report.confidence is not None
    assert report.confidence.source == "least likely value token"
    assert report.confidence.ece is None
    assert "say little" in report.confidence.notes[-1]


def test_one_class_only(tmp_path: Path) -> None:
    rows = [{"slm_correct": 1, "llm_correct": 1, "confidence": k / 100} for k in range(100)]
    report = evaluate_log(written(tmp_path, rows))
    assert report.confidence is not None
    assert report.confidence.auroc is None
    assert "none of 100 rows is wrong" in report.confidence.notes[0]
    assert report.policies is not None and not report.policies.pays


def test_a_log_without_confidence_or_second_model(tmp_path: Path) -> None:
    report = evaluate_log(written(tmp_path, [{"slm_correct": 1}, {"slm_correct": 0.5}]))
    assert report.confidence is None
    assert report.policies is None
    assert report.models[0].quality == 0.75


def test_other_names_can_be_compared(tmp_path: Path) -> None:
    rows = [
        {
            "confidence": k / 100,
            "outputs": {"tiny": {"correct": k % 3 > 0}, "huge": {"correct": True}},
        }
        for k in range(100)
    ]
    report = evaluate_log(written(tmp_path, rows), slm="tiny", llm="huge")
    assert report.policies is not None
    assert report.policies.slm_quality == pytest.approx(0.66)


def test_graded_metrics_and_those_that_need_more_than_text(tmp_path: Path) -> None:
    rows = [{"expected": "a b c d", "outputs": {"slm": {"text": "a b c"}}}] * 3
    path = written(tmp_path, rows)
    assert evaluate_log(path, metric="rouge_l").models[0].quality == pytest.approx(6 / 7)
    with pytest.raises(InputError, match="must state 'correct'"):
        evaluate_log(path, metric="execution_match")


def test_queries_are_scored_by_what_they_return(tmp_path: Path) -> None:
    database = tmp_path / "shop.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE t AS SELECT 1 AS a UNION SELECT 2")
    connection.commit()
    connection.close()
    rows = [
        {"expected": "SELECT a FROM t", "outputs": {"slm": {"text": query}}}
        for query in ("SELECT a FROM t ORDER BY a DESC", "SELECT MAX(a) FROM t", "DROP TABLE t")
    ]
    report = evaluate_log(written(tmp_path, rows), metric="execution_match", database=database)
    assert report.models[0].quality == pytest.approx(1 / 3)


def test_nan_confidences_in_a_log_are_missing_ones(tmp_path: Path) -> None:
    rows = [
        {"slm_correct": k % 2, "llm_correct": 1, "confidence": math.nan if k % 5 == 0 else k / 200}
        for k in range(200)
    ]
    report = evaluate_log(written(tmp_path, rows))
    assert report.confidence is not None
    assert report.confidence.rows == 160
