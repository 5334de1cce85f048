"""Engine settings by their vLLM names, with vLLM's own defaults for an accelerator and version."""

from __future__ import annotations

import re

from pydantic import Field, PositiveInt, model_validator

from advisor.catalog.accelerators import AcceleratorSpec
from advisor.errors import InputError
from advisor.records import Record

GIB = 2**30

NEWEST_VERSION = (0, 32)
"""vLLM version (major, minor) whose defaults hold where none is named."""


class EngineSettings(Record):
    """What `vllm serve` takes and the simulator obeys, by vLLM's names (dashes as underscores)."""

    max_num_seqs: PositiveInt
    """Requests that run at a time."""
    max_num_batched_tokens: PositiveInt
    """Token budget of one step, prefill and decode together."""
    block_size: PositiveInt = 16
    """Tokens in a KV-cache block."""
    enable_chunked_prefill: bool = True
    """Prompts longer than what is left of the budget are split over steps."""
    enable_prefix_caching: bool = True
    """Prompt beginnings already in the cache are not computed again."""
    gpu_memory_utilization: float = Field(default=0.92, gt=0, le=1)
    """Share of the accelerator's memory that the engine may fill."""
    max_model_len: PositiveInt | None = None
    """Longest prompt plus answer, tokens; None: the model's own."""
    async_scheduling: bool = True
    """A step is scheduled while the one before it runs: the host's work is hidden, and what
    arrives or ends during a step takes effect one step later."""
    scheduler_reserve_full_isl: bool = True
    """A request is admitted only when its whole prompt fits the free KV blocks, not just its
    first chunk."""

    @model_validator(mode="after")
    def _budget_covers_the_batch(self) -> EngineSettings:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least "
                f"max_num_seqs ({self.max_num_seqs}), as vLLM requires"
            )
        return self


def vllm_defaults(
    accelerator: AcceleratorSpec,
    *,
    api_server: bool = True,
    engine_version: str | None = None,
    max_model_len: int | None = None,
) -> EngineSettings:
    """The settings vLLM chooses itself for one accelerator.

    Args:
        accelerator: decides by its memory, and by being an A100 or not.
        api_server: `vllm serve`; False for the offline `LLM` class, which gets a larger budget.
        engine_version: e.g. `0.19.0`; None: the newest known here (0.32).
        max_model_len: passed through; without a limit here the model's own applies.

    Raises:
        InputError: a version that cannot be read.

    Source: vllm/engine/arg_utils.py `get_batch_defaults`, vllm/config/{scheduler,cache,vllm}.py of
    vLLM 0.11, 0.13, 0.14, 0.17–0.20, 0.24, 0.28 and 0.32 (Apache-2.0). Asynchronous scheduling is
    the default from 0.14 on, `scheduler_reserve_full_isl` from 0.19, memory utilisation 0.92
    instead of 0.9 from 0.20, and the budget of 16,384 for 160 GiB from 0.28 (absent in 0.24).
    """
    version = _parsed(engine_version)
    memory = accelerator.memory_bytes
    seqs, served, offline = 256, 2048, 8192
    if memory >= 160 * GIB and version >= (0, 28):
        seqs, served, offline = 1024, 16384, 16384
    elif memory >= 70 * GIB and "a100" not in accelerator.id.lower():
        seqs, served, offline = 1024, 8192, 16384
    return EngineSettings(
        max_num_seqs=seqs,
        max_num_batched_tokens=served if api_server else offline,
        gpu_memory_utilization=0.92 if version >= (0, 20) else 0.9,
        max_model_len=max_model_len,
        async_scheduling=version >= (0, 14),
        scheduler_reserve_full_isl=version >= (0, 19),
    )


def _parsed(version: str | None) -> tuple[int, int]:
    """(major, minor) of a version string; a `v` in front and suffixes are allowed."""
    if version is None:
        return NEWEST_VERSION
    match = re.match(r"v?(\d+)\.(\d+)", version.strip())
    if match is None:
        raise InputError(f"engine_version = '{version}': a version such as 0.19.0 is expected")
    return int(match[1]), int(match[2])
