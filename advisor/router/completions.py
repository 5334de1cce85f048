"""/v1/chat/completions and /v1/completions as ASGI applications: what every request passes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

from starlette.types import Message, Receive, Scope, Send

from advisor.router.answers import Answer
from advisor.router.events import as_events
from advisor.router.json_bytes import encoded
from advisor.router.refusals import RefusedError, invalid
from advisor.router.requests import Endpoint, RouterRequest
from advisor.router.service import Service

ON_LEAVING = "advisor.on_leaving"
"""ASGI extension of the router's own server: a function that takes what is to be called when the
client leaves, or None. It spares two tasks a request, which a message to wait for would need."""

KEPT_BACK = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers of clients that the router itself never sees."""

MAX_QUICK_BYTES = 65_536
"""An answer up to here is in the system's hands at once, however slowly the client reads."""

JSON = (b"content-type", b"application/json")
EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]

Headers = list[tuple[bytes, bytes]]


class CompletionEndpoint:
    """One of the two, as an ASGI application."""

    def __init__(self, service: Service, endpoint: Endpoint) -> None:
        self._service, self._endpoint = service, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        service.in_flight += 1
        try:
            request = await self._read(scope, receive)
            async with _UnlessGone(scope, receive):
                await self._answer(request, send)
        except RefusedError as refusal:
            service.router.metrics.turned_away(refusal.reason, refusal.status)
            await _send_refusal(refusal, send)
        finally:
            service.in_flight -= 1

    async def _read(self, scope: Scope, receive: Receive) -> RouterRequest:
        settings = self._service.router.config.server
        # The protocol limits heads that come in pieces; one that comes at once is limited here.
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > (
            settings.max_header_bytes
        ):
            raise _refusal(431, "the headers are too large", "headers_too_large")
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self._service.check_key(headers)
        if self._service.in_flight > settings.max_requests_in_flight:
            raise RefusedError(
                "too many requests at once",
                status=503,
                kind="server_error",
                code="overloaded",
                reason="overloaded",
                retry_after_s=1.0,
            )
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                raw = await _body(receive, headers, settings.max_body_bytes)
        except TimeoutError:
            raise _refusal(408, "the body took too long", "body_timeout") from None
        shown = {name: value for name, value in headers.items() if name not in KEPT_BACK}
        return RouterRequest.parse(self._endpoint, raw, shown)

    async def _answer(self, request: RouterRequest, send: Send) -> None:
        answer = await self._service.router.answer(request)
        if answer.stream is None:
            status, headers, body = _whole(answer, request)
            if len(body) <= MAX_QUICK_BYTES:
                await send_whole(status, headers, body, send)
                return
        settings = self._service.router.config.server
        with suppress(TimeoutError):
            # A client that reads too slowly for the whole of this holds nothing any longer.
            async with asyncio.timeout(settings.request_timeout_s + settings.body_timeout_s):
                if answer.stream is None:
                    await send_whole(status, headers, body, send)
                else:
                    await _send_stream(answer, send)


async def _body(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    """The whole body.

    Raises:
        RefusedError: larger than allowed, or the client left before its end.
    """
    stated = headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit:
        raise _refusal(413, f"the body has more than {limit:,} bytes", "body_too_large")
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _refusal(400, "the body broke off", "body_incomplete")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _refusal(413, f"the body has more than {limit:,} bytes", "body_too_large")
        if not message.get("more_body"):
            return b"".join(parts)


class _UnlessGone:
    """What is inside ends when the client leaves."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._tell = (scope.get("extensions") or {}).get(ON_LEAVING)
        self._task = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        self._is_gone = False

    async def __aenter__(self) -> None:
        if self._tell is not None:
            self._tell(self._leave)
        else:
            self._watching = asyncio.create_task(self._watch())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._tell is not None:
            self._tell(None)
        if self._watching is not None:
            self._watching.cancel()
        if self._is_gone and self._task is not None:
            self._task.uncancel()
        return self._is_gone and kind is asyncio.CancelledError

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._is_gone = True
        if self._task is not None:
            self._task.cancel()


def _whole(answer: Answer, request: RouterRequest) -> tuple[int, Headers, bytes]:
    """Status, headers and bytes of an answer that is all there."""
    assert answer.body is not None
    facts = _facts(answer)
    if request.stream and answer.status == 200:
        parts = as_events(answer.body, request.endpoint, with_usage=request.wants_usage)
        return 200, [*EVENT_STREAM, *facts], b"".join(parts)
    return answer.status, [JSON, *facts], encoded(answer.body)


async def _send_stream(answer: Answer, send: Send) -> None:
    assert answer.stream is not None
    try:
        await send(_start(200, [*EVENT_STREAM, *_facts(answer)]))
        async for chunk in answer.stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await answer.stream.aclose()


async def send_whole(status: int, headers: Headers, body: bytes, send: Send) -> None:
    """An answer that is all there, as ASGI messages."""
    await send(_start(status, [*headers, (b"content-length", b"%d" % len(body))]))
    await send({"type": "http.response.body", "body": body})


async def _send_refusal(refusal: RefusedError, send: Send) -> None:
    headers = [JSON, (b"x-advisor-route", b"none"), (b"x-advisor-reason", refusal.reason.encode())]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"1"))
    if refusal.status in (408, 413, 431):
        # What is left of the body will not be read.
        headers.append((b"connection", b"close"))
    await send_whole(refusal.status, headers, encoded(refusal.body), send)


def _start(status: int, headers: Headers) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _facts(answer: Answer) -> Headers:
    return [(k.encode(), v.encode("latin-1", "replace")) for k, v in answer.headers().items()]


def _refusal(status: int, message: str, reason: str) -> RefusedError:
    refusal = invalid(message)
    refusal.status, refusal.reason = status, reason
    return refusal
