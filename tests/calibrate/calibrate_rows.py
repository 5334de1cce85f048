"""Rows in the measurement format, for the tests of this folder."""

from __future__ import annotations

from advisor.calibrate.conditions import Condition, condition_of
from advisor.calibrate.measurements import Measurement, parse_measurement, parse_setup
from advisor.catalog import load_catalog

CATALOG = load_catalog()

STATIC = {
    "row_id": "static",
    "model": "meta-llama/Llama-3.1-8B",
    "weights_dtype": "bf16",
    "accelerator": "H100-SXM",
    "engine_version": "0.12.0",
    "load": "static_batch",
    "batch_size": "8",
    "input_tokens": "512",
    "output_tokens": "128",
}
LOOP = {
    "row_id": "loop",
    "model": "meta-llama/Llama-3.1-8B",
    "weights_dtype": "bf16",
    "accelerator": "H100-SXM",
    "engine_version": "0.12.0",
    "load": "closed_loop",
    "concurrency": "16",
    "input_tokens": "1024",
    "output_tokens": "256",
    "length_spread": "uniform[0.8,1.0]x",
}
OPEN = {
    "row_id": "open",
    "model": "meta-llama/Llama-3.1-8B",
    "weights_dtype": "bf16",
    "accelerator": "H100-SXM",
    "engine_version": "0.12.0",
    "load": "poisson",
    "request_rate_per_s": "4",
    "requests": "300",
    "input_tokens": "512",
    "output_tokens": "128",
}


def condition(row: dict[str, str], **changes: str) -> Condition:
    return condition_of(parse_setup({**row, **changes}), CATALOG)


def measurement(row: dict[str, str], **changes: str) -> Measurement:
    return parse_measurement({"source": "here", **row, **changes})
