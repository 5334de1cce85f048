"""How an engine lies in memory: flat arrays that compiled code works on, and what each entry is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Costs(NamedTuple):
    """What an engine is set to, and what its steps take; equal engines share it."""

    settings: IntArray
    """MAX_SEQS … MORTAL."""
    rates: FloatArray
    """KV … THINK."""
    token_s: FloatArray
    """As in `StepCost`."""
    sample_s: FloatArray


class Load(NamedTuple):
    """Requests and what becomes of them, by request; engines of a fleet share it."""

    arrival_s: FloatArray
    inputs: IntArray
    outputs: IntArray
    cached: IntArray
    """Prompt tokens in the prefix cache."""
    link: IntArray
    """The request behind this one in its engine's queue, -1: none."""
    cancelled: IntArray
    """1 where it was cancelled; of length 1, and not read, unless MORTAL."""
    scheduled_s: FloatArray
    first_s: FloatArray
    finish_s: FloatArray
    preemptions: IntArray


class Engine(NamedTuple):
    """One engine at a moment."""

    state: IntArray
    """HEAD … PEAK_BLOCKS."""
    moments: FloatArray
    """NOW … KV_TIME."""
    rows: IntArray
    """Matrix with the rows ENDS … JOINING_SEAT."""
    last_s: FloatArray
    """Matrix with the rows LAST_RETURNED, LAST_JOINING: when their last token came."""
    phases: IntArray
    """Decoding sequences by (context of the next token − CLOCK) mod BLOCK; decoding keeps it."""
    gaps: IntArray
    """Histogram of the time between tokens; engines of a fleet share it."""


# Costs.settings
(
    MAX_SEQS,
    BUDGET,
    BLOCK,
    CHUNKED,
    ASYNC,
    WHOLE_PROMPT_FITS,
    POOL,  # KV blocks beside those of shared prefixes
    WINDOW,
    CACHING,
    CLOSED,  # a closed loop: the end of a request lets the next arrive
    MORTAL,  # requests may be cancelled
    SETTINGS,
) = range(12)

# Costs.rates
KV, PREFILL, MIXED, WINDOW_KV, WINDOW_PREFILL, THINK, RATES = range(7)

# Engine.state
(
    HEAD,  # request at the front of the queue, -1: none is known
    TAIL,
    UNISSUED,  # next request of a closed loop, -1: none
    DECODING,
    CONTEXT,  # sum over decoding sequences of the context of their next token
    WINDOWED,  # the same, each capped at the window
    GROWING,  # decoding sequences whose next context lies below the window
    SHARED,  # blocks of shared prefix that decoding sequences see
    CLOCK,  # steps made, rebased now and then
    PARTIAL,  # request whose prefill is under way, -1: none
    PARTIAL_DONE,
    PARTIAL_TARGET,
    PARTIAL_MADE,  # tokens it had generated before it was preempted
    RETURNED,  # preempted requests that wait, the last one first
    ORDER,  # entries in the order of admission
    FILLS,  # windows that will fill
    ENDED_SEATS,  # asynchronous: held by what ended in the last step
    ENDED_BLOCKS,
    ALLOCATED,  # blocks given out; exact while preempted requests wait
    FINISHED,
    FINISHED_NOW,  # of these, at NOW
    FINISHED_SEEN,  # and at SEEN, where that lies before NOW
    STEPS,
    PEAK_BLOCKS,
    STATE,
) = range(25)

# Engine.moments
(
    NOW,  # when the step to be scheduled begins
    SEEN,  # what arrived up to here can be scheduled
    PARTIAL_LAST,  # when the partial prefill made its last token before it was preempted
    BUSY,
    DECODE_TIME,  # integral of the number of decoding sequences, sequence-seconds
    KV_TIME,  # integral of the tokens in their contexts, token-seconds
    CLOCKS,
) = range(7)

# Engine.rows
(
    ENDS,  # heap of completions: step << WHO_BITS | request
    FILL_STEPS,  # heap of windows that fill, alike
    ADMITTED,  # requests in order of admission; some have ended
    ADMITTED_END,  # the step after which each ends, PREFILLING before it decodes
    BACK,  # preempted requests
    BACK_MADE,  # tokens each had generated
    BACK_BLOCKS,  # blocks it had of its own
    BACK_FULL,  # of these, full and findable in the prefix cache
    BACK_LOST,  # value of ALLOCATED from which on they are given out, the last one first
    JOINING,  # requests whose prefill ends in this step
    JOINING_MADE,
    JOINING_SEAT,  # place in ADMITTED
    ROWS,
) = range(13)

# Engine.last_s
LAST_RETURNED, LAST_JOINING, LAST_ROWS = range(3)

PREFILLING = -1

WIDTH_PER_SEAT, WIDTH_MORE = 5, 64
"""Columns of rows and last_s: ADMITTED is cleared of what has ended when it nears the end."""


class EngineArrays:
    """Engines side by side: the arrays of `Engine`, with replicas as their first axis."""

    def __init__(self, *, max_num_seqs: int, block_size: int, replicas: int) -> None:
        width = WIDTH_PER_SEAT * max_num_seqs + WIDTH_MORE
        self.state = np.zeros((replicas, STATE), dtype=np.int64)
        self.state[:, [HEAD, UNISSUED, PARTIAL]] = -1
        self.moments = np.zeros((replicas, CLOCKS))
        self.rows = np.zeros((replicas, ROWS, width), dtype=np.int64)
        self.last_s = np.zeros((replicas, LAST_ROWS, width))
        self.phases = np.zeros((replicas, block_size), dtype=np.int64)

    def engine(self, replica: int, gaps: IntArray) -> Engine:
        """One of them."""
        return Engine(
            self.state[replica],
            self.moments[replica],
            self.rows[replica],
            self.last_s[replica],
            self.phases[replica],
            gaps,
        )

    def fleet(self, gaps: IntArray) -> Engine:
        """All of them, with the extra axis."""
        return Engine(self.state, self.moments, self.rows, self.last_s, self.phases, gaps)
