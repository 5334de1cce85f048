"""Compiled: who holds KV blocks, who must give them up, and who leaves the engine early."""

from __future__ import annotations

import math

from advisor.serving.compiled import compiled, inlined
from advisor.serving.heaps import heap_remove
from advisor.serving.layout import (
    ADMITTED,
    ADMITTED_END,
    ALLOCATED,
    ASYNC,
    BACK,
    BACK_BLOCKS,
    BACK_FULL,
    BACK_LOST,
    BACK_MADE,
    BLOCK,
    BUDGET,
    CACHING,
    CLOCK,
    CONTEXT,
    DECODING,
    ENDED_BLOCKS,
    ENDED_SEATS,
    ENDS,
    FILL_STEPS,
    FILLS,
    GROWING,
    HEAD,
    JOINING,
    LAST_RETURNED,
    NOW,
    ORDER,
    PARTIAL,
    PARTIAL_DONE,
    PARTIAL_LAST,
    PARTIAL_MADE,
    PARTIAL_TARGET,
    PREFILLING,
    RETURNED,
    SHARED,
    WINDOW,
    WINDOWED,
    Costs,
    Engine,
    IntArray,
    Load,
)


@inlined
def blocks_of(tokens: int, block: int) -> int:
    """Blocks that hold some tokens."""
    return (tokens + block - 1) // block


@inlined
def held_at_most(context: int, decoding: int, block: int) -> int:
    """An upper bound of `held`: as if every sequence had opened its last block just now."""
    return (context + decoding * (block - 2)) // block


@compiled
def held(context: int, decoding: int, clock: int, phases: IntArray, block: int) -> int:
    """Blocks that hold the decoding sequences, the shared ones counted for each.

    Σ ceil(x/b) = (Σ x + Σ padding)/b with x the stored tokens, one less than the next context;
    the paddings follow from `phases`, which decoding leaves alone.
    """
    total = context - decoding
    for phase in range(block):
        if phases[phase] > 0:
            over = (phase + clock - 1) % block
            if over > 0:
                total += phases[phase] * (block - over)
    return total // block


@compiled
def forget_ended(rows: IntArray, entries: int, clock: int, keep_last: bool) -> int:
    """Drop what has ended from the order of admission; returns the number of entries left.

    `keep_last` keeps what ended in the last step, which asynchronously is still seated.
    """
    kept = 0
    for position in range(entries):
        end = rows[ADMITTED_END, position]
        if end == PREFILLING or end > clock or (keep_last and end == clock):
            rows[ADMITTED, kept] = rows[ADMITTED, position]
            rows[ADMITTED_END, kept] = end
            kept += 1
    return kept


@compiled
def make_room(free: int, costs: Costs, load: Load, engine: Engine) -> None:
    """Serve running requests in order of admission, preempting from the other end.

    Called when the blocks do not suffice for all of them; `free` counts the free ones.
    """
    state, rows = engine.state, engine.rows
    block, clock = costs.settings[BLOCK], state[CLOCK]
    state[ORDER] = forget_ended(rows, state[ORDER], clock, state[ENDED_SEATS] > 0)
    position, budget, given = 0, costs.settings[BUDGET], state[ALLOCATED]
    while position < state[ORDER] and budget > 0:
        who, end = rows[ADMITTED, position], rows[ADMITTED_END, position]
        if end == clock:
            position += 1
            continue
        tokens, need = 1, 0
        if end == PREFILLING:
            done = state[PARTIAL_DONE]
            tokens = min(state[PARTIAL_TARGET] - done, budget)
            need = blocks_of(done + tokens, block) - blocks_of(done, block)
        elif (load.inputs[who] + load.outputs[who] - (end - clock) - 1) % block == 0:
            need = 1
        while need > free and state[ORDER] > position:
            free += _preempt_last(given + free, costs, load, engine)
        if state[ORDER] == position:
            return
        free -= need
        given += need
        budget -= tokens
        position += 1


@compiled
def _preempt_last(lost: int, costs: Costs, load: Load, engine: Engine) -> int:
    """Preempt the running request admitted last; returns the blocks that it held.

    They are given out again once `lost` blocks have been given out in all.
    """
    state, rows = engine.state, engine.rows
    block, clock = costs.settings[BLOCK], state[CLOCK]
    state[ORDER] -= 1
    who, end = rows[ADMITTED, state[ORDER]], rows[ADMITTED_END, state[ORDER]]
    shared = load.cached[who] // block
    if end == clock:  # it ended in the step that runs, and only gives its blocks up early
        given_up: int = blocks_of(load.inputs[who] + load.outputs[who] - 1, block) - shared
        state[ENDED_SEATS] -= 1
        state[ENDED_BLOCKS] -= given_up
        return given_up
    back = state[RETURNED]
    state[RETURNED] += 1
    rows[BACK, back], rows[BACK_LOST, back] = who, lost
    load.preemptions[who] += 1
    if end == PREFILLING:
        rows[BACK_MADE, back] = state[PARTIAL_MADE]
        engine.last_s[LAST_RETURNED, back] = engine.moments[PARTIAL_LAST]
        known = state[PARTIAL_DONE]
        given_up = blocks_of(known, block) - shared
        state[PARTIAL] = -1
    else:
        made = load.outputs[who] - (end - clock)
        rows[BACK_MADE, back] = made
        engine.last_s[LAST_RETURNED, back] = engine.moments[NOW]
        # The token of the step that runs is not known yet, so its block is not findable.
        known = load.inputs[who] + made - 1 - costs.settings[ASYNC]
        given_up = _leave_decoding(who, end, costs, load, engine)
    rows[BACK_BLOCKS, back] = given_up
    rows[BACK_FULL, back] = known // block - shared if costs.settings[CACHING] else 0
    return given_up


@compiled
def _leave_decoding(who: int, end: int, costs: Costs, load: Load, engine: Engine) -> int:
    """Take a request out of the decoding ones before its end; returns the blocks it held."""
    state = engine.state
    block, window = costs.settings[BLOCK], costs.settings[WINDOW]
    context = load.inputs[who] + load.outputs[who] - (end - state[CLOCK])
    shared = load.cached[who] // block
    heap_remove(engine.rows[ENDS], state[DECODING], who)
    state[DECODING] -= 1
    state[CONTEXT] -= context
    state[SHARED] -= shared
    engine.phases[(context - state[CLOCK]) % block] -= 1
    if window > 0:
        state[FILLS] = heap_remove(engine.rows[FILL_STEPS], state[FILLS], who)
        state[WINDOWED] -= min(context, window)
        state[GROWING] -= context < window
    given_up: int = blocks_of(context - 1, block) - shared
    return given_up


@compiled
def cancel(who: int, costs: Costs, load: Load, engine: Engine) -> bool:
    """Take a request out of the engine, wherever it is; False where it has ended already."""
    state, rows = engine.state, engine.rows
    if math.isnan(load.scheduled_s[who]):
        load.cancelled[who] = 1
        head = state[HEAD]
        while head >= 0 and load.cancelled[head] != 0:
            head = load.link[head]
        state[HEAD] = head
        return True
    for position in range(state[RETURNED]):
        if rows[BACK, position] == who:
            state[RETURNED] -= 1
            for above in range(position, state[RETURNED]):
                for row in range(BACK, JOINING):
                    rows[row, above] = rows[row, above + 1]
                engine.last_s[LAST_RETURNED, above] = engine.last_s[LAST_RETURNED, above + 1]
            return True
    for position in range(state[ORDER]):
        end = rows[ADMITTED_END, position]
        if rows[ADMITTED, position] == who and (end == PREFILLING or end > state[CLOCK]):
            state[ORDER] -= 1
            for above in range(position, state[ORDER]):
                rows[ADMITTED, above] = rows[ADMITTED, above + 1]
                rows[ADMITTED_END, above] = rows[ADMITTED_END, above + 1]
            if end == PREFILLING:
                state[PARTIAL] = -1
            else:
                _leave_decoding(who, end, costs, load, engine)
            return True
    return False
