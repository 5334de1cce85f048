"""What a sandbox server counts, as a Prometheus page.

Where a figure means what vLLM's means it carries vLLM's name, so that one reader serves both; what
vLLM does not have is named `sandbox:…`, and CPU time has Prometheus' standard name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

BOUNDS_S = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper bounds of the histograms' buckets."""


class _CpuTime(Collector):
    """CPU time of this process, all threads, on any system."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily("process_cpu_seconds", "CPU time.", value=time.process_time())


class ServerMetrics:
    """Counts of one server; safe to update from one thread and read from another."""

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_CpuTime())
        self._running = self._gauge(model, "vllm:num_requests_running", "Being decoded.")
        self._waiting = self._gauge(model, "vllm:num_requests_waiting", "In the queue.")
        self._prompt_tokens = self._counter(model, "vllm:prompt_tokens", "Tokens read.")
        self._steps = self._counter(model, "vllm:generation_tokens", "Tokens written.")
        self._busy_s = self._counter(model, "sandbox:busy_seconds", "Time with a request.")
        self._finished = Counter(
            "vllm:request_success", "Requests that ended, by how: stop, length, cancelled, error.",
            ("model_name", "finished_reason"), registry=self._registry,
        )  # fmt: skip
        self._model = model
        self._queued = self._histogram(model, "vllm:request_queue_time_seconds", "In the queue.")
        self._first_token = self._histogram(
            model, "vllm:time_to_first_token_seconds", "From arrival to the first token."
        )
        self._whole = self._histogram(
            model, "vllm:e2e_request_latency_seconds", "From arrival to the last token."
        )

    def arrived(self) -> None:
        """A request joins the queue."""
        self._waiting.inc()

    def started(self, *, queued_s: float) -> None:
        """A request leaves the queue to be decoded."""
        self._waiting.dec()
        self._running.inc()
        self._queued.observe(queued_s)

    def ended(
        self,
        *,
        reason: str,
        prompt_tokens: int,
        steps: int,
        first_token_s: float | None,
        whole_s: float,
        busy_s: float,
    ) -> None:
        """A request is done: `reason` is stop, length, cancelled or error."""
        self._running.dec()
        self._finished.labels(self._model, reason).inc()
        self._prompt_tokens.inc(prompt_tokens)
        self._steps.inc(steps)
        self._busy_s.inc(busy_s)
        self._whole.observe(whole_s)
        if first_token_s is not None:
            self._first_token.observe(first_token_s)

    def page(self) -> str:
        """The page in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry).decode()

    def _gauge(self, model: str, name: str, text: str) -> Gauge:
        return Gauge(name, text, ("model_name",), registry=self._registry).labels(model)

    def _counter(self, model: str, name: str, text: str) -> Counter:
        return Counter(name, text, ("model_name",), registry=self._registry).labels(model)

    def _histogram(self, model: str, name: str, text: str) -> Histogram:
        return Histogram(
            name, text, ("model_name",), registry=self._registry, buckets=BOUNDS_S
        ).labels(model)
