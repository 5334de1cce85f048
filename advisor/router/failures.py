"""How an attempt at an upstream fails, and what a response says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import aiohttp

from advisor.router.events import MalformedEventError
from advisor.router.requests import Endpoint

Cause = Literal[
    "timeout", "connection", "rate_limited", "server_error", "malformed", "truncated", "rejected",
    "unauthorized", "unavailable",
]  # fmt: skip

RETRIED: frozenset[Cause] = frozenset(
    {"timeout", "connection", "rate_limited", "server_error", "malformed", "truncated"}
)
"""Causes that another attempt may cure."""

SPARED: frozenset[Cause] = frozenset({"rate_limited", "rejected", "unavailable"})
"""Causes that say nothing against the upstream's health."""


class UpstreamError(Exception):
    """An attempt that brought no answer."""

    def __init__(
        self,
        cause: Cause,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        body: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.cause: Cause = cause
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = body
        """The upstream's own error, where the client may see it."""


def was_not_served(failure: BaseException | None) -> bool:
    """Whether the model cannot have seen the request: there was no connection."""
    return (
        isinstance(failure, UpstreamError)
        and failure.cause == "connection"
        and failure.status is None
    )


def failure_of(error: BaseException) -> BaseException:
    """The error of an attempt in the router's terms; cancellation stays what it is."""
    match error:
        case UpstreamError():
            return error
        case MalformedEventError():
            return UpstreamError("malformed", str(error))
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            return UpstreamError("connection", "no connection")
        case TimeoutError():
            return UpstreamError("timeout", "no answer in time")
        case aiohttp.ClientPayloadError():
            return UpstreamError("truncated", "the answer broke off")
        case aiohttp.ClientError() | OSError():
            # Status 0: there was a connection, and the request may have been worked on.
            return UpstreamError("connection", "the connection was lost", status=0)
    return error


def answer_in(raw: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """The answer that a response with status 200 holds.

    Raises:
        UpstreamError: none that a client could use.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise UpstreamError("malformed", "the answer is not JSON") from None
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices:
        raise UpstreamError("malformed", "the answer has no choices")
    for choice in choices:
        part = choice.get("message" if endpoint == "chat" else "text") if choice else None
        if not isinstance(part, dict if endpoint == "chat" else str):
            raise UpstreamError("malformed", "a choice holds no answer")
    found: dict[str, Any] = body
    return found


def refusal_of(status: int, headers: Mapping[str, str], raw: bytes) -> UpstreamError:
    """What a response with another status than 200 says."""
    wait_s = retry_after_s(headers.get("retry-after"))
    if status == 429:
        return UpstreamError("rate_limited", "too many requests", status=429, retry_after_s=wait_s)
    if status in (401, 403):
        return UpstreamError("unauthorized", "the router's key is refused", status=status)
    if status in (408, 409, 425) or status >= 500:
        message = f"the upstream answered {status}"
        return UpstreamError("server_error", message, status=status, retry_after_s=wait_s)
    if 400 <= status < 500:
        return UpstreamError("rejected", "refused", status=status, body=_openai_error(raw))
    # Redirects are not followed: they would carry the request to wherever the answer says.
    return UpstreamError("malformed", f"the upstream answered {status}", status=status)


def _openai_error(raw: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return {"error": error} if isinstance(error, dict) and "message" in error else None


def retry_after_s(header: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date."""
    if not header:
        return None
    try:
        return max(0.0, min(float(header), 86_400.0))
    except ValueError:
        pass
    try:
        wait = parsedate_to_datetime(header) - datetime.now(UTC)
    except (ValueError, TypeError):
        return None
    return max(0.0, wait.total_seconds())
