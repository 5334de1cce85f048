"""What a log of labelled outputs says: quality, confidence, gates, and which routing pays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError
from advisor.quality.bounds import lower_bound, rows_to_certify, upper_bound
from advisor.quality.calibration import (
    LOGISTIC_ROWS,
    cross_fitted,
    fit_calibration,
    folds,
)
from advisor.quality.confidence import AnswerConfidence, feature_matrix, logged_confidence
from advisor.quality.gates import Gates
from advisor.quality.labels import LabelledLog, LoggedOutput, LoggedRow, read_log
from advisor.quality.metrics import macro_f1
from advisor.quality.policies import PolicyComparison, RoutedRows, compare_policies
from advisor.quality.reliability import (
    ReliabilityBin,
    auroc,
    brier_score,
    expected_calibration_error,
    reliability_bins,
    risk_coverage,
)
from advisor.quality.scoring import check_metric, scored
from advisor.records import Record

if TYPE_CHECKING:
    from advisor.task import TaskProfile

FloatArray = NDArray[np.float64]

INTERVAL_TAIL = 0.95
"""Each end of the 90 % intervals."""

CURVE_POINTS = 200
"""Points of the risk–coverage curve that a report holds."""

MIN_CALIBRATED_ROWS = 50
"""Below this, calibration error is mostly noise."""


class ModelScore(Record):
    """One model's answers on the log."""

    model: str
    labelled: int
    quality: float
    """Mean score."""
    low: float
    """90 % interval: exact for right or wrong, normal for graded scores."""
    high: float
    macro_f1: float | None = None
    """Where labels were expected and the texts are logged."""
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    cost_usd_mean: float | None = None
    gate_failures: Mapping[str, int]
    """Answers refused, by the first gate that refused them."""


class ConfidenceReport(Record):
    """How far the small model's confidence can be trusted."""

    source: str
    """Where the score comes from: the log, or its log-probabilities and how they are combined."""
    rows: int
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    calibration: str
    """How the score was turned into a probability, on other rows than it is judged on."""
    ece: float | None
    brier: float | None
    aurc: float | None
    aurc_best: float | None
    """Of a confidence that ranks perfectly."""
    bins: tuple[tuple[float, float, int], ...]
    """Reliability diagram: mean confidence, share right, rows."""
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    """Risk–coverage curve."""
    notes: tuple[str, ...] = ()


class EvaluationReport(Record):
    """A log, evaluated."""

    rows: int
    metric: str
    models: tuple[ModelScore, ...]
    confidence: ConfidenceReport | None
    policies: PolicyComparison | None
    labels_to_settle: Mapping[str, int | None]
    """Rows that would prove the target, by model, if its observed quality is the true one."""
    notes: tuple[str, ...]


def evaluate_log(
    path: Path,
    *,
    metric: str | None = None,
    task: TaskProfile | None = None,
    target: float | None = None,
    confidence_level: float | None = None,
    database: Path | None = None,
    slm: str = "slm",
    llm: str = "llm",
) -> EvaluationReport:
    """Evaluate a log of labelled outputs: JSONL, or the CSV that `read_log` takes.

    Args:
        metric: how an answer without a stated `correct` is scored against `expected`; by default
            the task's, else exact match.
        task: its gates are run on the logged answers, and its target is planned for.
        target: quality to plan for, where no task says.
        confidence_level: of that proof; by default the task's, else 0.95.
        database: SQLite or DuckDB file on which execution_match runs the queries, read-only.
        slm: name in the log of the model that answers first.
        llm: name of the one that it escalates to.

    Raises:
        InputError: a log that cannot be read, or a metric that cannot score it.
    """
    name = metric or (task.quality.metric if task else "exact_match")
    check_metric(name)
    return evaluate(
        scored(read_log(path), name, database=database),
        metric=name,
        task=task,
        target=target,
        confidence_level=confidence_level,
        slm=slm,
        llm=llm,
    )


def evaluate(
    log: LabelledLog,
    *,
    metric: str,
    task: TaskProfile | None = None,
    target: float | None = None,
    confidence_level: float | None = None,
    slm: str = "slm",
    llm: str = "llm",
) -> EvaluationReport:
    """Evaluate a log whose answers are scored by `metric`; arguments as `evaluate_log`."""
    for role, name in (("slm", slm), ("llm", llm)):
        if name not in (role, *log.models):
            raise InputError(f"no model '{name}' in the log; it has {', '.join(log.models)}")
    if target is not None and not 0 < target < 1:
        raise InputError(f"target = {target:g}: a fraction between 0 and 1 is expected")
    goal = target if target is not None else task.quality.threshold if task else None
    level = confidence_level or (task.quality.confidence if task else 0.95)
    gates = Gates.of_task(task.task) if task else None
    models = tuple(_model_score(log, model, gates) for model in log.models)
    notes = [
        f"{model}: {len(log.rows) - len(log.correct(model)):,} of {len(log.rows):,} rows unlabelled"
        for model in log.models
        if len(log.correct(model)) < len(log.rows)
    ]
    confidence, scores = _confidence_report(log, slm, output=task.task.output if task else None)
    return EvaluationReport(
        rows=len(log.rows),
        metric=metric,
        models=models,
        confidence=confidence,
        policies=_policies(log, slm, llm, scores),
        labels_to_settle={
            score.model: rows_to_certify(score.quality, target=goal, confidence=level)
            for score in models
            if goal is not None and score.labelled
        },
        notes=tuple(notes),
    )


def _model_score(log: LabelledLog, model: str, gates: Gates | None) -> ModelScore:
    correct = log.correct(model)
    outputs = [row.outputs[model] for row in log.rows if model in row.outputs]
    latencies = [out.latency_ms for out in outputs if out.latency_ms is not None]
    costs = [out.cost_usd for out in outputs if out.cost_usd is not None]
    quality, low, high = _interval(correct)
    return ModelScore(
        model=model,
        labelled=len(correct),
        quality=quality,
        low=low,
        high=high,
        macro_f1=_label_f1(log, model),
        latency_p50_ms=float(np.quantile(latencies, 0.5)) if latencies else None,
        latency_p95_ms=float(np.quantile(latencies, 0.95)) if latencies else None,
        cost_usd_mean=float(np.mean(costs)) if costs else None,
        gate_failures=_gate_failures(outputs, gates),
    )


def _interval(correct: FloatArray) -> tuple[float, float, float]:
    n = len(correct)
    if n == 0:
        return 0.0, 0.0, 1.0
    mean = float(correct.mean())
    if np.isin(correct, (0, 1)).all():
        right = int(correct.sum())
        return (
            mean,
            lower_bound(right, n, confidence=INTERVAL_TAIL),
            upper_bound(right, n, confidence=INTERVAL_TAIL),
        )
    spread = 1.645 * float(correct.std(ddof=1)) / np.sqrt(n) if n > 1 else 1.0
    return mean, max(0.0, mean - spread), min(1.0, mean + spread)


def _label_f1(log: LabelledLog, model: str) -> float | None:
    """Macro-F1 where answers look like labels: short, and each expected one occurs again."""
    pairs = [
        (row.outputs[model].text, row.expected)
        for row in log.rows
        if model in row.outputs and isinstance(row.expected, str)
    ]
    answers = [(given, wanted) for given, wanted in pairs if given is not None]
    distinct = {wanted for _, wanted in answers}
    if not answers or len(distinct) > len(answers) / 2:
        return None
    return macro_f1([given for given, _ in answers], [wanted for _, wanted in answers])


def _gate_failures(outputs: Sequence[LoggedOutput], gates: Gates | None) -> dict[str, int]:
    if gates is None:
        return {}
    causes = Counter(gates.check(out.text).cause for out in outputs if out.text is not None)
    causes.pop("", None)
    return dict(causes.most_common())


@dataclass(frozen=True)
class _Scores:
    """The small model's confidence, row by row of the log; NaN where there is none."""

    values: FloatArray
    source: str


def _confidence_report(
    log: LabelledLog, slm: str, *, output: str | None
) -> tuple[ConfidenceReport | None, _Scores | None]:
    scores = _scores(log, slm, output=output)
    if scores is None:
        return None, None
    correct = np.array([_label(row, slm) for row in log.rows], dtype=float)
    known = np.isfinite(scores.values) & ~np.isnan(correct)
    score, right = scores.values[known], (correct[known] >= 0.5).astype(float)
    if len(score) == 0:
        return None, scores
    notes = []
    ranking = None
    try:
        ranking = auroc(score, right)
    except InputError as error:
        notes.append(str(error))
    probability, method = _held_out_probability(score, right)
    curve = risk_coverage(score, right)
    kept = np.unique(np.linspace(0, len(curve.coverage) - 1, CURVE_POINTS).astype(int))
    judged = probability is not None and len(score) >= MIN_CALIBRATED_ROWS
    if not judged:
        notes.append(f"{len(score)} rows say little about calibration")
    bins: tuple[ReliabilityBin, ...] = ()
    if judged and probability is not None:
        bins = reliability_bins(probability, right)
    return ConfidenceReport(
        source=scores.source,
        rows=len(score),
        auroc=ranking.value if ranking else None,
        auroc_low=max(0.0, ranking.value - 1.645 * ranking.standard_error) if ranking else None,
        auroc_high=min(1.0, ranking.value + 1.645 * ranking.standard_error) if ranking else None,
        calibration=method,
        ece=expected_calibration_error(probability, right)
        if judged and probability is not None
        else None,
        brier=brier_score(probability, right) if judged and probability is not None else None,
        aurc=curve.area,
        aurc_best=curve.best_area,
        bins=tuple((one.confidence, one.accuracy, one.rows) for one in bins),
        coverage=tuple(curve.coverage[kept].tolist()),
        risk=tuple(curve.risk[kept].tolist()),
        notes=tuple(notes),
    ), scores


def _scores(log: LabelledLog, slm: str, *, output: str | None) -> _Scores | None:
    """The log's own confidences; else what its log-probabilities give, as the rows can bear."""
    stated = np.array(
        [np.nan if row.confidence is None else row.confidence for row in log.rows], dtype=float
    )
    if np.isfinite(stated).any():
        return _Scores(stated, "the log's own confidence")
    answers = [_answer(row, slm, output) for row in log.rows]
    found = [i for i, answer in enumerate(answers) if answer is not None]
    if not found:
        return None
    values = np.full(len(log.rows), np.nan)
    present = [answer for answer in answers if answer is not None]
    values[found] = [answer.weakest_token for answer in present]
    correct = np.array([_label(row, slm) for row in log.rows], dtype=float)[found]
    labelled = ~np.isnan(correct)
    right = (correct[labelled] >= 0.5).astype(float)
    enough = int(labelled.sum()) * 4 // 5 >= LOGISTIC_ROWS and 10 <= right.sum() <= len(right) - 10
    if not enough:
        return _Scores(values, "least likely value token")
    rows = np.array(found)[labelled]
    values[:] = np.nan
    values[rows] = cross_fitted(feature_matrix(present)[labelled], right)
    return _Scores(values, "logistic combination of log-probabilities, cross-fitted")


def _answer(row: LoggedRow, slm: str, output: str | None) -> AnswerConfidence | None:
    out = row.outputs.get(slm)
    return logged_confidence(out.text, out.logprobs, output=output) if out else None


def _label(row: LoggedRow, model: str) -> float:
    out = row.outputs.get(model)
    return np.nan if out is None or out.correct is None else out.correct


def _held_out_probability(score: FloatArray, right: FloatArray) -> tuple[FloatArray | None, str]:
    """P(right) of each row by a calibration that was fitted on the other folds."""
    if len(score) < MIN_CALIBRATED_ROWS:
        inside = bool(score.min() >= 0 and score.max() <= 1)
        return (score if inside else None), "none"
    probability = np.empty(len(score))
    methods = []
    for held in folds(len(score), 5):
        seen = np.setdiff1d(np.arange(len(score)), held)
        calibration = fit_calibration(score[seen], right[seen])
        methods.append(calibration.method)
        probability[held] = calibration.apply(score[held])
    return probability, methods[0]


def _policies(
    log: LabelledLog, slm: str, llm: str, scores: _Scores | None
) -> PolicyComparison | None:
    small = np.array([_label(row, slm) for row in log.rows], dtype=float)
    large = np.array([_label(row, llm) for row in log.rows], dtype=float)
    both = np.flatnonzero(~np.isnan(small) & ~np.isnan(large))
    if len(both) == 0:
        return None
    texts = [log.rows[i].input_text for i in both]
    return compare_policies(
        RoutedRows(
            slm_correct=small[both],
            llm_correct=large[both],
            confidence=scores.values[both] if scores else None,
            texts=texts if any(texts) else None,
            slm_cost=_mean_cost(log, slm, both),
            llm_cost=_mean_cost(log, llm, both),
        )
    )


def _mean_cost(log: LabelledLog, model: str, rows: NDArray[np.intp]) -> float | None:
    costs = [log.rows[i].outputs[model].cost_usd for i in rows]
    stated = [cost for cost in costs if cost is not None]
    return float(np.mean(stated)) if stated else None
