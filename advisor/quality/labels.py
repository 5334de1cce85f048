"""Labelled results: what a user's own rows say, and how they change what was expected."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json
from scipy import special

from advisor.errors import InputError
from advisor.quality.estimate import Basis, QualityEstimate
from advisor.quality.pairs import Pairs, read_pairs

FloatArray = NDArray[np.float64]
Parsed = TypeVar("Parsed")

MAX_LOG_BYTES = 4_000_000_000
MAX_LINE_BYTES = 20_000_000
"""One request with its answers; a 1M-token prompt has about 5 MB."""

MAX_LOG_ROWS = 2_000_000

LABELS_DECIDE = 0.1
"""Where the prior carries less than this share of the precision, labels are called the basis."""


@dataclass(frozen=True, slots=True)
class LoggedOutput:
    """One model's answer to one request."""

    text: str | None = None
    logprobs: Any = None
    """As the OpenAI API returns them: {"content": [{"token", "logprob", "top_logprobs"}, …]}."""
    latency_ms: float | None = None
    cost_usd: float | None = None
    correct: float | None = None
    """1 right, 0 wrong, or a graded score between; None: not labelled."""


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """One request, what was expected, and what each model answered."""

    id: str
    outputs: Mapping[str, LoggedOutput]
    input: Any = None
    """Text, or a list of chat messages."""
    expected: Any = None
    risk: str | None = None
    type: str | None = None
    confidence: float | None = None
    """Of the small model's answer, where the log states it."""
    gate_passed: bool | None = None

    def confidence_of(self, model: str) -> float:
        """Stated, or else from the answer's log-probabilities; NaN where neither says."""
        return _confidence(self.confidence, self.outputs.get(model, LoggedOutput()))

    @property
    def input_text(self) -> str:
        """The request as one text."""
        if isinstance(self.input, list):
            parts = [m.get("content") for m in self.input if isinstance(m, dict)]
            return "\n".join(part for part in parts if isinstance(part, str))
        return self.input if isinstance(self.input, str) else ""


@dataclass(frozen=True)
class LabelledLog:
    """A log of labelled outputs."""

    rows: tuple[LoggedRow, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models with outputs, small and large first."""
        names = dict.fromkeys(name for row in self.rows for name in row.outputs)
        first = [name for name in ("slm", "llm") if name in names]
        return (*first, *(name for name in names if name not in first))

    def correct(self, model: str) -> FloatArray:
        """(labelled rows,) scores of one model, where they are labelled."""
        found = (row.outputs.get(model) for row in self.rows)
        return np.array(
            [out.correct for out in found if out is not None and out.correct is not None],
            dtype=float,
        )

    def pairs(self, slm: str = "slm", llm: str = "llm") -> Pairs:
        """The rows on which both models are labelled."""
        kept = []
        for row in self.rows:
            small, large = row.outputs.get(slm), row.outputs.get(llm)
            if small is None or large is None or small.correct is None or large.correct is None:
                continue
            gate = 1.0 if row.gate_passed is None else float(row.gate_passed)
            kept.append((row.confidence_of(slm), small.correct, large.correct, gate))
        columns = np.array(kept, dtype=float).reshape(-1, 4).T
        return Pairs(*columns)


def read_log(path: Path) -> LabelledLog:
    """Read a JSONL log, in either of its two forms, or a CSV file of pairs (`read_pairs`).

    Each line has `outputs: {slm|llm|name: {text, logprobs, latency_ms, cost_usd, correct}}`, or
    flat `slm_correct`, `llm_correct`, `confidence`; and optionally `id`, `input`, `expected`,
    `risk`, `type`, `gate_passed`. Other keys are left alone.

    Raises:
        InputError: one line naming the file, the line and what was expected there.
    """
    if path.suffix.lower() == ".csv":
        return _log_of(read_pairs(path))
    return LabelledLog(tuple(_each_line(path, _row)))


def _log_of(pairs: Pairs) -> LabelledLog:
    columns = (pairs.confidence, pairs.slm_correct, pairs.llm_correct, pairs.gate_passed)
    for name, labels in (("slm_correct", columns[1]), ("llm_correct", columns[2])):
        wrong = np.flatnonzero((labels < 0) | (labels > 1))
        if len(wrong):
            found = labels[wrong[0]]
            raise InputError(f"{name} = {found:g} in row {wrong[0] + 1}: 0, 1 or a score between")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return LabelledLog(
        tuple(
            LoggedRow(
                id=str(number),
                outputs=_flat_outputs(small, large),
                confidence=None if math.isnan(confidence) else confidence,
                gate_passed=bool(gate),
            )
            for number, (confidence, small, large, gate) in enumerate(rows, 1)
        )
    )


def read_log_pairs(path: Path, *, slm: str = "slm", llm: str = "llm") -> Pairs:
    """The labelled pairs of a log, without holding its texts: a million rows in a few seconds.

    Raises:
        InputError: as `read_log`, or no row is labelled for both models.
    """
    columns = array("d")
    for pair in _each_line(path, lambda value, _: _pair(value, slm, llm)):
        columns.extend(pair)
    if not columns:
        raise InputError(f"log {path.name}: no row states 'correct' for both '{slm}' and '{llm}'")
    return Pairs(*np.frombuffer(columns).reshape(-1, 4).T.copy())


def update(estimate: QualityEstimate, correct: float, total: int) -> QualityEstimate:
    """What an estimate becomes after `correct` of `total` labelled rows.

    The posterior of the log-odds x is N(x; mean, sd²)·σ(x)^correct·σ(−x)^(total − correct),
    integrated on a grid around its mode; median and interval are its quantiles. Graded scores
    count as that many right rows.

    Raises:
        InputError: counts that cannot be.
    """
    if total == 0:
        return estimate
    if total < 0 or not 0 <= correct <= total:
        raise InputError(f"correct = {correct:g} of {total}: between 0 and the number of rows")
    x, weights = _posterior(estimate, correct, total)
    mean = float(weights @ x)
    sd = math.sqrt(float(weights @ (x - mean) ** 2))
    cumulative = np.cumsum(weights) - weights / 2
    low, median, high = special.expit(np.interp([0.05, 0.5, 0.95], cumulative, x))
    remaining = (sd / estimate.logit_sd) ** 2 if estimate.logit_sd else 1.0
    basis: Basis = "labels" if remaining < LABELS_DECIDE else "mixed"
    return estimate.model_copy(
        update={
            "median": float(median),
            "low": float(low),
            "high": float(high),
            "logit_mean": mean,
            "logit_sd": sd,
            "shared_sd": min(sd, estimate.shared_sd * math.sqrt(remaining)),
            "basis": basis,
            "labels": estimate.labels + total,
            "note": f"{correct:g} of {total:,} labelled rows right"
            + (f"; before them: {estimate.note}" if estimate.note else ""),
        }
    )


def transfer(
    other: QualityEstimate, *, before: QualityEstimate, after: QualityEstimate
) -> QualityEstimate:
    """What one model's labels say about another model on the same task.

    How easy the data set is, is common to both: with covariance c = shared² and the labelled
    model's log-odds going from N(m, v) to N(m′, v′), the other's go from N(o, w) to
    N(o + c/v·(m′ − m), w − c²/v·(1 − v′/v)) (Gaussian conditioning).
    """
    variance = before.logit_sd**2
    covariance = before.shared_sd * other.shared_sd
    if variance == 0 or covariance == 0 or after.labels == before.labels:
        return other
    share = covariance / variance
    remaining = after.logit_sd**2 / variance
    moved = other.logit_sd**2 - share * covariance * (1 - remaining)
    common = other.shared_sd**2 - share * covariance * (1 - remaining)
    return QualityEstimate.from_logit(
        mean=other.logit_mean + share * (after.logit_mean - before.logit_mean),
        sd=math.sqrt(max(moved, 0.0)),
        shared_sd=math.sqrt(max(common, 0.0)),
        basis="mixed",
        evidence_ids=other.evidence_ids,
        labels=other.labels,
        note=f"{other.note}; moved by {after.labels:,} labelled rows of another model",
    )


def _posterior(
    estimate: QualityEstimate, correct: float, total: int
) -> tuple[FloatArray, FloatArray]:
    """Grid of log-odds around the posterior's mode, and its weights."""
    wrong = total - correct
    precision = 1 / max(estimate.logit_sd, 1e-6) ** 2
    mode = estimate.logit_mean
    for _ in range(60):
        p = float(special.expit(mode))
        slope = correct - total * p - precision * (mode - estimate.logit_mean)
        step = slope / (total * p * (1 - p) + precision)
        # Newton overshoots where the likelihood is flat; a bounded step cannot.
        mode += min(max(step, -1.0), 1.0)
    p = float(special.expit(mode))
    width = 1 / math.sqrt(total * p * (1 - p) + precision)
    # Away from its data the likelihood is flatter than at its mode, never flatter than the prior.
    reach = 8 * min(estimate.logit_sd, 6 * width)
    x = np.linspace(mode - reach, mode + reach, 4001)
    log_weights = (
        -0.5 * precision * (x - estimate.logit_mean) ** 2
        + correct * special.log_expit(x)
        + wrong * special.log_expit(-x)
    )
    return x, special.softmax(log_weights)


def _each_line(path: Path, read: Callable[[dict[str, Any], int], Parsed]) -> Iterator[Parsed]:
    """What `read` makes of the object on each line; blank lines are passed over."""
    empty = True
    for number, line in _lines(path):
        empty = False
        try:
            value = from_json(line)
            if not isinstance(value, dict):
                raise InputError(f"an object was expected, not {type(value).__name__}")
            yield read(value, number)
        except InputError as error:
            raise InputError(f"log {path.name} line {number}: {error}") from None
        except ValueError:
            raise InputError(f"log {path.name} line {number}: not JSON") from None
    if empty:
        raise InputError(f"log {path.name} is empty: one JSON object a line was expected")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        if path.is_dir():
            raise InputError(f"log: {path} is a folder; a JSONL file was expected")
        if path.stat().st_size > MAX_LOG_BYTES:
            raise InputError(f"log: {path} is larger than {MAX_LOG_BYTES:,} bytes")
        with path.open(encoding="utf-8") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if len(line) >= MAX_LINE_BYTES:
                    raise InputError(f"log {path.name} line {number}: longer than a line may be")
                if number > MAX_LOG_ROWS:
                    raise InputError(f"log {path.name}: more than {MAX_LOG_ROWS:,} lines")
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise InputError(f"log: no file {path}") from None
    except UnicodeDecodeError:
        raise InputError(f"log: {path} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"log: cannot read {path}: {error.strerror}") from None


def _row(value: dict[str, Any], number: int) -> LoggedRow:
    outputs = _outputs(value)
    if not outputs:
        raise InputError("'outputs', or 'slm_correct' and 'llm_correct', is missing")
    gate = _score(value, "gate_passed")
    return LoggedRow(
        id=str(value.get("id", number)),
        outputs=outputs,
        input=value.get("input"),
        expected=value.get("expected"),
        risk=_text(value, "risk"),
        type=_text(value, "type"),
        confidence=_number(value, "confidence"),
        gate_passed=None if gate is None else bool(gate),
    )


def _pair(value: dict[str, Any], slm: str, llm: str) -> tuple[float, ...]:
    """confidence, small right, large right, gate; empty where one of the two is not labelled."""
    if "outputs" in value:
        outputs = _outputs(value)
        answers = tuple(outputs.get(name, LoggedOutput()) for name in (slm, llm))
    else:
        labels = (_score(value, f"{slm}_correct"), _score(value, f"{llm}_correct"))
        answers = tuple(LoggedOutput(correct=label) for label in labels)
    small, large = answers
    if small.correct is None or large.correct is None:
        return ()
    gate = _score(value, "gate_passed")
    return (
        _confidence(_number(value, "confidence"), small),
        small.correct,
        large.correct,
        1.0 if gate is None else float(gate > 0),
    )


def _confidence(stated: float | None, answer: LoggedOutput) -> float:
    """What the log states, else the probability of the least likely value token; NaN: neither."""
    if stated is not None:
        return stated
    if answer.logprobs is None:
        return math.nan
    from advisor.quality.confidence import logged_confidence

    found = logged_confidence(answer.text, answer.logprobs)
    return math.nan if found is None else found.weakest_token


def _outputs(value: dict[str, Any]) -> Mapping[str, LoggedOutput]:
    if "outputs" not in value:
        return _flat_outputs(_score(value, "slm_correct"), _score(value, "llm_correct"))
    stated = value["outputs"]
    if not isinstance(stated, dict):
        raise InputError("outputs must be an object by model name")
    return {str(name): _output(str(name), out) for name, out in stated.items()}


@lru_cache(maxsize=64)
def _flat_outputs(slm: float | None, llm: float | None) -> Mapping[str, LoggedOutput]:
    """Outputs that are labels alone; rows with the same labels share them."""
    stated = {"slm": slm, "llm": llm}
    return {k: LoggedOutput(correct=score) for k, score in stated.items() if score is not None}


def _output(name: str, value: Any) -> LoggedOutput:
    if not isinstance(value, dict):
        raise InputError(f"outputs.{name}: an object was expected, not {type(value).__name__}")
    try:
        return LoggedOutput(
            text=_text(value, "text"),
            logprobs=value.get("logprobs"),
            latency_ms=_number(value, "latency_ms"),
            cost_usd=_number(value, "cost_usd"),
            correct=_score(value, "correct"),
        )
    except InputError as error:
        raise InputError(f"outputs.{name}.{error}") from None


def _text(value: Mapping[str, Any], key: str) -> str | None:
    found = value.get(key)
    if found is None or isinstance(found, str):
        return found
    raise InputError(f"{key} must be text, not {type(found).__name__}")


def _number(value: Mapping[str, Any], key: str) -> float | None:
    found = value.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(f"{key} must be a number, not {type(found).__name__}")
    return float(found)


def _score(value: Mapping[str, Any], key: str) -> float | None:
    found = value.get(key)
    if found is None:
        return None
    if not isinstance(found, bool | int | float) or not 0 <= found <= 1:
        raise InputError(f"{key} = {found!r:.40}: true, false or a score from 0 to 1")
    return float(found)
