"""What a machine shows of itself in a load that is sent to learn from, before the trial's own.

A rehearsal is a few seconds of load at the trial's own rate, on rows of its own. Read from it are
core-seconds a request of every process, which differ from those of one request at a time: idle
cores are woken up, busy ones take caches and hyperthreads from each other. What no counter shows,
how much is lost where several are at work at once, is found by playing the rehearsal's own schedule
until the played latencies are the measured ones. Latencies of the trial itself are never used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from advisor.decide.recommendation import Role
from advisor.trial.load.driver import ArmResult
from advisor.trial.projecting.cascade import Pieces, play
from advisor.trial.watching.disturbance import PERCENT_DISTURBED
from advisor.trial.watching.server_metrics import ServerFigures

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LEAST_EFFICIENCY = 0.3
"""Of a machine's cores where several are at work; what shows less was disturbed by other work."""

SLOWEST, FASTEST = 4.0, 0.5
"""Bounds of the factor on times where no work is known."""

TAIL = (0.8, 0.98)
"""From which share of the latencies to which a load is compared with its rehearsal."""

LEAST_STREAMED = 20
"""Answers that must have streamed in a rehearsal for it to show how far apart tokens come."""

RUNS = 8
STEPS = 12
"""Halvings of the bracket: to about a thousandth of it."""


@dataclass(frozen=True, eq=False)
class Observed:
    """A load that was sent to learn from; None where the system does not say."""

    sent_s: FloatArray
    """(n,) ascending, of the requests that were answered."""
    e2e_s: FloatArray
    up: BoolArray
    """Which of them the large model was asked."""
    client_s: float | None = None
    """Core-seconds a request of the sender."""
    records_s: float | None = None
    """Of this process."""
    router_s: float | None = None
    servers_s: Mapping[Role, float] = field(default_factory=dict)
    """Of each server that was asked, a request of its own."""
    tpot_s: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Of the answers that streamed."""
    speeds: Mapping[Role, float] = field(default_factory=dict)
    """What a request takes of an engine over that in its calibration."""
    pace: float | None = None
    """Of the core time that all of it wanted of this machine, the share that others left."""


def observed(
    result: ArmResult,
    servers: Mapping[Role, ServerFigures],
    *,
    router_s: float | None,
    speeds: Mapping[Role, float],
    large_alone: bool = False,
    pace: float | None = None,
) -> Observed:
    """An arm as something to learn from.

    Args:
        servers: the endpoints' own figures over it.
        router_s: core-seconds of the router's process, in all; 0: it was not asked.
        large_alone: whether the large model was asked directly.
    """
    answered = [r for r in result.records if r.status == "completed" and r.e2e_s is not None]
    answered.sort(key=lambda record: record.sent_s or 0.0)
    count, used = max(len(answered), 1), result.used
    return Observed(
        sent_s=np.array([record.sent_s for record in answered], dtype=float),
        e2e_s=np.array([record.e2e_s for record in answered], dtype=float),
        up=np.array([large_alone or record.route == "llm" for record in answered], dtype=bool),
        client_s=None if used is None else used.sender_s / count,
        records_s=None if used is None else used.own_s / count,
        router_s=None if router_s is None else router_s / count,
        servers_s={role: one.cpu_s for role, one in servers.items() if one.cpu_s is not None},
        tpot_s=np.array([r.tpot_s for r in answered if r.tpot_s is not None], dtype=float),
        speeds=speeds,
        pace=pace,
    )


def calm_ones(found: Sequence[tuple[float, Observed]]) -> list[Observed]:
    """Of rehearsals, with the percent of the cores that others took: those hardly disturbed, or the
    least disturbed where all were."""
    most = max(PERCENT_DISTURBED, min(taken for taken, _ in found))
    return [one for taken, one in found if taken <= most]


def typical(found: Sequence[Observed]) -> Observed:
    """Of rehearsals of one load the one with the middle tail, of two the quicker: where a burst met
    a slow second requests piled up, and in one heap with the others theirs were the tail of all."""
    answered = sorted((one for one in found if len(one.e2e_s)), key=lambda one: tail_s(one.e2e_s))
    return answered[(len(answered) - 1) // 2] if answered else found[0]


def tail_s(e2e_s: FloatArray) -> float:
    """Mean of the slowest fifth without its slowest: around the 95th percentile, and steadier than
    that alone; a single stall does not move it."""
    among = np.sort(e2e_s, axis=None)
    low, high = (int(share * len(among)) for share in TAIL)
    return float(among[low : max(high, low + 1)].mean())


def found_by_playing(
    pieces: Callable[[float], Pieces], seen: Observed, *, quick: float, slow: float, seed: int
) -> tuple[float, float]:
    """The value in a bracket at which the played load is as slow as the one that was seen.

    It is played at one speed: a rehearsal saw the machine in one mood, and runs in all the moods
    that it may have would be slower on average than in the usual one. Stalls are played: it had its
    share of them, and a value found without them would stand for them as well.

    Args:
        pieces: of a value.
        quick, slow: the bracket: a load is played the slower, the nearer the value is to `slow`.

    Returns:
        The value, and the seconds by which what was seen is still slower (or, below 0, quicker)
        where it lies outside the bracket.
    """
    sent_s, target_s = seen.sent_s - seen.sent_s[0], tail_s(seen.e2e_s)

    def played_s(value: float) -> float:
        calm = replace(pieces(value), speed_log_sd=0.0)
        return tail_s(play(calm, sent_s, runs=RUNS, seed=seed).e2e_s)

    for end, beyond in ((quick, target_s - played_s(quick)), (slow, target_s - played_s(slow))):
        if (beyond <= 0) if end == quick else (beyond >= 0):
            return end, beyond
    for _ in range(STEPS):
        middle = (quick + slow) / 2
        if played_s(middle) < target_s:
            quick = middle
        else:
            slow = middle
    return (quick + slow) / 2, 0.0
