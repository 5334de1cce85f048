"""One request on its way through the router, and how it ends."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advisor.router.answers import Answer, RouteFacts
from advisor.router.failures import Cause, UpstreamError
from advisor.router.gating import Verdict
from advisor.router.refusals import RefusedError
from advisor.router.requests import RouterRequest
from advisor.router.tracing import RequestTrace

logger = logging.getLogger("advisor.router")

SMALL_CAUSES: Mapping[Cause, str] = {
    "timeout": "slm_timeout",
    "rejected": "slm_rejected",
    "unavailable": "slm_unavailable",
}
"""Why a small model that gave no answer is passed over; slm_error otherwise."""

CLIENT_STATUS: Mapping[Cause, int] = {"timeout": 504, "rate_limited": 429, "unavailable": 503}
"""Status for the client when a model fails; 502 otherwise."""


@dataclass
class Job:
    """One request on its way through the router."""

    request: RouterRequest
    trace: RequestTrace
    deadline_s: float
    """On the event loop's clock."""
    facts: RouteFacts = field(default_factory=RouteFacts)
    started_s: float = field(default_factory=time.perf_counter)
    first_byte_s: float | None = None
    """Of a stream: when its first event was there, from the start."""
    is_finished: bool = False

    @property
    def elapsed_s(self) -> float:
        """Since it came in."""
        return time.perf_counter() - self.started_s


@dataclass(frozen=True)
class SmallAnswer:
    """What came of asking the small model: an answer and what the gates say, or a failure."""

    body: dict[str, Any] | None = None
    verdict: Verdict | None = None
    failure: UpstreamError | None = None

    @property
    def accepted(self) -> bool:
        """Whether it may be given out as it is."""
        return self.verdict is not None and self.verdict.accepted

    @property
    def cause(self) -> str:
        """Why it is handed up."""
        if self.verdict is not None:
            return self.verdict.cause
        assert self.failure is not None
        return SMALL_CAUSES.get(self.failure.cause, "slm_error")


def refused(job: Job, refusal: RefusedError) -> Answer:
    """An error as an answer."""
    job.facts.route, job.facts.reason = "none", refusal.reason
    return Answer(
        status=refusal.status,
        facts=job.facts,
        body=refusal.body,
        retry_after_s=refusal.retry_after_s,
    )


def to_client(error: UpstreamError, reason: str) -> RefusedError:
    """What a client is told of a model that failed: nothing of the upstream but its own refusal."""
    if error.cause == "rejected" and error.body is not None:
        return RefusedError(
            "refused by the model",
            status=error.status or 400,
            kind="invalid_request_error",
            reason="invalid_request",
            body=error.body,
        )
    limited = error.cause == "rate_limited"
    return RefusedError(
        f"the model gave no answer: {error.cause.replace('_', ' ')}",
        status=CLIENT_STATUS.get(error.cause, 502),
        kind="rate_limit_error" if limited else "server_error",
        code=f"upstream_{error.cause}",
        reason=reason,
        retry_after_s=error.retry_after_s,
    )


def too_late() -> RefusedError:
    """The time for the whole request is over."""
    return RefusedError(
        "no answer in time", status=504, kind="server_error", code="timeout", reason="timeout"
    )


def internal_error() -> RefusedError:
    """Something went wrong that should not."""
    return RefusedError(
        "an error inside the router", status=500, kind="server_error", reason="internal_error"
    )


def log_request(job: Job, status: int, *, seconds: float, body: Mapping[str, Any] | None) -> None:
    """One line; with what was said only where a body is given."""
    facts = job.facts
    line: dict[str, Any] = {
        "status": status,
        "route": facts.route,
        "reason": facts.reason,
        "escalated": facts.escalated,
        "confidence": facts.confidence,
        "seconds": round(seconds, 6),
        "slm_tokens": facts.bill.tokens("slm"),
        "llm_tokens": facts.bill.tokens("llm"),
        "cost_usd": facts.bill.usd,
    }
    if body is not None:
        line |= {"request": job.request.body, "answer": body}
    logger.info("%s", json.dumps(line))
