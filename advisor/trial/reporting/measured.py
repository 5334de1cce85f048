"""What an arm measured: figures with intervals that know of queues and of failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from advisor.quality.bounds import lower_bound, upper_bound
from advisor.records import Record
from advisor.trial.records import Counts, RequestRecord

FloatArray = NDArray[np.float64]

P95 = 0.95
Z_90 = 1.6448536269514722
BATCHES = 16
LEAST_IN_BATCH = 10

ESCALATING = ("low_confidence", "no_confidence", "gate_", "slm_", "hedge", "refusal")
"""Reasons, or their beginnings, with which the router hands an answer up."""

TRIED = ("completed", "failed", "timed_out")
"""How requests end that the endpoint had its chance to answer."""


class Measured(Record):
    """A measured figure with its 90 % interval."""

    value: float
    low: float
    high: float


class Lag(Record):
    """How late the sender was."""

    p50_ms: float
    p99_ms: float
    added_p95_ms: float
    """What it adds to the p95 of the end-to-end latency where that is counted from when each
    request was due: a stalled sender spares the endpoints what it was to measure."""
    limit_ms: float
    """5 % of the measured p95 of the end-to-end latency."""

    @property
    def is_small(self) -> bool:
        """Whether the load was what it was meant to be."""
        return self.added_p95_ms <= self.limit_ms

    @property
    def why_invalid(self) -> str:
        """In a line, why latencies do not count; empty where they do."""
        if self.is_small:
            return ""
        return (
            f"the sender was late: counted from when requests were due, E2E p95 is "
            f"{self.added_p95_ms:.1f} ms longer, more than 5 % of it ({self.limit_ms:.1f} ms); "
            "lower the rate, or free a core for the sender"
        )


class ArmMeasurement(Record):
    """What one arm measured."""

    arm: str
    requests: Counts
    rate_per_s: float | None
    """Sent, requests a second."""
    lag: Lag | None
    """None in a closed loop."""
    ttft_p95_ms: Measured | None
    tpot_p95_ms: Measured | None
    """Of the answers that stream."""
    e2e_p50_ms: Measured | None
    e2e_p95_ms: Measured | None
    accepted_e2e_p95_ms: Measured | None = None
    escalated_e2e_p95_ms: Measured | None = None
    escalation_rate: Measured | None = None
    """Of the requests that the small model was asked."""
    escalation_causes: dict[str, int] = Field(default_factory=dict)
    quality: Measured | None = None
    """Right answers over labelled requests; one that got no answer is not right."""
    labelled: int = 0
    cost_usd_per_request: Measured | None = None
    """None: no price is known."""
    cost_usd_per_correct_answer: float | None = None
    spent_usd: float | None = None


def measure(
    arm: str, records: Sequence[RequestRecord], counts: Counts, *, cascade: bool
) -> ArmMeasurement:
    """The figures of an arm; None where nothing was answered."""
    answered = [record for record in records if record.status == "completed"]
    e2e = p95_of([record.e2e_s for record in answered])
    quality, labelled = quality_of(records)
    cost, spent = _cost(answered)
    right = None if quality is None else quality.value * labelled
    up = [record for record in answered if was_escalated(record)]
    kept = [record for record in answered if record.route in ("slm", "cache")]
    return ArmMeasurement(
        arm=arm,
        requests=counts,
        rate_per_s=_rate(records),
        lag=lag_of(records, e2e),
        ttft_p95_ms=p95_of([record.ttft_s for record in answered]),
        tpot_p95_ms=p95_of([record.tpot_s for record in answered]),
        e2e_p50_ms=quantile_of([record.e2e_s for record in answered], 0.5),
        e2e_p95_ms=e2e,
        accepted_e2e_p95_ms=p95_of([record.e2e_s for record in kept]) if cascade else None,
        escalated_e2e_p95_ms=p95_of([record.e2e_s for record in up]) if cascade else None,
        escalation_rate=escalation_of(answered) if cascade else None,
        escalation_causes=_causes(up),
        quality=quality,
        labelled=labelled,
        cost_usd_per_request=cost,
        cost_usd_per_correct_answer=(
            spent * labelled / len(answered) / right if spent is not None and right else None
        ),
        spent_usd=spent,
    )


def was_escalated(record: RequestRecord) -> bool:
    """Whether the small model's answer was handed up."""
    return record.route == "llm" and str(record.reason).startswith(ESCALATING)


def asked_small(record: RequestRecord) -> bool:
    """Whether the small model was asked."""
    return record.route == "slm" or was_escalated(record)


def proportion(events: float, trials: int) -> Measured:
    """A share with its exact (Clopper–Pearson) 90 % interval; graded scores are rounded outwards.

    Raises:
        ValueError: no trial.
    """
    return Measured(
        value=events / trials,
        low=lower_bound(math.floor(events + 1e-9), trials, confidence=P95),
        high=upper_bound(min(trials, math.ceil(events - 1e-9)), trials, confidence=P95),
    )


def escalation_of(answered: Sequence[RequestRecord]) -> Measured | None:
    """Share of the small model's answers that were handed up."""
    asked = sum(asked_small(record) for record in answered)
    if not asked:
        return None
    return proportion(sum(was_escalated(record) for record in answered), asked)


def quality_of(records: Sequence[RequestRecord]) -> tuple[Measured | None, int]:
    """Mean score and how many labelled requests it is over; None: no labelled one was tried.

    A row asked again proves nothing more: the first time counts. What failed or timed out is not
    right (`advisor.trial.judging`); what was cancelled was not tried.
    """
    first: dict[str, float] = {}
    for record in records:
        if record.correct is not None and record.status in TRIED:
            first.setdefault(record.row_id, record.correct)
    if not first:
        return None, 0
    return proportion(sum(first.values()), len(first)), len(first)


def p95_of(values_s: Sequence[float | None]) -> Measured | None:
    """p95 in milliseconds of durations in order of arrival."""
    return quantile_of(values_s, P95)


def quantile_of(values_s: Sequence[float | None], level: float) -> Measured | None:
    """A quantile in milliseconds with its 90 % interval; None where there are no values.

    Order statistics at level ± z·sqrt(level·(1 − level)/n′), where n′ is what the n values are
    worth: neighbours share queues (`effective_count`).
    """
    values = np.array([value for value in values_s if value is not None], dtype=float)
    if len(values) == 0:
        return None
    found = float(np.quantile(values, level))
    worth = effective_count(values > found)
    half = Z_90 * math.sqrt(level * (1 - level) / worth)
    low, high = np.quantile(values, [max(level - half, 0.0), min(level + half, 1.0)])
    return Measured(value=1e3 * found, low=1e3 * float(low), high=1e3 * float(high))


def effective_count(events: NDArray[np.bool_]) -> float:
    """Independent requests that n neighbouring ones are worth, for counting `events`.

    Batch means: with the share p over all and p_b in each of B batches of m, the batches' variance
    over what independence would give, p(1 − p)/m, is the design effect; n over it (at least 1) is
    the answer.
    """
    count = len(events)
    size = count // BATCHES
    share = float(events.mean()) if count else 0.0
    if size < LEAST_IN_BATCH or share in (0.0, 1.0):
        return float(max(count, 1))
    batches = events[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)
    effect = float(batches.var(ddof=1)) / (share * (1 - share) / size)
    return count / max(effect, 1.0)


def lag_of(records: Sequence[RequestRecord], e2e: Measured | None) -> Lag | None:
    """How late requests were sent; None where nothing was scheduled, or nothing answered."""
    late = [record.send_lag_s for record in records if record.send_lag_s is not None]
    answered = [
        (record.e2e_s, record.e2e_s + record.send_lag_s)
        for record in records
        if record.e2e_s is not None and record.send_lag_s is not None
    ]
    if not answered or e2e is None:
        return None
    median, high = np.quantile(late, [0.5, 0.99])
    from_sending, from_due = np.quantile(answered, 0.95, axis=0)
    return Lag(
        p50_ms=1e3 * float(median),
        p99_ms=1e3 * float(high),
        added_p95_ms=1e3 * float(from_due - from_sending),
        limit_ms=0.05 * e2e.value,
    )


def why_invalid(measurements: Mapping[str, ArmMeasurement]) -> str:
    """Why the judged arm's latencies are not those of the load that was meant; else empty."""
    router = measurements.get("router")
    return router.lag.why_invalid if router and router.lag else ""


def _cost(answered: Sequence[RequestRecord]) -> tuple[Measured | None, float | None]:
    costs = np.array([r.cost_usd for r in answered if r.cost_usd is not None], dtype=float)
    if len(costs) == 0 or len(costs) < len(answered):
        return None, None
    mean = float(costs.mean())
    half = Z_90 * float(costs.std(ddof=1)) / math.sqrt(len(costs)) if len(costs) > 1 else 0.0
    figure = Measured(value=mean, low=max(mean - half, 0.0), high=mean + half)
    return figure, float(costs.sum())


def _causes(escalated: Sequence[RequestRecord]) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in escalated:
        found[str(record.reason)] = found.get(str(record.reason), 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _rate(records: Sequence[RequestRecord]) -> float | None:
    sent = sorted(record.sent_s for record in records if record.sent_s is not None)
    if len(sent) < 2 or sent[-1] == sent[0]:
        return None
    return (len(sent) - 1) / (sent[-1] - sent[0])
