"""inference-perf: `stage_*_lifecycle_metrics.json`, seconds throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.calibrate.importers.figures import Columns, inside, number, put

_QUANTITIES = {
    "ttft": "time_to_first_token",
    "tpot": "time_per_output_token",
    "itl": "inter_token_latency",
    "e2e": "request_latency",
}


def is_stage(document: Mapping[str, Any]) -> bool:
    return "load_summary" in document and "successes" in document


def read_stage(document: Mapping[str, Any]) -> list[Columns]:
    """One row a stage; none where every request failed."""
    good = document["successes"]
    count = number(inside(good, "count"))
    if not count:
        return []
    columns: Columns = {
        "length_spread": "distribution",
        "load": "constant_rate",
        "requests": int(count),
    }
    rate = inside(document, "load_summary", "requested_rate")
    put(columns, "request_rate_per_s", rate or inside(document, "load_summary", "achieved_rate"))
    put(columns, "input_tokens", _statistic(inside(good, "prompt_len"), "mean"))
    put(columns, "output_tokens", _statistic(inside(good, "output_len"), "mean"))
    for quantity, theirs in _QUANTITIES.items():
        found = inside(good, "latency", theirs)
        put(columns, f"{quantity}_mean_ms", _statistic(found, "mean"), factor=1000)
        put(columns, f"{quantity}_p50_ms", _statistic(found, "median", "p50"), factor=1000)
        put(columns, f"{quantity}_p95_ms", _statistic(found, "p95"), factor=1000)
        put(columns, f"{quantity}_p99_ms", _statistic(found, "p99"), factor=1000)
    throughput = inside(good, "throughput")
    put(columns, "output_tokens_per_s", inside(throughput, "output_tokens_per_sec"))
    put(columns, "requests_per_s", inside(throughput, "requests_per_sec"))
    return [columns]


def _statistic(found: Any, *names: str) -> Any:
    return next((value for name in names if (value := inside(found, name)) is not None), None)
