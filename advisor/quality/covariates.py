"""What a published score depends on: the columns of the evidence model and their weak priors.

Each prior is the belief before the evidence rows are seen, on the log-odds scale; with a hundred
rows the rows decide most of them. Where they come from:

- Size. Zero-shot accuracy grows about linearly in log-parameters within a task (Kaplan et al.,
  arXiv 2001.08361; Llama 3.1's model card: 8B → 70B gains 0.4–0.7 log-odds a decade). After
  fine-tuning on the task little of it is left (LoRA Land, arXiv 2405.00732: 2.7B ≈ 7B).
- Adaptation. Few-shot examples help some (Brown et al., arXiv 2005.14165); fine-tuning helps a
  lot on narrow tasks and by an amount that differs between data sets (arXiv 2405.00732; DB-GPT-Hub:
  Spider .15–.54 → .65–.75), hence a shared sd of its own.
  Where answers are open it teaches style and little knowledge (LIMA, arXiv 2305.11206; a tuned 7B
  gains nothing on MMLU, arXiv 2405.00732).
- Quantisation: recovery of the 16-bit score (arXiv 2411.02355 and model cards), in log-odds.
- Labels: more classes are harder to tell apart; opinions (sentiment, toxicity) have a ceiling
  because annotators disagree; ten examples a class are not a training set.
- Encoders with a classification head are smaller than their scores suggest; how much of that
  carries over to a decoder trained on the same labels is not known, so little is granted to them.
- Reporting: vendors' rows may flatter, raw-completion scoring punishes formats. Both are taken
  out of a projection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from advisor.quality.mixed_model import RESIDUAL, Column, FloatArray

if TYPE_CHECKING:
    from advisor.catalog.evidence import EvidenceRow

REFERENCE_LOG_PARAMETERS = math.log10(8.0)
"""Sizes are counted in decades from 8 billion parameters."""

REFERENCE_LABELS = 10
"""Classes of a classification task at which the label-count effect is zero."""

TASK_TYPES = ("classification", "extraction", "sql", "summarization", "generation", "reasoning")

TUNED = frozenset({"lora", "distilled", "full_ft"})
"""Adaptations that train the model on the task."""

OPEN_TASKS = frozenset({"summarization", "generation", "reasoning"})
"""Task types whose answers are not bounded by labels or a schema."""

UNSTATED_B = {"hosted": 300.0, "hosted_small": 30.0, "compact": 3.0}
"""Billions of parameters assumed where the maker states none; the coefficient `unstated` corrects
the hosted ones."""

SMALL_HOSTED = ("mini", "nano", "haiku", "flash", "lite", "small", "gpt-3.5", "chatgpt (gpt-3.5)")
"""Parts of the names by which providers sell their smaller models."""

OPINION_DATASETS = ("sst2", "sentiment", "jigsaw", "toxic", "imdb", "yelp")
"""Labels that are opinions, on which annotators disagree."""

SCALES = {"dataset": 0.8, "study": 0.4, "dataset_tuned": 0.5, RESIDUAL: 0.4}
"""Scale of the half-normal prior of each shared standard deviation, in log-odds. Effects of the
six task types have given ones (`_TASK_SDS`): six levels say too little about their spread."""

_TASK_SDS = {"task": 1.0, "task_tuned": 0.5, "task_size": 0.15, "task_size_tuned": 0.1}

_FIXED = {
    "intercept": Column(0.7, 1.2),
    "size": Column(0.5, 0.25),
    "size_tuned": Column(0.15, 0.12),
    "few_shot": Column(0.4, 0.4),
    "tuned": Column(1.5, 0.7),
    "tuned_open": Column(-0.8, 0.5),
    "distilled": Column(0.0, 0.3),
    "full_ft": Column(0.0, 0.3),
    "unstated": Column(0.0, 0.4),
    "encoder": Column(0.0, 0.2),
    "fp8": Column(0.0, 0.03),
    "int8": Column(-0.01, 0.03),
    "int4": Column(-0.05, 0.05),
    "fp4": Column(-0.15, 0.1),
    "log10_labels": Column(-0.5, 0.3),
    "opinion": Column(-0.7, 0.5),
    "ten_examples": Column(-0.6, 0.4),
    "graded": Column(0.2, 0.4),
    "judged": Column(0.7, 0.6),
    "raw_completion": Column(-0.5, 0.5),
    "vendor": Column(0.1, 0.3),
    "vendor_tuned": Column(0.1, 0.3),
}


@dataclass(frozen=True)
class Setting:
    """What is known of a published score or of a candidate, as the model needs it."""

    task_type: str
    decades: float
    """log10 of parameters from the reference."""
    adaptation: str
    precision: str | None
    label_count: int | None = None
    unstated: bool = False
    """A hosted model whose size is not published."""
    dataset: str | None = None
    """None: a data set of which nothing is published."""
    study: str | None = None
    encoder: bool = False
    opinion: bool = False
    ten_examples: bool = False
    graded: bool = False
    judged: float = 0.0
    """1: a language model decides what is right; between: who decides is not known."""
    raw_completion: bool = False
    vendor: bool = False

    @property
    def tuned(self) -> bool:
        return self.adaptation in TUNED


def effective_decades(params_b: float, active_params_b: float | None) -> float:
    """Decades from the reference size.

    A mixture of experts counts as the geometric mean of its total and active parameters: the
    practitioners' rule of thumb, between the two sizes it has.
    """
    size = math.sqrt(params_b * active_params_b) if active_params_b else params_b
    return math.log10(size) - REFERENCE_LOG_PARAMETERS


def unstated_decades(model: str, *, tuned: bool, hosted: bool) -> float:
    """Decades from the reference size assumed for a model whose size is not published."""
    if tuned and not hosted:
        kind = "compact"
    else:
        small = any(part in model.lower() for part in SMALL_HOSTED)
        kind = "hosted_small" if small else "hosted"
    return math.log10(UNSTATED_B[kind]) - REFERENCE_LOG_PARAMETERS


def dataset_key(name: str) -> str:
    """One name for the variants of a data set: 'Banking77 (500 sampled)' → 'banking77'."""
    text = re.sub(r"\(.*?\)", "", name.lower())
    text = re.sub(r"\d+-shot.*", "", text)
    return re.sub(r"[^a-z0-9.]+", " ", text).strip()


def setting_of(row: EvidenceRow) -> Setting:
    """The covariates of a published row."""
    tuned = row.adaptation in TUNED
    if row.params_b is not None:
        decades = effective_decades(row.params_b, row.active_params_b)
    else:
        decades = unstated_decades(row.model, tuned=tuned, hosted=False)
    return Setting(
        task_type=row.task_type,
        decades=decades,
        adaptation=row.adaptation,
        precision=row.precision,
        label_count=row.label_count,
        unstated=row.params_b is None and not tuned,
        dataset=dataset_key(row.dataset),
        study=row.source,
        encoder=row.subject == "encoder",
        opinion=any(name in row.dataset.lower() for name in OPINION_DATASETS),
        ten_examples="10-shot/class" in row.dataset,
        graded=row.scale in ("f1", "tree_similarity") and row.task_type != "classification",
        judged=float(row.scale == "judge"),
        raw_completion="raw completion" in row.notes,
        vendor=row.vendor_reported,
    )


class Design:
    """The columns for a set of rows: fixed effects, task effects, then one for each level seen."""

    def __init__(
        self, settings: Sequence[Setting], overrides: Mapping[str, Column] | None = None
    ) -> None:
        fixed = {**_FIXED, **(overrides or {})}
        levels = list(dict.fromkeys(level for s in settings for level in _levels(s)))
        effects = [(kind, task) for kind in _TASK_SDS for task in TASK_TYPES]
        positions = [*effects, *levels]
        self._position = {level: len(_FIXED) + i for i, level in enumerate(positions)}
        self.columns: tuple[Column, ...] = (
            *fixed.values(),
            *(Column(0.0, _TASK_SDS[kind]) for kind, _ in effects),
            *(Column(0.0, kind) for kind, _ in levels),
        )

        self.scales = dict(SCALES)

    def index(self, name: str) -> int:
        """Position of a fixed effect."""
        return list(_FIXED).index(name)

    def row(self, setting: Setting) -> FloatArray:
        """(p,): the covariates of one setting; unseen levels have no column and count as new."""
        fixed = _fixed_values(setting)
        row = np.zeros(len(self.columns))
        row[: len(_FIXED)] = [fixed.get(name, 0.0) for name in _FIXED]
        for kind, value in _task_values(setting).items():
            row[self._position[kind, setting.task_type]] = value
        for level in _levels(setting):
            if level in self._position:
                row[self._position[level]] = 1.0
        return row

    def quantization_row(self, precision: str) -> FloatArray:
        """(p,): the effect of a precision alone, for rows that compare it with 16 bits."""
        row = np.zeros(len(self.columns))
        row[list(_FIXED).index(precision)] = 1.0
        return row

    def new_effects(self, setting: Setting) -> dict[str, float]:
        """For each shared sd the squared units that levels not seen before add."""
        kinds = [RESIDUAL, "study", "dataset", *(["dataset_tuned"] if setting.tuned else [])]
        known = {kind for kind, name in _levels(setting) if (kind, name) in self._position}
        return {kind: 1.0 for kind in kinds if kind not in known}


def _levels(setting: Setting) -> list[tuple[str, str]]:
    """(shared sd, level) of the random effects of a setting."""
    levels = []
    if setting.dataset:
        name = f"{setting.task_type}: {setting.dataset}"
        levels.append(("dataset", name))
        if setting.tuned:
            levels.append(("dataset_tuned", name))
    if setting.study:
        levels.append(("study", setting.study))
    return levels


def _task_values(setting: Setting) -> dict[str, float]:
    if setting.tuned:
        return {"task": 1.0, "task_tuned": 1.0, "task_size_tuned": setting.decades}
    return {"task": 1.0, "task_size": setting.decades}


def _fixed_values(setting: Setting) -> dict[str, float]:
    labels = setting.label_count
    values = {
        "intercept": 1.0,
        "size_tuned" if setting.tuned else "size": setting.decades,
        "tuned": float(setting.tuned),
        "tuned_open": float(setting.tuned and setting.task_type in OPEN_TASKS),
        "unstated": float(setting.unstated),
        "encoder": float(setting.encoder),
        "log10_labels": math.log10(labels / REFERENCE_LABELS) if labels else 0.0,
        "opinion": float(setting.opinion),
        "ten_examples": float(setting.ten_examples),
        "graded": float(setting.graded),
        "judged": setting.judged,
        "raw_completion": float(setting.raw_completion),
        "vendor": float(setting.vendor),
        "vendor_tuned": float(setting.vendor and setting.tuned),
        setting.adaptation: 1.0,
    }
    if setting.precision:
        values[setting.precision] = 1.0
    return values
