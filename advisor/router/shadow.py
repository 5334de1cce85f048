"""Shadow mode: a sample of answered requests is put to the other model too."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from advisor.quality.metrics import normalized
from advisor.router.config import TierName
from advisor.router.failures import UpstreamError
from advisor.router.requests import RouterRequest
from advisor.router.settings import Shadow
from advisor.router.upstreams import Reply

Agreement = Literal["agree", "differ", "failed"]
Ask = Callable[[TierName], Awaitable[Reply]]


class ShadowSampler:
    """Draws the sample, asks, compares, and logs both answers where a log is named.

    Args:
        settings: how often, and where to.
        compared: told of every comparison.
    """

    def __init__(self, settings: Shadow, *, compared: Callable[[Agreement], None]) -> None:
        self._settings, self._compared = settings, compared
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()

    def maybe(
        self,
        request: RouterRequest,
        body: Mapping[str, Any],
        *,
        answered_by: TierName,
        latency_s: float,
        ask: Ask,
    ) -> None:
        """Put a request to the other model, if it is drawn; returns at once."""
        settings = self._settings
        if random.random() >= settings.share or len(self._tasks) >= settings.max_in_flight:
            return
        task = asyncio.create_task(self._compare(request, body, answered_by, latency_s, ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, *, within_s: float = 5.0) -> None:
        """Wait for what is under way, for a while."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_s)
            for task in late:
                task.cancel()

    async def _compare(
        self,
        request: RouterRequest,
        body: Mapping[str, Any],
        answered_by: TierName,
        latency_s: float,
        ask: Ask,
    ) -> None:
        other: TierName = "llm" if answered_by == "slm" else "slm"
        try:
            reply = await ask(other)
        except UpstreamError:
            self._compared("failed")
            return
        same = _comparable(body) == _comparable(reply.body)
        self._compared("agree" if same else "differ")
        if self._settings.record is not None:
            outputs = {answered_by: (body, latency_s), other: (reply.body, reply.seconds)}
            row = {"id": f"{request.digest[:16]}-{time.time_ns()}", "input": _input(request)}
            row["outputs"] = {name: _output(b, s) for name, (b, s) in outputs.items()}
            line = json.dumps(row, ensure_ascii=False) + "\n"
            async with self._lock:
                await asyncio.to_thread(_append, self._settings.record, line)


def _append(path: Path, line: str) -> None:
    # Prompts and answers: for this user's eyes only.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode("utf-8", "replace"))
    finally:
        os.close(file)


def _text(body: Mapping[str, Any]) -> str:
    choice = body["choices"][0]
    message = choice.get("message")
    found = message.get("content") if isinstance(message, dict) else choice.get("text")
    return found if isinstance(found, str) else ""


def _comparable(body: Mapping[str, Any]) -> Any:
    """JSON by its value, anything else by its words."""
    text = _text(body)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return normalized(text)


def _input(request: RouterRequest) -> Any:
    return request.body.get("messages") or request.body.get("prompt")


def _output(body: Mapping[str, Any], latency_s: float) -> dict[str, Any]:
    found = {"text": _text(body), "latency_ms": round(latency_s * 1000, 3)}
    logprobs = body["choices"][0].get("logprobs")
    return {**found, "logprobs": logprobs} if logprobs else found
