"""What an answer of the trial is worth: right or wrong, its gate, its confidence, its price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from advisor.errors import InputError
from advisor.quality.confidence import answer_confidence
from advisor.quality.gates import Gates
from advisor.quality.metrics import METRICS
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow
from advisor.trial.load.driver import Outcome
from advisor.trial.records import RequestRecord


@dataclass(frozen=True)
class Price:
    """What a request to one endpoint costs."""

    usd_per_input_token: float = 0.0
    usd_per_output_token: float = 0.0
    usd_per_request: float = 0.0

    @classmethod
    def stated(cls, option: str, text: str) -> Price:
        """From `IN/OUT`, USD per million tokens.

        Raises:
            InputError: not two amounts of at least 0.
        """
        try:
            given, written = (float(part) for part in text.split("/"))
        except ValueError:
            given = written = -1.0
        if not (0 <= given < math.inf and 0 <= written < math.inf):
            expected = "USD per million tokens in and out, e.g. 0.1/0.4"
            raise InputError(f"{option} {text}: {expected}")
        return cls(usd_per_input_token=given / 1e6, usd_per_output_token=written / 1e6)

    def of(self, record: RequestRecord) -> float:
        """USD of one answered request."""
        return (
            self.usd_per_request
            + self.usd_per_input_token * (record.input_tokens or 0)
            + self.usd_per_output_token * (record.output_tokens or 0)
        )


class Judging:
    """Judges answers by the task and its rows.

    Raises:
        InputError: a metric that a trial cannot compute from an answer and what is expected.
    """

    def __init__(self, task: TaskProfile, rows: Mapping[str, TrialRow]) -> None:
        self._gates = Gates.of_task(task.task)
        self._rows = rows
        self._output = task.task.output
        self._pass_at = task.quality.pass_at
        if any(row.expected is not None for row in rows.values()):
            if task.quality.metric not in METRICS:
                raise InputError(
                    f"quality.metric = {task.quality.metric}: a trial computes "
                    f"{', '.join(sorted(METRICS))} from an answer and what is expected"
                )
            self._metric = METRICS[task.quality.metric]

    def __call__(self, outcome: Outcome, *, price: Price | None = None) -> RequestRecord:
        """The record with gate, correctness, confidence and cost filled in.

        What was tried and got no answer is not right, where anything was expected.
        """
        record = outcome.record
        if record.status in ("failed", "timed_out") or record.answer is None:
            tried = record.status in ("completed", "failed", "timed_out")
            labelled = self._rows[record.row_id].expected is not None
            return replace(record, correct=0.0) if tried and labelled else record
        if record.status != "completed":
            return record
        report = self._gates.check(record.answer)
        confidence = record.confidence
        if confidence is None and outcome.logprobs is not None:
            confidence = self.confidence(outcome.logprobs)
        cost_usd = record.cost_usd
        if cost_usd is None and price is not None:
            cost_usd = price.of(record)
        return replace(
            record,
            gate=report.cause,
            correct=self.correct(record.row_id, record.answer),
            confidence=confidence,
            cost_usd=cost_usd,
        )

    def correct(self, row_id: str, answer: str) -> float | None:
        """Score of an answer; None where nothing is expected."""
        expected = self._rows[row_id].expected
        if expected is None:
            return None
        score = float(self._metric(answer, expected))
        return score if self._pass_at is None else float(score >= self._pass_at)

    def confidence(self, logprobs: Any) -> float | None:
        """Probability of the least likely value token, as the router has it; None: cannot be."""
        try:
            return answer_confidence(logprobs, output=self._output).weakest_token
        except InputError:
            return None
