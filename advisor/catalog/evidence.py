"""Published scores of small and large models, as in profiles/evidence/."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from advisor.catalog.models import Precision
from advisor.records import Record

EvidenceTask = Literal[
    "classification", "extraction", "sql", "summarization", "generation", "reasoning"
]
AdaptationName = Literal["zero_shot", "few_shot", "lora", "distilled", "full_ft"]

Scale = Literal[
    "accuracy",
    "f1",
    "execution",
    "rouge",
    "judge",
    "win_rate",
    "hallucination",
    "tree_similarity",
    "recovery",
]
"""What a score of 1 means, so that scores of different scales are never mixed:

accuracy         every answer is right (exact match, label, tool call)
f1               every entity is found and none invented
execution        every query returns the right rows
rouge            every answer has the words of the reference
judge            a language model finds every answer right, or gives full marks
win_rate         a language model prefers every answer to the baseline's
hallucination    no answer says what its document does not (1 - hallucination rate)
tree_similarity  every leaf of the extracted document is right
recovery         the quantised model scores what the 16-bit one does; above 1 is noise
"""

Subject = Literal["decoder", "encoder", "system"]
"""What was scored: a generative model, an encoder with a head, or several models with a program
around them (cascades, agents)."""

Unit = Literal["fraction", "percent", "percent_bad", "out_of_10", "percent_of_baseline"]


class EvidenceRow(Record):
    """One published score; higher is better on every scale."""

    id: str
    """Study, data set, model and adaptation."""
    task_type: EvidenceTask
    original_task: str
    """Task group under which the row was collected."""
    dataset: str
    metric: str
    """Metric as the source names it."""
    scale: Scale
    score: NonNegativeFloat
    """Fraction, higher is better: `published` brought to its scale; above 1 only for `recovery`."""
    published: float
    """The figure as the source prints it."""
    model: str
    subject: Subject = "decoder"
    params_b: PositiveFloat | None = None
    """Billions of parameters; None: not published."""
    active_params_b: PositiveFloat | None = None
    """Billions a token visits, where fewer than all."""
    adaptation: AdaptationName
    quantization: str
    """As the source describes it."""
    precision: Precision | None = None
    """The same as a format of this project; None: not stated, or a hosted model's."""
    source: str
    url: str
    """Link or arXiv id."""
    year: int
    vendor_reported: bool
    """Measured by the maker of the model or by someone who sells it."""
    verified: Literal["read", "secondary", "recalled"]
    """`read` in the source itself, or quoted from a secondary one."""
    n: PositiveInt | None = None
    """Test rows, where stated or fixed by the benchmark."""
    label_count: PositiveInt | None = None
    """Size of the closed answer set, for classification."""
    notes: str = ""

    @model_validator(mode="after")
    def _score_is_on_its_scale(self) -> EvidenceRow:
        if self.score > (1.2 if self.scale == "recovery" else 1.0):
            raise ValueError(f"score {self.score:g} is above 1 on scale {self.scale}")
        return self


class StudyRow(Record):
    """One model's score on one data set, in a file."""

    model: str
    subject: Subject = "decoder"
    params_b: PositiveFloat | None = None
    active_params_b: PositiveFloat | None = None
    adaptation: AdaptationName
    quantization: str = "none"
    published: float
    """The figure as the source prints it."""
    baseline: PositiveFloat | None = None
    """For `percent_of_baseline`: the 16-bit model's figure."""
    notes: str = ""


class StudyDataset(Record):
    """One data set of a study, with its scores."""

    name: str
    task_type: EvidenceTask
    original_task: str
    metric: str
    scale: Scale
    unit: Unit
    n: PositiveInt | None = None
    label_count: PositiveInt | None = None
    notes: str = ""
    rows: tuple[StudyRow, ...] = Field(min_length=1)


class Study(Record):
    """One published source."""

    id: str
    source: str
    url: str
    year: int
    verified: Literal["read", "secondary", "recalled"]
    vendor_reported: bool = False
    notes: str = ""
    datasets: tuple[StudyDataset, ...] = Field(min_length=1)

    def evidence(self) -> tuple[EvidenceRow, ...]:
        """Every score as a row of its own."""
        return tuple(
            EvidenceRow(
                id=_row_id(self.id, dataset.name, row),
                task_type=dataset.task_type,
                original_task=dataset.original_task,
                dataset=dataset.name,
                metric=dataset.metric,
                scale=dataset.scale,
                score=score_of(row.published, unit=dataset.unit, baseline=row.baseline),
                published=row.published,
                model=row.model,
                subject=row.subject,
                params_b=row.params_b,
                active_params_b=row.active_params_b,
                adaptation=row.adaptation,
                quantization=row.quantization,
                precision=precision_of(row.quantization) if row.params_b else None,
                source=self.source,
                url=self.url,
                year=self.year,
                vendor_reported=self.vendor_reported,
                verified=self.verified,
                n=dataset.n,
                label_count=dataset.label_count,
                notes="; ".join(filter(None, (row.notes, dataset.notes, self.notes))),
            )
            for dataset in self.datasets
            for row in dataset.rows
        )


class EvidenceFile(Record):
    """One file of profiles/evidence/."""

    studies: tuple[Study, ...] = Field(min_length=1)


def score_of(published: float, *, unit: Unit, baseline: float | None = None) -> float:
    """A printed figure as a fraction, higher is better.

    fraction             x
    percent              x / 100
    percent_bad          1 - x / 100   (a rate of failures)
    out_of_10            x / 10        (a judge's marks; only their order means something)
    percent_of_baseline  x / baseline  (baseline 100 where the source prints the ratio itself)

    Raises:
        ValueError: `percent_of_baseline` without a baseline.
    """
    match unit:
        case "fraction":
            score = published
        case "percent":
            score = published / 100
        case "percent_bad":
            score = 1 - published / 100
        case "out_of_10":
            score = published / 10
        case "percent_of_baseline":
            if baseline is None:
                raise ValueError("unit percent_of_baseline needs a baseline in each row")
            score = published / baseline
    return round(score, 6)


def precision_of(quantization: str) -> Precision | None:
    """The format that a source's description of quantisation means; None where it does not say."""
    text = quantization.casefold()
    formats: tuple[tuple[str, Precision], ...] = (
        ("nvfp4", "fp4"),
        ("mxfp4", "fp4"),
        ("fp8", "fp8"),
        ("int8", "int8"),
        ("int4", "int4"),
        ("4-bit", "int4"),
    )
    if text == "none":
        return "bf16"
    return next((name for mark, name in formats if mark in text), None)


def _row_id(study: str, dataset: str, row: StudyRow) -> str:
    parts = [study, _slug(dataset), _slug(row.model), row.adaptation]
    if row.quantization != "none":
        parts.append(_slug(row.quantization))
    return "/".join(parts)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.casefold()).strip("-")
