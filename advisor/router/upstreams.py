"""One attempt at one upstream: sent, timed, checked, and charged whatever comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from advisor.quality.decodable import decodable
from advisor.router.config import TierName
from advisor.router.connections import ConnectionPool
from advisor.router.costs import Usage
from advisor.router.events import Event, events
from advisor.router.failures import (
    SPARED,
    UpstreamError,
    answer_in,
    failure_of,
    refusal_of,
)
from advisor.router.json_bytes import encoded
from advisor.router.requests import PATHS, Endpoint
from advisor.router.resilience import Admission, Breaker
from advisor.router.responses import Response
from advisor.router.settings import FailureSettings, UpstreamSettings

KEEPALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes idle connections: a request sent into a
closing connection is lost."""

Charger = Callable[[Usage], None]


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    body: dict[str, Any]
    seconds: float


class Upstream:
    """One server: its connections, its breaker, and its share of requests in flight.

    Args:
        name: slm or llm.
        settings: where it is and what it is given.
        failure: of the breaker.
        key: sent as bearer token.
        observed: told of every attempt: its outcome and seconds.
    """

    def __init__(
        self,
        name: TierName,
        settings: UpstreamSettings,
        failure: FailureSettings,
        *,
        key: str | None,
        observed: Callable[[TierName, str, float], None],
    ) -> None:
        self.name, self.settings = name, settings
        self.breaker = Breaker(failures=failure.breaker_failures, open_s=failure.breaker_open_s)
        self._observed = observed
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "advisor-router",
        }
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._pool = ConnectionPool(
            settings.base_url,
            headers=headers,
            connect_timeout_s=settings.connect_timeout_s,
            keepalive_s=KEEPALIVE_S,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def is_reachable(self) -> bool:
        """Whether something listens there that speaks HTTP."""
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                connection = await self._pool.connection()
                response = connection.send(self._pool.request("GET", "/models", {}, b""))
                try:
                    await response.head()
                finally:
                    response.close()
        except (OSError, ValueError):
            return False
        return True

    async def complete(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        *,
        charge: Charger,
        deadline_s: float,
        headers: Mapping[str, str],
    ) -> Reply:
        """A whole answer.

        Args:
            endpoint: chat or completions.
            body: as the client sent it; the model is replaced, and of a schema to answer by, what
                servers can decode by is passed on.
            charge: told what was used, once, whether or not there is an answer.
            deadline_s: on the event loop's clock.
            headers: sent along.

        Raises:
            UpstreamError: there is none.
        """
        payload = self._payload(body)
        begin = time.perf_counter()
        deadline = min(deadline_s, asyncio.get_running_loop().time() + self.settings.timeout_s)
        attempt = Attempt(self, len(payload), charge)
        attempt.begin()
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                attempt.has_slot = True
                response = await self._sent(endpoint, payload, headers, attempt)
                raw = await self._whole(response, attempt)
            answer = answer_in(raw, endpoint)
            attempt.reported(answer.get("usage"))
        except BaseException as error:
            raise attempt.end(error) from None
        attempt.end(None)
        return Reply(body=answer, seconds=time.perf_counter() - begin)

    async def open_stream(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        *,
        charge: Charger,
        deadline_s: float,
        headers: Mapping[str, str],
    ) -> UpstreamStream:
        """A stream whose first event is there; whoever opens it closes it.

        Raises:
            UpstreamError: it did not come to one. Arguments as of `complete`.
        """
        options = {**(body.get("stream_options") or {}), "include_usage": True}
        payload = self._payload({**body, "stream": True, "stream_options": options})
        stream = UpstreamStream(self, len(payload), charge, choices=body.get("n") or 1)
        await stream.open(endpoint, payload, headers, deadline_s=deadline_s)
        return stream

    def _payload(self, body: Mapping[str, Any]) -> bytes:
        sent = {**with_decodable_schema(body), **self.settings.extra_body}
        return encoded({**sent, "model": self.settings.model})

    async def _sent(
        self, endpoint: Endpoint, payload: bytes, headers: Mapping[str, str], attempt: Attempt
    ) -> Response:
        """The response that comes to a request."""
        connection = await self._pool.connection()
        request = self._pool.request("POST", PATHS[endpoint], headers, payload)
        attempt.sent = True
        return connection.send(request)

    async def _whole(self, response: Response, attempt: Attempt) -> bytes:
        """The body of a response, which must be one with an answer."""
        try:
            raw = await response.whole(limit_bytes=self.settings.max_response_bytes)
        finally:
            attempt.received_bytes = response.received_bytes
            response.close()
        if response.status != 200:
            # Whoever answers with an error has not written an answer: nothing is charged.
            attempt.sent = False
            raise refusal_of(response.status, response.headers, raw)
        return raw


def with_decodable_schema(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request whose answer a server can decode by its `response_format`; what that leaves out of
    the client's schema is for the gates."""
    wanted = body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return body
    stated = wanted.get("json_schema")
    schema = stated.get("schema") if isinstance(stated, dict) else None
    if not isinstance(stated, dict) or not isinstance(schema, dict):
        return body
    known = {**wanted, "json_schema": {**stated, "schema": decodable(schema)}}
    return {**body, "response_format": known}


class Attempt:
    """What one attempt used and how it ended."""

    def __init__(self, upstream: Upstream, sent_bytes: int, charge: Charger) -> None:
        self._upstream, self._sent_bytes, self._charge = upstream, sent_bytes, charge
        self._begin = time.perf_counter()
        self._usage: Usage | None = None
        self._admission: Admission = "usual"
        self.has_slot = self.sent = False
        """sent: whether the model may have begun to work on it."""
        self.received_bytes = 0
        self.output_tokens = 0

    def begin(self) -> None:
        """Ask the breaker.

        Raises:
            UpstreamError: it is open.
        """
        breaker = self._upstream.breaker
        admission = breaker.admit()
        if admission is None:
            self._upstream._observed(self._upstream.name, "unavailable", 0.0)
            raise UpstreamError(
                "unavailable",
                "too many failures in a row: not asked for the moment",
                retry_after_s=breaker.retry_after_s,
            )
        self._admission = admission

    def reported(self, usage: Any) -> None:
        """The upstream says what it used."""
        self._usage = Usage.reported(usage) or self._usage

    def end(self, error: BaseException | None) -> BaseException:
        """Charge, count, and say what the error means."""
        failure = error if error is None else self._failure(error)
        if self._usage is None and self.sent:
            tokens = self.output_tokens or self.received_bytes // 4
            self._usage = Usage.assumed(sent_bytes=self._sent_bytes, output_tokens=tokens)
        if self._usage is not None:
            self._charge(self._usage)
        breaker, outcome = self._upstream.breaker, "ok"
        if failure is None:
            breaker.succeeded(self._admission)
        elif not isinstance(failure, UpstreamError):
            breaker.undecided(self._admission)
            outcome = "cancelled"
        elif failure.cause in SPARED:
            breaker.undecided(self._admission)
            outcome = failure.cause
        else:
            breaker.failed(self._admission)
            outcome = failure.cause
        seconds = time.perf_counter() - self._begin
        self._upstream._observed(self._upstream.name, outcome, seconds)
        return failure or RuntimeError("the attempt succeeded")

    def _failure(self, error: BaseException) -> BaseException:
        failure = failure_of(error)
        if not isinstance(error, TimeoutError) or self.sent:
            return failure
        if not self.has_slot:
            return UpstreamError("unavailable", "all its slots stayed taken")
        return UpstreamError("connection", "no connection in time")


class UpstreamStream:
    """A stream from an upstream: its events as they come, its end checked.

    The slot, the connection and the charge are held until `aclose`, which must be called.
    """

    def __init__(
        self, upstream: Upstream, sent_bytes: int, charge: Charger, *, choices: int
    ) -> None:
        self._upstream = upstream
        self._attempt = Attempt(upstream, sent_bytes, charge)
        self._choices_left = choices
        self._response: Response | None = None
        self._events: AsyncIterator[Event] | None = None
        self._first: Event | None = None
        self._has_slot = self._ended = self.finished = False

    async def open(
        self, endpoint: Endpoint, payload: bytes, headers: Mapping[str, str], *, deadline_s: float
    ) -> None:
        """Send, and wait for the first event."""
        self._attempt.begin()
        upstream, attempt = self._upstream, self._attempt
        deadline = min(deadline_s, asyncio.get_running_loop().time() + upstream.settings.timeout_s)
        try:
            async with asyncio.timeout_at(deadline):
                await upstream._slots.acquire()
                self._has_slot = attempt.has_slot = True
                self._response = await upstream._sent(endpoint, payload, headers, attempt)
                await self._response.head()
                if self._response.status != 200:
                    await upstream._whole(self._response, attempt)
                self._events = events(self._response.pieces())
                self._first = await self._checked_next()
            if self._first is None:
                raise UpstreamError("truncated", "the stream ended before its first event")
        except BaseException as error:
            raise self._end(error) from None

    async def next(self, *, deadline_s: float) -> Event | None:
        """The next event; None once the stream is complete.

        Args:
            deadline_s: of the whole answer, on the event loop's clock.

        Raises:
            UpstreamError: it broke off.
        """
        if self._first is not None:
            event, self._first = self._first, None
            return event
        idle_s = self._upstream.settings.stream_idle_timeout_s
        due_s = min(deadline_s, asyncio.get_running_loop().time() + idle_s)
        try:
            async with asyncio.timeout_at(due_s):
                event_or_end = await self._checked_next()
            if event_or_end is None or event_or_end.done:
                if not self.finished:
                    raise UpstreamError("truncated", "the stream ended before the answer did")
                self._end(None)
            return event_or_end
        except BaseException as error:
            raise self._end(error) from None

    async def aclose(self) -> None:
        """Let go of everything; a stream that is not at its end is cancelled upstream."""
        self._end(asyncio.CancelledError())

    async def _checked_next(self) -> Event | None:
        assert self._events is not None
        event = await anext(self._events, None)
        if event is None or event.data is None:
            return event
        if "error" in event.data and not event.data.get("choices"):
            raise UpstreamError("server_error", "the stream holds an error")
        self._attempt.output_tokens += event.tokens
        self._attempt.reported(event.data.get("usage"))
        self._choices_left -= event.finished
        self.finished = self._choices_left <= 0
        return event

    def _end(self, error: BaseException | None) -> BaseException:
        if self._ended:
            return error or RuntimeError("the stream has ended")
        self._ended = True
        if self._response is not None:
            if error is None:
                self._response.release()
            else:
                self._response.close()
        if self._has_slot:
            self._upstream._slots.release()
        if self.finished and isinstance(error, asyncio.CancelledError):
            error = None
        return self._attempt.end(error)
