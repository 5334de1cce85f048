"""The router behind HTTP: OpenAI's endpoints, health, readiness and metrics."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from advisor.router.answers import Answer
from advisor.router.config import RouterConfig
from advisor.router.events import as_events
from advisor.router.refusals import RefusedError, error_body, invalid
from advisor.router.requests import Endpoint, RouterRequest
from advisor.router.router import Router

READY_KEPT_S = 1.0
"""For so long the upstreams are not asked again whether they can be reached."""

KEPT_BACK = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers of clients that the router itself never sees."""

EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


@dataclass
class Service:
    """What the endpoints share."""

    router: Router
    keys: tuple[bytes, ...] = ()
    """SHA-256 of the keys of clients; none: nobody is asked."""
    is_draining: bool = False
    in_flight: int = 0
    _reachable: tuple[float, dict[str, bool]] = field(default=(-READY_KEPT_S, {}))

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Check a client's key.

        Raises:
            RefusedError: it has none, or a wrong one.
        """
        if not self.keys:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        digest = sha256(key.strip().encode("utf-8", "replace")).digest()
        # Every key is compared, so that the time taken says nothing.
        known = [hmac.compare_digest(digest, one) for one in self.keys]
        if scheme.lower() != "bearer" or not any(known):
            raise RefusedError(
                "a valid API key is needed: Authorization: Bearer …",
                status=401,
                kind="authentication_error",
                code="invalid_api_key",
                reason="unauthorized",
            )

    async def reachable(self) -> dict[str, bool]:
        """Which upstreams can be reached, as of a moment ago."""
        at, found = self._reachable
        if time.monotonic() - at >= READY_KEPT_S:
            found = {str(tier): ok for tier, ok in (await self.router.reachable()).items()}
            self._reachable = (time.monotonic(), found)
        return found


class CompletionEndpoint:
    """/v1/chat/completions or /v1/completions, as an ASGI application."""

    def __init__(self, service: Service, endpoint: Endpoint) -> None:
        self._service, self._endpoint = service, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        service.in_flight += 1
        try:
            request = await self._read(scope, receive)
            await self._answer_unless_gone(request, receive, send)
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

    async def _answer_unless_gone(
        self, request: RouterRequest, receive: Receive, send: Send
    ) -> None:
        """Answer, and stop at once when the client leaves."""
        answering = asyncio.create_task(self._answer(request, send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not answering.done():
                answering.cancel()
                await asyncio.wait({answering})
        if not answering.cancelled():
            answering.result()

    async def _answer(self, request: RouterRequest, send: Send) -> None:
        settings = self._service.router.config.server
        with suppress(TimeoutError):
            # A client that reads too slowly for the whole of this holds nothing any longer.
            async with asyncio.timeout(settings.request_timeout_s + settings.body_timeout_s):
                answer = await self._service.router.answer(request)
                await _send(answer, request, send)


async def _body(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    """The whole body.

    Raises:
        RefusedError: larger than allowed, or the client left before its end.
    """
    stated = headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limit:
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


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(answer: Answer, request: RouterRequest, send: Send) -> None:
    facts = [(k.encode(), v.encode("latin-1", "replace")) for k, v in answer.headers().items()]
    if answer.stream is not None:
        try:
            await send(_start(200, [*EVENT_STREAM, *facts]))
            async for chunk in answer.stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.stream.aclose()
        return
    assert answer.body is not None
    if request.stream and answer.status == 200:
        parts = as_events(answer.body, request.endpoint, with_usage=request.wants_usage)
        await _send_whole(200, b"".join(parts), [*EVENT_STREAM, *facts], send)
        return
    body = json.dumps(answer.body, separators=(",", ":")).encode()
    await _send_whole(answer.status, body, [(b"content-type", b"application/json"), *facts], send)


async def _send_whole(
    status: int, body: bytes, headers: list[tuple[bytes, bytes]], send: Send
) -> None:
    await send(_start(status, [*headers, (b"content-length", str(len(body)).encode())]))
    await send({"type": "http.response.body", "body": body})


async def _send_refusal(refusal: RefusedError, send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"x-advisor-route", b"none"),
        (b"x-advisor-reason", refusal.reason.encode()),
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"1"))
    if refusal.status in (408, 413, 431):
        # What is left of the body will not be read.
        headers.append((b"connection", b"close"))
    await _send_whole(refusal.status, json.dumps(refusal.body).encode(), headers, send)


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _refusal(status: int, message: str, reason: str) -> RefusedError:
    refusal = invalid(message)
    refusal.status, refusal.reason = status, reason
    return refusal


def build_app(
    config: RouterConfig,
    *,
    environment: Mapping[str, str] = os.environ,
    hosts: Sequence[str] | None = None,
) -> Starlette:
    """The router as an ASGI application.

    Args:
        config: what to do.
        environment: where keys are looked up.
        hosts: names by which the server may be called; others get 421, so that no web page can
            reach a loopback server under a name of its own. None: any.

    Raises:
        InputError: what the configuration refers to is not there.
    """
    service = Service(Router(config, environment=environment), _keys(config, environment))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service.router:
            yield

    routes = [
        Route("/v1/chat/completions", CompletionEndpoint(service, "chat"), methods=["POST"]),
        Route("/v1/completions", CompletionEndpoint(service, "completions"), methods=["POST"]),
        *_plain_routes(service),
    ]
    app = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error}
    )
    app.state.service = service
    if hosts is not None:
        app.add_middleware(_KnownHosts, hosts=frozenset(name.lower() for name in hosts))
    return app


def _plain_routes(service: Service) -> list[Route]:
    """Models, health, readiness, metrics."""
    config = service.router.config

    def checked(request: Request) -> None:
        service.check_key(request.headers)

    async def models(request: Request) -> Response:
        try:
            checked(request)
        except RefusedError as refusal:
            return JSONResponse(refusal.body, refusal.status)
        tiers = [tier.model for tier in (config.slm, config.llm) if tier is not None]
        names = dict.fromkeys([config.server.model_name, *tiers])
        rows = [{"id": n, "object": "model", "created": 0, "owned_by": "advisor"} for n in names]
        return JSONResponse({"object": "list", "data": rows})

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        upstreams = await service.reachable()
        ready = any(upstreams.values()) and not service.is_draining
        state = "draining" if service.is_draining else "ready" if ready else "no upstream"
        return JSONResponse({"status": state, "upstreams": upstreams}, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        try:
            checked(request)
        except RefusedError as refusal:
            return JSONResponse(refusal.body, refusal.status)
        text = service.router.metrics.text()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    routes = [Route("/v1/models", models), Route("/healthz", healthz), Route("/readyz", readyz)]
    return [*routes, Route("/metrics", metrics)] if config.telemetry.metrics else routes


def _keys(config: RouterConfig, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    name = config.server.api_keys_env
    keys = environment[name].split(",") if name else []
    return tuple(sha256(key.strip().encode()).digest() for key in keys if key.strip())


async def _http_error(_: Request, error: Exception) -> Response:
    """404 and 405 in the OpenAI shape."""
    assert isinstance(error, HTTPException)
    body = error_body(str(error.detail), kind="invalid_request_error", code="not_found")
    return JSONResponse(body, error.status_code, headers=error.headers)


class _KnownHosts:
    """Answers only to the names that the server is meant to have."""

    def __init__(self, app: Any, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._knows(scope):
            body = json.dumps(
                error_body("this server has another name", kind="invalid_request_error")
            )
            await _send_whole(421, body.encode(), [(b"content-type", b"application/json")], send)
            return
        await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        named = [value for name, value in scope["headers"] if name == b"host"]
        try:
            host = urlsplit(f"//{named[0].decode('ascii')}").hostname if named else None
        except ValueError:
            return False
        return host is not None and host.lower() in self._hosts
