"""Shared by the router's tests: two fake models, a router between, and how to ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from fake_upstream import FakeUpstream
from prometheus_client.parser import text_string_to_metric_families

from advisor.router.answers import Answer
from advisor.router.config import RouterConfig
from advisor.router.requests import RouterRequest
from advisor.router.router import Router
from advisor.router.serving import DrainingServer, server_for

LABELS = ["refund_status", "card_lost", "other"]
PRICES = {
    "slm": {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.4},
    "llm": {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0},
}
SLM_USD = (100 * 0.1 + 5 * 0.4) / 1e6
LLM_USD = (100 * 2.0 + 5 * 8.0) / 1e6


@dataclass
class Both:
    """The two models."""

    slm: FakeUpstream
    llm: FakeUpstream

    def config(self, **parts: Any) -> RouterConfig:
        """A cascade with quick failures, changed by `parts`."""
        document: dict[str, Any] = {
            "task": {"labels": LABELS},
            "slm": {**tier(self.slm, "small"), "price": PRICES["slm"]},
            "llm": {**tier(self.llm, "large"), "price": PRICES["llm"]},
            "policy": {"name": "cascade", "threshold": 0.8},
            "failure": {"backoff_s": 0.001, "retries": 2},
        }
        for name, part in parts.items():
            mergeable = isinstance(part, dict) and isinstance(document.get(name), dict)
            document[name] = {**document[name], **part} if mergeable else part
        return RouterConfig.from_mapping(document)


def tier(upstream: FakeUpstream, model: str) -> dict[str, Any]:
    return {"base_url": upstream.base_url, "model": model, "timeout_s": 20.0}


@asynccontextmanager
async def both() -> AsyncIterator[Both]:
    async with FakeUpstream() as slm, FakeUpstream() as llm:
        yield Both(slm, llm)


@asynccontextmanager
async def router(models: Both, **parts: Any) -> AsyncIterator[Router]:
    async with Router(models.config(**parts), environment={}) as opened:
        yield opened


def request(
    text: str = "where is my money?",
    *,
    headers: Mapping[str, str] | None = None,
    endpoint: Any = "chat",
    **fields: Any,
) -> RouterRequest:
    asked: dict[str, Any] = (
        {"messages": [{"role": "user", "content": text}]}
        if endpoint == "chat"
        else {"prompt": text}
    )
    return RouterRequest(endpoint, {"model": "any", **asked, **fields}, dict(headers or {}))


async def drained(answer: Answer) -> bytes:
    """The bytes of a streamed answer."""
    assert answer.stream is not None
    parts = [part async for part in answer.stream]
    await answer.stream.aclose()
    return b"".join(parts)


def said(answer: Answer) -> str:
    assert answer.body is not None
    return str(answer.body["choices"][0]["message"]["content"])


def counted(router: Router, name: str, **labels: str) -> float:
    """Sum of a metric's samples that have these labels."""
    return total(router.metrics.text().decode(), name, **labels)


def total(text: str, name: str, **labels: str) -> float:
    samples = [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def streamed_text(raw: bytes) -> str:
    """What a stream of events says."""
    texts = []
    for event in raw.split(b"\n\n"):
        if event.startswith(b"data: ") and event != b"data: [DONE]":
            for choice in json.loads(event[6:]).get("choices", []):
                texts.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
    return "".join(texts)


@dataclass
class Served:
    """A router behind HTTP."""

    server: DrainingServer
    url: str
    session: aiohttp.ClientSession

    @property
    def router(self) -> Router:
        found: Router = self.server._app.service.router
        return found


@asynccontextmanager
async def served(
    config: RouterConfig, *, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    server = server_for(config, host="127.0.0.1", port=0, environment=environment or {})
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done(), "the server ended"
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Served(server, f"http://127.0.0.1:{port}", session)
    server.should_exit = True
    await running
