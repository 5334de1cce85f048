"""Load on an OpenAI-compatible vLLM server, measured from outside: streams, and its /metrics.

Prompts are token ids (`/v1/completions`), answers have a fixed length (`ignore_eos`), so that the
work is what was asked for. Times are as `vllm bench serve` defines them: TTFT from sending to the
first chunk, TPOT = (E2E − TTFT)/(tokens − 1).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from advisor.errors import InputError

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

REQUEST_TIMEOUT_S = 300.0

METRICS = re.compile(r"^vllm:([a-z_]+?)(?:\{[^}]*\})?\s+([0-9.eE+-]+|NaN|\+Inf)$", re.MULTILINE)

COUNTERS = (
    "num_preemptions_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "prefix_cache_hits_total",
    "time_to_first_token_seconds_sum",
    "time_to_first_token_seconds_count",
    "request_queue_time_seconds_sum",
    "e2e_request_latency_seconds_sum",
    "e2e_request_latency_seconds_count",
)
"""Of vLLM's metrics, those whose change over a load is kept."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as its client saw it; times in seconds from the begin of the load."""

    due_s: float
    sent_s: float
    first_s: float
    last_s: float
    tokens: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself."""

    model: str
    version: str
    max_model_len: int


class Server:
    """A running server, by its address."""

    def __init__(self, url: str, *, api_key: str | None = None, vocabulary: int = 1000) -> None:
        """Raises InputError where the address is not one."""
        if not re.fullmatch(r"https?://[^/\s@]+(/[^\s@]*)?", url):
            raise InputError(f"--url {_shown(url)}: http://host:port is expected")
        self.base = re.sub(r"/v1/?$", "", url.rstrip("/"))
        self.model = ""
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._vocabulary = vocabulary
        self._draws = np.random.default_rng(0)

    def describe(self) -> ServerFacts:
        """Its model, version and context.

        Raises:
            InputError: nothing answers there, or not like an OpenAI-compatible server.
        """
        models = run(self._get("/v1/models"))
        try:
            entry = json.loads(models)["data"][0]
            self.model = str(entry["id"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise InputError(
                f"--url {self.base}: /v1/models is not that of an OpenAI-compatible server"
            ) from None
        try:
            version = str(json.loads(run(self._get("/version")))["version"])
        except (InputError, ValueError, KeyError, TypeError):
            version = ""
        return ServerFacts(self.model, version, int(entry.get("max_model_len") or 2048))

    def metrics(self) -> dict[str, float]:
        """vLLM's counters, summed over labels; empty where it shows none."""
        try:
            text = run(self._get("/metrics"))
        except InputError:
            return {}
        found: dict[str, float] = {}
        for name, value in METRICS.findall(text):
            if name in COUNTERS:
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def load(
        self,
        *,
        due_s: Sequence[float],
        prompt_tokens: Sequence[int],
        output_tokens: Sequence[int],
        concurrency: int | None = None,
    ) -> list[Sent]:
        """Send requests when they are due (an open loop), or as places free up.

        Args:
            due_s: seconds from the begin, ascending.
            concurrency: places; None: as many as there are requests.

        Raises:
            InputError: no request at all got an answer.
        """
        found = run(self._send(due_s, prompt_tokens, output_tokens, concurrency))
        if found and all(one.error for one in found):
            raise InputError(f"--url {self.base}: every request failed: {found[0].error}")
        return found

    async def _send(
        self,
        due_s: Sequence[float],
        prompts: Sequence[int],
        outputs: Sequence[int],
        concurrency: int | None,
    ) -> list[Sent]:
        import aiohttp

        places = asyncio.Semaphore(concurrency or max(1, len(due_s)))
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        bodies = [
            self._body(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)
        ]
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, headers=self._headers
        ) as session:
            begin = time.perf_counter()

            async def one(due: float, body: bytes) -> Sent:
                await asyncio.sleep(max(0.0, due - (time.perf_counter() - begin)))
                async with places:
                    return await self._stream(session, begin, due, body)

            return list(await asyncio.gather(*map(one, due_s, bodies)))

    async def _stream(
        self, session: aiohttp.ClientSession, begin: float, due: float, body: bytes
    ) -> Sent:
        import aiohttp

        sent = time.perf_counter() - begin
        first = last = sent
        tokens = 0
        try:
            async with session.post(
                f"{self.base}/v1/completions",
                data=body,
                headers={"Content-Type": "application/json"},
            ) as response:
                if response.status != 200:
                    text = " ".join((await response.text())[:200].split())
                    return Sent(due, sent, sent, sent, 0, f"HTTP {response.status}: {text}")
                async for line in response.content:
                    if not line.startswith(b"data:") or b"[DONE]" in line:
                        continue
                    chunk = json.loads(line[5:])
                    if chunk.get("error"):
                        return Sent(due, sent, sent, sent, 0, str(chunk["error"])[:200])
                    if chunk.get("choices"):
                        last = time.perf_counter() - begin
                        first = first if tokens else last
                        tokens += 1
                    if chunk.get("usage"):
                        tokens = int(chunk["usage"]["completion_tokens"])
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return Sent(due, sent, sent, sent, 0, f"{type(error).__name__}: {error}"[:200])
        if tokens == 0:
            return Sent(due, sent, sent, sent, 0, "the stream held no token")
        return Sent(due, sent, first, last, tokens)

    def _body(self, prompt_tokens: int, output_tokens: int) -> bytes:
        low = min(10, self._vocabulary - 1)
        ids = self._draws.integers(low, self._vocabulary, prompt_tokens).tolist()
        return json.dumps(
            {
                "model": self.model,
                "prompt": ids,
                "max_tokens": output_tokens,
                "ignore_eos": True,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True},
                "return_token_ids": True,
            }
        ).encode()

    async def _get(self, path: str) -> str:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=20)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session,
                session.get(self.base + path) as response,
            ):
                if response.status != 200:
                    raise InputError(f"--url {self.base}: {path} answered HTTP {response.status}")
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise InputError(f"--url {self.base}: nothing answers: {reason}") from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from any thread that has no loop."""
    with asyncio.Runner() as runner:
        return runner.run(work)


def statistics(sent: Sequence[Sent]) -> dict[str, float]:
    """TTFT, TPOT and E2E of what succeeded, milliseconds by `ttft_p50` …, and counts."""
    good = [one for one in sent if not one.error]
    found = {"requests": float(len(sent)), "failed": float(len(sent) - len(good))}
    if not good:
        return found
    span = max(one.last_s for one in good) - min(one.sent_s for one in good)
    several = [one for one in good if one.tokens > 1]
    values = {
        "ttft": [one.first_s - one.sent_s for one in good],
        "tpot": [(one.last_s - one.first_s) / (one.tokens - 1) for one in several],
        "e2e": [one.last_s - one.sent_s for one in good],
    }
    for name, seconds in values.items():
        if seconds:
            found |= quantiles_ms(name, np.array(seconds))
    found["late_ms"] = 1e3 * float(np.quantile([one.sent_s - one.due_s for one in good], 0.95))
    if span > 0:
        found["requests_per_s"] = len(good) / span
        found["output_tokens_per_s"] = sum(one.tokens for one in good) / span
    return found


def quantiles_ms(name: str, seconds: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    """Mean, median, 95th and 99th percentile in milliseconds, by `NAME_mean_ms` …"""
    p50, p95, p99 = np.quantile(seconds, [0.5, 0.95, 0.99])
    return {
        f"{name}_mean_ms": 1e3 * float(seconds.mean()),
        f"{name}_p50_ms": 1e3 * float(p50),
        f"{name}_p95_ms": 1e3 * float(p95),
        f"{name}_p99_ms": 1e3 * float(p99),
    }


def _shown(url: str) -> str:
    """An address without what may be secret in it."""
    return re.sub(r"//[^/@]*@", "//…@", url)
