"""From a deployment and a load to what compiled code takes, refusing what cannot be served."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from advisor.errors import DoesNotFitError, InputError
from advisor.physics.step_cost import StepCost
from advisor.serving import layout
from advisor.serving.engine import EngineSettings
from advisor.serving.layout import Costs
from advisor.serving.workload import Requests

PREFIX_CACHE_SHARE = 0.5
"""Share of a replica's KV blocks that may keep prompt beginnings which requests share by group."""


def costs_of(step: StepCost, engine: EngineSettings, kv_blocks: int, requests: Requests) -> Costs:
    """An engine's settings; its pool is what shared prompt beginnings leave of the blocks."""
    settings = np.zeros(layout.SETTINGS, dtype=np.int64)
    settings[layout.MAX_SEQS] = engine.max_num_seqs
    settings[layout.BUDGET] = engine.max_num_batched_tokens
    settings[layout.BLOCK] = engine.block_size
    settings[layout.CHUNKED] = engine.enable_chunked_prefill
    settings[layout.ASYNC] = engine.async_scheduling
    settings[layout.WHOLE_PROMPT_FITS] = engine.scheduler_reserve_full_isl
    settings[layout.POOL] = kv_blocks - shared_blocks(engine, kv_blocks, requests)
    settings[layout.WINDOW] = step.window
    settings[layout.CACHING] = engine.enable_prefix_caching
    settings[layout.CLOSED] = requests.closed_loop is not None
    settings[layout.MORTAL] = requests.cancel_s is not None
    rates = np.zeros(layout.RATES)
    rates[layout.KV], rates[layout.PREFILL] = step.kv_s, step.prefill_s
    rates[layout.MIXED] = step.mixed_s
    rates[layout.WINDOW_KV] = step.window_kv_s
    rates[layout.WINDOW_PREFILL] = step.window_prefill_s
    rates[layout.THINK] = requests.closed_loop.think_s if requests.closed_loop else 0.0
    return Costs(settings, rates, step.token_s, step.sample_s)


def prefix_slots(engine: EngineSettings, kv_blocks: int, requests: Requests) -> int:
    """Prompt beginnings that a replica can keep; 0 where requests share none by group."""
    if requests.prefix_group is None or not engine.enable_prefix_caching:
        return 0
    blocks = int(requests.cached_tokens.max()) // engine.block_size
    groups = int(requests.prefix_group.max()) + 1
    if blocks == 0 or groups == 0:
        return 0
    return min(int(PREFIX_CACHE_SHARE * kv_blocks) // blocks, groups)


def shared_blocks(engine: EngineSettings, kv_blocks: int, requests: Requests) -> int:
    """Blocks of shared prompt beginnings, held once and for good."""
    if not engine.enable_prefix_caching:
        return 0
    blocks = int(requests.cached_tokens.max()) // engine.block_size
    if requests.prefix_group is None:
        return blocks
    return blocks * prefix_slots(engine, kv_blocks, requests)


def within_model_length(requests: Requests, max_model_len: int) -> Requests:
    """Answers end where the model's length does, as vLLM ends them."""
    longest = int(requests.input_tokens.max())
    if longest >= max_model_len:
        raise InputError(
            f"a prompt of {longest} tokens leaves no room for an answer within "
            f"max_model_len = {max_model_len}"
        )
    room = max_model_len - requests.input_tokens
    return replace(requests, output_tokens=np.minimum(requests.output_tokens, room))


def check(step: StepCost, engine: EngineSettings, kv_blocks: int, requests: Requests) -> None:
    """Refuse what no engine could serve.

    Raises:
        DoesNotFitError, InputError: as `simulate_engine`.
    """
    if len(step.token_s) <= engine.max_num_batched_tokens:
        raise InputError(
            f"the step cost is tabulated to {len(step.token_s) - 1} tokens; "
            f"max_num_batched_tokens is {engine.max_num_batched_tokens}"
        )
    if len(step.sample_s) <= engine.max_num_seqs:
        raise InputError(
            f"the step cost is tabulated to {len(step.sample_s) - 1} sequences; "
            f"max_num_seqs is {engine.max_num_seqs}"
        )
    rates = (step.kv_s, step.prefill_s, step.window_kv_s, step.window_prefill_s, step.mixed_s)
    if min(rates) < 0 or not all(map(math.isfinite, rates)):
        raise InputError("the rates of a step cost must be finite and at least 0")
    if np.any(requests.cached_tokens % engine.block_size):
        raise InputError(f"cached tokens come in whole blocks of {engine.block_size}")
    # The last token is sampled, never stored.
    longest = int((requests.input_tokens + requests.output_tokens).max()) - 1
    if not engine.enable_chunked_prefill and longest > engine.max_num_batched_tokens:
        raise InputError(
            f"without chunked prefill a request of {longest + 1} tokens needs "
            f"max_num_batched_tokens of at least {longest}, not {engine.max_num_batched_tokens}"
        )
    need = -(-longest // engine.block_size)
    if need > kv_blocks - shared_blocks(engine, kv_blocks, requests):
        raise DoesNotFitError(
            f"a request of {longest + 1} tokens needs {need} KV blocks of {engine.block_size}; "
            f"the deployment has {kv_blocks}"
        )
