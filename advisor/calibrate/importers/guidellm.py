"""GuideLLM reports (`benchmarks.json`).

`time_per_output_token_ms` includes the first token (it is (last − start)/n); the figure that vLLM
calls TPOT is `inter_token_latency_ms`. `request_latency` is in seconds, the others are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.calibrate.importers.figures import Columns, inside, number, put

_QUANTITIES = {
    "ttft": ("time_to_first_token_ms", 1.0),
    "tpot": ("inter_token_latency_ms", 1.0),
    "e2e": ("request_latency", 1000.0),
}


def is_report(document: Mapping[str, Any]) -> bool:
    benchmarks = document.get("benchmarks")
    return isinstance(benchmarks, list) and bool(benchmarks) and "metrics" in benchmarks[0]


def read_report(document: Mapping[str, Any]) -> list[Columns]:
    """One row a benchmark of the report; those without successful requests drop out."""
    return [
        columns
        for benchmark in document["benchmarks"]
        if isinstance(benchmark, Mapping) and (columns := _read(benchmark))
    ]


def _read(benchmark: Mapping[str, Any]) -> Columns:
    def good(metric: str) -> Any:
        return inside(benchmark, "metrics", metric, "successful")

    columns: Columns = {"length_spread": "distribution", **_load(benchmark)}
    put(columns, "input_tokens", inside(good("prompt_token_count"), "mean"))
    put(columns, "output_tokens", inside(good("output_token_count"), "mean"))
    count = number(inside(good("request_latency"), "count"))
    if not count:
        return {}
    columns["requests"] = int(count)
    for quantity, (theirs, factor) in _QUANTITIES.items():
        found = good(theirs)
        put(columns, f"{quantity}_mean_ms", inside(found, "mean"), factor=factor)
        for level in ("p50", "p95", "p99"):
            value = inside(found, "percentiles", level)
            put(columns, f"{quantity}_{level}_ms", value, factor=factor)
    put(columns, "output_tokens_per_s", inside(good("output_tokens_per_second"), "mean"))
    put(columns, "requests_per_s", inside(good("requests_per_second"), "mean"))
    return columns


def _load(benchmark: Mapping[str, Any]) -> Columns:
    strategy = inside(benchmark, "config", "strategy") or inside(benchmark, "args", "strategy")
    kind, rate = inside(strategy, "type_"), number(inside(strategy, "rate"))
    users = inside(strategy, "max_concurrency") or inside(strategy, "streams")
    if kind == "synchronous":
        return {"load": "closed_loop", "concurrency": 1}
    if kind == "concurrent" and number(users):
        return {"load": "closed_loop", "concurrency": int(users)}
    if kind in ("poisson", "constant") and rate:
        name = "poisson" if kind == "poisson" else "constant_rate"
        return {"load": name, "request_rate_per_s": rate}
    return {"load": "burst"}
