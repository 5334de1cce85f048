"""Server-sent events as OpenAI streams them: taken apart, checked, made from a whole answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from advisor.router import json_bytes
from advisor.router.requests import Endpoint

DONE = b"data: [DONE]\n\n"
MAX_EVENT_BYTES = 4_000_000
NOT_TEXT = ("tool_calls", "refusal", "function_call")


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    raw: bytes
    """As it came, with the blank line behind it."""
    data: Mapping[str, Any] | None
    """Its JSON; None for [DONE] and for comments."""
    done: bool = False

    @property
    def tokens(self) -> int:
        """Choices that it adds something to: about as many tokens."""
        return sum(_adds(choice) for choice in (self.data or {}).get("choices") or ())

    @property
    def finished(self) -> int:
        """Choices that it ends."""
        choices = (self.data or {}).get("choices") or ()
        return sum(choice.get("finish_reason") is not None for choice in choices)


class MalformedEventError(ValueError):
    """An event that is not what an OpenAI stream holds."""


def encoded(data: Mapping[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json_bytes.encoded(data) + b"\n\n"


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events of a byte stream.

    Raises:
        MalformedEventError: one that is not JSON, or larger than any event may be.
    """
    waiting = b""
    async for chunk in chunks:
        waiting = (waiting + chunk).replace(b"\r\n", b"\n")
        *whole, waiting = waiting.split(b"\n\n")
        if len(waiting) > MAX_EVENT_BYTES:
            raise MalformedEventError("an event does not end")
        for raw in whole:
            event = _event(raw)
            if event is not None:
                yield event
    if waiting.strip():
        event = _event(waiting)
        if event is not None:
            yield event


def _event(raw: bytes) -> Event | None:
    """None for comments and keep-alives."""
    lines = [line[5:].lstrip() for line in raw.split(b"\n") if line.startswith(b"data:")]
    if not lines:
        return None
    payload = b"\n".join(lines)
    if payload.strip() == b"[DONE]":
        return Event(raw=DONE, data=None, done=True)
    try:
        data = json_bytes.decoded_leniently(payload)
    except ValueError:
        raise MalformedEventError("an event is not JSON") from None
    choices = data.get("choices", []) if isinstance(data, dict) else None
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise MalformedEventError("an event is not a completion chunk")
    return Event(raw=raw.strip(b"\n") + b"\n\n", data=data)


def _adds(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(delta.get(k) for k in ("content", "tool_calls", "reasoning_content", "refusal"))
    return bool(choice.get("text"))


def as_events(body: Mapping[str, Any], endpoint: Endpoint, *, with_usage: bool) -> Iterator[bytes]:
    """A whole answer as the stream that a client asked for."""
    yield from (encoded(chunk) for chunk in _chunks(body, endpoint))
    if with_usage and body.get("usage") is not None:
        yield encoded({**_head(body, endpoint), "choices": [], "usage": body["usage"]})
    yield DONE


def _chunks(body: Mapping[str, Any], endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    head = _head(body, endpoint)
    for choice in body["choices"]:
        index, logprobs = choice.get("index", 0), choice.get("logprobs")
        reason = choice.get("finish_reason")
        if endpoint == "completions":
            part = {"index": index, "text": choice.get("text", ""), "finish_reason": reason}
            yield {**head, "choices": [{**part, "logprobs": logprobs}]}
            continue
        first = {"index": index, "delta": _delta(choice["message"]), "finish_reason": None}
        yield {**head, "choices": [{**first, "logprobs": logprobs}]}
        yield {**head, "choices": [{"index": index, "delta": {}, "finish_reason": reason}]}


def _delta(message: Mapping[str, Any]) -> dict[str, Any]:
    delta = {"role": "assistant", **{k: v for k, v in message.items() if v is not None}}
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        # In a stream every tool call says which one it is.
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
    return delta


def _head(body: Mapping[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    kind = "chat.completion.chunk" if endpoint == "chat" else "text_completion"
    kept = {
        key: body[key] for key in ("id", "created", "model", "system_fingerprint") if key in body
    }
    return {"object": kind, **kept}


class Collected:
    """A stream put together again, for the cache and for shadow comparisons: text of one choice."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self._reason: str | None = None
        self._usage: Any = None
        self._plain = True

    def add(self, event: Event) -> None:
        """Take in one event."""
        data = event.data or {}
        self._head = self._head or {
            k: v for k, v in data.items() if k in ("id", "created", "model")
        }
        self._usage = data.get("usage") or self._usage
        for choice in data.get("choices") or ():
            delta = choice.get("delta", choice)
            known = isinstance(delta, dict) and not any(delta.get(key) for key in NOT_TEXT)
            if choice.get("index", 0) != 0 or not known:
                self._plain = False
                continue
            text = delta.get("content" if self._endpoint == "chat" else "text")
            self._texts.append(text if isinstance(text, str) else "")
            self._reason = choice.get("finish_reason") or self._reason

    def body(self) -> dict[str, Any] | None:
        """The answer as it would have come whole; None where it is more than one text."""
        if not self._plain or self._reason is None:
            return None
        text = "".join(self._texts)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._reason, "logprobs": None}
        if self._endpoint == "chat":
            choice["message"] = {"role": "assistant", "content": text}
            kind = "chat.completion"
        else:
            choice["text"], kind = text, "text_completion"
        return {**self._head, "object": kind, "choices": [choice], "usage": self._usage}
