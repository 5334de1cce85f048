"""Names to addresses: as the system says, without the refused ones, asked now and then."""

from __future__ import annotations

import asyncio
import socket

from aiohappyeyeballs import AddrInfoType

from advisor.router.addresses import is_refused

KEPT_S = 10.0
"""For so long a name is not asked for again: one that moves is followed within this time."""


class AddressBook:
    """The addresses of one host.

    A name may point anywhere later, so what it resolves to is checked each time.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._literal = _numeric(host, port)
        self._known: list[AddrInfoType] = []
        self._asked_at_s = 0.0
        self._asking: asyncio.Task[list[AddrInfoType]] | None = None

    def forget(self) -> None:
        """Ask again next time: what was said could not be reached."""
        self._known = []

    async def addresses(self) -> list[AddrInfoType]:
        """Where to connect to.

        Raises:
            OSError: no such name, or only refused addresses.
        """
        if self._literal:
            return self._literal
        if self._known and asyncio.get_running_loop().time() - self._asked_at_s < KEPT_S:
            return self._known
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._asked())
        # One asks for all, and goes on where the first of them gives up.
        self._known = await asyncio.shield(self._asking)
        return self._known

    async def _asked(self) -> list[AddrInfoType]:
        loop = asyncio.get_running_loop()
        # The protocol must be named: asyncio turns Nagle's algorithm off only then.
        found = await loop.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        allowed: list[AddrInfoType] = [info for info in found if not is_refused(str(info[4][0]))]
        if not allowed:
            raise OSError(f"{self._host} has no address that may be called")
        self._asked_at_s = loop.time()
        return allowed


def _numeric(host: str, port: int) -> list[AddrInfoType]:
    """Of an IP address, which needs no asking; it was checked with the configuration."""
    try:
        found = socket.getaddrinfo(
            host,
            port,
            type=socket.SOCK_STREAM,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_NUMERICHOST,
        )
    except (OSError, UnicodeError):
        return []
    return [info for info in found if not is_refused(str(info[4][0]))]
