"""Everything of a trial on one machine: its threads are queues that share the cores.

A sandbox's router, the load sender and the process that writes the records down each serve with one
thread; a server with two, one that speaks HTTP and one that runs the engine. Each thread is a
single-server queue, first come, first served, and a request passes through them in order. What
works at the same moment shares the machine: of k threads at work on c cores each goes on at
η·min(1, c/k) times the speed it has alone (η = 1 for k = 1). The works are core-seconds as they
were counted under load, so what hyperthreads and cold caches take from each other is in them; η is
what the system's placing and waking of threads loses beyond, found from a rehearsal
(`rehearsal`). That is a network of queues under processor sharing (Kleinrock 1976,
vol. 2, §4.4), played event by event because a burst slows down everything in it at once: that is
where the tail comes from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CLIENT, ROUTER, SMALL_HTTP, SMALL, LARGE_HTTP, LARGE, RECORDS = range(7)
"""The queues: the load sender, the router, each server's HTTP and its engine, and what writes the
records."""

QUEUES = 7
STAGES = (
    CLIENT, ROUTER, SMALL_HTTP, SMALL, SMALL_HTTP, ROUTER, LARGE_HTTP, LARGE, LARGE_HTTP, ROUTER,
    CLIENT, RECORDS,
)  # fmt: skip
"""Which queue each stage of a request waits in; a stage without work is passed over."""

ASK_SMALL, ASK_LARGE, ANSWERED = 3, 7, 10
"""Stages: at the small engine, at the large one, and the one that ends with the answer."""


@dataclass(frozen=True)
class Machine:
    """How threads that work at once slow each other down."""

    pace: tuple[float, ...]
    """Entry k − 1: speed of each of k at work, over the speed of one alone; `QUEUES` entries."""

    @classmethod
    def of_cores(cls, cores: int, efficiency: float) -> Machine:
        """A machine of so many cores that loses 1 − efficiency of what it has wherever two or more
        are at work."""
        among = (min(1.0, cores / count) for count in range(2, QUEUES + 1))
        return cls((1.0, *(efficiency * share for share in among)))

    def at(self, pace: float) -> Machine:
        """This machine where each of its threads goes on at `pace` times its speed."""
        return Machine(tuple(pace * one for one in self.pace))


@dataclass(frozen=True)
class SharedCores:
    """What a request takes of the machine besides the router's work and the engines'."""

    machine: Machine
    client_s: float
    """Core time of the load sender a request; half before it is sent, half when it is answered."""
    records_s: float
    """Core time a request of the process that judges and records the answers."""
    small_http_s: float
    """Core time of the small model's server besides its engine's; half before, half after it."""
    large_http_s: float
    rest_s: float = 0.0
    """What an answer takes besides all works: waking up. Negative: some work comes after it, or at
    the same time as other work on it."""
    rest_up_s: float = 0.0
    """The same, once more, of what the large model is asked."""


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


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
