"""AIPerf (GenAI-Perf's successor): `profile_export_aiperf.json`.

What it calls inter-token latency is vLLM's TPOT: (end − first token)/(n − 1) of each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.calibrate.importers.figures import Columns, inside, number, put
from advisor.errors import InputError

_QUANTITIES = {
    "ttft": "time_to_first_token",
    "tpot": "inter_token_latency",
    "itl": "inter_chunk_latency",
    "e2e": "request_latency",
}

_MILLISECONDS = {"ms": 1.0, "s": 1000.0, "us": 1e-3, "ns": 1e-6}


def is_export(document: Mapping[str, Any]) -> bool:
    return "aiperf_version" in document or (
        "time_to_first_token" in document and "request_latency" in document
    )


def read_export(document: Mapping[str, Any]) -> list[Columns]:
    """One row.

    Raises:
        InputError: the run was cancelled or is not complete.
    """
    if document.get("is_complete") is False or document.get("was_cancelled") is True:
        raise InputError("the AIPerf run is not complete: its figures are of a part of the load")
    columns: Columns = {"length_spread": "distribution", **_load(document)}
    put(columns, "input_tokens", inside(document, "input_sequence_length", "avg"))
    put(columns, "output_tokens", inside(document, "output_sequence_length", "avg"))
    count = number(inside(document, "request_count", "avg"))
    if count:
        columns["requests"] = int(count)
    for quantity, theirs in _QUANTITIES.items():
        found = document.get(theirs)
        factor = _MILLISECONDS.get(str(inside(found, "unit")), 1.0)
        put(columns, f"{quantity}_mean_ms", inside(found, "avg"), factor=factor)
        for level in ("p50", "p95", "p99"):
            put(columns, f"{quantity}_{level}_ms", inside(found, level), factor=factor)
    put(columns, "output_tokens_per_s", inside(document, "output_token_throughput", "avg"))
    put(columns, "requests_per_s", inside(document, "request_throughput", "avg"))
    return [columns]


def _load(document: Mapping[str, Any]) -> Columns:
    config = document.get("input_config") or {}
    loads = inside(config, "loadgen") or config
    rate, users = number(inside(loads, "request_rate")), number(inside(loads, "concurrency"))
    if rate is None and users:
        return {"load": "closed_loop", "concurrency": int(users)}
    if rate is None:
        return {}
    constant = inside(loads, "arrival_pattern") == "constant"
    constant |= inside(loads, "request_rate_mode") == "constant"
    return {"load": "constant_rate" if constant else "poisson", "request_rate_per_s": rate}
