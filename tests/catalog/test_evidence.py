"""Published scores: every figure on a scale where more is better, and traceable to its source."""

from __future__ import annotations

from collections import Counter

import pytest

from advisor.catalog import EvidenceRow, load_catalog
from advisor.catalog.evidence import Study, Unit, precision_of, score_of
from advisor.documents import validate
from advisor.errors import InputError

ROWS = load_catalog().evidence


def row(study: str, dataset: str, model: str) -> EvidenceRow:
    (found,) = (
        row
        for row in ROWS
        if row.id.startswith(study) and dataset in row.dataset and row.model == model
    )
    return found


def test_all_rows_are_there_by_the_group_they_were_collected_in() -> None:
    assert Counter(row.original_task for row in ROWS) == {
        "intent_classification": 48,
        "json_extraction": 39,
        "sql": 38,
        "open_ended": 29,
        "summarization": 15,
        "quantization": 11,
    }
    assert len({row.id for row in ROWS}) == 180


@pytest.mark.parametrize(
    ("published", "unit", "baseline", "score"),
    [
        (0.981, "fraction", None, 0.981),
        (62.13, "percent", None, 0.6213),
        (4.8, "percent_bad", None, 0.952),  # 4.8 % hallucinated, so 95.2 % did not
        (9.21, "out_of_10", None, 0.921),
        (98.9, "percent_of_baseline", 100, 0.989),
        (74.0, "percent_of_baseline", 78.9, 0.937896),
    ],
)
def test_units(published: float, unit: Unit, baseline: float | None, score: float) -> None:
    assert score_of(published, unit=unit, baseline=baseline) == pytest.approx(score, abs=1e-6)


def test_scores_are_fractions_and_only_recoveries_pass_one() -> None:
    for one in ROWS:
        assert 0 <= one.score <= (1.2 if one.scale == "recovery" else 1)
    above = {one.dataset for one in ROWS if one.score > 1}
    assert above == {"OpenLLM v1", "OpenLLM v2", "Arena-Hard"}


def test_a_lower_hallucination_rate_is_a_higher_score() -> None:
    small, large = (row("vectara", "HHEM", name) for name in ("qwen3-8b", "gpt-4o-2024-08-06"))
    assert (small.published, large.published) == (4.8, 9.6)
    assert small.score == 0.952 > large.score == 0.904


def test_known_rows_in_full() -> None:
    dbpedia = row("lora-land", "dbpedia", "mistral-7b")
    assert (dbpedia.task_type, dbpedia.scale, dbpedia.score) == (
        *("classification", "accuracy", 0.981),
    )
    assert (dbpedia.label_count, dbpedia.adaptation, dbpedia.precision) == (14, "lora", "int4")
    assert dbpedia.url.startswith("arXiv:2405.00732") and not dbpedia.vendor_reported
    bird = row("xiyansql", "BIRD", "XiYanSQL-QwenCoder-7B-2504")
    assert (bird.scale, bird.score, bird.n, bird.vendor_reported) == (
        *("execution", 0.6213, 1534, True),
    )


def test_classification_rows_know_how_many_classes() -> None:
    counts = {one.dataset: one.label_count for one in ROWS if one.task_type == "classification"}
    assert None not in counts.values()
    assert {counts["Banking77"], counts["glue_sst2"], counts["TREC"]} == {77, 2, 6}
    assert all(one.label_count is None for one in ROWS if one.task_type != "classification")


def test_what_is_no_single_generative_model_is_marked() -> None:
    subjects = {one.model: one.subject for one in ROWS if one.subject != "decoder"}
    assert subjects == {
        "RoBERTa-base + classifier": "encoder",
        "BERT-base + classifier": "encoder",
        "USE + ConveRT": "encoder",
        "CPFT (RoBERTa)": "encoder",
        "GLiNER-L": "encoder",
        "FrugalGPT cascade": "system",
        "TA + gpt-4o": "system",
    }


def test_active_parameters_are_a_part_of_all() -> None:
    for one in ROWS:
        if one.active_params_b is not None:
            assert one.params_b is not None and one.active_params_b < one.params_b


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("none", "bf16"),
        ("4-bit (QLoRA)", "int4"),
        ("INT4 W4A16 GPTQ g128", "int4"),
        ("INT8 W8A8", "int8"),
        ("NVFP4 RTN", "fp4"),
        ("hosted Turbo (precision not stated)", None),
        ("not stated", None),
    ],
)
def test_formats_from_descriptions(text: str, precision: str | None) -> None:
    assert precision_of(text) == precision


def test_hosted_models_have_no_known_format() -> None:
    assert all(one.precision is None for one in ROWS if one.params_b is None)


def test_a_score_off_its_scale_is_refused() -> None:
    study = {
        "id": "s",
        "source": "s",
        "url": "u",
        "year": 2026,
        "verified": "read",
        "datasets": [
            {
                "name": "d",
                "task_type": "sql",
                "original_task": "sql",
                "metric": "accuracy %",
                "scale": "accuracy",
                "unit": "fraction",
                "rows": [{"model": "m", "adaptation": "zero_shot", "published": 62.1}],
            }
        ],
    }
    parsed = validate(Study, study, what="study")
    with pytest.raises(ValueError, match=r"score 62\.1 is above 1 on scale accuracy"):
        parsed.evidence()
    study["year"] = "MMXXVI"
    with pytest.raises(InputError, match="year = 'MMXXVI'"):
        validate(Study, study, what="study")
