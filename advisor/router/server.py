"""The router behind HTTP: OpenAI's endpoints, health, readiness and metrics."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from advisor.router.completions import JSON, CompletionEndpoint, send_whole
from advisor.router.config import RouterConfig
from advisor.router.json_bytes import encoded
from advisor.router.refusals import RefusedError, error_body
from advisor.router.router import Router
from advisor.router.service import Service


class RouterApp(Starlette):
    """The router as an ASGI application; completions do not pass Starlette's layers."""

    def __init__(
        self, service: Service, *, knows: Callable[[bytes | None], bool] | None, lifespan: Any
    ) -> None:
        self.service = service
        self._knows = knows
        self._completions = {
            "/v1/chat/completions": CompletionEndpoint(service, "chat"),
            "/v1/completions": CompletionEndpoint(service, "completions"),
        }
        routes = [
            *(Route(path, one, methods=["POST"]) for path, one in self._completions.items()),
            *_plain_routes(service),
        ]
        handlers: Any = {HTTPException: _http_error}
        super().__init__(routes=routes, lifespan=lifespan, exception_handlers=handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._knows is not None:
            host = next((value for name, value in scope["headers"] if name == b"host"), None)
            if not self._knows(host):
                body = error_body("this server has another name", kind="invalid_request_error")
                await send_whole(421, [JSON], encoded(body), send)
                return
        completion = self._completions.get(scope.get("path", ""))
        if completion is None or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
        else:
            await completion(scope, receive, send)


def build_app(
    config: RouterConfig,
    *,
    environment: Mapping[str, str] = os.environ,
    hosts: Sequence[str] | None = None,
) -> RouterApp:
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

    return RouterApp(
        service,
        knows=None if hosts is None else _known(frozenset(name.lower() for name in hosts)),
        lifespan=lifespan,
    )


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
        names = dict.fromkeys([config.server.model_name, *(t.model for t in config.tiers.values())])
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


def _known(hosts: frozenset[str]) -> Callable[[bytes | None], bool]:
    """Whether a Host header is one of the names that the server is meant to have."""

    @lru_cache(maxsize=256)
    def knows(header: bytes | None) -> bool:
        try:
            host = urlsplit(f"//{header.decode('ascii')}").hostname if header else None
        except ValueError:
            return False
        return host is not None and host.lower() in hosts

    return knows
