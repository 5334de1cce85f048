"""A trial while it runs, from its records: how far it is, and what its figures are so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from advisor.documents import validate
from advisor.trial.projecting.projection import LoadProjection
from advisor.trial.records import Counts, RequestRecord, TrialSummary
from advisor.trial.reporting.measured import asked_small, proportion, was_escalated
from advisor.trial.store import TrialStore

MOST_POINTS = 60
"""Of a running share: enough for a line, few enough to draw every second."""

ROUTES = {"slm": "small model", "llm": "large model", "cache": "cache"}


@dataclass(frozen=True)
class SharePoint:
    """A share after so many requests, with its 90 % interval (for one look)."""

    at_s: float
    value: float
    low: float
    high: float
    requests: int


@dataclass(frozen=True)
class LatencyPoint:
    """One answer."""

    at_s: float
    """When it was sent."""
    e2e_ms: float
    route: str


@dataclass(frozen=True)
class Progress:
    """What the records of a trial say so far."""

    summary: TrialSummary
    counts: Counts
    """Of the judged arm (the router's)."""
    projection: LoadProjection | None
    lasts_s: float | None
    """Length of the router's load as planned."""
    now_s: float | None
    """How far it is."""
    latencies: tuple[LatencyPoint, ...]
    escalation: tuple[SharePoint, ...]
    quality: tuple[SharePoint, ...]
    cost_usd: tuple[tuple[float, float], ...]
    """(second, USD so far)."""
    in_flight: tuple[tuple[float, int], ...]
    """(second, requests sent and not yet answered)."""

    @property
    def share(self) -> float:
        """Of the router's requests that have ended."""
        return self.counts.ended / self.counts.total if self.counts.total else 0.0


def progress_of(store: TrialStore, trial: str) -> Progress:
    """Read a trial's progress.

    Raises:
        InputError: no such trial.
    """
    summary = store.summary(trial)
    counts = next((arm.requests for arm in summary.arms if arm.name == "router"), Counts())
    records = store.requests(trial, "router")
    ended = sorted(
        (record for record in records if record.end_s is not None), key=lambda r: r.end_s or 0.0
    )
    return Progress(
        summary=summary,
        counts=counts,
        projection=_projection(store, trial),
        lasts_s=max((r.scheduled_s for r in records if r.scheduled_s is not None), default=None),
        now_s=ended[-1].end_s if ended else None,
        latencies=_latencies(ended),
        escalation=_shares(
            [
                (record.end_s or 0.0, float(was_escalated(record)))
                for record in ended
                if record.status == "completed" and asked_small(record)
            ]
        ),
        quality=_shares(
            [
                (record.end_s or 0.0, record.correct)
                for record in ended
                if record.correct is not None
            ]
        ),
        cost_usd=_costs(ended),
        in_flight=_in_flight(ended),
    )


def _projection(store: TrialStore, trial: str) -> LoadProjection | None:
    document = store.document(trial, "projection")
    if document is None:
        return None
    return validate(LoadProjection, document["arms"]["router"], what=f"trial {trial}")


def _latencies(ended: Sequence[RequestRecord]) -> tuple[LatencyPoint, ...]:
    return tuple(
        LatencyPoint(record.sent_s, 1e3 * record.e2e_s, ROUTES.get(str(record.route), "other"))
        for record in ended
        if record.status == "completed" and record.e2e_s is not None and record.sent_s is not None
    )


def _shares(events: Sequence[tuple[float, float]]) -> tuple[SharePoint, ...]:
    """The running mean with its interval, at up to `MOST_POINTS` moments."""
    if not events:
        return ()
    total = np.cumsum([value for _, value in events])
    ends = np.unique(np.linspace(0, len(events) - 1, MOST_POINTS).astype(int))
    found = []
    for index in ends:
        count = int(index) + 1
        figure = proportion(float(total[index]), count)
        found.append(SharePoint(events[index][0], figure.value, figure.low, figure.high, count))
    return tuple(found)


def _costs(ended: Sequence[RequestRecord]) -> tuple[tuple[float, float], ...]:
    known = [(r.end_s or 0.0, r.cost_usd) for r in ended if r.cost_usd is not None]
    if not known:
        return ()
    total = np.cumsum([usd for _, usd in known])
    ends = np.unique(np.linspace(0, len(known) - 1, MOST_POINTS).astype(int))
    return tuple((known[index][0], float(total[index])) for index in ends)


def _in_flight(ended: Sequence[RequestRecord]) -> tuple[tuple[float, int], ...]:
    """Requests sent and not yet ended, at up to `MOST_POINTS` moments; of those that have ended."""
    sent = np.sort([record.sent_s for record in ended if record.sent_s is not None])
    ends = np.sort([record.end_s for record in ended if record.sent_s is not None])
    if not len(sent):
        return ()
    moments = np.linspace(0.0, float(ends[-1]), MOST_POINTS)
    inside = np.searchsorted(sent, moments, "right") - np.searchsorted(ends, moments, "right")
    return tuple((float(at), int(count)) for at, count in zip(moments, inside, strict=True))
