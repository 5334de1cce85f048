"""Ending a trial early, once what it would say is certain.

Quality and the escalation limit are shares of independent requests, looked at after every one of
them: e-values (`advisor.quality.sequential`) in both directions, so that the chance that a trial
ends early on a wrong "held" or "failed" is at most 1 − confidence over all requirements together,
however often one looks (the error is shared out equally, Bonferroni). Latencies of neighbours are
not independent: every tenth request is looked at, which in a queue that empties now and then nearly
are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from advisor.quality.sequential import log_e_value
from advisor.task import TaskProfile
from advisor.trial.records import RequestRecord
from advisor.trial.reporting.measured import asked_small, was_escalated
from advisor.trial.reporting.verdict import ALLOWED_BEYOND_P95

THINNING = 10
"""One latency of so many is looked at."""

LEAST_LOOKED_AT = 100
"""Requests before the first look."""

CERTAIN = "the verdict is certain"


@dataclass
class ShareTest:
    """Whether a share is above or below a bound, decided once and for all."""

    bound: float
    error: float
    events: int = 0
    trials: int = 0
    decided: str | None = None
    """above or below; None: open."""

    def observe(self, happened: bool) -> None:
        """One request more."""
        self.events += happened
        self.trials += 1

    def look(self) -> None:
        """Decide if it can be decided; half of the error on either side."""
        if self.decided is not None or not self.trials:
            return
        bar = math.log(2 / self.error)
        if log_e_value(self.events, self.trials, limit=self.bound) >= bar:
            self.decided = "above"
        elif log_e_value(self.trials - self.events, self.trials, limit=1 - self.bound) >= bar:
            self.decided = "below"


@dataclass
class EarlyStop:
    """Watches the records of the arm that is judged; a `Watch` of `advisor.trial.load.driver`."""

    tests: dict[str, ShareTest]
    events: dict[str, Callable[[RequestRecord], bool | None]]
    """For each test whether a record counts as an event; None: not for this test."""
    seen: int = 0
    asked: set[str] = field(default_factory=set)

    @classmethod
    def of_task(cls, task: TaskProfile, *, labelled: bool, cascade: bool) -> EarlyStop:
        """A test for each requirement that the task states."""
        events: dict[str, Callable[[RequestRecord], bool | None]] = {}
        bounds: dict[str, float] = {}
        if labelled:
            bounds["quality"] = 1 - task.quality.threshold
            events["quality"] = _wrong
        if cascade:
            bounds["escalation"] = task.constraints.max_escalation_rate
            events["escalation"] = _escalated
        for name, bound_ms in task.latency.bounds.items():
            bounds[name] = ALLOWED_BEYOND_P95
            events[name] = _beyond(name, bound_ms)
        error = (1 - task.quality.confidence) / max(len(bounds), 1)
        tests = {name: ShareTest(bound, error) for name, bound in bounds.items() if 0 < bound < 1}
        return cls(tests, {name: events[name] for name in tests})

    def __call__(self, records: Sequence[RequestRecord]) -> str | None:
        for record in records:
            if record.status in ("completed", "failed", "timed_out"):
                self._observe(record)
        if self.seen < LEAST_LOOKED_AT or not records:
            return None
        for test in self.tests.values():
            test.look()
        if self.tests and all(test.decided for test in self.tests.values()):
            return CERTAIN
        return None

    def _observe(self, record: RequestRecord) -> None:
        self.seen += 1
        repeated = record.row_id in self.asked
        self.asked.add(record.row_id)
        for name, test in self.tests.items():
            if name.endswith("_ms") and self.seen % THINNING:
                continue
            if name == "quality" and repeated:
                continue
            event = self.events[name](record)
            if event is not None:
                test.observe(event)


def _wrong(record: RequestRecord) -> bool | None:
    if record.status != "completed":
        return True
    # A graded answer is no share of right ones: there the trial runs to its end.
    return None if record.correct is None else record.correct < 1


def _escalated(record: RequestRecord) -> bool | None:
    if record.status != "completed" or not asked_small(record):
        return None
    return was_escalated(record)


def _beyond(name: str, bound_ms: float) -> Callable[[RequestRecord], bool | None]:
    def exceeds(record: RequestRecord) -> bool | None:
        value = {
            "ttft_p95_ms": record.ttft_s,
            "e2e_p95_ms": record.e2e_s,
            "tpot_p95_ms": record.tpot_s,
        }[name]
        return record.status != "completed" or 1e3 * (value or 0.0) > bound_ms

    return exceeds
