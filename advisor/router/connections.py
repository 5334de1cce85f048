"""HTTP/1.1 to one upstream: connections that are kept open from request to request.

A router asks one server for one thing, so it needs none of what general clients spend a third of a
millisecond of processor time a request on: cookies, redirects, proxies, compression. The parser is
llhttp (httptools), addresses are raced as RFC 8305 says (aiohappyeyeballs), TLS is Python's own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from socket import SO_KEEPALIVE, SOL_SOCKET
from typing import cast
from urllib.parse import quote, urlsplit

import httptools
from aiohappyeyeballs import start_connection

from advisor.router.resolution import AddressBook
from advisor.router.responses import BadResponseError, Response

SECOND_ADDRESS_AFTER_S = 0.25
"""Of a host with several addresses, the next is tried beside one that takes longer (RFC 8305)."""

MAX_CONNECTING = 64
"""At once: within the backlog of common servers, and few enough that this process' own turns do
not add up to a time-out."""

MAX_HEAD_BYTES = 65_536

TURNS_TO_CLOSE = 10
"""Of the event loop, at most: plain connections take one, TLS some more."""


class NoConnectionError(OSError):
    """The upstream cannot be reached: nothing was sent."""


class Connection(asyncio.Protocol):
    """One connection: one request at a time, and kept for the next where both sides allow it."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._response: Response | None = None
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._is_over = self._is_held_up = self._may_be_kept = False
        self.idle_since_s = 0.0

    def send(self, request: bytes) -> Response:
        """Send a request; its response comes."""
        self._response = response = Response(self)
        self._is_over = False
        self._transport.write(request)
        return response

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    def hold_up(self, held_up: bool) -> None:
        """Read nothing, or read on."""
        if held_up == self._is_held_up or self._transport.is_closing():
            return
        self._is_held_up = held_up
        if held_up:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it stands."""
        # uvloop's are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._pool.lost(self)
        if self._response is not None:
            response, self._response = self._response, None
            response.is_cut()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come."""
        if self._response is None:
            # Nobody has asked: what comes now would be taken for the next answer.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("the answer is not HTTP/1.1")
        if self._is_over:
            self._complete()

    def on_message_begin(self) -> None:
        """Parser: a response begins; one that nobody asked for spoils the connection."""
        if self._is_over:
            self._may_be_kept = False
        self._headers, self._head_bytes = {}, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser: a header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._fail("the head of the answer is too large")
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Parser: the head is complete."""
        status = self._parser.get_status_code()
        if status >= 200 and self._response is not None and not self._is_over:
            self._response.begins(status, self._headers)

    def on_body(self, body: bytes) -> None:
        """Parser: a piece of the body."""
        if self._response is not None and not self._is_over:
            self._response.adds(body)

    def on_message_complete(self) -> None:
        """Parser: the response is complete; "100 Continue" and its kin are none."""
        if self._parser.get_status_code() < 200:
            return
        self._may_be_kept = self._parser.should_keep_alive() and not self._is_over
        self._is_over = True

    def _complete(self) -> None:
        response, self._response = self._response, None
        # A server that answers before it has read everything is not asked again on this one.
        if self._may_be_kept and self.is_open and not self._transport.get_write_buffer_size():
            self.hold_up(False)
            self._pool.keep(self)
        else:
            self._transport.close()
        if response is not None:
            response.ends()

    def _fail(self, message: str) -> None:
        if self._response is not None:
            response, self._response = self._response, None
            response.fail(BadResponseError(message))
        self.close()


class ConnectionPool:
    """Connections to one server, the last used first.

    Args:
        base_url: where it is; a path in it comes before that of each request.
        headers: sent with every request.
        connect_timeout_s: for name, connection and TLS.
        keepalive_s: unused for so long, a connection is closed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        connect_timeout_s: float,
        keepalive_s: float,
    ) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._host, self._path = parts.hostname, quote(parts.path, safe="/%:@!$&'()*+,;=~")
        self._address_book = AddressBook(self._host, port)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        name = self._host if ":" in self._host else self._host.encode("idna").decode()
        name = f"[{name}]" if ":" in name else name
        named = name if parts.port is None else f"{name}:{parts.port}"
        self._head = _lines({"host": named, **headers})
        self._connect_timeout_s, self._keepalive_s = connect_timeout_s, keepalive_s
        self._connecting = asyncio.Semaphore(MAX_CONNECTING)
        self._failed_at_s = 0.0
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self._reaping: asyncio.TimerHandle | None = None

    async def connection(self) -> Connection:
        """A connection on which nothing is under way.

        Raises:
            NoConnectionError: there is none to be had.
        """
        oldest_s = asyncio.get_running_loop().time() - self._keepalive_s
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_open and connection.idle_since_s > oldest_s:
                return connection
            connection.close()
        return await self._new()

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """The bytes of a request."""
        start = f"{method} {self._path}{path} HTTP/1.1\r\n".encode("ascii")
        more = _lines(headers) if headers else b""
        length = b"content-length: %d\r\n\r\n" % len(body)
        return b"".join((start, self._head, more, length, body))

    def keep(self, connection: Connection) -> None:
        """A connection whose response is complete waits for the next request."""
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        self._idle[connection] = None
        if self._reaping is None:
            self._reaping = loop.call_later(self._keepalive_s, self._reap)

    def opened(self, connection: Connection) -> None:
        """A connection stands."""
        self._open.add(connection)

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    async def close(self) -> None:
        """Close every connection."""
        if self._reaping is not None:
            self._reaping.cancel()
        for connection in self._open:
            connection.close()
        for _ in range(TURNS_TO_CLOSE):
            if not self._open:
                break
            await asyncio.sleep(0)

    async def _new(self) -> Connection:
        """One more connection; whoever waits for a turn shares the fate of those before it."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        async with self._connecting:
            if self._failed_at_s > asked_s:
                raise NoConnectionError("no connection")
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    return await self._connected()
            except (OSError, UnicodeError) as error:
                self._failed_at_s = loop.time()
                self._address_book.forget()
                raise NoConnectionError("no connection") from error

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await self._address_book.addresses()
        socket = await start_connection(addresses, happy_eyeballs_delay=SECOND_ADDRESS_AFTER_S)
        socket.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self),
                sock=socket,
                ssl=self._tls,
                server_hostname=self._host if self._tls else None,
            )
        except BaseException:
            socket.close()
            raise
        return connection

    def _reap(self) -> None:
        """Close what has been idle for too long; come back while anything is."""
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - self._keepalive_s
        for connection in list(self._idle):
            if connection.idle_since_s > oldest_s:
                break
            del self._idle[connection]
            connection.close()
        self._reaping = loop.call_later(self._keepalive_s, self._reap) if self._idle else None


def _lines(headers: Mapping[str, str]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items())
