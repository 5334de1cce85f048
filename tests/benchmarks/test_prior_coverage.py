"""The evidence model against studies it has not seen, beside simpler models.

pytest tests/benchmarks/test_prior_coverage.py -m benchmark -s
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import special

from advisor.catalog import load_catalog
from advisor.catalog.evidence import EvidenceRow
from advisor.quality import mixed_model
from advisor.quality.covariates import setting_of
from advisor.quality.prior import QualityModel, family_of

pytestmark = pytest.mark.benchmark

LEVELS = {0.5: 0.6745, 0.8: 1.2816, 0.9: 1.6449}


def interval_score(low: float, high: float, value: float, level: float) -> float:
    return high - low + 2 / (1 - level) * max(0.0, low - value, value - high)


def test_leave_one_study_out() -> None:
    rows = [row for row in load_catalog().evidence if family_of(row) == "correct"]
    scores: dict[tuple[str, float], list[float]] = {}
    covered: dict[tuple[str, float], list[bool]] = {}
    began = time.perf_counter()
    sources = sorted({row.source for row in rows})
    for source in sources:
        rest = tuple(row for row in rows if row.source != source)
        fit = QualityModel.from_evidence(rest).fit("correct")
        for row in (row for row in rows if row.source == source):
            ours = fit.predict(setting_of(row))
            for name, mean, sd in (
                ("hierarchical", ours.mean, ours.sd),
                (
                    "task-type mean",
                    *moments([r for r in rest if r.task_type == row.task_type], rest),
                ),
                ("grand mean", *moments(rest, rest)),
            ):
                for level, z in LEVELS.items():
                    low, high = special.expit([mean - z * sd, mean + z * sd])
                    scores.setdefault((name, level), []).append(
                        interval_score(low, high, row.score, level)
                    )
                    covered.setdefault((name, level), []).append(bool(low <= row.score <= high))
    print(f"\n{len(rows)} scores, {len(sources)} studies, {time.perf_counter() - began:.1f} s")
    for (name, level), values in scores.items():
        print(
            f"{name:16} {level:.0%} interval: covers {np.mean(covered[name, level]):.3f}, "
            f"interval score {np.mean(values):.3f}"
        )
    assert 0.75 <= np.mean(covered["hierarchical", 0.8]) <= 0.90
    assert np.mean(scores["hierarchical", 0.8]) < np.mean(scores["task-type mean", 0.8])


def moments(
    rows: list[EvidenceRow] | tuple[EvidenceRow, ...], others: tuple[EvidenceRow, ...]
) -> tuple[float, float]:
    logits = special.logit(np.clip([r.score for r in rows or others], 0.005, 0.995))
    return float(np.mean(logits)), float(np.std(logits, ddof=1))


def test_more_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the lattice: no projection moves by a hundredth."""

    def medians() -> list[float]:
        model = QualityModel.from_evidence(load_catalog().evidence)
        return [
            model.project(
                task_type=task,
                metric=metric,
                output="text",
                label_count=20 if task == "classification" else None,
                params_b=params,
                adaptation=adaptation,
                precision="bf16",
            ).median
            for task, metric in (("classification", "exact_match"), ("sql", "execution_match"))
            for params in (1.0, 8.0, 70.0)
            for adaptation in ("zero_shot", "few_shot", "lora")
        ]

    shipped = np.array(medians())
    monkeypatch.setattr(mixed_model, "DRAWS", 10 * mixed_model.DRAWS)
    dense = np.array(medians())
    print(f"\nlargest change of a median: {np.abs(shipped - dense).max():.4f}")
    assert np.abs(shipped - dense).max() < 0.01
