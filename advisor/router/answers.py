"""What a client gets: an answer or an error, and the facts of how it came about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from advisor.router import json_bytes
from advisor.router.costs import Bill
from advisor.router.events import DONE, Collected, encoded
from advisor.router.failures import UpstreamError
from advisor.router.refusals import error_body
from advisor.router.requests import RouterRequest
from advisor.router.upstreams import UpstreamStream

Route = Literal["cache", "slm", "llm", "none"]

CLIENT_CLOSED = 499
"""Status of a request whose client left, as nginx counts it."""


@dataclass
class RouteFacts:
    """Who answered a request, why, and for how much; filled in as it happens."""

    route: Route = "none"
    """Who answered; none: nobody, the client got an error."""
    reason: str = ""
    """accepted, policy, cached, high_risk, task_type, prerouter, canary, hedge; of an escalation
    its cause (low_confidence, no_confidence, gate_…, slm_…); budget, rate_cap or llm_failed where
    the small answer is given out for want of the large one; of an error what it is."""
    confidence: float | None = None
    """Of the small model's answer, whether or not it was given out."""
    escalated: str = ""
    """Why the small model's answer was handed up; empty where it was not."""
    bill: Bill = field(default_factory=Bill)

    def headers(self) -> dict[str, str]:
        """x-advisor-…: of a stream that is still under way, the cost so far."""
        found = {"x-advisor-route": self.route, "x-advisor-reason": self.reason}
        if self.confidence is not None:
            found["x-advisor-confidence"] = f"{self.confidence:.6g}"
        usd = self.bill.usd
        if usd is not None:
            found["x-advisor-cost-usd"] = f"{usd:.10f}".rstrip("0").rstrip(".")
        if self.bill.estimated:
            found["x-advisor-cost-basis"] = "estimated"
        return found


@dataclass
class Answer:
    """An answer, whole or as a stream, or an error in the OpenAI shape."""

    status: int
    facts: RouteFacts
    body: dict[str, Any] | None = None
    stream: RelayedStream | None = None
    """In place of a body; must be closed."""
    retry_after_s: float | None = None

    def headers(self) -> dict[str, str]:
        """The facts, and when to try again."""
        found = self.facts.headers()
        if self.retry_after_s is not None:
            found["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        return found


class RelayedStream:
    """A model's stream on its way to the client, event by event.

    A stream that breaks off ends with an error event, as OpenAI's own do. Before [DONE] comes a
    comment with the facts, since the whole cost is known only then.

    Args:
        stream: the upstream's.
        request: says whether the client wants the usage event.
        facts: told in the last comment.
        ended: called once: HTTP-like status, and the answer put together where it is complete.
        collect: whether to put it together.
        deadline_s: on the event loop's clock.
    """

    def __init__(
        self,
        stream: UpstreamStream,
        request: RouterRequest,
        facts: RouteFacts,
        *,
        ended: Callable[[int, dict[str, Any] | None], None],
        collect: bool,
        deadline_s: float,
    ) -> None:
        self._stream, self._request, self._facts = stream, request, facts
        self._ended: Callable[[int, dict[str, Any] | None], None] | None = ended
        self._collected = Collected(request.endpoint) if collect else None
        self._deadline_s = deadline_s
        self._over = False

    def __aiter__(self) -> RelayedStream:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        while True:
            try:
                event = await self._stream.next(deadline_s=self._deadline_s)
            except UpstreamError:
                return await self._broken()
            if event is None or event.done:
                return await self._complete()
            if self._collected is not None:
                self._collected.add(event)
            only_usage = event.data is not None and not event.data.get("choices")
            if not only_usage or self._request.wants_usage:
                return event.raw

    async def aclose(self) -> None:
        """Let go of the upstream's stream; before its end this cancels it there."""
        await self._stream.aclose()
        self._finish(CLIENT_CLOSED)

    async def abandon(self) -> None:
        """Let go of a stream that no client has seen: its request is answered otherwise."""
        self._ended = None
        await self._stream.aclose()

    async def _complete(self) -> bytes:
        self._over = True
        await self._stream.aclose()
        self._finish(200, self._collected.body() if self._collected else None)
        facts = json_bytes.encoded(self._facts.headers())
        return b": " + facts + b"\n\n" + DONE

    async def _broken(self) -> bytes:
        self._over = True
        await self._stream.aclose()
        self._finish(502)
        message = "the model's stream broke off"
        return encoded(error_body(message, kind="server_error", code="stream_broken"))

    def _finish(self, status: int, body: dict[str, Any] | None = None) -> None:
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended(status, body)
