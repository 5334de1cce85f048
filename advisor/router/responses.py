"""One response of an upstream as its bytes come, and how one can break off."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

MAX_WAITING_BYTES = 262_144
"""Of a stream that is read more slowly than it comes: then the sender is held up."""

END_IS_DUE_S = 1.0
"""After the last event of a stream, for the end of its body."""


class Carrier(Protocol):
    """The connection that a response comes on."""

    def hold_up(self, held_up: bool) -> None:
        """Read nothing, or read on."""

    def close(self) -> None:
        """Close at once, whatever is under way."""


class ConnectionLostError(OSError):
    """The connection ended before the head of the response did."""


class ResponseCutError(OSError):
    """The connection ended before the body of the response did."""


class BadResponseError(ValueError):
    """What came back is not HTTP/1.1, or larger than allowed."""


class Response:
    """One response as it comes; `close` lets go of it, and ends one that is still coming."""

    def __init__(self, connection: Carrier) -> None:
        self._connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}
        """By lower-case name; of several with one name, the last."""
        self.received_bytes = 0
        self._limit_bytes = 0
        self._parts: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._has_head = self._is_complete = self._wants_whole = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            ConnectionLostError, BadResponseError: they do not come.
        """
        while not self._has_head:
            await self._news()

    async def whole(self, *, limit_bytes: int) -> bytes:
        """The body.

        Raises:
            ConnectionLostError, ResponseCutError: it broke off.
            BadResponseError: not HTTP, or larger than the limit.
        """
        self._wants_whole, self._limit_bytes = True, limit_bytes
        if not self._is_complete:
            self._connection.hold_up(False)
        while not self._is_complete:
            await self._news()
        if self.received_bytes > limit_bytes:
            raise BadResponseError("the answer is larger than allowed")
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body piece by piece.

        Raises:
            ResponseCutError, BadResponseError: it broke off.
        """
        while True:
            while self._parts:
                piece = self._parts.popleft()
                self._waiting_bytes -= len(piece)
                if self._waiting_bytes <= MAX_WAITING_BYTES and not self._is_complete:
                    self._connection.hold_up(False)
                yield piece
            if self._is_complete:
                return
            await self._news()

    def close(self) -> None:
        """Nobody reads on: a response that is not complete is broken off."""
        if not self._is_complete:
            self.fail(ConnectionLostError("closed"))
            self._connection.close()

    def release(self) -> None:
        """Nobody reads on, and the end is due: its connection is kept if it comes soon."""
        if not self._is_complete:
            asyncio.get_running_loop().call_later(END_IS_DUE_S, self.close)

    def begins(self, status: int, headers: dict[str, str]) -> None:
        """The head is there."""
        self.status, self.headers, self._has_head = status, headers, True
        if not self._wants_whole:
            self._wake()

    def adds(self, piece: bytes) -> None:
        """More of the body is there."""
        self._parts.append(piece)
        self.received_bytes += len(piece)
        if not self._wants_whole:
            self._waiting_bytes += len(piece)
            if self._waiting_bytes > MAX_WAITING_BYTES:
                self._connection.hold_up(True)
            self._wake()
        elif self.received_bytes > self._limit_bytes:
            self.fail(BadResponseError("the answer is larger than allowed"))
            self._connection.close()

    def ends(self) -> None:
        """The body is complete."""
        self._is_complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._error = self._error or error
        self._wake()

    def is_cut(self) -> None:
        """The connection is gone: the end of a body whose length nobody stated, else an error."""
        stated = "content-length" in self.headers or "transfer-encoding" in self.headers
        if not self._has_head:
            self.fail(ConnectionLostError("the connection was lost"))
        elif stated:
            self.fail(ResponseCutError("the answer broke off"))
        else:
            self.ends()

    async def _news(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
