"""Projections from the published evidence that is shipped."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import special

from advisor.catalog import load_catalog
from advisor.catalog.evidence import EvidenceRow
from advisor.quality.covariates import dataset_key, setting_of
from advisor.quality.prior import QualityEstimate, QualityModel, family_of


@lru_cache
def model() -> QualityModel:
    return QualityModel.from_evidence(load_catalog().evidence)


def project(**changes: object) -> QualityEstimate:
    candidate: dict[str, object] = {
        "task_type": "classification",
        "metric": "exact_match",
        "output": "label",
        "label_count": 20,
        "params_b": 8.0,
        "adaptation": "lora",
        "precision": "bf16",
    }
    return model().project(**{**candidate, **changes})  # type: ignore[arg-type]


def test_training_on_the_task_beats_a_prompt_and_more_so_for_small_models() -> None:
    gains = []
    for params in (1.0, 8.0, 70.0):
        prompted = project(params_b=params, adaptation="zero_shot")
        examples = project(params_b=params, adaptation="few_shot")
        trained = project(params_b=params, adaptation="lora")
        assert prompted.median < examples.median < trained.median
        gains.append(trained.logit_mean - prompted.logit_mean)
    assert gains == sorted(gains, reverse=True)


def test_a_larger_model_prompts_better() -> None:
    medians = [project(params_b=p, adaptation="zero_shot").median for p in (0.5, 3, 8, 32, 400)]
    assert medians == sorted(medians)


def test_more_labels_are_harder_and_four_bits_cost_a_little() -> None:
    assert project(label_count=4).median > project(label_count=77).median
    whole, quarter = project(), project(precision="int4")
    assert 0 < whole.logit_mean - quarter.logit_mean < 0.2
    assert abs(whole.logit_mean - project(precision="fp8").logit_mean) < 0.05


def test_a_mixture_of_experts_lies_between_its_two_sizes() -> None:
    sparse = project(params_b=30.0, active_params_b=3.0, adaptation="zero_shot")
    small = project(params_b=3.0, adaptation="zero_shot")
    large = project(params_b=30.0, adaptation="zero_shot")
    assert small.median < sparse.median < large.median


def test_a_hosted_model_of_unknown_size_is_judged_by_its_tier() -> None:
    small = project(params_b=None, hosted_model="gpt-5-mini", adaptation="zero_shot")
    large = project(params_b=None, hosted_model="gpt-5", adaptation="zero_shot")
    assert project(params_b=8.0, adaptation="zero_shot").median < small.median < large.median


def test_it_names_the_rows_it_rests_on() -> None:
    rows = {row.id: row for row in load_catalog().evidence}
    estimate = project()
    assert estimate.basis == "prior"
    assert estimate.evidence_ids
    assert all(rows[i].task_type == "classification" for i in estimate.evidence_ids)
    assert "classification" in estimate.note


def test_no_evidence_gives_a_wide_interval_and_says_assumed() -> None:
    blank = QualityModel.from_evidence(()).project(
        task_type="classification",
        metric="exact_match",
        output="label",
        label_count=20,
        params_b=8.0,
        adaptation="lora",
        precision="bf16",
    )
    assert blank.basis == "assumed"
    assert blank.evidence_ids == ()
    assert blank.logit_sd > project().logit_sd
    assert blank.high - blank.low > 0.6


def test_kinds_of_score_are_kept_apart() -> None:
    families = {row.scale: family_of(row) for row in load_catalog().evidence}
    assert families["rouge"] == "overlap"
    assert families["hallucination"] == "faithful"
    assert families["win_rate"] is None
    summary = {"task_type": "summarization", "output": "text", "label_count": None}
    overlap = project(**summary, metric="rouge_l")
    faithful = project(**summary, metric="pass_rate")
    rows = {row.id: row for row in load_catalog().evidence}
    assert {rows[i].scale for i in overlap.evidence_ids} == {"rouge"}
    assert {rows[i].scale for i in faithful.evidence_ids} == {"hallucination"}
    assert overlap.median < faithful.median


def test_a_vendor_row_moves_the_projection_less_than_an_independent_one() -> None:
    rows = load_catalog().evidence
    template = next(row for row in rows if row.id.startswith("lora-land/dbpedia"))

    def moved(vendor: bool) -> float:
        changed = {
            "id": "new",
            "dataset": "new data set",
            "source": "new study",
            "score": 0.995,
            "vendor_reported": vendor,
            "n": 10_000,
        }
        extra = template.model_copy(update=changed)
        other = QualityModel.from_evidence((*rows, extra))
        setting = setting_of(template.model_copy(update={"dataset": "?", "source": "?"}))
        return other.fit("correct").predict(setting).mean

    before = model().fit("correct")
    base = before.predict(
        setting_of(template.model_copy(update={"dataset": "?", "source": "?"}))
    ).mean
    assert base < moved(vendor=True) < moved(vendor=False)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Banking77 (500 sampled)", "banking77"),
        ("Banking77 10-shot/class", "banking77"),
        ("BFCL v3 overall", "bfcl v3 overall"),
        ("GSM8K (n=1307)", "gsm8k"),
    ],
)
def test_variants_of_a_data_set_are_one_data_set(name: str, key: str) -> None:
    assert dataset_key(name) == key


def test_left_out_studies_fall_into_their_intervals_more_narrowly_than_task_means() -> None:
    """Leave one study out: 80 % intervals cover 75–90 %, with a better interval score."""
    rows = [row for row in load_catalog().evidence if family_of(row) == "correct"]
    covered, ours, plain = [], [], []
    for source in sorted({row.source for row in rows}):
        held = [row for row in rows if row.source == source]
        rest = tuple(row for row in load_catalog().evidence if row.source != source)
        fit = QualityModel.from_evidence(rest).fit("correct")
        for row in held:
            prediction = fit.predict(setting_of(row))
            low, high = interval_80(prediction.mean, prediction.sd)
            covered.append(low <= row.score <= high)
            ours.append(interval_score(low, high, row.score))
            plain.append(interval_score(*task_interval(row, rest), row.score))
    print(f"coverage {np.mean(covered):.3f}, score {np.mean(ours):.3f} ({np.mean(plain):.3f})")
    assert 0.75 <= np.mean(covered) <= 0.90
    assert np.mean(ours) < np.mean(plain)


def interval_80(mean: float, sd: float) -> tuple[float, float]:
    return float(special.expit(mean - 1.2816 * sd)), float(special.expit(mean + 1.2816 * sd))


def task_interval(row: EvidenceRow, rest: tuple[EvidenceRow, ...]) -> tuple[float, float]:
    """Mean and spread of the log-odds of the same task type (of all, where it has no others)."""
    known = [r for r in rest if family_of(r) == "correct"]
    same = [r.score for r in known if r.task_type == row.task_type] or [r.score for r in known]
    logits = special.logit(np.clip(same, 0.005, 0.995))
    return interval_80(float(np.mean(logits)), float(np.std(logits, ddof=1)))


def interval_score(low: float, high: float, value: float) -> float:
    """Width plus 2/α for each unit outside (Gneiting and Raftery 2007), α = 0.2."""
    return high - low + 10 * max(0.0, low - value, value - high)
