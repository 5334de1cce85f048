"""OpenAI-compatible server of one sandbox model.

    python -m advisor.trial.sandbox.server --role small --port 8101

Endpoints: /v1/chat/completions and /v1/completions (streaming, log-probabilities, stop texts),
/v1/models, /health, /metrics. Requests are served one at a time, first come, first served, on one
thread. It listens on the loopback address unless told otherwise, takes no key, and never slows
itself down: what it takes is what the model takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, get_args

from pydantic import ValidationError

from advisor.documents import describe
from advisor.errors import InputError
from advisor.trial.sandbox.engine import (
    CONTEXT_TOKENS,
    Decoding,
    Engine,
    GeneratedToken,
    Generation,
    Role,
    Spelling,
    model_name,
)
from advisor.trial.sandbox.metrics import ServerMetrics
from advisor.trial.sandbox.openai_form import ChatCall, CompletionCall, Reply, error_document
from advisor.trial.sandbox.parent import end_with_parent
from advisor.trial.sandbox.scheduler import Job, Scheduler

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MAX_BODY_BYTES = 1_000_000

SWITCH_INTERVAL_S = 0.0005
"""How long the thread that speaks HTTP may keep the interpreter from the one that decodes."""

Call = TypeVar("Call", ChatCall, CompletionCall)


@dataclass
class _Stream:
    """One job seen from the event loop: tokens as they come, then how it ended."""

    job: Job
    events: asyncio.Queue[GeneratedToken | Generation | Exception]

    async def tokens(self) -> AsyncIterator[GeneratedToken | Generation]:
        """Each token, then the whole generation.

        Raises:
            Exception: what the engine raised.
        """
        while True:
            event = await self.events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Generation):
                return

    async def generation(self) -> Generation:
        """The whole generation, without its tokens one by one."""
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        assert isinstance(event, Generation)
        return event


@dataclass
class Service:
    """What the endpoints share."""

    role: Role
    engine: Engine
    metrics: ServerMetrics = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = ServerMetrics(self.model)
        self.scheduler = Scheduler(self.engine, self.metrics)

    @property
    def model(self) -> str:
        return model_name(self.role)

    def start(self, prompt: list[str], decoding: Decoding, *, streamed: bool) -> _Stream:
        """Queue one request."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[GeneratedToken | Generation | Exception] = asyncio.Queue()

        def report(event: GeneratedToken | Generation | Exception) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def ignore(token: GeneratedToken) -> None:
            """Nobody reads single tokens: waking the event loop for each would cost more."""

        job = Job(prompt, decoding, on_token=report if streamed else ignore, on_end=report)
        self.scheduler.submit(job)
        return _Stream(job, events)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        call = await self._call(request, ChatCall)
        reply = Reply(self.model, chat=True, top=call.top, schema=call.wanted_schema())
        limit = call.max_completion_tokens or call.max_tokens
        return await self._answer(request, call, reply, call.decoding(limit))

    async def completion(self, request: Request) -> Response:
        """POST /v1/completions."""
        call = await self._call(request, CompletionCall)
        reply = Reply(self.model, chat=False, top=call.top)
        return await self._answer(request, call, reply, call.decoding())

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        from starlette.responses import JSONResponse

        card = {"id": self.model, "object": "model", "created": 0, "owned_by": "advisor"}
        card["max_model_len"] = CONTEXT_TOKENS
        return JSONResponse({"object": "list", "data": [card]})

    async def health(self, request: Request) -> Response:
        """GET /health: 200 once requests are taken."""
        from starlette.responses import Response

        return Response()

    async def metrics_page(self, request: Request) -> Response:
        """GET /metrics."""
        from starlette.responses import PlainTextResponse

        return PlainTextResponse(self.metrics.page(), media_type="text/plain; version=0.0.4")

    async def _call(self, request: Request, kind: type[Call]) -> Call:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise InputError(f"the body has more than {MAX_BODY_BYTES:,} bytes")
        try:
            call = kind.model_validate_json(bytes(body))
        except ValidationError as error:
            raise InputError(describe(error, kind)) from None
        if call.model != self.model:
            raise UnknownModelError(f"model '{call.model}' is not served; '{self.model}' is")
        return call

    async def _answer(
        self, request: Request, call: ChatCall | CompletionCall, reply: Reply, decoding: Decoding
    ) -> Response:
        from starlette.responses import JSONResponse, StreamingResponse

        prompt = self.engine.prompt_tokens(call.prompt)
        stream = self.start(prompt, decoding, streamed=call.stream)
        if call.stream:
            chunks = _chunks(stream, reply, decoding.stop, wants_usage=call.wants_usage)
            return StreamingResponse(chunks, media_type="text/event-stream")
        generation = await _unless_disconnected(request, stream)
        return JSONResponse(reply.whole(generation, len(prompt)))


class UnknownModelError(InputError):
    """A request for a model that is not served here: 404."""


async def _unless_disconnected(request: Request, stream: _Stream) -> Generation:
    """The generation; a client that leaves meanwhile takes its request with it."""
    answer = asyncio.ensure_future(stream.generation())
    gone = asyncio.ensure_future(request.receive())
    await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        stream.job.cancelled.set()
    gone.cancel()
    return await answer


async def _chunks(
    stream: _Stream, reply: Reply, stop: Sequence[str], *, wants_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events of one answer; text is shown as soon as no stop text can begin in it."""
    spelling, waiting, shown = Spelling(stop), list[GeneratedToken](), 0
    # The event that names the role comes with the first token, as vLLM sends it: clients that take
    # the first event for the first token are right.
    first = reply.first()
    try:
        async for event in stream.tokens():
            if first is not None:
                yield _event(first)
                first = None
            if isinstance(event, GeneratedToken):
                waiting.append(event)
                text = spelling.add(event.text)
                if text:
                    yield _event(reply.piece(text, waiting, shown))
                    waiting, shown = [], shown + len(text)
                continue
            text = spelling.finish()
            if text or waiting:
                yield _event(reply.piece(text, waiting, shown))
            yield _event(reply.last(event))
            if wants_usage:
                yield _event(reply.counts(event, len(stream.job.prompt)))
        yield "data: [DONE]\n\n"
    finally:
        stream.job.cancelled.set()


def _event(document: dict[str, object]) -> str:
    return f"data: {json.dumps(document, separators=(',', ':'))}\n\n"


def application(role: Role) -> Starlette:
    """The ASGI application of one model, its weights loaded.

    Raises:
        InputError: no such role, or no weights.
    """
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    service = Service(role, Engine(role))

    async def refused(request: Request, error: Exception) -> Response:
        code = 404 if isinstance(error, UnknownModelError) else 400
        return JSONResponse(error_document(str(error), code=code), status_code=code)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.scheduler.close()
        service.engine.close()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/completions", service.completion, methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/health", service.health),
            Route("/metrics", service.metrics_page),
        ],
        exception_handlers={InputError: refused},
        lifespan=lifespan,
    )


def serve(role: Role, *, host: str, port: int) -> None:
    """Serve until told to stop; prints the port as soon as the model answers.

    Raises:
        InputError: no weights, or the port cannot be had.
    """
    import uvicorn

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    app = application(role)
    listener = listen(host, port)
    print(json.dumps({"port": listener.getsockname()[1], "model": model_name(role)}), flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: the port cannot be had.
    """
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: answers
    # sent as head and body would wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(f"cannot listen on {host}:{port}: {error}") from None
    return listener


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit 2 where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m advisor.trial.sandbox.server")
    parser.add_argument("--role", choices=get_args(Role), required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: one that is free")
    parser.add_argument("--cpu", type=int, help="core to run on (Linux)")
    parser.add_argument("--parent", type=int, help="process without which to end")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        end_with_parent(given.parent)
    try:
        if given.cpu is not None:
            pin(given.cpu)
        serve(given.role, host=given.host, port=given.port)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def pin(cpu: int) -> None:
    """Keep this process on one core.

    Raises:
        InputError: not possible here, or no such core.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("cpu: this system cannot pin a process to a core")
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        free = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise InputError(f"cpu {cpu}: accepted are {free}") from None


if __name__ == "__main__":
    sys.exit(main())
