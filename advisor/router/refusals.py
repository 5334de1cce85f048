"""Errors in the OpenAI shape: what a client gets instead of an answer."""

from __future__ import annotations

from typing import Any


def error_body(
    message: str, *, kind: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """{"error": {message, type, param, code}}."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        message: for the client.
        status: of HTTP.
        kind: OpenAI's `type`.
        code: OpenAI's `code`.
        reason: of the x-advisor-reason header and the metrics.
        retry_after_s: when to try again, where that is known.
        body: the whole error as an upstream gave it; replaces the one made of the above.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        kind: str,
        reason: str,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        body: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.body = body or error_body(message, kind=kind, code=code, param=param)


def invalid(message: str, *, param: str | None = None) -> RefusedError:
    """A request that no model could answer: status 400."""
    return RefusedError(
        message, status=400, kind="invalid_request_error", reason="invalid_request", param=param
    )
