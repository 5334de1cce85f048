"""Each requirement of the task: held, failed or undecided, and how many more requests would decide.

Every requirement is a statement on a share. A p95 bound holds where at most 5 % of the requests
exceed it, so that failures and time limits count as exceeding; a quality target where at least so
many answers are right; an escalation limit where at most so many are handed up. A share is decided
by its exact one-sided bound at the task's confidence: held where even the worse end keeps the
requirement, failed where even the better end breaks it. Latencies of neighbours hang together, so
their requests count as fewer (`advisor.trial.reporting.measured.effective_count`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from advisor.figures import percent
from advisor.quality.bounds import lower_bound, rows_to_certify, upper_bound
from advisor.records import Record
from advisor.task import TaskProfile
from advisor.trial.records import RequestRecord
from advisor.trial.reporting.measured import (
    TRIED,
    Measured,
    asked_small,
    effective_count,
    p95_of,
    quality_of,
    was_escalated,
)

State = Literal["held", "failed", "undecided"]

ALLOWED_BEYOND_P95 = 0.05


class RequirementVerdict(Record):
    """One requirement and what the trial says of it."""

    requirement: str
    """In words, with its bound."""
    measure: str
    """quality, ttft_p95_ms, e2e_p95_ms, tpot_p95_ms, escalation_rate, cost_usd_per_month."""
    state: State
    bound: float
    measured: Measured | None
    """None: nothing was measured."""
    basis: str
    """What the state rests on."""
    more_requests: int | None = None
    """Further requests that would decide, if what was seen is the truth; None: decided, or no
    number would."""


def verdicts(
    task: TaskProfile,
    records: Sequence[RequestRecord],
    *,
    cost: Measured | None = None,
    cascade: bool = True,
) -> tuple[RequirementVerdict, ...]:
    """The verdict on every requirement that the task states.

    Args:
        records: of the arm that is judged, in order of arrival.
        cost: measured, USD a request.
        cascade: whether the escalation limit applies.
    """
    return tuple(_each(task, records, cost, cascade))


def _each(
    task: TaskProfile, records: Sequence[RequestRecord], cost: Measured | None, cascade: bool
) -> Iterator[RequirementVerdict]:
    confidence = task.quality.confidence
    yield quality_verdict(task, records)
    for name, bound in task.latency.bounds.items():
        yield latency_verdict(name, bound, records, confidence=confidence)
    if cascade:
        yield escalation_verdict(task.constraints.max_escalation_rate, records, confidence)
    budget = task.constraints.budget_usd_per_month
    if budget is not None:
        answered = any(record.status == "completed" for record in records)
        yield cost_verdict(
            budget,
            cost,
            requests_per_month=task.traffic.requests_per_month,
            why_unknown="no price is known" if answered else "nothing was answered",
        )


def quality_verdict(task: TaskProfile, records: Sequence[RequestRecord]) -> RequirementVerdict:
    """Of the answers, at least so many right."""
    target, confidence = task.quality.threshold, task.quality.confidence
    measured, rows = quality_of(records)
    words = f"{task.quality.metric.replace('_', ' ')} of at least {percent(target)}"
    if measured is None:
        tried = any(record.status in TRIED for record in records)
        why = "no row says what is expected" if tried else "nothing was tried"
        return _unmeasured(words, "quality", target, why)
    right = measured.value * rows
    state, more = _decide(rows - right, rows, allowed=1 - target, confidence=confidence)
    return RequirementVerdict(
        requirement=words,
        measure="quality",
        state=state,
        bound=target,
        measured=measured,
        basis=f"{right:g} of {rows:,} labelled requests right, at {percent(confidence)} confidence",
        more_requests=more,
    )


def latency_verdict(
    name: str, bound_ms: float, records: Sequence[RequestRecord], *, confidence: float
) -> RequirementVerdict:
    """At most 5 % of the requests take longer than a bound.

    An answer of one token, or one that comes whole, as the router releases what the small model
    said, has no time between tokens and cannot exceed one; the figure shown is of those that have.
    """
    value: Callable[[RequestRecord], float | None] = {
        "ttft_p95_ms": lambda record: record.ttft_s,
        "e2e_p95_ms": lambda record: record.e2e_s,
        "tpot_p95_ms": lambda record: record.tpot_s,
    }[name]
    tried = [record for record in records if record.status in TRIED]
    beyond = np.array(
        [
            record.status != "completed" or 1e3 * (value(record) or 0.0) > bound_ms
            for record in tried
        ],
        dtype=bool,
    )
    words = f"{name.split('_')[0].upper()} p95 of at most {bound_ms:g} ms"
    measured = p95_of([value(record) for record in tried])
    if not len(beyond):
        return _unmeasured(words, name, bound_ms, "nothing was tried")
    worth = effective_count(beyond)
    effect = len(beyond) / worth
    state, more = _decide(
        float(beyond.sum()) / effect,
        max(int(worth), 1),
        allowed=ALLOWED_BEYOND_P95,
        confidence=confidence,
    )
    basis = f"{beyond.sum():,} of {len(beyond):,} requests exceed it"
    if whole := sum(record.status == "completed" and value(record) is None for record in tried):
        basis += f"; {whole:,} do not stream"
    if effect > 1.05:
        basis += f"; they hang together and count as {worth:,.0f}"
    return RequirementVerdict(
        requirement=words,
        measure=name,
        state=state,
        bound=bound_ms,
        measured=measured,
        basis=basis,
        more_requests=None if more is None else math.ceil(more * effect),
    )


def escalation_verdict(
    limit: float, records: Sequence[RequestRecord], confidence: float
) -> RequirementVerdict:
    """At most so many of the small model's answers handed up."""
    asked = [r for r in records if r.status == "completed" and asked_small(r)]
    up = sum(was_escalated(record) for record in asked)
    words = f"escalation rate of at most {percent(limit)}"
    if not asked:
        return _unmeasured(words, "escalation_rate", limit, "the small model answered nothing")
    state, more = _decide(up, len(asked), allowed=limit, confidence=confidence)
    return RequirementVerdict(
        requirement=words,
        measure="escalation_rate",
        state=state,
        bound=limit,
        measured=Measured(
            value=up / len(asked),
            low=lower_bound(up, len(asked), confidence=0.95),
            high=upper_bound(up, len(asked), confidence=0.95),
        ),
        basis=f"{up:,} of {len(asked):,} answers handed up",
        more_requests=more,
    )


def cost_verdict(
    budget_usd: float,
    cost: Measured | None,
    *,
    requests_per_month: float,
    why_unknown: str = "no price is known",
) -> RequirementVerdict:
    """A month of the task's traffic within its budget, at what a request was measured to cost.

    Args:
        why_unknown: said where the cost is None.
    """
    words = f"at most ${budget_usd:,.0f} a month"
    if cost is None:
        return _unmeasured(words, "cost_usd_per_month", budget_usd, why_unknown)
    month = Measured(
        value=cost.value * requests_per_month,
        low=cost.low * requests_per_month,
        high=cost.high * requests_per_month,
    )
    state: State = "undecided"
    if month.high <= budget_usd:
        state = "held"
    elif month.low > budget_usd:
        state = "failed"
    return RequirementVerdict(
        requirement=words,
        measure="cost_usd_per_month",
        state=state,
        bound=budget_usd,
        measured=month,
        basis=f"{requests_per_month:,.0f} requests a month at the measured cost of one",
    )


def summary_of(
    judged: Sequence[RequirementVerdict], *, invalid: str = "", disturbed: str = ""
) -> str:
    """How many requirements were held, failed or left open, in a line.

    Args:
        invalid: why the latencies do not count; empty where they do.
        disturbed: what else moved them; empty where nothing is known to have.
    """
    if all(verdict.measured is None and verdict.state == "undecided" for verdict in judged):
        return "nothing was measured"
    states = [verdict.state for verdict in judged]
    parts = [f"{states.count(state)} {state}" for state in ("held", "failed", "undecided")]
    text = "; ".join(["requirements: " + ", ".join(parts), *filter(None, [disturbed])])
    return f"{text}; invalid: {invalid}" if invalid else text


def _unmeasured(words: str, measure: str, bound: float, basis: str) -> RequirementVerdict:
    """Undecided, for want of anything measured."""
    return RequirementVerdict(
        requirement=words,
        measure=measure,
        state="undecided",
        bound=bound,
        measured=None,
        basis=basis,
    )


def _decide(
    events: float, trials: int, *, allowed: float, confidence: float
) -> tuple[State, int | None]:
    """Whether a share is at most `allowed`, and how many more trials would tell.

    `events` may be graded, or scaled: it is rounded against whatever is to be shown.
    """
    high = upper_bound(min(trials, math.ceil(events - 1e-9)), trials, confidence=confidence)
    if high <= allowed:
        return "held", None
    low = lower_bound(min(trials, math.floor(events + 1e-9)), trials, confidence=confidence)
    if low > allowed:
        return "failed", None
    share = events / trials
    if share < allowed:
        needed = rows_to_certify(1 - share, target=1 - allowed, confidence=confidence)
    else:
        needed = rows_to_certify(share, target=allowed, confidence=confidence)
    return "undecided", None if needed is None else max(needed - trials, 1)
