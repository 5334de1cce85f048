"""Compiled: what a step takes in, the prefill under way first and then those who wait."""

from __future__ import annotations

import math

from advisor.serving.blocks import blocks_of, forget_ended, held, held_at_most, make_room
from advisor.serving.compiled import inlined
from advisor.serving.layout import (
    ADMITTED,
    ADMITTED_END,
    ALLOCATED,
    BACK,
    BACK_BLOCKS,
    BACK_FULL,
    BACK_LOST,
    BACK_MADE,
    BLOCK,
    BUDGET,
    CHUNKED,
    CLOCK,
    CONTEXT,
    DECODING,
    ENDED_BLOCKS,
    ENDED_SEATS,
    HEAD,
    JOINING,
    JOINING_MADE,
    JOINING_SEAT,
    LAST_JOINING,
    LAST_RETURNED,
    MAX_SEQS,
    MORTAL,
    NOW,
    ORDER,
    PARTIAL,
    PARTIAL_DONE,
    PARTIAL_LAST,
    PARTIAL_MADE,
    PARTIAL_TARGET,
    POOL,
    PREFILLING,
    RETURNED,
    SEEN,
    SHARED,
    WHOLE_PROMPT_FITS,
    WINDOW,
    Costs,
    Engine,
    Load,
)


@inlined
def _running_needs(costs: Costs, load: Load, engine: Engine) -> tuple[int, int, int]:
    """What the running requests ask of a step.

    Returns:
        Blocks that they open, tokens of the prefill under way, blocks held beside `held`.
    """
    state, block = engine.state, costs.settings[BLOCK]
    need = engine.phases[(1 - state[CLOCK]) % block]
    beside = state[ENDED_BLOCKS] - state[SHARED]
    chunk = 0
    if state[PARTIAL] >= 0:
        done = state[PARTIAL_DONE]
        chunk = min(state[PARTIAL_TARGET] - done, costs.settings[BUDGET] - state[DECODING])
        before = blocks_of(done, block)
        need += blocks_of(done + chunk, block) - before
        beside += before - load.cached[state[PARTIAL]] // block
    return need, chunk, beside


@inlined
def serve_running(costs: Costs, load: Load, engine: Engine) -> tuple[int, int, int, bool, bool]:
    """Give the running requests the blocks they need, preempting some if there are too few.

    Returns:
        Free blocks left, blocks given out, tokens of the prefill under way, whether the free
        blocks are exact (else a lower bound), whether anyone was preempted.
    """
    state, block, pool = engine.state, costs.settings[BLOCK], costs.settings[POOL]
    need, chunk, beside = _running_needs(costs, load, engine)
    free = pool - beside - held_at_most(state[CONTEXT], state[DECODING], block) - need
    if free >= 0:
        return free, need, chunk, False, False
    free = pool - beside
    free -= held(state[CONTEXT], state[DECODING], state[CLOCK], engine.phases, block)
    if need <= free:
        return free - need, need, chunk, True, False
    make_room(free, costs, load, engine)
    need, chunk, beside = _running_needs(costs, load, engine)
    free = pool - beside - need
    free -= held(state[CONTEXT], state[DECODING], state[CLOCK], engine.phases, block)
    return free, need, chunk, True, True


@inlined
def capped_pairs(past: int, count: int, window: int) -> int:
    """Σ over `count` tokens after `past` of min(position, window), positions from 1."""
    below = min(max(window - past, 0), count)
    return below * past + below * (below + 1) // 2 + (count - below) * window


@inlined
def continue_prefill(chunk: int, costs: Costs, load: Load, engine: Engine) -> tuple[int, int, int]:
    """Let the prefill under way have its tokens.

    Returns:
        Prefills that end in this step, attended pairs, the same capped at the window.
    """
    state, rows, window = engine.state, engine.rows, costs.settings[WINDOW]
    if chunk == 0:
        return 0, 0, 0
    done = state[PARTIAL_DONE]
    windowed_pairs = capped_pairs(done, chunk, window) if window > 0 else 0
    state[PARTIAL_DONE] = done + chunk
    joining = 0
    if done + chunk == state[PARTIAL_TARGET]:
        rows[JOINING, 0], rows[JOINING_MADE, 0] = state[PARTIAL], state[PARTIAL_MADE]
        rows[JOINING_SEAT, 0] = state[ORDER] - 1
        engine.last_s[LAST_JOINING, 0] = engine.moments[PARTIAL_LAST]
        state[PARTIAL] = -1
        joining = 1
    return joining, chunk * done + chunk * (chunk + 1) // 2, windowed_pairs


@inlined
def _blocks_kept(engine: Engine) -> int:
    """Own blocks that the preempted request which is next still finds in the prefix cache."""
    rows, last = engine.rows, engine.state[RETURNED] - 1
    lost = max(engine.state[ALLOCATED] - rows[BACK_LOST, last], 0)
    return int(max(min(rows[BACK_BLOCKS, last] - lost, rows[BACK_FULL, last]), 0))


@inlined
def _leave_queue(who: int, costs: Costs, load: Load, engine: Engine) -> None:
    """Take the request that is next out of the queue, or off the preempted ones."""
    state = engine.state
    if state[RETURNED] > 0:
        state[RETURNED] -= 1
        return
    head = load.link[who]
    if costs.settings[MORTAL] != 0:
        while head >= 0 and load.cancelled[head] != 0:
            head = load.link[head]
    state[HEAD] = head


@inlined
def admit(
    chunk: int,
    joining: int,
    free: int,
    exact: bool,
    running: int,
    costs: Costs,
    load: Load,
    engine: Engine,
) -> tuple[int, int, int, int]:
    """Admit those who wait, in order, until one does not fit.

    Args:
        chunk, joining: what the prefill under way has taken, and whether it ends.
        free, exact: free blocks, or a lower bound of them.
        running: requests that run.

    Returns:
        Tokens taken in, prefills that end in this step (the one under way included), attended
        pairs, the same capped at the window.
    """
    state, rows, settings = engine.state, engine.rows, costs.settings
    block, window = settings[BLOCK], settings[WINDOW]
    left = settings[BUDGET] - state[DECODING] - chunk
    scheduled, pairs, windowed_pairs = 0, 0, 0
    if state[ORDER] > rows.shape[1] - settings[MAX_SEQS]:
        state[ORDER] = forget_ended(rows, state[ORDER], state[CLOCK], state[ENDED_SEATS] > 0)
        rows[JOINING_SEAT, 0] = state[ORDER] - 1
    while left > 0 and running + state[ENDED_SEATS] < settings[MAX_SEQS]:
        made, kept, last_s = 0, 0, 0.0
        back = state[RETURNED] - 1
        if back >= 0:
            who, made = rows[BACK, back], rows[BACK_MADE, back]
            last_s, kept = engine.last_s[LAST_RETURNED, back], _blocks_kept(engine)
        else:
            who = state[HEAD]
            if who < 0 or load.arrival_s[who] > engine.moments[SEEN]:
                break
        target, hit = load.inputs[who] + made, load.cached[who] + kept * block
        shared = load.cached[who] // block
        missing = target - hit
        if missing > left and settings[CHUNKED] == 0:
            break
        count = min(missing, left)
        own = blocks_of(hit + count, block) - shared
        needed = blocks_of(target, block) - shared if settings[WHOLE_PROMPT_FITS] != 0 else own
        if needed > free and not exact:
            free += held_at_most(state[CONTEXT], state[DECODING], block)
            free -= held(state[CONTEXT], state[DECODING], state[CLOCK], engine.phases, block)
            exact = True
        if needed > free:
            break
        free -= own
        left -= count
        running += 1
        scheduled += count
        state[ALLOCATED] += own - kept
        pairs += count * hit + count * (count + 1) // 2
        if window > 0:
            windowed_pairs += capped_pairs(hit, count, window)
        seat = state[ORDER]
        rows[ADMITTED, seat], rows[ADMITTED_END, seat] = who, PREFILLING
        state[ORDER] = seat + 1
        _leave_queue(who, costs, load, engine)
        if math.isnan(load.scheduled_s[who]):
            load.scheduled_s[who] = engine.moments[NOW]
        if count == missing:
            rows[JOINING, joining], rows[JOINING_MADE, joining] = who, made
            rows[JOINING_SEAT, joining] = seat
            engine.last_s[LAST_JOINING, joining] = last_s
            joining += 1
        else:
            state[PARTIAL], state[PARTIAL_DONE] = who, hit + count
            state[PARTIAL_TARGET], state[PARTIAL_MADE] = target, made
            engine.moments[PARTIAL_LAST] = last_s
    return scheduled, joining, pairs, windowed_pairs
