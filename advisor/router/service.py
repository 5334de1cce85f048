"""What the endpoints share: the router, clients' keys, and whether this instance is ready."""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from advisor.router.refusals import RefusedError
from advisor.router.router import Router

READY_KEPT_S = 1.0
"""For so long the upstreams are not asked again whether they can be reached."""


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
