"""Quality to expect of a candidate before anyone has labelled anything: published evidence.

A hierarchical model of published scores (`covariates` says of what they are made, `mixed_model`
how it is solved) projects a candidate onto a data set of which nothing is published. The interval
therefore contains the spread between data sets and between studies, which is most of it: what a
benchmark average hides is exactly what a user's own labels settle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from advisor.quality.covariates import (
    TUNED,
    Design,
    Setting,
    effective_decades,
    setting_of,
    unstated_decades,
)
from advisor.quality.estimate import QualityEstimate
from advisor.quality.mixed_model import Column, FloatArray, MixedModel, Observations, Prediction

if TYPE_CHECKING:
    from advisor.catalog.evidence import EvidenceRow
    from advisor.catalog.models import Precision
    from advisor.task import Metric, OutputKind, TaskType

__all__ = ["QualityEstimate", "QualityModel"]

Family = Literal["correct", "overlap", "faithful"]
"""Kinds of score that are never mixed: the share of answers that are right, word overlap with a
reference (ROUGE), the share of summaries that say nothing their document does not. Win rates and
judges' marks out of ten say how a model compares, not how often it is right: no requirement of a
task profile is of that kind, so they are shown as evidence and enter no projection."""

_FAMILY_PRIORS: dict[Family, dict[str, Column]] = {
    "correct": {},
    "overlap": {"intercept": Column(-0.5, 1.2)},
    # Training on a task teaches its labels and formats; that it makes summaries more faithful is
    # not known, and the leaderboards say that size hardly does.
    "faithful": {
        "intercept": Column(2.0, 1.0),
        "size": Column(0.2, 0.2),
        "few_shot": Column(0.0, 0.3),
        "tuned": Column(0.2, 0.6),
    },
}
"""Where a kind of score differs from the priors for shares of right answers."""

UNSTATED_TEST_ROWS = 500
"""Test rows assumed where a source states none."""

VENDOR_NOISE = 2.0
"""Residual variance of rows reported by vendors, or not read in the source itself, in units of
the others'."""

SCORE_CEILING = 0.995
"""Scores are kept within (1 − this, this): 100 % of 30 rows is not infinite log-odds."""

RECOVERY_REFERENCE = 0.7
"""Accuracy at which recovery rates were measured: OpenLLM averages of 8B models."""

RECOVERY_SD = 0.1
"""Log-odds by which a published recovery differs from another task's."""

ROWS_LISTED = 8
"""Evidence rows named by a projection."""

FEW_ROWS = 3
"""With fewer rows of its own task type, a projection is called assumed."""


@dataclass(frozen=True)
class QualityModel:
    """Published evidence, fitted one kind of score at a time, on first use."""

    rows: tuple[EvidenceRow, ...]
    _fits: dict[Family, FamilyFit] = field(default_factory=dict, repr=False, compare=False)
    _projections: dict[tuple[Family, Setting], QualityEstimate] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def from_evidence(cls, rows: Sequence[EvidenceRow]) -> QualityModel:
        """A model of these rows; no rows give projections from weak priors alone."""
        return cls(tuple(rows))

    def project(
        self,
        *,
        task_type: TaskType,
        metric: Metric,
        output: OutputKind,
        label_count: int | None,
        params_b: float | None,
        active_params_b: float | None = None,
        adaptation: str,
        precision: Precision,
        hosted_model: str | None = None,
    ) -> QualityEstimate:
        """Quality of one candidate on a data set of which nothing is published.

        Args:
            label_count: size of the closed answer set; None where answers are open.
            params_b: billions of parameters; None where the maker states none, and then
                `hosted_model` tells a small hosted model from a large one.
            active_params_b: those that a token visits, in a mixture of experts.
            adaptation: zero_shot, few_shot, lora, distilled or full_ft; the last three suppose a
                training set for the task, not a handful of examples.
            hosted_model: name of a hosted model.
        """
        tuned = adaptation in TUNED
        if params_b is not None:
            decades = effective_decades(params_b, active_params_b)
        else:
            decades = unstated_decades(hosted_model or "", tuned=tuned, hosted=True)
        setting = Setting(
            task_type=task_type,
            decades=decades,
            adaptation=adaptation,
            precision=precision,
            label_count=label_count if output == "label" or task_type == "classification" else None,
            unstated=params_b is None,
            graded=metric == "field_f1",
            # Nobody says who decides what passes: half-way between a program and a judge.
            judged=0.5 if metric == "pass_rate" else 0.0,
        )
        family = family_of_metric(metric, task_type)
        key = (family, setting)
        if key not in self._projections:
            self._projections[key] = self.fit(family).project(setting)
        return self._projections[key]

    def fit(self, family: Family) -> FamilyFit:
        """The fitted model of one kind of score."""
        if family not in self._fits:
            self._fits[family] = FamilyFit(family, self.rows)
        return self._fits[family]


class FamilyFit:
    """The mixed model of one kind of score."""

    def __init__(self, family: Family, rows: Sequence[EvidenceRow]) -> None:
        self.family = family
        self.rows = tuple(row for row in rows if family_of(row) == family)
        settings = [setting_of(row) for row in self.rows]
        self.design = Design(settings, _FAMILY_PRIORS[family])
        recoveries = tuple(r for r in rows if r.scale == "recovery" and r.precision)
        self.model = MixedModel.fit(
            self.design.columns,
            _observations(self.design, self.rows, settings, recoveries),
            scales=self.design.scales,
        )

    def predict(self, setting: Setting) -> Prediction:
        """Log-odds of a new score in this setting; its vendor flag and data set count."""
        effects = self.design.new_effects(setting)
        return self.model.predict(
            self.design.row(setting), new_effects=effects, shared=("dataset", "study")
        )

    def project(self, setting: Setting) -> QualityEstimate:
        """The estimate for a candidate, with the rows that weigh most in it."""
        prediction = self.predict(setting)
        weights = self._weights(setting)
        weightiest = self._weightiest(weights, setting)
        own = int(np.count_nonzero(self._task_types == setting.task_type))
        return QualityEstimate.from_logit(
            mean=prediction.mean,
            sd=prediction.sd,
            shared_sd=prediction.shared_sd,
            basis="prior" if own >= FEW_ROWS else "assumed",
            evidence_ids=tuple(self.rows[i].id for i in weightiest),
            evidence_weights=tuple(weights[weightiest].tolist()),
            note=self._note(setting, own),
        )

    def coefficient(self, name: str) -> tuple[float, float]:
        """Posterior mean and standard deviation of a fixed effect, in log-odds."""
        index = self.design.index(name)
        return float(self.model.mean[index]), float(np.sqrt(self.model.covariance[index, index]))

    @cached_property
    def _task_types(self) -> NDArray[np.str_]:
        """Task type of each row."""
        return np.array([row.task_type for row in self.rows], dtype=np.str_)

    @cached_property
    def _data_sets(self) -> Mapping[str, int]:
        """Data sets by task type."""
        seen = {(row.task_type, setting_of(row).dataset) for row in self.rows}
        tasks = [task for task, _ in seen]
        return {task: tasks.count(task) for task in tasks}

    def _weights(self, setting: Setting) -> FloatArray:
        """(rows,) how much each row moves the projection, as shares of all that moves it."""
        moves = np.abs(self.design.row(setting) @ self.model.gain)[: len(self.rows)]
        return np.asarray(moves / max(float(moves.sum()), 1e-12), dtype=float)

    def _weightiest(self, weights: FloatArray, setting: Setting) -> NDArray[np.intp]:
        """Rows that move the projection most, those of its own task type first."""
        elsewhere = self._task_types != setting.task_type
        return np.lexsort((-weights, elsewhere))[:ROWS_LISTED]

    def _note(self, setting: Setting, own: int) -> str:
        kind = {
            "correct": "scores",
            "overlap": "ROUGE scores",
            "faithful": "faithfulness rates (an upper bound of what passes)",
        }[self.family]
        if own == 0:
            return f"no published {kind} for {setting.task_type}: a wide guess from other tasks"
        data_sets = self._data_sets[setting.task_type]
        return f"{own} published {kind} for {setting.task_type}, on {data_sets} data set" + (
            "s" if data_sets > 1 else ""
        )


def family_of(row: EvidenceRow) -> Family | None:
    """The kind of score a row belongs to; None where it enters no projection."""
    if row.subject == "system" or row.scale in ("win_rate", "recovery"):
        return None
    if row.scale == "judge" and "/10" in row.metric:
        return None
    if row.scale == "rouge":
        return "overlap"
    return "faithful" if row.scale == "hallucination" else "correct"


def family_of_metric(metric: str, task_type: str) -> Family:
    """The kind of published score that stands for a metric of a task profile."""
    if metric == "rouge_l":
        return "overlap"
    return "faithful" if task_type == "summarization" else "correct"


def _observations(
    design: Design,
    rows: Sequence[EvidenceRow],
    settings: Sequence[Setting],
    recoveries: Sequence[EvidenceRow],
) -> Observations:
    """Scores as log-odds, and recoveries as the log-odds that a precision costs.

    A score r·p instead of p is about (r − 1)·p / (p·(1 − p)) = (r − 1) / (1 − p) in log-odds.
    """
    scores = np.clip([row.score for row in rows], 1 - SCORE_CEILING, SCORE_CEILING)
    shifts = [(row.score - 1) / (1 - RECOVERY_REFERENCE) for row in recoveries]
    tests = np.array([row.n or UNSTATED_TEST_ROWS for row in rows])
    return Observations(
        design=_stack(
            [design.row(setting) for setting in settings]
            + [design.quantization_row(str(row.precision)) for row in recoveries],
            len(design.columns),
        ),
        observed=np.concatenate([special.logit(scores), shifts]),
        noise_weights=np.array(
            [_noise_weight(row) for row in rows] + [0.0] * len(recoveries), dtype=float
        ),
        noise_variances=np.concatenate(
            [1 / (tests * scores * (1 - scores)), np.full(len(recoveries), RECOVERY_SD**2)]
        ),
    )


def _stack(rows: Sequence[FloatArray], columns: int) -> FloatArray:
    return np.stack(rows) if rows else np.empty((0, columns))


def _noise_weight(row: EvidenceRow) -> float:
    return VENDOR_NOISE if row.vendor_reported or row.verified != "read" else 1.0
