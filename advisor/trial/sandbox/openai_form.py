"""Requests and answers of the sandbox server in the form of OpenAI's API."""

from __future__ import annotations

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from advisor.errors import InputError
from advisor.quality.schema_gate import SchemaGate
from advisor.trial.sandbox.engine import DEFAULT_MAX_TOKENS, Decoding, GeneratedToken, Generation
from advisor.trial.sandbox.prompt import prompt_text

MAX_TOP_LOGPROBS = 20


class _Call(BaseModel, ABC):
    """What both endpoints read; keys they do not know are left alone, as OpenAI clients expect."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Absent: 0, the likeliest token each time."""
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: Literal[1] = 1

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    @abstractmethod
    def top(self) -> int | None:
        """Alternatives asked for; None: no log-probabilities at all."""

    def decoding(self, limit: int | None = None) -> Decoding:
        return Decoding(
            max_tokens=limit or self.max_tokens or DEFAULT_MAX_TOKENS,
            stop=self.stops,
            temperature=self.temperature or 0.0,
            top_logprobs=self.top or 0,
        )


class ChatMessage(BaseModel):
    """One message; text parts are joined, others refused."""

    model_config = ConfigDict(extra="ignore")

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The message as text.

        Raises:
            InputError: a part that is no text.
        """
        if isinstance(self.content, list):
            if any(part.get("type") != "text" for part in self.content):
                raise InputError("messages: only text parts are accepted")
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class ChatCall(_Call):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: dict[str, Any] | None = None
    """Not enforced while decoding: a JSON Schema is checked afterwards, and the answer says so."""

    @property
    def prompt(self) -> str:
        """The prompt: of the conversation, the last message alone."""
        return prompt_text(self.messages[-1].text)

    @property
    def top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def wanted_schema(self) -> str | None:
        """The JSON Schema that the answer was asked to follow, as JSON text.

        Raises:
            InputError: a response format of another kind.
        """
        wanted = self.response_format or {"type": "text"}
        kind = wanted.get("type")
        if kind not in ("text", "json_object", "json_schema"):
            raise InputError(
                f"response_format.type '{kind}': accepted are text, json_object, json_schema"
            )
        if kind == "text":
            return None
        schema = (wanted.get("json_schema") or {}).get("schema", {}) if kind[5:] == "schema" else {}
        schema_gate(text := json.dumps(schema))
        return text


class CompletionCall(_Call):
    """POST /v1/completions: the prompt is taken as it is, without the chat's template."""

    prompt: str
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    @property
    def top(self) -> int | None:
        return self.logprobs


@lru_cache(maxsize=32)
def schema_gate(schema: str) -> SchemaGate:
    """The gate of a schema given as JSON text; `{}` accepts any JSON.

    Raises:
        InputError: not a usable schema.
    """
    return SchemaGate(json.loads(schema))


def conforms(text: str, schema: str) -> bool:
    """Whether an answer is JSON that follows a schema given as JSON text."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return not schema_gate(schema).problems(value)


@dataclass(frozen=True)
class Reply:
    """Builds the documents of one answer; `chat` chooses between the two endpoints' forms."""

    model: str
    chat: bool
    top: int | None
    """Alternatives asked for; None: no log-probabilities."""
    schema: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, generation: Generation, prompt_tokens: int) -> dict[str, Any]:
        """The document of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": generation.finish_reason}
        choice["logprobs"] = self._logprobs(generation.tokens, 0)
        if self.chat:
            choice["message"] = {"role": "assistant", "content": generation.text}
        else:
            choice["text"] = generation.text
        kind = "chat.completion" if self.chat else "text_completion"
        document = {
            **self._head(kind),
            "choices": [choice],
            "usage": usage(generation, prompt_tokens),
        }
        return document | self._check(generation)

    def first(self) -> dict[str, Any] | None:
        """The chunk that opens a stream; completions have none."""
        return self._chunk({"role": "assistant", "content": ""}, None) if self.chat else None

    def piece(self, text: str, tokens: Sequence[GeneratedToken], offset: int) -> dict[str, Any]:
        """A chunk with the next text and the tokens it came with, `offset` characters in."""
        return self._chunk({"content": text}, None, self._logprobs(tokens, offset))

    def last(self, generation: Generation) -> dict[str, Any]:
        """The chunk that says why the answer ended."""
        return self._chunk({}, generation.finish_reason) | self._check(generation)

    def counts(self, generation: Generation, prompt_tokens: int) -> dict[str, Any]:
        """The chunk of token counts, with no choices."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [], "usage": usage(generation, prompt_tokens)}

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }

    def _chunk(
        self, delta: dict[str, Any], reason: str | None, logprobs: Any = None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "logprobs": logprobs, "finish_reason": reason}
        if self.chat:
            choice["delta"] = delta
            return {**self._head("chat.completion.chunk"), "choices": [choice]}
        choice["text"] = delta.get("content", "")
        return {**self._head("text_completion"), "choices": [choice]}

    def _check(self, generation: Generation) -> dict[str, Any]:
        """What became of a response format: beside the standard keys, since it has none."""
        if self.schema is None:
            return {}
        return {
            "response_format": {
                "enforced": False,
                "conforms": conforms(generation.text, self.schema),
            }
        }

    def _logprobs(self, tokens: Sequence[GeneratedToken], offset: int) -> dict[str, Any] | None:
        if self.top is None:
            return None
        return chat_logprobs(tokens) if self.chat else completion_logprobs(tokens, offset)


def usage(generation: Generation, prompt_tokens: int) -> dict[str, int]:
    """Token counts; the answer's include the token that ended it, as vLLM counts."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": generation.steps,
        "total_tokens": prompt_tokens + generation.steps,
    }


def chat_logprobs(tokens: Sequence[GeneratedToken]) -> dict[str, Any]:
    """Log-probabilities in the chat endpoint's form."""
    return {
        "content": [
            {
                **_spelt(token.text, token.logprob),
                "top_logprobs": [_spelt(rival.text, rival.logprob) for rival in token.alternatives],
            }
            for token in tokens
        ]
    }


def completion_logprobs(tokens: Sequence[GeneratedToken], offset: int) -> dict[str, Any]:
    """Log-probabilities in the completion endpoint's form; the text begins at `offset`."""
    texts = [token.text.decode("utf-8", "replace") for token in tokens]
    offsets = [offset + sum(map(len, texts[:place])) for place in range(len(texts))]
    rivals = [
        {rival.text.decode("utf-8", "replace"): rival.logprob for rival in token.alternatives}
        for token in tokens
    ]
    return {
        "tokens": texts,
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": rivals,
        "text_offset": offsets,
    }


def _spelt(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(text)}


def error_document(
    message: str, *, code: int, kind: str = "invalid_request_error"
) -> dict[str, Any]:
    """An error as OpenAI's API words it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
