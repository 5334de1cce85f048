"""What the servers say of themselves: their Prometheus pages, read before and after a load."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from advisor.records import Record

READ_TIMEOUT_S = 5.0
MAX_PAGE_BYTES = 8_000_000

_SAMPLE = re.compile(rb"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+(\S+)", re.MULTILINE)

BUSY = ("sandbox:busy_seconds_total", "vllm:request_inference_time_seconds_sum")
"""Seconds that the engine worked on requests, by name; the first that a server has counts."""

FINISHED = "vllm:request_success_total"
QUEUED = "vllm:request_queue_time_seconds_sum"
CPU = "process_cpu_seconds_total"
FIRST_TOKEN, WHOLE = "vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds"


class ServerFigures(Record):
    """Means over a stretch of load, as a server counted them; None: it does not say."""

    requests: int
    busy_s: float | None
    """Engine time a request."""
    queue_s: float | None
    """Wait before it a request."""
    ttft_s: float | None
    e2e_s: float | None
    cpu_s: float | None
    """Core-seconds of the server's process a request."""


@dataclass(frozen=True)
class Page:
    """The samples of a Prometheus page, summed over their labels."""

    values: Mapping[str, float]

    def get(self, name: str) -> float | None:
        """A sample; None: not on the page."""
        return self.values.get(name)


def read_page(url: str | None) -> Page | None:
    """A server's page; None where there is none."""
    if url is None:
        return None
    try:
        with urllib.request.urlopen(url, timeout=READ_TIMEOUT_S) as response:
            text = response.read(MAX_PAGE_BYTES)
    except (urllib.error.URLError, OSError, ValueError):
        return None
    values: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        try:
            key = name.decode()
            values[key] = values.get(key, 0.0) + float(value)
        except ValueError:
            continue
    return Page(values)


def figures_between(before: Page | None, after: Page | None) -> ServerFigures | None:
    """Means over the requests that finished between two readings; None: no page, no request."""
    if before is None or after is None:
        return None

    def grown(name: str) -> float | None:
        late = after.get(name)
        return None if late is None else late - (before.get(name) or 0.0)

    requests = round(grown(FINISHED) or 0)
    if requests <= 0:
        return None

    def mean(*names: str) -> float | None:
        found = [value for name in names if (value := grown(name)) is not None]
        return found[0] / requests if found else None

    return ServerFigures(
        requests=requests,
        busy_s=mean(*BUSY),
        queue_s=mean(QUEUED),
        ttft_s=mean(f"{FIRST_TOKEN}_sum"),
        e2e_s=mean(f"{WHOLE}_sum"),
        cpu_s=mean(CPU),
    )
