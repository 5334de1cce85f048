"""Validated answers kept for the same request: in memory, or in Redis for several instances."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from advisor.errors import InputError
from advisor.router.json_bytes import decoded, encoded
from advisor.router.settings import CacheSettings

KEY_PREFIX = "advisor:answer:"


class AnswerCache(Protocol):
    """Answers by key."""

    async def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under a key; None where there is none, or none in time."""

    async def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer."""

    async def close(self) -> None:
        """Let go of what is held."""


class MemoryCache:
    """The least recently used answers leave first, and each when its time is over."""

    def __init__(
        self, settings: CacheSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._clock = settings, clock
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under a key."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        answer: dict[str, Any] = decoded(found[1])
        return answer

    async def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer; one larger than the whole cache is not kept."""
        value = encoded(answer)
        self._drop(key)
        if len(value) > self._settings.max_bytes:
            return
        self._kept[key] = (self._clock() + self._settings.ttl_s, value)
        self.size_bytes += len(value)
        while (
            len(self._kept) > self._settings.max_entries
            or self.size_bytes > self._settings.max_bytes
        ):
            self._drop(next(iter(self._kept)))

    async def close(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.size_bytes = 0

    def _drop(self, key: str) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.size_bytes -= len(found[1])


class RedisCache:
    """Answers in Redis; whatever goes wrong there is a miss.

    Args:
        url: of the server, e.g. redis://:password@host:6379/0.
        settings: how long an answer and a call may last.
        failed: told of every call that went wrong.
    """

    def __init__(self, url: str, settings: CacheSettings, *, failed: Callable[[], None]) -> None:
        try:
            from redis.asyncio import Redis
            from redis.exceptions import RedisError
        except ImportError:
            raise InputError(
                "cache.redis_url_env needs the extra: pip install 'advisor[redis]'"
            ) from None
        self._errors = (RedisError, OSError, TimeoutError, ValueError)
        self._failed = failed
        self._ttl_ms = max(1, round(settings.ttl_s * 1000))
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=settings.redis_timeout_s,
                socket_connect_timeout=settings.redis_timeout_s,
                retry_on_timeout=False,
            )
        except ValueError:
            # The message of redis-py may repeat the URL, password and all.
            raise InputError("cache.redis_url_env: not a redis:// URL") from None

    async def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under a key."""
        try:
            found = await self._redis.get(KEY_PREFIX + key)
            answer = decoded(found) if found else None
        except self._errors:
            self._failed()
            return None
        return answer if isinstance(answer, dict) else None

    async def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer for the configured time."""
        value = encoded(answer)
        try:
            await self._redis.set(KEY_PREFIX + key, value, px=self._ttl_ms)
        except self._errors:
            self._failed()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def open_cache(
    settings: CacheSettings, environment: Mapping[str, str], *, failed: Callable[[], None]
) -> AnswerCache:
    """The cache that the settings describe.

    Raises:
        InputError: Redis is asked for and cannot be used.
    """
    if settings.redis_url_env is None:
        return MemoryCache(settings)
    return RedisCache(environment[settings.redis_url_env].strip(), settings, failed=failed)
