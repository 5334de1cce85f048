"""Rows of the public table that are known to say something else than they seem to, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advisor.calibrate.measurements import Measurement


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Rows left out of the fit."""

    reason: str
    applies: Callable[[Measurement], bool]


def _argonne(row: Measurement) -> bool:
    return row.source == "argonne_llm_inference_bench"


def _gap_analysis(row: Measurement) -> bool:
    return row.source == "aic_silicon_nvidia_gap_analysis"


EXCLUSIONS: tuple[Exclusion, ...] = (
    Exclusion(
        "FP8 KV cache on A100 (no FP8 units) runs 2–10 times slower than any later kernel",
        lambda row: (
            _argonne(row)
            and row.setup.kv_dtype == "fp8"
            and row.setup.accelerator.startswith("A100")
        ),
    ),
    Exclusion(
        "Mistral-7B on 1–2 H100 at batch 32 and 64 scales with context as if it had 32 KV heads "
        "(batch 1 and 16, and A100, do not)",
        lambda row: (
            _argonne(row)
            and row.setup.model == "mistralai/Mistral-7B-v0.1"
            and row.setup.accelerator == "H100-SXM"
            and (row.setup.batch_size or 0) >= 32
            and (row.setup.tensor_parallel or 1) <= 2
        ),
    ),
    Exclusion(
        "batch 64 of a 70B model on two 80 GB cards swapped its cache to host memory",
        lambda row: (
            row.source == "splitwise_sim_perf_model"
            and row.setup.batch_size == 64
            and row.setup.tensor_parallel == 2
        ),
    ),
    Exclusion(
        "three static rows of Qwen3-32B state a layout that does not hold the model",
        lambda row: (
            _gap_analysis(row)
            and row.setup.model == "Qwen/Qwen3-32B"
            and row.setup.load == "static_batch"
        ),
    ),
    Exclusion(
        "prefix-cache hits suspected: identical prompts, TTFT below the time to read them",
        lambda row: _gap_analysis(row) and row.setup.model.endswith("Llama-3.1-8B-Instruct-FP8"),
    ),
    Exclusion(
        "Qwen3-235B in FP8 (235 GB) does not fit one or two H200; the expert layout says four",
        lambda row: (
            _gap_analysis(row)
            and "235B" in row.setup.model
            and (row.setup.n_accelerators or 1) <= 2
        ),
    ),
    Exclusion(
        "512 users on a server that runs fewer at a time: TTFT is the queue of the first burst",
        lambda row: (
            row.setup.model == "openai/gpt-oss-120b"
            and row.setup.accelerator == "H100-SXM"
            and row.setup.concurrency == 512
        ),
    ),
)


def exclusion_of(row: Measurement) -> Exclusion | None:
    """Why a row is left out of the fit; None where it is not."""
    return next((one for one in EXCLUSIONS if one.applies(row)), None)
