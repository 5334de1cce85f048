"""Reading an OpenAI-compatible answer off the wire, and saying what is wrong with a bad one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

COST_HEADER = "x-advisor-cost-usd"

MAX_ANSWER_BYTES = 16_000_000
MAX_MESSAGE_CHARACTERS = 120


class BadAnswerError(Exception):
    """An answer that is an error, or not of the form that was asked for."""


@dataclass
class Answer:
    """What has come so far."""

    parts: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    """Tokens with their log-probabilities, in OpenAI form."""
    pieces: int = 0
    """Events with text, or whole answers."""
    first_token_s: float | None = None
    last_token_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    """Of the whole, as the router says it at the end of a stream."""
    finished: bool = False

    def times(self) -> dict[str, Any]:
        """What is known of when tokens came."""
        last_s = self.last_token_s
        if self.pieces == 1 and (self.output_tokens or 0) > 2:
            # Several tokens in one piece: released whole, and the mark of its end says nothing.
            last_s = self.first_token_s
        return {"first_token_s": self.first_token_s, "last_token_s": last_s}

    def facts(self) -> dict[str, Any]:
        """Everything for a record."""
        return {
            **self.times(),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            **({} if self.cost_usd is None else {"cost_usd": self.cost_usd}),
            "answer": "".join(self.parts) if self.parts or self.finished else None,
        }

    def token(self, now_s: float) -> None:
        """Something that belongs to the answer came."""
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.last_token_s = now_s

    def take_usage(self, usage: Any) -> None:
        """Tokens as the server counts them."""
        if isinstance(usage, dict):
            self.input_tokens = _count(usage.get("prompt_tokens"))
            self.output_tokens = _count(usage.get("completion_tokens"))


async def read_answer(
    response: aiohttp.ClientResponse, found: Answer, now: Callable[[], float]
) -> None:
    """Read a response into `found`, whole or as a stream; what came before a failure stays there.

    Raises:
        BadAnswerError: an HTTP error, something that is no chat completion, or a stream that ended
            before its end.
        aiohttp.ClientError, TimeoutError: of the connection.
    """
    if response.status != 200:
        body = await response.content.read(4096)
        raise BadAnswerError(_http_error(response, body))
    if response.content_type == "text/event-stream":
        await _read_stream(response, found, now)
        if not found.finished:
            raise BadAnswerError("the stream ended before its end")
    else:
        _take_whole(await _limited(response), found, now())


async def _read_stream(
    response: aiohttp.ClientResponse, found: Answer, now: Callable[[], float]
) -> None:
    size = 0
    async for raw in response.content:
        size += len(raw)
        if size > MAX_ANSWER_BYTES:
            raise BadAnswerError(f"the answer has more than {MAX_ANSWER_BYTES:,} bytes")
        line = raw.strip()
        if not line.startswith(b"data:"):
            if line.startswith(b":"):
                _take_facts(line[1:], found)
            elif line and not line.startswith((b"event:", b"id:", b"retry:")):
                raise BadAnswerError("the stream holds a line that is no event")
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            found.finished = True
        else:
            _take_event(_parsed(data), found, now())


def _take_facts(comment: bytes, found: Answer) -> None:
    """The router's last comment: its headers once more, with the whole cost."""
    if COST_HEADER.encode() in comment:
        try:
            found.cost_usd = float(json.loads(comment)[COST_HEADER])
        except (ValueError, LookupError, TypeError):
            return


def _take_event(event: dict[str, Any], found: Answer, now_s: float) -> None:
    if "error" in event:
        raise BadAnswerError(f"the stream ended with an error: {_message(event)}")
    found.take_usage(event.get("usage"))
    for choice in _choices(event):
        delta = choice.get("delta")
        content = delta.get("content") if isinstance(delta, dict) else None
        if isinstance(content, str) and content:
            found.parts.append(content)
            found.pieces += 1
            found.token(now_s)
        _take_logprobs(choice, found)
        if choice.get("finish_reason") is not None:
            # It comes with the mark that ends the answer, a token that spells nothing. Some servers
            # leave [DONE] out; a reason to stop is an end as good.
            found.token(now_s)
            found.finished = True


def _take_whole(body: bytes, found: Answer, now_s: float) -> None:
    value = _parsed(body)
    choices = _choices(value)
    message = choices[0].get("message") if choices else None
    if not isinstance(message, dict):
        raise BadAnswerError("the answer is no chat completion: it has no message")
    content = message.get("content")
    found.parts.append(content if isinstance(content, str) else "")
    found.pieces += 1
    found.take_usage(value.get("usage"))
    _take_logprobs(choices[0], found)
    found.token(now_s)
    found.finished = True


def _take_logprobs(choice: dict[str, Any], found: Answer) -> None:
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if isinstance(content, list):
        found.logprobs.extend(content)


def _choices(value: dict[str, Any]) -> list[dict[str, Any]]:
    choices = value.get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise BadAnswerError("the answer is no chat completion: it has no choices")
    return choices


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise BadAnswerError("the answer is not JSON") from None
    if not isinstance(value, dict):
        raise BadAnswerError("the answer is no JSON object")
    return value


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise BadAnswerError(f"the answer has more than {MAX_ANSWER_BYTES:,} bytes")
    return bytes(body)


def _http_error(response: aiohttp.ClientResponse, body: bytes) -> str:
    text = f"HTTP {response.status}"
    if "retry-after" in response.headers:
        text += f" (retry after {response.headers['retry-after'][:20]})"
    try:
        message = _message(json.loads(body))
    except (ValueError, RecursionError):
        message = ""
    return f"{text}: {message}" if message else text


def _message(value: Any) -> str:
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message[:MAX_MESSAGE_CHARACTERS] if isinstance(message, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
