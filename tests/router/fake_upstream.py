"""An OpenAI-compatible server on a real socket that fails in every way one can.

A plain asyncio server, since a proper HTTP server would not break its own connections.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

Fault = Literal[
    "",
    "timeout",
    "rate_limited",
    "server_error",
    "reset",
    "malformed",
    "truncated",
    "bad_request",
    "unauthorized",
    "redirect",
    "empty",
]

INPUT_TOKENS, OUTPUT_TOKENS = 100, 5


@dataclass
class FakeUpstream:
    """What it says and how it fails; change it at any time."""

    text: str = "refund_status"
    confidence: float = 0.99
    """Probability of each of its tokens."""
    delay_s: float = 0.0
    token_delay_s: float = 0.0
    stream_tokens: int = 5
    undecodable: frozenset[str] = frozenset()
    """Keywords that its grammar does not know: a schema to answer by that has one of them is
    refused, as vLLM refuses it."""
    fault: Fault = ""
    faults: list[Fault] = field(default_factory=list)
    """Of the next requests, one each; then `fault`."""
    retry_after: str = "0.01"
    message: Mapping[str, Any] | None = None
    """In place of a text, e.g. with tool calls."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    finished: int = 0
    cancelled: int = 0
    """Requests whose client went away before the answer was sent."""
    port: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> FakeUpstream:
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, backlog=4096, limit=2**22
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        for _ in range(3):  # a transport closes some turns of the loop later
            await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering: asyncio.Task[bool] | None = None
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.splitlines()[0].split()
                pairs = (line.split(": ", 1) for line in head.splitlines()[1:] if line)
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if method == "GET":
                    writer.write(_response(200, {"data": []}))
                    continue
                self.headers.append(headers)
                self.bodies.append(json.loads(body))
                answering = asyncio.create_task(self._answer(path, self.bodies[-1], writer))
                leaving = asyncio.create_task(reader.read(1))
                await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    answering.cancel()
                    self.cancelled += 1
                    break
                leaving.cancel()
                await asyncio.wait({leaving})
                if not answering.result():
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if answering is not None:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used again."""
        fault = self.faults.pop(0) if self.faults else self.fault
        await asyncio.sleep(self.delay_s)
        unknown = sorted(self.undecodable & keys_of(body.get("response_format")))
        if unknown:
            message = f"Grammar error: Unimplemented keys: {json.dumps(unknown)}"
            writer.write(_response(400, _error(message)))
            return True
        match fault:
            case "timeout":
                await asyncio.sleep(3600)
            case "rate_limited":
                writer.write(_response(429, _error("slow down"), retry_after=self.retry_after))
                return True
            case "server_error":
                writer.write(_response(500, _error("broken")))
                return True
            case "bad_request":
                writer.write(_response(400, _error("the context is too long")))
                return True
            case "unauthorized":
                writer.write(_response(401, _error("wrong key sk-secret")))
                return True
            case "redirect":
                writer.write(b"HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\n")
                writer.write(b"content-length: 0\r\n\r\n")
                return True
            case "reset":
                writer.transport.abort()
                return False
            case "empty":
                writer.write(_response(200, {"choices": []}))
                return True
        chat = path.endswith("/chat/completions")
        if body.get("stream"):
            return await self._stream(chat, body, writer, fault)
        return await self._whole(chat, body, writer, fault)

    async def _whole(
        self, chat: bool, body: dict[str, Any], writer: asyncio.StreamWriter, fault: Fault
    ) -> bool:
        raw = json.dumps(self.answer(chat, body)).encode()
        if fault == "malformed":
            raw = b"<html>" + raw
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}"
        writer.write(head.encode() + b"\r\n\r\n")
        writer.write(raw[: len(raw) // 2] if fault == "truncated" else raw)
        await writer.drain()
        self.finished += fault == ""
        return fault != "truncated"

    async def _stream(
        self, chat: bool, body: dict[str, Any], writer: asyncio.StreamWriter, fault: Fault
    ) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        events = list(self._events(chat, body))
        if fault == "malformed":
            events[0] = b"data: {not json\n\n"
        if fault == "truncated":
            events = events[: len(events) // 2]
        for event in events:
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            await writer.drain()
            if self.token_delay_s:
                await asyncio.sleep(self.token_delay_s)
        if fault == "truncated":
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        self.finished += fault == ""
        return True

    def answer(self, chat: bool, body: Mapping[str, Any]) -> dict[str, Any]:
        """A whole answer."""
        logprobs = self._logprobs(chat) if body.get("logprobs") not in (None, False) else None
        choices: list[dict[str, Any]] = []
        for index in range(body.get("n") or 1):
            choice = {"index": index, "finish_reason": "stop", "logprobs": logprobs}
            if chat:
                content = {"role": "assistant", "content": self.text}
                choice["message"] = dict(self.message or content)
            else:
                choice["text"] = self.text
            choices.append(choice)
        return {
            "id": "cmpl-1",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1,
            "model": body["model"],
            "choices": choices,
            "usage": _usage(),
        }

    def _logprobs(self, chat: bool) -> dict[str, Any]:
        value = math.log(self.confidence)
        if not chat:
            return {"tokens": [self.text], "token_logprobs": [value], "top_logprobs": [{}]}
        return {"content": [{"token": self.text, "logprob": value, "top_logprobs": []}]}

    def _events(self, chat: bool, body: Mapping[str, Any]) -> Iterator[bytes]:
        head = {"id": "cmpl-1", "created": 1, "model": body["model"]}
        head["object"] = "chat.completion.chunk" if chat else "text_completion"
        size = max(1, -(-len(self.text) // self.stream_tokens))
        parts = [self.text[i : i + size] for i in range(0, len(self.text), size)]
        for number, part in enumerate(parts):
            delta: dict[str, Any] = {"content": part} if chat else {}
            if chat and number == 0:
                delta["role"] = "assistant"
            choice = {"index": 0, "finish_reason": None}
            choice |= {"delta": delta} if chat else {"text": part}
            yield _event({**head, "choices": [choice]})
        last: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        last |= {"delta": {}} if chat else {"text": ""}
        yield _event({**head, "choices": [last]})
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _event({**head, "choices": [], "usage": _usage()})
        yield b"data: [DONE]\n\n"


def keys_of(value: Any) -> set[str]:
    """Every key in a JSON document."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = set(value) if isinstance(value, dict) else set()
    return own.union(*(keys_of(part) for part in parts))


def _usage() -> dict[str, int]:
    total = INPUT_TOKENS + OUTPUT_TOKENS
    return {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": total,
    }


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "fake", "param": None, "code": None}}


def _response(status: int, body: Mapping[str, Any], *, retry_after: str = "") -> bytes:
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n"
    head += f"retry-after: {retry_after}\r\n" if retry_after else ""
    return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw
