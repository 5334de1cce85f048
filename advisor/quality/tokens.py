"""Tokens of an answer with their log-probabilities, aligned to its characters and its fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.errors import InputError

_END_MARK = re.compile(r"</s>|<eos>|<end_of_turn>|\[EOS\]|<\|[^<>]{1,40}\|>|<｜[^<>]{1,40}｜>")
"""Tokens that end an answer, as tokenizers name them."""


@dataclass(frozen=True)
class Token:
    """One token: where it stands in the answer, and how likely it and its rivals were."""

    text: str
    logprob: float
    start: int
    """First character of the answer it covers."""
    end: int
    alternatives: Mapping[str, float]
    """Log-probability by text of the likeliest tokens at this place."""

    @property
    def margin(self) -> float | None:
        """Log-probability above the likeliest rival; None where none is known."""
        rivals = [value for text, value in self.alternatives.items() if text != self.text]
        return self.logprob - max(rivals) if rivals else None


@dataclass(frozen=True)
class FieldSpan:
    """Where the value of one JSON field stands, without its quotes."""

    path: str
    """Keys and indices from the root, e.g. `lines.0.amount`."""
    start: int
    end: int


def tokens_of(logprobs: Any) -> tuple[Token, ...]:
    """Tokens from the OpenAI form, `{"content": [{token, logprob, bytes, top_logprobs}, …]}`.

    A character that is split over tokens belongs to each of them: positions are counted in bytes
    first, since `bytes` is exact where the text of a partial character is not.

    Raises:
        InputError: another form.
    """
    content = _content(logprobs)
    pieces = [_bytes_of(item) for item in content]
    starts = _character_positions(pieces)
    return tuple(
        Token(
            text=piece.decode("utf-8", "replace"),
            logprob=_logprob(item),
            start=start,
            end=end,
            alternatives={
                str(rival.get("token")): _logprob(rival)
                for rival in item.get("top_logprobs") or ()
                if isinstance(rival, dict)
            },
        )
        for item, piece, (start, end) in zip(content, pieces, starts, strict=True)
    )


def text_of(logprobs: Any) -> str:
    """The answer that the tokens spell.

    Raises:
        InputError: another form than the OpenAI one.
    """
    return b"".join(_bytes_of(item) for item in _content(logprobs)).decode("utf-8", "replace")


def within(tokens: Sequence[Token], start: int, end: int) -> tuple[Token, ...]:
    """Tokens that cover any character of a span."""
    return tuple(t for t in tokens if t.start < end and t.end > start)


def field_spans(text: str) -> tuple[FieldSpan, ...]:
    """Spans of the scalar values of a JSON text, in order.

    Raises:
        InputError: not JSON.
    """
    try:
        json.loads(text)
        return tuple(_Spans(text).value("", _skip(text, 0)))
    except (json.JSONDecodeError, RecursionError):
        raise InputError("not JSON: its fields cannot be located") from None


class _Spans:
    """Walks a text that is known to be JSON; `position` is behind what was last read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.position = 0

    def value(self, path: str, start: int) -> Iterator[FieldSpan]:
        opening = self._text[start]
        if opening == "{":
            yield from self._members(path, start)
        elif opening == "[":
            yield from self._items(path, start)
        elif opening == '"':
            end = self._string_end(start)
            # An empty string has no character of its own: its quotes stand for it.
            inner = (start + 1, end - 1) if end - start > 2 else (start, end)
            yield FieldSpan(path, *inner)
            self.position = end
        else:
            end = start
            while end < len(self._text) and self._text[end] not in ",]} \t\r\n":
                end += 1
            yield FieldSpan(path, start, end)
            self.position = end

    def _members(self, path: str, start: int) -> Iterator[FieldSpan]:
        at = _skip(self._text, start + 1)
        while self._text[at] != "}":
            end = self._string_end(at)
            key = json.loads(self._text[at:end])
            colon = _skip(self._text, end)
            yield from self.value(_joined(path, key), _skip(self._text, colon + 1))
            at = self._next(",")
        self.position = at + 1

    def _items(self, path: str, start: int) -> Iterator[FieldSpan]:
        at, index = _skip(self._text, start + 1), 0
        while self._text[at] != "]":
            yield from self.value(_joined(path, str(index)), at)
            at, index = self._next(","), index + 1
        self.position = at + 1

    def _next(self, separator: str) -> int:
        at = _skip(self._text, self.position)
        return _skip(self._text, at + 1) if self._text[at] == separator else at

    def _string_end(self, start: int) -> int:
        at = start + 1
        while self._text[at] != '"':
            at += 2 if self._text[at] == "\\" else 1
        return at + 1


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _content(logprobs: Any) -> list[dict[str, Any]]:
    """The items without the mark that ends the answer: vLLM lists it, and it spells nothing."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else logprobs
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise InputError('logprobs: {"content": [{"token": …, "logprob": …}, …]} was expected')
    ends = bool(content) and _END_MARK.fullmatch(str(content[-1].get("token")))
    return content[:-1] if ends else content


def _bytes_of(item: Mapping[str, Any]) -> bytes:
    stated = item.get("bytes")
    if isinstance(stated, list) and all(isinstance(b, int) and 0 <= b < 256 for b in stated):
        return bytes(stated)
    token = item.get("token")
    if not isinstance(token, str):
        raise InputError("logprobs: an item has neither 'bytes' nor 'token'")
    return token.encode("utf-8", "surrogatepass")


def _logprob(item: Mapping[str, Any]) -> float:
    value = item.get("logprob")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise InputError(f"logprobs: logprob = {value!r:.40} of token {item.get('token')!r:.40}")
    return min(float(value), 0.0)


def _character_positions(pieces: Sequence[bytes]) -> list[tuple[int, int]]:
    """First and last-plus-one character that each piece covers."""
    whole = b"".join(pieces)
    # Characters that start at or before each byte; continuation bytes are 10xxxxxx.
    started = [0]
    for byte in whole:
        started.append(started[-1] + (byte & 0xC0 != 0x80))
    positions, at = [], 0
    for piece in pieces:
        end = at + len(piece)
        inside = bool(piece) and whole[at] & 0xC0 == 0x80
        positions.append((started[at] - inside, started[end]))
        at = end
    return positions
