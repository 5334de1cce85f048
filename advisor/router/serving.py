"""The router as a process: listens, limits what connections may do, drains when told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from advisor.errors import InputError
from advisor.router.addresses import LOOPBACK_NAMES
from advisor.router.completions import ON_LEAVING
from advisor.router.config import RouterConfig
from advisor.router.server import RouterApp, build_app

KEEPALIVE_S = 75
"""Longer than the 60 s of common balancers, so that they close idle connections, not the router."""


HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n"


class Corked:
    """A transport that gathers what is written in one turn of the event loop into one system call.

    uvicorn writes a response's head and its body apart; each call costs as much as parsing does.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._waiting: list[bytes] = []
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write with the rest of this turn."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)

    def close(self) -> None:
        """Close once what is written is sent."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send now what has been written."""
        if self._waiting:
            data, self._waiting = b"".join(self._waiting), []
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LimitedProtocol(HttpToolsProtocol):
    """HTTP/1.1 where a request's head is limited in size and time, and answers leave in one piece.

    uvicorn limits neither with this parser, which is the quicker one. Applications may ask to be
    told of a client that leaves (`ON_LEAVING`).
    """

    header_timeout_s = 10.0
    max_header_bytes = 32_768

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first head."""
        self._corked = Corked(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._corked))
        self._in_head, self._head_begun, self._head_bytes = True, False, 0
        self._due: asyncio.TimerHandle | None = None
        self._left: Callable[[], None] | None = None
        self._extensions = {ON_LEAVING: self._tell_when_left}
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Take in bytes, as long as a head stays within its limit."""
        was_in_head = self._in_head
        super().data_received(data)
        if not self._in_head:
            return
        # A head that begins behind a body counts from the next piece on.
        self._head_bytes += len(data) if was_in_head else 0
        if self._head_bytes > self.max_header_bytes:
            self.transport.write(HEAD_TOO_LARGE)
            self.transport.close()
        elif self._head_begun and self._due is None:
            self._start_clock()

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        self._in_head = self._head_begun = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """The last byte of a head."""
        self._in_head = False
        self._stop_clock()
        cast(dict[str, Any], self.scope)["extensions"] = self._extensions
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The whole answer is written: send it without waiting for the end of the turn."""
        self._corked.flush()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and whatever was done for this client."""
        self._stop_clock()
        super().connection_lost(exc)
        if self._left is not None:
            self._left()

    def _tell_when_left(self, call: Callable[[], None] | None) -> None:
        self._left = call
        if call is not None and self.transport.is_closing():
            call()

    def _start_clock(self) -> None:
        self._due = self.loop.call_later(self.header_timeout_s, self._close_if_late)

    def _stop_clock(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _close_if_late(self) -> None:
        self._due = None
        if self._in_head:
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """Stops on SIGTERM or SIGINT once what is being answered is answered; a second one ends it."""

    def __init__(self, config: uvicorn.Config, app: RouterApp, *, notice_s: float) -> None:
        super().__init__(config)
        self._app, self._notice_s = app, notice_s
        self.say: Callable[[str], None] | None = None
        """Told, at the start, where it listens and which models cannot be reached."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.say is None:
            return
        host, port = self.config.host, self.config.port
        address = f"[{host}]" if ":" in host else host
        self.say(f"The router listens on http://{address}:{port}/v1 (Ctrl-C stops it)")
        service = self._app.service
        for name, settings in service.router.config.tiers.items():
            if not (await service.reachable())[name]:
                self.say(
                    f"{name}: nothing answers at {settings.base_url} yet; /readyz tells when it "
                    "does"
                )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; with a notice, after being unready for a while."""
        service = self._app.service
        if service.is_draining:
            self.should_exit = self.force_exit = True
            return
        service.is_draining = True
        if self._notice_s:
            loop = asyncio.get_event_loop()
            loop.call_later(self._notice_s, setattr, self, "should_exit", True)
        else:
            self.should_exit = True


def server_for(
    config: RouterConfig,
    *,
    host: str,
    port: int,
    environment: Mapping[str, str] = os.environ,
) -> DrainingServer:
    """A server that is ready to run.

    Raises:
        InputError: the configuration cannot be served at this address.
    """
    config.check_environment(environment, host=host)
    hosts = (*LOOPBACK_NAMES, host) if config.server.api_keys_env is None else None
    app = build_app(config, environment=environment, hosts=hosts)
    limits = {
        "header_timeout_s": config.server.header_timeout_s,
        "max_header_bytes": config.server.max_header_bytes,
    }
    settings: dict[str, Any] = {
        "host": host,
        "port": port,
        "interface": "asgi3",
        "proxy_headers": False,
        "http": type("Protocol", (LimitedProtocol,), limits),
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "timeout_keep_alive": KEEPALIVE_S,
        "timeout_graceful_shutdown": max(1, round(config.server.drain_s)),
        "backlog": 4096,
    }
    uvicorn_config = uvicorn.Config(app, **settings)
    return DrainingServer(uvicorn_config, app, notice_s=config.server.drain_notice_s)


def serve(config: RouterConfig, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until told to stop.

    Args:
        say: told where it listens, once it does, and which models cannot be reached then.

    Raises:
        InputError: the configuration or the address cannot be used.
    """
    server = server_for(config, host=host, port=port)
    server.say = say
    listener = _listener(host, port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # What is there now stays: collections of garbage need not look at it again.
    gc.collect()
    gc.freeze()
    with listener:
        server.run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise InputError(f"--host {host} --port {port}: cannot listen: {reason}") from None
    return listener
