"""One attempt at one upstream: sent, timed, checked, and charged whatever comes of it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from advisor.router.addresses import is_refused
from advisor.router.config import TierName
from advisor.router.costs import Usage
from advisor.router.events import Event, events
from advisor.router.failures import (
    SPARED,
    UpstreamError,
    answer_in,
    failure_of,
    refusal_of,
    was_not_served,
)
from advisor.router.requests import PATHS, Endpoint
from advisor.router.resilience import Breaker
from advisor.router.settings import FailureSettings, UpstreamSettings

KEEPALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes idle connections: a request sent into a
closing connection is lost."""

MAX_ERROR_BYTES = 20_000

Charger = Callable[[Usage], None]


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    body: dict[str, Any]
    seconds: float


class GuardedResolver(AbstractResolver):
    """Resolves names as the system does, and leaves refused addresses out."""

    def __init__(self) -> None:
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a name.

        Raises:
            OSError: none, or only refused ones.
        """
        found = await self._system.resolve(host, port, family)
        allowed = [address for address in found if not is_refused(address["host"])]
        if not allowed:
            raise OSError(f"{host} has no address that may be called")
        return allowed

    async def close(self) -> None:
        """Nothing is held open."""
        await self._system.close()


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
        headers = {"content-type": "application/json", "user-agent": "advisor-router"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(
                limit=0, resolver=GuardedResolver(), keepalive_timeout=KEEPALIVE_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def is_reachable(self) -> bool:
        """Whether something listens there that speaks HTTP."""
        try:
            async with (
                asyncio.timeout(self.settings.connect_timeout_s),
                self._session.get(f"{self.settings.base_url}/models", allow_redirects=False),
            ):
                return True
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False

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
            body: as the client sent it; the model is replaced.
            charge: told what was used, once, whether or not there is an answer.
            deadline_s: on the event loop's clock.
            headers: sent along.

        Raises:
            UpstreamError: there is none.
        """
        payload = self._payload(body)
        begin = time.perf_counter()
        loop = asyncio.get_running_loop()
        deadline = min(deadline_s, loop.time() + self.settings.timeout_s)
        async with (
            self._attempt(len(payload), charge) as attempt,
            asyncio.timeout_at(deadline),
            self._slots,
            await self._post(endpoint, payload, headers, attempt) as response,
        ):
            answer = answer_in(await self._read(response, attempt), endpoint)
            attempt.reported(answer.get("usage"))
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
        await stream.open(
            lambda attempt: self._post(endpoint, payload, headers, attempt), deadline_s=deadline_s
        )
        return stream

    def _payload(self, body: Mapping[str, Any]) -> bytes:
        whole = {**body, **self.settings.extra_body, "model": self.settings.model}
        return json.dumps(whole, separators=(",", ":")).encode()

    @asynccontextmanager
    async def _attempt(self, sent_bytes: int, charge: Charger) -> AsyncIterator[Attempt]:
        attempt = Attempt(self, sent_bytes, charge)
        attempt.begin()
        try:
            yield attempt
        except BaseException as error:
            raise attempt.end(error) from None
        attempt.end(None)

    async def _post(
        self, endpoint: Endpoint, payload: bytes, headers: Mapping[str, str], attempt: Attempt
    ) -> aiohttp.ClientResponse:
        """The response, once its status is known to be a good one."""
        attempt.sent = True
        response = await self._session.post(
            self.settings.base_url + PATHS[endpoint],
            data=payload,
            headers=headers,
            allow_redirects=False,
        )
        if response.status == 200:
            return response
        try:
            raw = await response.content.read(MAX_ERROR_BYTES)
        finally:
            response.close()
        # Whoever answers with an error has not written an answer: nothing is charged.
        attempt.sent = False
        raise refusal_of(response.status, response.headers, raw)

    async def _read(self, response: aiohttp.ClientResponse, attempt: Attempt) -> bytes:
        parts = bytearray()
        async for chunk in response.content.iter_any():
            parts += chunk
            attempt.received_bytes = len(parts)
            if len(parts) > self.settings.max_response_bytes:
                response.close()
                raise UpstreamError("malformed", "the answer is larger than max_response_bytes")
        return bytes(parts)


class Attempt:
    """What one attempt used and how it ended."""

    def __init__(self, upstream: Upstream, sent_bytes: int, charge: Charger) -> None:
        self._upstream, self._sent_bytes, self._charge = upstream, sent_bytes, charge
        self._begin = time.perf_counter()
        self._usage: Usage | None = None
        self.sent = False
        """Whether the model may have begun to work on it."""
        self.received_bytes = 0
        self.output_tokens = 0

    def begin(self) -> None:
        """Ask the breaker.

        Raises:
            UpstreamError: it is open.
        """
        breaker = self._upstream.breaker
        if not breaker.admits():
            self._upstream._observed(self._upstream.name, "unavailable", 0.0)
            raise UpstreamError(
                "unavailable",
                "too many failures in a row: not asked for the moment",
                retry_after_s=breaker.retry_after_s,
            )

    def reported(self, usage: Any) -> None:
        """The upstream says what it used."""
        self._usage = Usage.reported(usage) or self._usage

    def end(self, error: BaseException | None) -> BaseException:
        """Charge, count, and say what the error means."""
        failure = error if error is None else failure_of(error)
        if isinstance(failure, UpstreamError) and failure.cause == "timeout" and not self.sent:
            failure = UpstreamError("unavailable", "all its slots stayed taken")
        if self._usage is None and self.sent and not was_not_served(failure):
            tokens = self.output_tokens or self.received_bytes // 4
            self._usage = Usage.assumed(sent_bytes=self._sent_bytes, output_tokens=tokens)
        if self._usage is not None:
            self._charge(self._usage)
        breaker, outcome = self._upstream.breaker, "ok"
        if failure is None:
            breaker.succeeded()
        elif not isinstance(failure, UpstreamError):
            breaker.undecided()
            outcome = "cancelled"
        elif failure.cause in SPARED:
            breaker.undecided()
            outcome = failure.cause
        else:
            breaker.failed()
            outcome = failure.cause
        seconds = time.perf_counter() - self._begin
        self._upstream._observed(self._upstream.name, outcome, seconds)
        return failure or RuntimeError("the attempt succeeded")


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
        self._response: aiohttp.ClientResponse | None = None
        self._events: AsyncIterator[Event] | None = None
        self._first: Event | None = None
        self._has_slot = self._ended = self.finished = False

    async def open(self, post: Callable[[Attempt], Any], *, deadline_s: float) -> None:
        """Send, and wait for the first event."""
        self._attempt.begin()
        settings = self._upstream.settings
        deadline = min(deadline_s, asyncio.get_running_loop().time() + settings.timeout_s)
        try:
            async with asyncio.timeout_at(deadline):
                await self._upstream._slots.acquire()
                self._has_slot = True
                self._response = await post(self._attempt)
                assert self._response is not None
                self._events = events(self._response.content.iter_any())
                self._first = await self._checked_next()
            if self._first is None:
                raise UpstreamError("truncated", "the stream ended before its first event")
        except BaseException as error:
            raise self._end(error) from None

    async def next(self) -> Event | None:
        """The next event; None once the stream is complete.

        Raises:
            UpstreamError: it broke off.
        """
        if self._first is not None:
            event, self._first = self._first, None
            return event
        try:
            async with asyncio.timeout(self._upstream.settings.stream_idle_timeout_s):
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
