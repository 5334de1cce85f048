"""`vllm bench serve`, `latency` and `throughput`: their result files.

Scalars are milliseconds, lists are seconds; a failed request stays in the lists as 0.0 with its
text in `errors`; E2E is only among the scalars where it was asked for, but always in `latencies`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.calibrate.importers.figures import Columns, number, put, statistics_of, version_of


def is_serve(document: Mapping[str, Any]) -> bool:
    return "request_throughput" in document and "total_output_tokens" in document


def is_latency(document: Mapping[str, Any]) -> bool:
    return "avg_latency" in document and "latencies" in document


def is_throughput(document: Mapping[str, Any]) -> bool:
    return "tokens_per_second" in document and "elapsed_time" in document


def read_serve(document: Mapping[str, Any]) -> list[Columns]:
    """One row of `vllm bench serve --save-result`, detailed or not."""
    columns: Columns = {"model": document.get("model_id"), "length_spread": "distribution"}
    completed = number(document.get("completed")) or 0.0
    if not completed:
        return []
    columns["requests"] = int(completed)
    put(columns, "input_tokens", _mean(document.get("total_input_tokens"), completed))
    put(columns, "output_tokens", _mean(document.get("total_output_tokens"), completed))
    columns |= _load(document)
    for quantity, theirs in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2e", "e2el")):
        put(columns, f"{quantity}_mean_ms", document.get(f"mean_{theirs}_ms"))
        put(columns, f"{quantity}_p50_ms", document.get(f"median_{theirs}_ms"))
        for level in (50, 95, 99):
            put(columns, f"{quantity}_p{level}_ms", document.get(f"p{level}_{theirs}_ms"))
    _from_lists(columns, document)
    put(columns, "output_tokens_per_s", document.get("output_throughput"))
    put(columns, "requests_per_s", document.get("request_throughput"))
    version = version_of(document.get("vllm_version") or document.get("engine_version"))
    return [columns | ({"engine_version": version} if version else {})]


def read_latency(document: Mapping[str, Any]) -> list[Columns]:
    """`vllm bench latency --output-json`: seconds of whole batches, no configuration."""
    columns: Columns = {"load": "static_batch", "length_spread": "fixed"}
    put(columns, "e2e_mean_ms", document.get("avg_latency"), factor=1000)
    percentiles = document.get("percentiles")
    if isinstance(percentiles, Mapping):
        for level in (50, 95, 99):
            put(columns, f"e2e_p{level}_ms", percentiles.get(str(level)), factor=1000)
    return [columns]


def read_throughput(document: Mapping[str, Any]) -> list[Columns]:
    """`vllm bench throughput --output-json`: everything at once; totals and a duration."""
    columns: Columns = {"load": "burst", "length_spread": "distribution"}
    requests = number(document.get("num_requests"))
    if requests:
        columns["requests"] = int(requests)
    put(columns, "requests_per_s", document.get("requests_per_second"))
    return [columns]


def _load(document: Mapping[str, Any]) -> Columns:
    """A rate is an open loop unless users are limited and sent as fast as they can."""
    rate, users = number(document.get("request_rate")), number(document.get("max_concurrency"))
    if rate is None and users is not None:
        return {"load": "closed_loop", "concurrency": int(users)}
    if rate is None:
        return {"load": "burst"}
    burstiness = number(document.get("burstiness")) or 1.0
    kind = "poisson" if burstiness == 1.0 else "gamma"
    return {"load": kind, "request_rate_per_s": rate, "burstiness": burstiness}


def _from_lists(columns: Columns, document: Mapping[str, Any]) -> None:
    """Percentiles that the scalars leave out, from the kept lists, failures dropped."""
    latencies = document.get("latencies")
    errors = document.get("errors")
    if not isinstance(latencies, list):
        return
    failed = errors if isinstance(errors, list) and len(errors) == len(latencies) else None
    good = [
        value
        for index, value in enumerate(latencies)
        if number(value) is not None and not (failed and failed[index])
    ]
    if "e2e_mean_ms" not in columns:
        statistics_of(columns, "e2e", good)
    ttfts = document.get("ttfts")
    if isinstance(ttfts, list) and len(ttfts) == len(latencies) and "ttft_p95_ms" not in columns:
        answered = [one for one, whole in zip(ttfts, latencies, strict=True) if number(whole)]
        statistics_of(columns, "ttft", answered)


def _mean(total: Any, count: float) -> float | None:
    value = number(total)
    return value / count if value else None
