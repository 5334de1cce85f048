"""How an endpoint serves, as measured: what one request takes alone, and what company costs.

Two kinds of queue are told apart:

    fifo      one request at a time, first come, first served: what the sandbox's engine does
    sharing   everything in flight shares the machine: alone a request would take w seconds, among n
              it advances 1/slowdown(n) as fast, with slowdown(n) measured by closed loops of n
              users. Continuous batching and hosted APIs (slowdown 1 throughout) are both of it.

Of the time alone only a share holds the server (`busy_share`); the rest, such as HTTP on either
side, overlaps with the work on other requests.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Queue = Literal["fifo", "sharing"]


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredService:
    """One endpoint."""

    queue: Queue
    busy_share: float
    """Of the time alone, the part in which nobody else is served; only of a fifo queue."""
    users: FloatArray
    """Numbers in flight at which the slowdown was measured, ascending from 1."""
    slowdown: FloatArray
    """Time a request takes among so many, over the time it takes alone."""

    @classmethod
    def one_at_a_time(cls, busy_share: float) -> MeasuredService:
        """A fifo queue."""
        return cls("fifo", busy_share, np.ones(1), np.ones(1))

    def serve(self, sent_s: FloatArray, alone_s: FloatArray) -> FloatArray:
        """When each request is answered.

        Args:
            sent_s: (runs, n) ascending along n.
            alone_s: (runs, n) what each would take alone.

        Returns:
            (runs, n), seconds on the clock of `sent_s`.
        """
        if self.queue == "fifo":
            hold_s = alone_s * self.busy_share
            return fifo_finish(sent_s, hold_s) + alone_s - hold_s
        return np.stack(
            [
                sharing_finish(sent, alone, self.users, self.slowdown)
                for sent, alone in zip(sent_s, alone_s, strict=True)
            ]
        )

    def sustainable_per_s(self, mean_alone_s: float) -> float:
        """Rate that the endpoint can take for ever, as far as it was measured."""
        if self.queue == "fifo":
            return 1 / (mean_alone_s * self.busy_share)
        return float((self.users / (self.slowdown * mean_alone_s)).max())


def fifo_finish(sent_s: FloatArray, hold_s: FloatArray) -> FloatArray:
    """One server, first come, first served: f_i = max(a_i, f_{i−1}) + s_i (Lindley 1952).

    With S_i = s_1 + … + s_i this is f_i = S_i + max_{j ≤ i}(a_j − S_{j−1}): a running maximum.
    Shapes (…, n).
    """
    total = np.cumsum(hold_s, axis=-1)
    finish: FloatArray = total + np.maximum.accumulate(sent_s - (total - hold_s), axis=-1)
    return finish


def sharing_finish(
    sent_s: FloatArray, alone_s: FloatArray, users: FloatArray, slowdown: FloatArray
) -> FloatArray:
    """Everything in flight advances at the same rate, 1/slowdown(n) of what it does alone.

    A clock of work runs at that rate; who arrives when it shows v leaves when it shows v + w. So
    the order of leaving is known on arrival, and every event takes O(log n).
    """
    most = int(users[-1])
    pace = 1 / np.interp(np.arange(most + 1), users, slowdown)
    # Past what was measured the machine is full: the total rate stays what it was.
    full = float(pace[most] * most)
    finish = np.empty(len(sent_s))
    inside: list[tuple[float, int]] = []
    now = clock = 0.0
    for index, (arrival, work) in enumerate(zip(sent_s.tolist(), alone_s.tolist(), strict=True)):
        while inside:
            rate = float(pace[len(inside)]) if len(inside) <= most else full / len(inside)
            leaves = now + (inside[0][0] - clock) / rate
            if leaves > arrival:
                clock += (arrival - now) * rate
                break
            now, clock = leaves, inside[0][0]
            finish[heapq.heappop(inside)[1]] = leaves
        now = arrival
        heapq.heappush(inside, (clock + work, index))
    while inside:
        rate = float(pace[len(inside)]) if len(inside) <= most else full / len(inside)
        now, clock = now + (inside[0][0] - clock) / rate, inside[0][0]
        finish[heapq.heappop(inside)[1]] = now
    return finish
