"""A small OpenAI-compatible endpoint over real sockets, whose behaviour a test chooses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Behaviour = Callable[["FakeEndpoint", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class FakeEndpoint:
    """Answers by a function of the last message; one request at a time where `service_s` is set."""

    answer: Callable[[str], str] = lambda text: text
    confidence: Callable[[str], float] = lambda text: 0.99
    behaviour: Behaviour | None = None
    service_s: float = 0.0
    """Time a request holds the server: first come, first served."""
    model: str = "fake"
    headers: Mapping[str, str] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Bodies, in order of arrival."""
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    base_url: str = ""
    transports: set[asyncio.Transport] = field(default_factory=set)
    """Connections, so that none outlives the test."""
    _one: asyncio.Lock | None = None

    async def chat(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.transports.add(request.transport)
        body = await request.json()
        self.seen.append(body)
        self.seen_headers.append(dict(request.headers))
        if self.behaviour is not None:
            return await self.behaviour(self, request, body)
        return await self.reply(request, body)

    async def reply(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """The right answer, streamed word by word where that is asked for."""
        if self.service_s:
            assert self._one is not None
            async with self._one:
                await asyncio.sleep(self.service_s)
        text = str(body["messages"][-1]["content"])
        words = pieces(self.answer(text))
        logprob = math.log(self.confidence(text))
        content = [
            {"token": word, "logprob": logprob, "bytes": list(word.encode()), "top_logprobs": []}
            for word in words
        ]
        usage = {"prompt_tokens": len(text.split()) or 1, "completion_tokens": len(words)}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": content}
            found = {"object": "chat.completion", "choices": [choice], "usage": usage}
            return web.json_response(found, headers=self.headers)
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **self.headers})
        await response.prepare(request)
        for word, logged in zip(words, content, strict=True):
            chunk: dict[str, Any] = {"index": 0, "delta": {"content": word}}
            if body.get("logprobs"):
                chunk["logprobs"] = {"content": [logged]}
            await event(response, {"choices": [chunk]})
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await event(response, {"choices": [end]})
        await event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.model}]})


async def event(response: web.StreamResponse, value: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(value).encode() + b"\n\n")


def pieces(text: str) -> list[str]:
    """A text in tokens: words with the blank before them."""
    words = text.split(" ")
    return [words[0], *(f" {word}" for word in words[1:])]


@contextlib.contextmanager
def serving(endpoint: FakeEndpoint) -> Iterator[FakeEndpoint]:
    """The endpoint on a free port, in a thread of its own, until the end of the block."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.chat)
    app.router.add_get("/v1/models", endpoint.models)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)

    async def start() -> None:
        endpoint._one = asyncio.Lock()
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        endpoint.base_url = f"http://127.0.0.1:{port}/v1"

    async def stop() -> None:
        # Handlers that write to clients who are gone end at once when their connection does.
        for transport in endpoint.transports:
            transport.abort()
        await asyncio.sleep(0.05)
        await runner.cleanup()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def wait_until(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Return once a condition holds.

    Raises:
        AssertionError: it never did.
    """
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.01)
