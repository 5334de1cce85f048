"""How an attempt at an upstream fails, and what a response says of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from advisor.router.events import MalformedEventError
from advisor.router.json_bytes import decoded_leniently
from advisor.router.requests import Endpoint
from advisor.router.responses import BadResponseError, ResponseCutError

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


PART: Mapping[Endpoint, str] = {"chat": "message", "completions": "text"}
"""Of a choice, what holds the answer."""


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


def failure_of(error: BaseException) -> BaseException:
    """The error of an attempt in the router's terms; cancellation stays what it is."""
    match error:
        case UpstreamError():
            return error
        case MalformedEventError():
            return UpstreamError("malformed", str(error))
        case BadResponseError():
            return UpstreamError("malformed", str(error))
        case ResponseCutError():
            return UpstreamError("truncated", str(error))
        case TimeoutError():
            return UpstreamError("timeout", "no answer in time")
        case OSError():
            return UpstreamError("connection", str(error))
    return error


def answer_in(raw: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """The answer that a response with status 200 holds.

    Raises:
        UpstreamError: none that a client could use.
    """
    try:
        body = decoded_leniently(raw)
    except ValueError:
        raise UpstreamError("malformed", "the answer is not JSON") from None
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices:
        raise UpstreamError("malformed", "the answer has no choices")
    for choice in choices:
        part = choice.get(PART[endpoint]) if isinstance(choice, dict) else None
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
        body = decoded_leniently(raw)
    except ValueError:
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
