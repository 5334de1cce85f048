"""Everything of a trial on one machine: its processes are queues that share the cores.

A sandbox's router, its two servers, the load sender and the process that writes the records down
are each served by one thread: single-server queues, first come, first served, through which every
request passes in order. What works at the same moment shares the machine: with k of them at work
each goes on at pace(k) times the speed it has alone, as measured with k processes at once
(`measured_pace`), so two hyperthreads, a core quota and a busy host are all in it. The works are
core-seconds. That is a network of queues under processor sharing (Kleinrock 1976, vol. 2, §4.4),
played event by event because a burst slows down everything in it at once: that is where the tail
comes from.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError

FloatArray = NDArray[np.float64]

CLIENT, ROUTER, SMALL, LARGE, RECORDS = range(5)
"""The queues: the load sender, the router, both servers, and what writes the records."""

QUEUES = 5
STAGES = (CLIENT, ROUTER, SMALL, ROUTER, LARGE, ROUTER, CLIENT, RECORDS)
"""Which queue each stage of a request waits in; a stage without work is passed over."""

ASK_SMALL, ASK_LARGE, ANSWERED = 2, 4, 6
"""Stages: at the small model, at the large one, and the one that ends with the answer."""

WINDOW_S = 0.06
WINDOWS = 8
"""Windows in which each number of processes counts, in turn."""

START_S = 0.3
"""Before the first window, for the processes to start."""

_COUNT = """
import sys, time
begin, window, own, most, rounds = (float(one) for one in sys.argv[1:])
turns = [0] * int(most)
for place in range(int(most * rounds)):
    level = place % int(most)
    if level < own: continue
    start = begin + place * window
    time.sleep(max(start - time.monotonic(), 0))
    while time.monotonic() < start + window:
        for _ in range(100): turns[level] += 1
print(*turns)
"""


@dataclass(frozen=True)
class Machine:
    """How processes that work at once slow each other down."""

    pace: tuple[float, ...]
    """Entry k − 1: speed of each of k at work, over the speed of one alone; `QUEUES` entries."""

    @property
    def total(self) -> float:
        """Work a second, in core-seconds of one alone, with every queue at work."""
        return len(self.pace) * self.pace[-1]


@dataclass(frozen=True)
class SharedCores:
    """What a request takes of the machine besides the router's work and the engines'."""

    machine: Machine
    client_s: float
    """Core time of the load sender a request; half before it is sent, half when it is answered."""
    records_s: float
    """Core time a request of the process that judges and records the answers."""
    small_besides_s: float
    """Of the time at the small endpoint alone, what is not its server's core time: the sender's
    work and waking up. Negative: some of the server's work comes after the answer."""
    large_besides_s: float


@dataclass(frozen=True, eq=False)
class Passed:
    """When requests passed, seconds on the clock of the schedule; shape (n,)."""

    answered_s: FloatArray
    small_begin_s: FloatArray
    """NaN where the small model was not asked."""
    small_end_s: FloatArray
    large_begin_s: FloatArray
    large_end_s: FloatArray


def pass_through(sent_s: FloatArray, work_s: FloatArray, machine: Machine) -> Passed:
    """Play one load.

    Args:
        sent_s: (n,) ascending.
        work_s: (n, len(STAGES)) core-seconds of each stage; 0: passed over.
    """
    begin = np.full(work_s.shape, np.nan)
    end = np.full(work_s.shape, np.nan)
    _play(
        np.ascontiguousarray(sent_s),
        np.ascontiguousarray(work_s),
        np.array(STAGES, dtype=np.int64),
        np.array(machine.pace, dtype=float),
        begin,
        end,
    )
    return Passed(
        end[:, ANSWERED],
        begin[:, ASK_SMALL],
        end[:, ASK_SMALL],
        begin[:, ASK_LARGE],
        end[:, ASK_LARGE],
    )


def _events(
    sent_s: FloatArray,
    work_s: FloatArray,
    queue_of: NDArray[np.int64],
    pace: FloatArray,
    begin_s: FloatArray,
    end_s: FloatArray,
) -> None:
    """Fill in when each stage of each request began and ended."""
    count, stages = work_s.shape
    queued = np.zeros((QUEUES, count * 3 + 1), dtype=np.int64)
    head, tail = np.zeros(QUEUES, dtype=np.int64), np.zeros(QUEUES, dtype=np.int64)
    left = np.zeros(QUEUES)
    stage = np.full(count, -1, dtype=np.int64)
    now, arrived, gone = 0.0, 0, 0
    while gone < count:
        busy = 0
        for queue in range(QUEUES):
            busy += tail[queue] > head[queue]
        rate = pace[busy - 1] if busy else 1.0
        # Whatever comes first: the next request, or the end of the work at one of the queues.
        first, moment = -1, np.inf
        for queue in range(QUEUES):
            if tail[queue] > head[queue] and now + left[queue] / rate < moment:
                first, moment = queue, now + left[queue] / rate
        if arrived < count and sent_s[arrived] <= moment:
            first, moment = -1, max(sent_s[arrived], now)
        for queue in range(QUEUES):
            if tail[queue] > head[queue]:
                left[queue] -= (moment - now) * rate
        now = moment
        if first < 0:
            request = arrived
            arrived += 1
        else:
            request = queued[first, head[first]]
            end_s[request, stage[request]] = now
            head[first] += 1
            if tail[first] > head[first]:
                waiting = queued[first, head[first]]
                begin_s[waiting, stage[waiting]] = now
                left[first] = work_s[waiting, stage[waiting]]
        place = stage[request] + 1
        while place < stages and work_s[request, place] <= 0.0:
            place += 1
        stage[request] = place
        if place == stages:
            gone += 1
            continue
        queue = queue_of[place]
        queued[queue, tail[queue]] = request
        tail[queue] += 1
        if tail[queue] - head[queue] == 1:
            begin_s[request, place] = now
            left[queue] = work_s[request, place]


_play: Any = numba.njit(nogil=True, cache=True)(_events)


def measured_pace(queues: int = QUEUES) -> Machine:
    """Measure the machine as it is now: 1, 2, … processes count as fast as they can, in turn.

    Takes a second or so. As many processes as there are cores, or more, get together what so many
    get.

    Raises:
        InputError: processes cannot be started here.
    """
    most = min(queues, available_cores())
    begin_s = time.monotonic() + START_S
    running = []
    try:
        for own in range(most):
            values = (begin_s, WINDOW_S, own, most, WINDOWS)
            command = [sys.executable, "-ISc", _COUNT, *(repr(value) for value in values)]
            running.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            )
        turns = [[int(word) for word in one.communicate()[0].split()] for one in running]
    except OSError as error:
        raise InputError(f"the machine's pace cannot be measured: {error.strerror}") from None
    finally:
        for one in running:
            one.kill()
            one.wait()
    return machine_of(turns, queues)


def machine_of(turns: Sequence[Sequence[int]], queues: int = QUEUES) -> Machine:
    """The machine on which m processes made `turns[process][level]` turns: at level k − 1 the first
    k of them were at work.

    Raises:
        InputError: a process did nothing.
    """
    made = np.array(turns, dtype=float)
    if made.shape != (len(turns), len(turns)) or made[0, 0] <= 0:
        raise InputError("the machine's pace cannot be measured: a process did not count")
    pace = [1.0]
    for count in range(2, queues + 1):
        known = min(count, len(turns))
        share = float(made[:known, known - 1].sum() / made[0, 0]) / count
        # More processes never make each of them faster; what says so is noise.
        pace.append(min(share, pace[-1]))
    return Machine(tuple(pace))


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
