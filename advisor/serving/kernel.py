"""The compiled scheduler: `advisor.serving.reference`, in jumps from event to event.

Between two events (an arrival that can be admitted, a completion, a window that fills, the last
free block) the batch decodes unchanged: k steps take k·T + slope·k(k − 1)/2 seconds, T the first
and slope what one more token of context in every sequence adds. So a run costs per event, not per
step, and is exact: with dyadic step times bit by bit, otherwise up to rounding.

An engine is a handful of flat arrays (`advisor.serving.layout`) that `advance` takes up to a point
in time; whoever owns several engines moves them along one clock.
"""

from __future__ import annotations

import math

from advisor.serving.admission import admit, continue_prefill, serve_running
from advisor.serving.blocks import blocks_of, forget_ended, held, held_at_most
from advisor.serving.compiled import compiled, inlined
from advisor.serving.heaps import WHO_BITS, WHO_MASK, add_gaps, heap_pop, heap_push
from advisor.serving.layout import (
    ADMITTED_END,
    ALLOCATED,
    ASYNC,
    BLOCK,
    BUSY,
    CLOCK,
    CLOSED,
    CONTEXT,
    DECODE_TIME,
    DECODING,
    ENDED_BLOCKS,
    ENDED_SEATS,
    ENDS,
    FILL_STEPS,
    FILLS,
    FINISHED,
    FINISHED_NOW,
    FINISHED_SEEN,
    GROWING,
    HEAD,
    JOINING,
    JOINING_MADE,
    JOINING_SEAT,
    KV,
    KV_TIME,
    LAST_JOINING,
    MAX_SEQS,
    MIXED,
    NOW,
    ORDER,
    PARTIAL,
    PARTIAL_DONE,
    PEAK_BLOCKS,
    PREFILL,
    PREFILLING,
    RETURNED,
    SEEN,
    SHARED,
    STEPS,
    TAIL,
    THINK,
    UNISSUED,
    WINDOW,
    WINDOW_KV,
    WINDOW_PREFILL,
    WINDOWED,
    Costs,
    Engine,
    FloatArray,
    IntArray,
    Load,
)

REBASE_AT = 1 << 30


@compiled
def advance(
    limit: float, until_seen: bool, stop: IntArray, costs: Costs, load: Load, engine: Engine
) -> None:
    """Make every step of one engine that begins before `limit` seconds.

    Args:
        until_seen: make instead every step that is scheduled before anyone can know of what
            happens at `limit`; the same thing where scheduling is synchronous.
        stop: returns at the next event once its one entry is not 0.
    """
    state, moments = engine.state, engine.moments
    while (moments[SEEN] if until_seen else moments[NOW]) < limit and stop[0] == 0:
        head = state[HEAD]
        visible = state[RETURNED] > 0 or (head >= 0 and load.arrival_s[head] <= moments[SEEN])
        if state[DECODING] == 0 and state[PARTIAL] < 0 and not visible:
            if state[ENDED_SEATS] > 0 or moments[SEEN] < moments[NOW]:
                _schedule_at_the_end(state, moments)
            elif head >= 0 and load.arrival_s[head] < limit:
                moments[NOW] = moments[SEEN] = max(moments[NOW], load.arrival_s[head])
            else:
                break
            continue
        free, need, chunk, exact, preempted = serve_running(costs, load, engine)
        state[ALLOCATED] += need
        running = state[DECODING] + (state[PARTIAL] >= 0)
        joining, pairs, windowed_pairs = continue_prefill(chunk, costs, load, engine)
        scheduled = chunk
        if visible and not preempted:
            taken, joining, more, windowed_more = admit(
                chunk, joining, free, exact, running, costs, load, engine
            )
            scheduled += taken
            pairs += more
            windowed_pairs += windowed_more
        if scheduled > 0:
            rates, tokens = costs.rates, state[DECODING] + scheduled
            first_s = costs.token_s[tokens] + costs.sample_s[state[DECODING] + joining]
            first_s += rates[MIXED] + rates[KV] * state[CONTEXT] + rates[PREFILL] * pairs
            first_s += rates[WINDOW_KV] * state[WINDOWED] + rates[WINDOW_PREFILL] * windowed_pairs
            slope_s, steps = 0.0, 1
        elif state[DECODING] == 0:
            _schedule_at_the_end(state, moments)
            continue
        else:
            first_s, slope_s = _decode_step(costs, state)
            most = 1
            if not (preempted or state[PARTIAL] >= 0 or (visible and state[ENDED_SEATS] > 0)):
                most = _undisturbed(free + need, exact, costs, engine)
            steps = most
            if most > 1:
                if head >= 0 and not visible and state[DECODING] < costs.settings[MAX_SEQS]:
                    lag = costs.settings[ASYNC]
                    steps = lag + _steps_to(
                        load.arrival_s[head], moments[NOW], first_s, slope_s, most - lag
                    )
                if limit < math.inf:
                    enough = _steps_to(limit, moments[NOW], first_s, slope_s, most)
                    if until_seen:
                        enough += costs.settings[ASYNC]
                    steps = min(steps, enough)
                steps = max(steps, 1)
                if steps > 1 and state[RETURNED] > 0:
                    _count_given_out(steps, need, costs, engine)
        _pass(first_s, slope_s, steps, joining, costs, load, engine)
        _end(joining, costs, load, engine)


@inlined
def _schedule_at_the_end(state: IntArray, moments: FloatArray) -> None:
    """Nothing could be scheduled while the last step ran: schedule again at its end."""
    moments[SEEN] = moments[NOW]
    state[ENDED_SEATS] = state[ENDED_BLOCKS] = 0


@inlined
def _decode_step(costs: Costs, state: IntArray) -> tuple[float, float]:
    """Seconds of a step that only decodes, and what each further one takes longer."""
    rates, decoding = costs.rates, state[DECODING]
    first_s = costs.token_s[decoding] + costs.sample_s[decoding] + rates[KV] * state[CONTEXT]
    first_s += rates[WINDOW_KV] * state[WINDOWED]
    return first_s, rates[KV] * decoding + rates[WINDOW_KV] * state[GROWING]


@inlined
def _undisturbed(free: int, exact: bool, costs: Costs, engine: Engine) -> int:
    """Decode steps until the first completion, full window or lack of blocks.

    `free` counts the blocks free before the first of them, whose needs are met.
    """
    state, rows, block = engine.state, engine.rows, costs.settings[BLOCK]
    clock, decoding = state[CLOCK], state[DECODING]
    most = (rows[ENDS, 0] >> WHO_BITS) - clock
    if state[FILLS] > 0:
        most = min(most, (rows[FILL_STEPS, 0] >> WHO_BITS) - clock)
    # What ended in the last step gives its blocks up after this one is scheduled.
    free += state[ENDED_BLOCKS]
    if (most // block + 1) * decoding > free:
        if not exact:
            free += held_at_most(state[CONTEXT], decoding, block)
            free -= held(state[CONTEXT], decoding, clock, engine.phases, block)
        # Every sequence opens one block in each cycle of `block` steps.
        room = free // decoding * block
        free %= decoding
        while room < most and free >= engine.phases[(1 - clock - room) % block]:
            free -= engine.phases[(1 - clock - room) % block]
            room += 1
        most = max(min(most, room), 1)
    return int(most)


@inlined
def _run_s(first_s: float, slope_s: float, steps: int) -> float:
    return steps * first_s + slope_s * (0.5 * steps * (steps - 1))


@compiled
def _steps_to(moment: float, now: float, first_s: float, slope_s: float, most: int) -> int:
    """Least number of steps, at most `most`, after which the clock shows `moment` or later."""
    if moment <= now:
        return 0
    if now + _run_s(first_s, slope_s, most) < moment:
        return most
    distance = moment - now
    # The positive root of slope/2·k² + (first − slope/2)·k = distance, in the form that keeps
    # its digits when the slope is small; floating point may be one off, which the loops mend.
    linear = first_s - 0.5 * slope_s
    root = 2.0 * distance / (linear + math.sqrt(linear * linear + 2.0 * slope_s * distance))
    steps = min(max(int(root), 1), most)
    while steps > 1 and now + _run_s(first_s, slope_s, steps - 1) >= moment:
        steps -= 1
    while steps < most and now + _run_s(first_s, slope_s, steps) < moment:
        steps += 1
    return steps


@inlined
def _count_given_out(steps: int, need: int, costs: Costs, engine: Engine) -> None:
    """Count the blocks that a run gives out beyond those of its first step, counted already."""
    state, block = engine.state, costs.settings[BLOCK]
    decoding, clock = state[DECODING], state[CLOCK]
    before = held(state[CONTEXT], decoding, clock, engine.phases, block)
    context = state[CONTEXT] + steps * decoding
    after = held(context, decoding, clock + steps, engine.phases, block)
    state[ALLOCATED] += after - before - need


@inlined
def _pass(
    first_s: float,
    slope_s: float,
    steps: int,
    joining: int,
    costs: Costs,
    load: Load,
    engine: Engine,
) -> None:
    """Let some steps pass: the clock, the integrals, the gaps and the peak of the KV cache."""
    state, moments, block = engine.state, engine.moments, costs.settings[BLOCK]
    took_s, decoding = _run_s(first_s, slope_s, steps), state[DECODING]
    if costs.settings[ASYNC] != 0:
        moments[SEEN] = moments[NOW] + _run_s(first_s, slope_s, steps - 1)
    moments[NOW] += took_s
    if costs.settings[ASYNC] == 0:
        moments[SEEN] = moments[NOW]
    moments[BUSY] += took_s
    state[STEPS] += steps
    if decoding > 0:
        add_gaps(engine.gaps, first_s, slope_s, steps, decoding)
        moments[DECODE_TIME] += decoding * took_s
        triangle = 0.5 * steps * (steps - 1)
        pyramid = triangle * (2 * steps - 1) / 3.0
        grown = decoding * (first_s * triangle + slope_s * pyramid)
        moments[KV_TIME] += state[CONTEXT] * took_s + grown
    if state[ENDED_BLOCKS] > 0 and steps > 1:
        # What ended is held for the first step of the run only.
        beside = state[ENDED_BLOCKS] - state[SHARED]
        _note_peak(beside, state[CONTEXT] + decoding, state[CLOCK] + 1, block, engine)
        state[ENDED_BLOCKS] = 0
    state[CONTEXT] += steps * decoding
    state[WINDOWED] += steps * state[GROWING]
    state[CLOCK] += steps
    beside = state[ENDED_BLOCKS] - state[SHARED]
    if state[PARTIAL] >= 0:
        beside += blocks_of(state[PARTIAL_DONE], block)
        beside -= load.cached[state[PARTIAL]] // block
    for position in range(joining):
        who = engine.rows[JOINING, position]
        beside += blocks_of(load.inputs[who] + engine.rows[JOINING_MADE, position], block)
        beside -= load.cached[who] // block
    _note_peak(beside, state[CONTEXT], state[CLOCK], block, engine)
    state[ENDED_SEATS] = state[ENDED_BLOCKS] = 0
    held_over = costs.settings[ASYNC] != 0 and steps == 1
    state[FINISHED_SEEN] = state[FINISHED_NOW] if held_over else 0
    state[FINISHED_NOW] = 0


@inlined
def _note_peak(beside: int, context: int, clock: int, block: int, engine: Engine) -> None:
    """Remember the most blocks held at a time."""
    state = engine.state
    if beside + held_at_most(context, state[DECODING], block) > state[PEAK_BLOCKS]:
        now_held = beside + held(context, state[DECODING], clock, engine.phases, block)
        state[PEAK_BLOCKS] = max(state[PEAK_BLOCKS], now_held)


@inlined
def _end(joining: int, costs: Costs, load: Load, engine: Engine) -> None:
    """What comes with the end of a step: full windows, ends, first tokens."""
    state, rows = engine.state, engine.rows
    clock = state[CLOCK]
    while state[FILLS] > 0 and rows[FILL_STEPS, 0] >> WHO_BITS == clock:
        state[FILLS] = heap_pop(rows[FILL_STEPS], state[FILLS])
        state[GROWING] -= 1
    while state[DECODING] > 0 and rows[ENDS, 0] >> WHO_BITS == clock:
        who = rows[ENDS, 0] & WHO_MASK
        state[DECODING] = heap_pop(rows[ENDS], state[DECODING])
        _stop_counting(who, costs, load, engine)
        _finish(who, costs, load, engine)
    for position in range(joining):
        _join(position, costs, load, engine)
    if clock > REBASE_AT:
        _rebase(engine, costs.settings[BLOCK])


@inlined
def _stop_counting(who: int, costs: Costs, load: Load, engine: Engine) -> None:
    """Take a request that ends out of the sums over decoding ones."""
    state, block, window = engine.state, costs.settings[BLOCK], costs.settings[WINDOW]
    context = load.inputs[who] + load.outputs[who]
    state[CONTEXT] -= context
    state[SHARED] -= load.cached[who] // block
    engine.phases[(context - state[CLOCK]) % block] -= 1
    if window > 0:
        state[WINDOWED] -= min(context, window)
        state[GROWING] -= context < window


@inlined
def _finish(who: int, costs: Costs, load: Load, engine: Engine) -> None:
    """Note the end of a request; asynchronously its seat and blocks are held for one step more."""
    state, block = engine.state, costs.settings[BLOCK]
    load.finish_s[who] = engine.moments[NOW]
    state[FINISHED] += 1
    state[FINISHED_NOW] += 1
    if costs.settings[ASYNC] != 0:
        state[ENDED_SEATS] += 1
        state[ENDED_BLOCKS] += blocks_of(load.inputs[who] + load.outputs[who] - 1, block)
        state[ENDED_BLOCKS] -= load.cached[who] // block
    if costs.settings[CLOSED] != 0 and state[UNISSUED] >= 0:
        _issue(engine.moments[NOW] + costs.rates[THINK], state, load)


@inlined
def _join(position: int, costs: Costs, load: Load, engine: Engine) -> None:
    """The first token of a prefill that ends, or the next after a preemption; then it decodes."""
    state, rows, moments = engine.state, engine.rows, engine.moments
    block, window, clock = costs.settings[BLOCK], costs.settings[WINDOW], state[CLOCK]
    who, made = rows[JOINING, position], rows[JOINING_MADE, position] + 1
    if made == 1:
        load.first_s[who] = moments[NOW]
    else:
        gap_s = moments[NOW] - engine.last_s[LAST_JOINING, position]
        add_gaps(engine.gaps, gap_s, 0.0, 1, 1)
    end = clock + load.outputs[who] - made
    rows[ADMITTED_END, rows[JOINING_SEAT, position]] = end
    if end == clock:
        _finish(who, costs, load, engine)
        return
    context = load.inputs[who] + made
    state[DECODING] = heap_push(rows[ENDS], state[DECODING], (end << WHO_BITS) | who)
    state[CONTEXT] += context
    state[SHARED] += load.cached[who] // block
    engine.phases[(context - clock) % block] += 1
    if window > 0:
        state[WINDOWED] += min(context, window)
        if context < window:
            state[GROWING] += 1
            fill = clock + window - context
            if fill <= end:
                packed = (fill << WHO_BITS) | who
                state[FILLS] = heap_push(rows[FILL_STEPS], state[FILLS], packed)


@compiled
def _rebase(engine: Engine, block: int) -> None:
    """Count steps from now, so that packed entries never overflow."""
    state, rows = engine.state, engine.rows
    state[ORDER] = forget_ended(rows, state[ORDER], state[CLOCK], True)
    shift = state[CLOCK] // block * block
    state[CLOCK] -= shift
    for position in range(state[DECODING]):
        rows[ENDS, position] -= shift << WHO_BITS
    for position in range(state[FILLS]):
        rows[FILL_STEPS, position] -= shift << WHO_BITS
    for position in range(state[ORDER]):
        if rows[ADMITTED_END, position] != PREFILLING:
            rows[ADMITTED_END, position] -= shift


@compiled
def _issue(when_s: float, state: IntArray, load: Load) -> None:
    """Let the next request of a closed loop arrive."""
    who = state[UNISSUED]
    state[UNISSUED] = who + 1 if who + 1 < len(load.arrival_s) else -1
    load.arrival_s[who] = when_s
    push(who, state, load.link)


@compiled
def push(who: int, state: IntArray, link: IntArray) -> None:
    """Append a request to the engine's queue; its arrival must not precede the last one's."""
    link[who] = -1
    if state[HEAD] < 0:
        state[HEAD] = who
    else:
        link[state[TAIL]] = who
    state[TAIL] = who


@compiled
def in_system(moment: float, pushed: int, state: IntArray, moments: FloatArray) -> int:
    """Requests inside an engine at a moment up to which (and no further) it was advanced."""
    finished = state[FINISHED]
    if moments[NOW] > moment:
        finished -= state[FINISHED_NOW]
    if moments[SEEN] > moment and moments[SEEN] < moments[NOW]:
        finished -= state[FINISHED_SEEN]
    return int(pushed - finished)
