"""What a trial leaves behind: one record for each request, and what they belong to.

A request is planned before it is sent, and ends as exactly one of completed, failed, timed out or
cancelled: the counts always add up. Times are seconds on the clock of the arm, 0 at its start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from advisor.records import Record

Status = Literal["planned", "completed", "failed", "timed_out", "cancelled"]
ENDS: tuple[Status, ...] = get_args(Status)[1:]
"""How a request can end; `planned` is where it begins."""

TrialState = Literal["running", "finished", "stopped", "interrupted"]
"""finished: judged; stopped: by the user, a cap or a test that was certain, and judged;
interrupted: the process that ran it ended before it could say anything."""

ArmName = str
"""A stretch of load: `slm_only`, `llm_only` and `router` are what is judged, `calibration_…` what
the projection was made from."""

ARMS = ("slm_only", "llm_only", "router")
"""Those that are judged."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, from its place in the plan to its end."""

    number: int
    """Position in the plan of its arm, from 0."""
    row_id: str
    """Which row of the data it asks."""
    scheduled_s: float | None
    """When it was to be sent; None in a closed loop, where answers decide."""
    status: Status = "planned"
    sent_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    end_s: float | None = None
    """When its last byte, or its failure, was known."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    route: str | None = None
    """Who answered, by the router's header; None where the endpoint was asked directly."""
    reason: str | None = None
    """Why, by the router's header."""
    confidence: float | None = None
    """Of the small model's answer."""
    gate: str | None = None
    """First hard gate that the answer failed; empty where it passed all, None: not checked."""
    correct: float | None = None
    """1 right, 0 wrong, or a graded score between; None: nothing was expected."""
    cost_usd: float | None = None
    http_status: int | None = None
    error: str | None = None
    """One line; never a key."""
    answer: str | None = None
    """What was answered, where the trial keeps answers."""

    @property
    def send_lag_s(self) -> float | None:
        """Sent later than planned, seconds."""
        if self.scheduled_s is None or self.sent_s is None:
            return None
        return self.sent_s - self.scheduled_s

    @property
    def ttft_s(self) -> float | None:
        """From sending to the first token."""
        return _between(self.sent_s, self.first_token_s)

    @property
    def e2e_s(self) -> float | None:
        """From sending to the last token."""
        return _between(self.sent_s, self.last_token_s)

    @property
    def tpot_s(self) -> float | None:
        """(last − first token)/(n − 1), as vLLM has it; None for fewer than two tokens, and for
        answers that came whole: they do not stream."""
        decode = _between(self.first_token_s, self.last_token_s)
        if not decode or self.output_tokens is None or self.output_tokens < 2:
            return None
        return decode / (self.output_tokens - 1)


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(RequestRecord))
"""Columns of the request table, in its order."""


class Counts(Record):
    """Requests by how they ended."""

    planned: int = 0
    """Not ended yet."""
    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0

    @classmethod
    def of(cls, by_status: Mapping[str, int]) -> Counts:
        """From counts by status."""
        return cls.model_validate(dict(by_status))

    @property
    def total(self) -> int:
        """Every request that was scheduled."""
        return self.planned + self.ended

    @property
    def ended(self) -> int:
        """Those that came to an end, good or bad."""
        return self.completed + self.failed + self.timed_out + self.cancelled


class ArmSummary(Record):
    """One stretch of load of a trial."""

    name: ArmName
    requests: Counts
    began_epoch_s: float | None
    """Seconds since 1970 at second 0 of its clock; None: it never began."""


class TrialSummary(Record):
    """One trial in the list of them."""

    id: str
    name: str
    """Of its task."""
    state: TrialState
    created_epoch_s: float
    ended_epoch_s: float | None
    note: str
    """Why it ended, where that needs saying."""
    arms: tuple[ArmSummary, ...]


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin
