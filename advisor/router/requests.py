"""A client's request: checked as far as routing needs it, otherwise passed on as it came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from advisor.router.json_bytes import decoded, encoded
from advisor.router.refusals import invalid

Endpoint = Literal["chat", "completions"]

PATHS: Mapping[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}

NOT_DECISIVE = frozenset(
    {
        "model", "stream", "stream_options", "user", "metadata", "store", "safety_identifier",
        "prompt_cache_key", "service_tier",
    }
)  # fmt: skip
"""Fields that do not change what a right answer is: not part of the cache's key."""

TASK_TYPE_HEADER = "x-advisor-task-type"


@dataclass(frozen=True)
class RouterRequest:
    """One request to /v1/chat/completions or /v1/completions."""

    endpoint: Endpoint
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of HTTP, by lower-case name."""

    @classmethod
    def parse(cls, endpoint: Endpoint, raw: bytes, headers: Mapping[str, str]) -> RouterRequest:
        """A request from the bytes of its body.

        Raises:
            RefusedError: not a JSON object, or fields that routing relies on are wrong.
        """
        try:
            body = decoded(raw)
        except ValueError:
            raise invalid("the body is not JSON") from None
        request = cls(endpoint=endpoint, body=body, headers=headers)
        request.check()
        return request

    def check(self) -> None:
        """Check the fields that routing relies on; the models check the rest.

        Raises:
            RefusedError: naming the first wrong one.
        """
        body = self.body
        if not isinstance(body, dict):
            raise invalid("the body is not a JSON object")
        if self.endpoint == "chat":
            messages = body.get("messages")
            if not isinstance(messages, list) or not messages:
                raise invalid("'messages' must be a list with at least one", param="messages")
            if not all(isinstance(message, dict) for message in messages):
                raise invalid("each of 'messages' must be an object", param="messages")
        elif not isinstance(body.get("prompt"), str | list) or not body["prompt"]:
            raise invalid("'prompt' must be a text or a list", param="prompt")
        for name in ("stream", "store"):
            if not isinstance(body.get(name), bool | None):
                raise invalid(f"'{name}' must be true or false", param=name)
        for name in ("stream_options", "response_format", "metadata"):
            if not isinstance(body.get(name), dict | None):
                raise invalid(f"'{name}' must be an object", param=name)
        n = body.get("n")
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 128):
            raise invalid("'n' must be a number from 1 to 128", param="n")

    @property
    def stream(self) -> bool:
        """Whether the client wants a stream."""
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        """Whether the client wants the token counts at the end of a stream."""
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    @property
    def wants_logprobs(self) -> bool:
        """Whether the client asked for log-probabilities."""
        asked = self.body.get("logprobs")
        return asked is not None and asked is not False

    @property
    def choices(self) -> int:
        """Answers asked for."""
        return self.body.get("n") or 1

    @property
    def task_type(self) -> str | None:
        """As its header says, or `metadata.task_type`."""
        stated = self.headers.get(TASK_TYPE_HEADER) or self.at("metadata.task_type")
        return stated if isinstance(stated, str) else None

    def at(self, path: str) -> Any:
        """The value at a dotted path of the body; None where there is none."""
        node: Any = self.body
        for part in path.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return None
            node = node[part]
        return node

    @cached_property
    def text(self) -> str:
        """Everything that is said in it."""
        if self.endpoint == "chat":
            return "\n".join(
                part for m in self.body["messages"] for part in _texts(m.get("content"))
            )
        return "\n".join(_texts(self.body["prompt"]))

    @cached_property
    def last_user_text(self) -> str:
        """What the user said last; the whole text where nobody is called user."""
        if self.endpoint == "chat":
            for message in reversed(self.body["messages"]):
                if message.get("role") == "user":
                    return "\n".join(_texts(message.get("content")))
        return self.text

    @cached_property
    def canonical(self) -> bytes:
        """The same for requests that ask the same, in whatever order their fields come."""
        decisive = {k: v for k, v in self.body.items() if k not in NOT_DECISIVE and v is not None}
        whole = [self.endpoint, self.task_type, _plain(decisive)]
        return encoded(whole, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical request."""
        return sha256(self.canonical).hexdigest()

    @property
    def may_be_cached(self) -> bool:
        """Whether one earlier answer may serve: one answer asked for, and no wish against it."""
        control = self.headers.get("cache-control", "")
        return self.choices == 1 and "no-store" not in control and "no-cache" not in control


def _plain(value: Any) -> Any:
    """1.0 and 1 are one number."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                yield part
            elif isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
