"""An OpenAI-compatible server on a port of its own whose every token takes a known time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

FIRST_S, TOKEN_S = 0.02, 0.004

METRICS = """\
# HELP vllm:generation_tokens_total tokens
vllm:generation_tokens_total{model_name="m",engine="0"} %d
vllm:num_preemptions_total{model_name="m"} 0.0
"""


class StandInServer:
    """Counts what it served; refuses everything once `broken`."""

    def __init__(self) -> None:
        self.url = ""
        self.tokens = 0
        self.requests = 0
        self.broken = False
        self.keys: set[str] = set()

    async def models(self, request: web.Request) -> web.Response:
        self.keys.add(request.headers.get("Authorization", ""))
        return web.json_response({"data": [{"id": "m", "max_model_len": 2048}]})

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=METRICS % self.tokens)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        asked = await request.json()
        if self.broken:
            return web.json_response({"error": "the engine is dead"}, status=500)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(asked["max_tokens"]):
            await asyncio.sleep(TOKEN_S if number else FIRST_S)
            self.tokens += 1
            chunk = json.dumps({"choices": [{"text": ""}], "model": "m"})
            await response.write(f"data: {chunk}\n\n".encode())
        usage = {"choices": [], "usage": {"completion_tokens": asked["max_tokens"]}}
        await response.write(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        return response


@contextmanager
def serving() -> Iterator[StandInServer]:
    """The server, until the block ends."""
    server = StandInServer()
    loop = asyncio.new_event_loop()
    runner = None

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/v1/models", server.models)
        app.router.add_get("/version", server.version)
        app.router.add_get("/metrics", server.metrics)
        app.router.add_post("/v1/completions", server.completions)
        prepared = web.AppRunner(app)
        await prepared.setup()
        site = web.TCPSite(prepared, "127.0.0.1", 0)
        await site.start()
        address = prepared.addresses[0]
        server.url = f"http://127.0.0.1:{address[1]}"
        return prepared

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
