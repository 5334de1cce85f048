"""The compiled scheduler: `advisor.serving.reference`, in jumps from event to event.

Between two events (an arrival that can be admitted, a completion, a window that fills, the last
free block) the batch decodes unchanged: k steps take k·T + slope·k(k − 1)/2 seconds, T the first
and slope what one more token of context in every sequence adds. So a run costs per event, not per
step, and is exact: with dyadic step times bit by bit, otherwise up to rounding.

An engine is a handful of flat arrays that `advance` takes up to a point in time; whoever owns
several engines moves them along one clock.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from advisor.serving.heaps import (
    WHO_BITS,
    WHO_MASK,
    add_gaps,
    heap_pop,
    heap_push,
    heap_remove,
)

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Settings of one engine, whole numbers.
(
    MAX_SEQS,
    BUDGET,
    BLOCK,
    CHUNKED,
    ASYNC,
    WHOLE_PROMPT_FITS,
    POOL,
    WINDOW,
    CACHING,
    CLOSED,
    MORTAL,  # requests may be cancelled
    SETTINGS,
) = range(12)

# Settings of one engine, seconds.
KV, PREFILL, MIXED, WINDOW_KV, WINDOW_PREFILL, THINK, RATES = range(7)

# State of one engine, whole numbers.
(
    HEAD,  # request at the front of the queue, -1: none is known
    TAIL,
    UNISSUED,  # next request of a closed loop, -1: none
    DECODING,
    CONTEXT,  # sum over decoding sequences of the context of their next token
    WINDOWED,  # the same, each capped at the window
    GROWING,  # decoding sequences whose next context lies below the window
    SHARED,  # blocks of shared prefix that decoding sequences see
    CLOCK,  # steps made, counted from when the engine last ran empty
    PARTIAL,  # request whose prefill is under way, -1: none
    PARTIAL_DONE,
    PARTIAL_TARGET,
    PARTIAL_MADE,  # tokens it had generated before it was preempted
    RETURNED,  # preempted requests that wait
    ORDER,  # entries in the order of admission
    FILLS,  # windows that will fill
    ENDED_SEATS,  # asynchronous: held by what ended in the last step
    ENDED_BLOCKS,
    ALLOCATED,  # blocks given out, kept while preempted requests wait
    FINISHED,
    FINISHED_NOW,  # of these, at NOW
    FINISHED_SEEN,  # and at SEEN, where that lies before NOW
    STEPS,
    PEAK_BLOCKS,
    STATE,
) = range(25)

# State of one engine, seconds.
(
    NOW,  # when the step to be scheduled begins
    SEEN,  # what arrived up to here can be scheduled
    PARTIAL_LAST,  # when the partial prefill made its last token before it was preempted
    BUSY,
    DECODE_TIME,  # integral of the number of decoding sequences, sequence-seconds
    KV_TIME,  # integral of the tokens in their contexts, token-seconds
    CLOCKS,
) = range(7)

REBASE_AT = 1 << 30
PREFILLING = -1

# Scratch arrays of one engine, rows of one matrix.
(
    ROW_ENDS,  # heap of completions
    ROW_FILLS,  # heap of windows that fill
    ROW_ORDER,  # requests in order of admission
    ROW_ORDER_END,  # the step after which each ends, PREFILLING before it decodes
    ROW_RETURNED,
    ROW_RETURNED_MADE,
    ROW_RETURNED_BLOCKS,  # blocks it had of its own
    ROW_RETURNED_FULL,  # of these, full and findable in the prefix cache
    ROW_RETURNED_LOST,  # value of ALLOCATED from which on they are given out, the last one first
    ROW_JOINING,
    ROW_JOINING_MADE,
    ROW_JOINING_SEAT,
    ROWS,
) = range(13)

LAST_RETURNED, LAST_JOINING, LAST_ROWS = range(3)


@njit(cache=True, nogil=True, inline="always")
def _blocks(tokens: int, block: int) -> int:
    return (tokens + block - 1) // block


@njit(cache=True, nogil=True)
def _held(context: int, decoding: int, clock: int, phases: IntArray, block: int) -> int:
    """Blocks that hold the decoding sequences, the shared ones counted for each.

    Σ ceil(x/b) = (Σ x + Σ padding)/b with x the stored tokens, one less than the next context;
    `phases` counts sequences by (next context − clock) mod b, which decoding leaves alone.
    """
    total = context - decoding
    for phase in range(block):
        if phases[phase] > 0:
            over = (phase + clock - 1) % block
            if over > 0:
                total += phases[phase] * (block - over)
    return total // block


@njit(cache=True, nogil=True, inline="always")
def _run_s(first_s: float, slope_s: float, steps: int) -> float:
    return steps * first_s + slope_s * (0.5 * steps * (steps - 1))


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True, inline="always")
def _capped_pairs(past: int, count: int, window: int) -> int:
    """Σ over `count` tokens after `past` of min(position, window), positions from 1."""
    below = min(max(window - past, 0), count)
    return below * past + below * (below + 1) // 2 + (count - below) * window


@njit(cache=True, nogil=True)
def _compact(rows: IntArray, entries: int, clock: int, keep_ended: bool) -> int:
    """Drop what ended from the order of admission; returns the number of entries left."""
    kept = 0
    for position in range(entries):
        end = rows[ROW_ORDER_END, position]
        if end == PREFILLING or end > clock or (keep_ended and end == clock):
            rows[ROW_ORDER, kept] = rows[ROW_ORDER, position]
            rows[ROW_ORDER_END, kept] = end
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def leave_decoding(
    who: int,
    end: int,
    settings: IntArray,
    state: IntArray,
    rows: IntArray,
    phases: IntArray,
    inputs: IntArray,
    outputs: IntArray,
    cached: IntArray,
) -> int:
    """Take a request out of the decoding ones before its end; returns the blocks it held."""
    block, window = settings[BLOCK], settings[WINDOW]
    context = inputs[who] + outputs[who] - (end - state[CLOCK])
    heap_remove(rows[ROW_ENDS], state[DECODING], who)
    state[DECODING] -= 1
    state[CONTEXT] -= context
    state[SHARED] -= cached[who] // block
    phases[(context - state[CLOCK]) % block] -= 1
    if window > 0:
        state[FILLS] = heap_remove(rows[ROW_FILLS], state[FILLS], who)
        state[WINDOWED] -= min(context, window)
        state[GROWING] -= context < window
    held: int = _blocks(context - 1, block) - cached[who] // block
    return held


@njit(cache=True, nogil=True)
def _make_room(
    free: int,
    settings: IntArray,
    state: IntArray,
    moments: FloatArray,
    rows: IntArray,
    last_s: FloatArray,
    phases: IntArray,
    inputs: IntArray,
    outputs: IntArray,
    cached: IntArray,
    preemptions: IntArray,
) -> None:
    """Serve running requests in order of admission, preempting from the other end.

    Called when the blocks do not suffice for all of them; `free` counts the free ones.
    """
    block, clock = settings[BLOCK], state[CLOCK]
    state[ORDER] = _compact(rows, state[ORDER], clock, state[ENDED_SEATS] > 0)
    position, budget, given = 0, settings[BUDGET], state[ALLOCATED]
    while position < state[ORDER] and budget > 0:
        who, end = rows[ROW_ORDER, position], rows[ROW_ORDER_END, position]
        if end == clock:
            position += 1
            continue
        tokens, need = 1, 0
        if end == PREFILLING:
            done = state[PARTIAL_DONE]
            tokens = min(state[PARTIAL_TARGET] - done, budget)
            need = _blocks(done + tokens, block) - _blocks(done, block)
        elif (inputs[who] + outputs[who] - (end - clock) - 1) % block == 0:
            need = 1
        while need > free and state[ORDER] > position:
            free += _preempt_last(
                given + free,
                settings,
                state,
                moments,
                rows,
                last_s,
                phases,
                inputs,
                outputs,
                cached,
                preemptions,
            )
        if state[ORDER] == position:
            return
        free -= need
        given += need
        budget -= tokens
        position += 1


@njit(cache=True, nogil=True)
def _preempt_last(
    lost: int,
    settings: IntArray,
    state: IntArray,
    moments: FloatArray,
    rows: IntArray,
    last_s: FloatArray,
    phases: IntArray,
    inputs: IntArray,
    outputs: IntArray,
    cached: IntArray,
    preemptions: IntArray,
) -> int:
    """Preempt the running request admitted last; returns the blocks that it held.

    They are given out again once `lost` blocks have been given out in all.
    """
    block, clock = settings[BLOCK], state[CLOCK]
    state[ORDER] -= 1
    who, end = rows[ROW_ORDER, state[ORDER]], rows[ROW_ORDER_END, state[ORDER]]
    if end == clock:  # it ended in the step that runs, and only gives its blocks up early
        held: int = _blocks(inputs[who] + outputs[who] - 1, block) - cached[who] // block
        state[ENDED_SEATS] -= 1
        state[ENDED_BLOCKS] -= held
        return held
    waiting = state[RETURNED]
    state[RETURNED] += 1
    rows[ROW_RETURNED, waiting] = who
    rows[ROW_RETURNED_LOST, waiting] = lost
    preemptions[who] += 1
    if end == PREFILLING:
        rows[ROW_RETURNED_MADE, waiting] = state[PARTIAL_MADE]
        last_s[LAST_RETURNED, waiting] = moments[PARTIAL_LAST]
        known = state[PARTIAL_DONE]
        held = _blocks(known, block) - cached[who] // block
        state[PARTIAL] = -1
    else:
        made = outputs[who] - (end - clock)
        rows[ROW_RETURNED_MADE, waiting] = made
        last_s[LAST_RETURNED, waiting] = moments[NOW]
        # The token of the step that runs is not known yet, so its block is not findable.
        known = inputs[who] + made - 1 - settings[ASYNC]
        held = leave_decoding(who, end, settings, state, rows, phases, inputs, outputs, cached)
    rows[ROW_RETURNED_BLOCKS, waiting] = held
    rows[ROW_RETURNED_FULL, waiting] = (
        known // block - cached[who] // block if settings[CACHING] else 0
    )
    return held


@njit(cache=True, nogil=True)
def _rebase(state: IntArray, rows: IntArray, block: int) -> None:
    """Count steps from now, so that packed entries never overflow."""
    state[ORDER] = _compact(rows, state[ORDER], state[CLOCK], True)
    shift = state[CLOCK] // block * block
    state[CLOCK] -= shift
    for position in range(state[DECODING]):
        rows[ROW_ENDS, position] -= shift << WHO_BITS
    for position in range(state[FILLS]):
        rows[ROW_FILLS, position] -= shift << WHO_BITS
    for position in range(state[ORDER]):
        if rows[ROW_ORDER_END, position] != PREFILLING:
            rows[ROW_ORDER_END, position] -= shift


@njit(cache=True, nogil=True)
def push(who: int, state: IntArray, link: IntArray) -> None:
    """Append a request to the engine's queue; its arrival must not precede the last one's."""
    link[who] = -1
    if state[HEAD] < 0:
        state[HEAD] = who
    else:
        link[state[TAIL]] = who
    state[TAIL] = who


@njit(cache=True, nogil=True)
def advance(
    limit: float,
    until_seen: bool,
    stop: IntArray,
    settings: IntArray,
    rates: FloatArray,
    token_s: FloatArray,
    sample_s: FloatArray,
    arrival_s: FloatArray,
    inputs: IntArray,
    outputs: IntArray,
    cached: IntArray,
    link: IntArray,
    cancelled: IntArray,
    scheduled_s: FloatArray,
    first_s: FloatArray,
    finish_s: FloatArray,
    preemptions: IntArray,
    state: IntArray,
    moments: FloatArray,
    rows: IntArray,
    last_s: FloatArray,
    phases: IntArray,
    gaps: IntArray,
) -> None:
    """Make every step of one engine that begins before `limit` seconds.

    Args:
        until_seen: make instead every step that is scheduled before anyone can know of what
            happens at `limit`; the same thing where scheduling is synchronous.
        stop: returns at the next event once its one entry is not 0.
        settings, rates: see the indices above.
        token_s, sample_s: tables of the step cost.
        arrival_s … cached, link: by request; `link` chains the queue, -1 ends it.
        cancelled: by request, 1 where it was cancelled while it waited; not read unless MORTAL.
        scheduled_s, first_s, finish_s, preemptions: results by request, filled in.
        state, moments, rows, last_s, phases: the engine.
        gaps: histogram of the time between tokens, added to.
    """
    max_seqs, budget, block = settings[MAX_SEQS], settings[BUDGET], settings[BLOCK]
    chunked, asynchronous = settings[CHUNKED] != 0, settings[ASYNC] != 0
    whole_prompt_fits, pool, window = (
        settings[WHOLE_PROMPT_FITS] != 0,
        settings[POOL],
        settings[WINDOW],
    )
    closed, mortal = settings[CLOSED] != 0, settings[MORTAL] != 0
    kv_s, prefill_s, mixed_s = rates[KV], rates[PREFILL], rates[MIXED]
    window_kv_s, window_prefill_s, think_s = (
        rates[WINDOW_KV],
        rates[WINDOW_PREFILL],
        rates[THINK],
    )
    ends, fills = rows[ROW_ENDS], rows[ROW_FILLS]
    entries_most = rows.shape[1] - max_seqs
    now, seen = moments[NOW], moments[SEEN]
    head, decoding, context, windowed = (
        state[HEAD],
        state[DECODING],
        state[CONTEXT],
        state[WINDOWED],
    )
    growing, shared, clock = state[GROWING], state[SHARED], state[CLOCK]
    ended_seats, ended_blocks = state[ENDED_SEATS], state[ENDED_BLOCKS]
    peak, allocated = state[PEAK_BLOCKS], state[ALLOCATED]
    finished, finished_now, finished_seen = (
        state[FINISHED],
        state[FINISHED_NOW],
        state[FINISHED_SEEN],
    )
    filling = state[FILLS]
    steps_made, busy_s, decode_time, kv_time = 0, 0.0, 0.0, 0.0

    while (seen if until_seen else now) < limit and stop[0] == 0:
        visible = state[RETURNED] > 0 or (head >= 0 and arrival_s[head] <= seen)
        partial = state[PARTIAL]
        if decoding == 0 and partial < 0 and not visible:
            if ended_seats > 0 or seen < now:
                # Nothing could be scheduled while the last step ran: schedule at its end.
                seen, ended_seats, ended_blocks = now, 0, 0
            elif head >= 0 and arrival_s[head] < limit:
                now = seen = max(now, arrival_s[head])
            else:
                break
            continue

        # Free blocks: first a bound (as if every last block were all but empty), exact if need be.
        partial_done = state[PARTIAL_DONE]
        chunk = 0
        held = ended_blocks - shared
        need = phases[(1 - clock) % block]
        if partial >= 0:
            chunk = min(state[PARTIAL_TARGET] - partial_done, budget - decoding)
            partial_blocks = _blocks(partial_done, block)
            need += _blocks(partial_done + chunk, block) - partial_blocks
            held += partial_blocks - cached[partial] // block
        free = pool - held - (context + decoding * (block - 2)) // block
        exact = False
        preempted = False
        if need > free:
            free = pool - held - _held(context, decoding, clock, phases, block)
            exact = True
            if need > free:
                state[DECODING], state[CONTEXT], state[WINDOWED] = decoding, context, windowed
                state[GROWING], state[SHARED], state[CLOCK] = growing, shared, clock
                state[ENDED_SEATS], state[ENDED_BLOCKS] = ended_seats, ended_blocks
                state[FILLS] = filling
                state[ALLOCATED] = allocated
                moments[NOW] = now
                _make_room(
                    free, settings, state, moments, rows, last_s, phases,
                    inputs, outputs, cached, preemptions,
                )  # fmt: skip
                decoding, context, windowed = state[DECODING], state[CONTEXT], state[WINDOWED]
                growing, shared = state[GROWING], state[SHARED]
                ended_seats, ended_blocks = state[ENDED_SEATS], state[ENDED_BLOCKS]
                filling = state[FILLS]
                partial = state[PARTIAL]
                preempted = True
                chunk = 0
                need = phases[(1 - clock) % block]
                held = ended_blocks - shared
                if partial >= 0:
                    chunk = min(state[PARTIAL_TARGET] - partial_done, budget - decoding)
                    partial_blocks = _blocks(partial_done, block)
                    need += _blocks(partial_done + chunk, block) - partial_blocks
                    held += partial_blocks - cached[partial] // block
                free = pool - held - _held(context, decoding, clock, phases, block)
        free -= need
        allocated += need

        # The prefill under way.
        left = budget - decoding - chunk
        scheduled, joining, running = chunk, 0, decoding
        pairs = windowed_pairs = 0
        entries = state[ORDER]
        if partial >= 0:
            running += 1
            if chunk > 0:
                pairs = chunk * partial_done + chunk * (chunk + 1) // 2
                if window > 0:
                    windowed_pairs = _capped_pairs(partial_done, chunk, window)
                partial_done += chunk
                state[PARTIAL_DONE] = partial_done
                if partial_done == state[PARTIAL_TARGET]:
                    rows[ROW_JOINING, 0] = partial
                    rows[ROW_JOINING_MADE, 0] = state[PARTIAL_MADE]
                    rows[ROW_JOINING_SEAT, 0] = entries - 1
                    last_s[LAST_JOINING, 0] = moments[PARTIAL_LAST]
                    joining = 1
                    partial = -1

        # Those who wait, in order, until one does not fit.
        if visible and not preempted:
            if entries > entries_most:
                entries = _compact(rows, entries, clock, ended_seats > 0)
                if joining == 1:
                    rows[ROW_JOINING_SEAT, 0] = entries - 1
            while left > 0 and running + ended_seats < max_seqs:
                made, kept, last = 0, 0, 0.0
                top = state[RETURNED] - 1
                if top >= 0:
                    who = rows[ROW_RETURNED, top]
                    made = rows[ROW_RETURNED_MADE, top]
                    last = last_s[LAST_RETURNED, top]
                    lost = max(allocated - rows[ROW_RETURNED_LOST, top], 0)
                    kept = min(rows[ROW_RETURNED_BLOCKS, top] - lost, rows[ROW_RETURNED_FULL, top])
                    kept = max(kept, 0)
                elif head >= 0 and arrival_s[head] <= seen:
                    who = head
                else:
                    break
                target, hit = inputs[who] + made, cached[who] + kept * block
                before = cached[who] // block
                missing = target - hit
                if missing > left and not chunked:
                    break
                count = min(missing, left)
                own = _blocks(hit + count, block) - before
                needed = _blocks(target, block) - before if whole_prompt_fits else own
                if needed > free and not exact:
                    free += (context + decoding * (block - 2)) // block
                    free -= _held(context, decoding, clock, phases, block)
                    exact = True
                if needed > free:
                    break
                free -= own
                allocated += own - kept
                left -= count
                running += 1
                scheduled += count
                pairs += count * hit + count * (count + 1) // 2
                if window > 0:
                    windowed_pairs += _capped_pairs(hit, count, window)
                rows[ROW_ORDER, entries] = who
                rows[ROW_ORDER_END, entries] = PREFILLING
                entries += 1
                if top >= 0:
                    state[RETURNED] = top
                else:
                    head = link[who]
                    while mortal and head >= 0 and cancelled[head] != 0:
                        head = link[head]
                if math.isnan(scheduled_s[who]):
                    scheduled_s[who] = now
                if count == missing:
                    rows[ROW_JOINING, joining] = who
                    rows[ROW_JOINING_MADE, joining] = made
                    rows[ROW_JOINING_SEAT, joining] = entries - 1
                    last_s[LAST_JOINING, joining] = last
                    joining += 1
                else:
                    partial = who
                    partial_done = count + hit
                    state[PARTIAL_DONE], state[PARTIAL_TARGET] = partial_done, target
                    state[PARTIAL_MADE], moments[PARTIAL_LAST] = made, last
        state[PARTIAL], state[ORDER] = partial, entries

        if scheduled > 0:
            # One step with prefill.
            slope_s, most, steps = 0.0, 1, 1
            duration_s = (
                token_s[decoding + scheduled]
                + sample_s[decoding + joining]
                + mixed_s
                + kv_s * context
                + window_kv_s * windowed
                + prefill_s * pairs
                + window_prefill_s * windowed_pairs
            )
            took_s = duration_s
        elif decoding == 0:
            # Blocked by what ended in the step that runs: schedule at its end.
            seen, ended_seats, ended_blocks = now, 0, 0
            continue
        else:
            # A run of decode steps, up to the first event.
            most = (ends[0] >> WHO_BITS) - clock
            if filling > 0:
                most = min(most, (fills[0] >> WHO_BITS) - clock)
            if (ended_seats > 0 and visible) or partial >= 0:
                most = 1
            if preempted:
                most = 1
            if most > 1:
                free += need + ended_blocks
                if (most // block + 1) * decoding > free:
                    if not exact:
                        free += (context + decoding * (block - 2)) // block
                        free -= _held(context, decoding, clock, phases, block)
                    cycles = free // decoding
                    room = cycles * block
                    free -= cycles * decoding
                    while room < most and free >= phases[(1 - clock - room) % block]:
                        free -= phases[(1 - clock - room) % block]
                        room += 1
                    most = max(min(most, room), 1)
            duration_s = (
                token_s[decoding] + sample_s[decoding] + kv_s * context + window_kv_s * windowed
            )
            slope_s = kv_s * decoding + window_kv_s * growing
            steps = most
            if most > 1:
                if head >= 0 and not visible and decoding < max_seqs:
                    steps = _steps_to(arrival_s[head], now, duration_s, slope_s, most)
                    if asynchronous:
                        steps = min(steps + 1, most)
                if limit < math.inf:
                    enough = _steps_to(limit, now, duration_s, slope_s, most)
                    if until_seen and asynchronous:
                        enough += 1
                    steps = min(steps, enough)
                steps = max(steps, 1)
            took_s = _run_s(duration_s, slope_s, steps)

        if steps > 1 and state[RETURNED] > 0:
            # What the run gives out beyond its first step, counted above.
            allocated -= need + _held(context, decoding, clock, phases, block)
            allocated += _held(context + steps * decoding, decoding, clock + steps, phases, block)

        # Time passes.
        start_of_last = now if steps == 1 else now + _run_s(duration_s, slope_s, steps - 1)
        now += took_s
        seen = start_of_last if asynchronous else now
        steps_made += steps
        busy_s += took_s
        if decoding > 0:
            add_gaps(gaps, duration_s, slope_s, steps, decoding)
            decode_time += decoding * took_s
            kv_time += context * took_s
            if steps > 1:
                sum_1 = 0.5 * steps * (steps - 1)
                sum_2 = sum_1 * (2 * steps - 1) / 3.0
                kv_time += decoding * (duration_s * sum_1 + slope_s * sum_2)
            context += steps * decoding
            windowed += steps * growing
        if ended_blocks > 0 and steps > 1:
            # What ended is held for the first step of the run only.
            after = context - (steps - 1) * decoding
            top = ended_blocks - shared
            if top + (after + decoding * (block - 2)) // block > peak:
                peak = max(peak, top + _held(after, decoding, clock + 1, phases, block))
            ended_blocks = 0
        clock += steps
        above = ended_blocks - shared
        if partial >= 0:
            above += _blocks(partial_done, block) - cached[partial] // block
        for position in range(joining):
            who = rows[ROW_JOINING, position]
            stored = inputs[who] + rows[ROW_JOINING_MADE, position]
            above += _blocks(stored, block) - cached[who] // block
        if above + (context + decoding * (block - 2)) // block > peak:
            peak = max(peak, above + _held(context, decoding, clock, phases, block))
        ended_seats = ended_blocks = 0
        finished_seen = finished_now if asynchronous and steps == 1 else 0
        finished_before = finished

        # Windows that fill.
        while filling > 0 and fills[0] >> WHO_BITS == clock:
            filling = heap_pop(fills, filling)
            growing -= 1

        # Decoding requests that end.
        while decoding > 0 and ends[0] >> WHO_BITS == clock:
            who = ends[0] & WHO_MASK
            decoding = heap_pop(ends, decoding)
            finish_s[who] = now
            final = inputs[who] + outputs[who]
            context -= final
            shared_blocks = cached[who] // block
            shared -= shared_blocks
            phases[(final - clock) % block] -= 1
            if window > 0:
                windowed -= min(final, window)
                growing -= final < window
            if asynchronous:
                ended_seats += 1
                ended_blocks += _blocks(final - 1, block) - shared_blocks
            finished += 1
            if closed and state[UNISSUED] >= 0:
                head = _issue(now + think_s, head, state, arrival_s, link)

        # Prefills that end: their first token (or the next, after a preemption).
        for position in range(joining):
            who = rows[ROW_JOINING, position]
            made = rows[ROW_JOINING_MADE, position] + 1
            if made == 1:
                first_s[who] = now
            else:
                add_gaps(gaps, now - last_s[LAST_JOINING, position], 0.0, 1, 1)
            end = clock + outputs[who] - made
            rows[ROW_ORDER_END, rows[ROW_JOINING_SEAT, position]] = end
            following = inputs[who] + made
            if end == clock:
                finish_s[who] = now
                finished += 1
                if asynchronous:
                    ended_seats += 1
                    ended_blocks += _blocks(following - 1, block) - cached[who] // block
                if closed and state[UNISSUED] >= 0:
                    head = _issue(now + think_s, head, state, arrival_s, link)
                continue
            decoding = heap_push(ends, decoding, (end << WHO_BITS) | who)
            context += following
            shared += cached[who] // block
            phases[(following - clock) % block] += 1
            if window > 0:
                windowed += min(following, window)
                if following < window:
                    growing += 1
                    fill = clock + window - following
                    if fill <= end:
                        filling = heap_push(fills, filling, (fill << WHO_BITS) | who)

        finished_now = finished - finished_before

        if clock > REBASE_AT:
            state[CLOCK], state[DECODING], state[FILLS] = clock, decoding, filling
            _rebase(state, rows, block)
            clock = state[CLOCK]

    moments[NOW], moments[SEEN] = now, seen
    moments[BUSY] += busy_s
    moments[DECODE_TIME] += decode_time
    moments[KV_TIME] += kv_time
    state[HEAD], state[DECODING], state[CONTEXT], state[WINDOWED] = (
        head,
        decoding,
        context,
        windowed,
    )
    state[GROWING], state[SHARED], state[CLOCK] = growing, shared, clock
    state[ENDED_SEATS], state[ENDED_BLOCKS] = ended_seats, ended_blocks
    state[PEAK_BLOCKS], state[ALLOCATED] = peak, allocated
    state[FINISHED], state[FINISHED_NOW], state[FINISHED_SEEN] = (
        finished,
        finished_now,
        finished_seen,
    )
    state[FILLS] = filling
    state[STEPS] += steps_made


@njit(cache=True, nogil=True)
def _issue(when_s: float, head: int, state: IntArray, arrival_s: FloatArray, link: IntArray) -> int:
    """Let the next request of a closed loop arrive; returns the front of the queue."""
    who = state[UNISSUED]
    state[UNISSUED] = who + 1 if who + 1 < len(arrival_s) else -1
    arrival_s[who] = when_s
    link[who] = -1
    if head < 0:
        head = who
    else:
        link[state[TAIL]] = who
    state[TAIL] = who
    return head


@njit(cache=True, nogil=True)
def in_system(moment: float, pushed: int, state: IntArray, moments: FloatArray) -> int:
    """Requests inside an engine at a moment up to which (and no further) it was advanced."""
    finished = state[FINISHED]
    if moments[NOW] > moment:
        finished -= state[FINISHED_NOW]
    if moments[SEEN] > moment and moments[SEEN] < moments[NOW]:
        finished -= state[FINISHED_SEEN]
    return int(pushed - finished)


@njit(cache=True, nogil=True)
def cancel(
    who: int,
    settings: IntArray,
    inputs: IntArray,
    outputs: IntArray,
    cached: IntArray,
    link: IntArray,
    cancelled: IntArray,
    scheduled_s: FloatArray,
    state: IntArray,
    rows: IntArray,
    last_s: FloatArray,
    phases: IntArray,
) -> bool:
    """Take a request out of the engine, wherever it is; False where it has ended already."""
    if math.isnan(scheduled_s[who]):
        cancelled[who] = 1
        head = state[HEAD]
        while head >= 0 and cancelled[head] != 0:
            head = link[head]
        state[HEAD] = head
        return True
    for position in range(state[RETURNED]):
        if rows[ROW_RETURNED, position] == who:
            state[RETURNED] -= 1
            for above in range(position, state[RETURNED]):
                for row in range(ROW_RETURNED, ROW_JOINING):
                    rows[row, above] = rows[row, above + 1]
                last_s[LAST_RETURNED, above] = last_s[LAST_RETURNED, above + 1]
            cancelled[who] = 1
            return True
    for position in range(state[ORDER]):
        end = rows[ROW_ORDER_END, position]
        if rows[ROW_ORDER, position] == who and (end == PREFILLING or end > state[CLOCK]):
            state[ORDER] -= 1
            for above in range(position, state[ORDER]):
                rows[ROW_ORDER, above] = rows[ROW_ORDER, above + 1]
                rows[ROW_ORDER_END, above] = rows[ROW_ORDER_END, above + 1]
            if end == PREFILLING:
                state[PARTIAL] = -1
            else:
                leave_decoding(who, end, settings, state, rows, phases, inputs, outputs, cached)
            cancelled[who] = 1
            return True
    return False
