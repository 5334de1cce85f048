"""The trial's cascade, or one model of it, played on one machine that all of it shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.trial.projecting.cascade import Clock, Pieces, Played, draw_rows, paced, speeds
from advisor.trial.projecting.shared_cores import (
    ANSWERED,
    ASK_LARGE,
    ASK_SMALL,
    RECORDS,
    STAGES,
    SharedCores,
    pass_through,
)

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SEND, ROUTE_IN, HAND_UP, ROUTE_OUT = 0, 1, 5, 9
"""Stages of `STAGES` besides those at the servers."""

TO_SMALL, FROM_SMALL = ASK_SMALL - 1, ASK_SMALL + 1
TO_LARGE, FROM_LARGE = ASK_LARGE - 1, ASK_LARGE + 1
"""Stages at the servers' HTTP."""

RECORDED = STAGES.index(RECORDS)


@dataclass(frozen=True, eq=False)
class StageWorks:
    """Core-seconds of each stage, and what passes without work; shapes (n, stages) and (n,)."""

    work_s: FloatArray
    besides_s: FloatArray


def play_together(
    pieces: Pieces, cores: SharedCores, sent_s: FloatArray, *, runs: int, seed: int
) -> Played:
    """Play the cascade for a schedule, as `cascade.play` does, on shared cores.

    Without the router's work it is one model alone: the small one where no row escalates, the large
    one where all goes straight to it.
    """
    rng = np.random.default_rng(seed)
    rows = pieces.rows
    index = draw_rows(rng, len(rows), runs, len(sent_s))
    speed = speeds(rng, pieces.speed_log_sd, runs)
    direct = rng.random(index.shape) < pieces.direct_share
    escalated = rows.escalate[index] & ~direct
    shown, end = np.empty(index.shape), np.empty(index.shape)
    for run, drawn in enumerate(index):
        works = cascade_works(pieces, cores, drawn, up=escalated[run], direct=direct[run])
        clock = Clock.drawn(rng, pieces.stalls, float(sent_s[-1]))
        begun_s = clock.working(sent_s)
        passed = pass_through(begun_s, works.work_s * speed[run], cores.machine)
        ready = passed.answered_s + works.besides_s * speed[run]
        held_s = np.nan_to_num(passed.large_end_s - passed.large_begin_s, nan=0.0)
        decode = held_s * ((rows.large_s - rows.large_first_s) / rows.large_s)[drawn]
        asked = escalated[run] | direct[run]
        decode = paced(pieces, decode, asked, rows.large_tokens[drawn], rng)
        decode = np.minimum(decode, ready - begun_s)
        shown[run], end[run] = clock.wall(ready - decode), clock.wall(ready)
    tokens = rows.large_tokens[index]
    return Played.of(sent_s, shown, end, tokens, escalated=escalated, direct=direct)


def cascade_works(
    pieces: Pieces,
    cores: SharedCores,
    drawn: NDArray[np.int64],
    *,
    up: BoolArray,
    direct: BoolArray,
) -> StageWorks:
    """What each request takes: the small model unless it goes straight up, the large one if it
    goes up at all, and the router twice, or three times where an answer is handed up."""
    rows, asked = pieces.rows, up | direct
    work = np.zeros((len(drawn), len(STAGES)))
    work[:, SEND] = work[:, ANSWERED] = cores.client_s / 2
    visit_s = pieces.router_hold_s / np.where(up, 3, 2)
    work[:, ROUTE_IN] = work[:, ROUTE_OUT] = visit_s
    work[:, HAND_UP] = np.where(up, visit_s, 0.0)
    work[:, TO_SMALL] = work[:, FROM_SMALL] = np.where(direct, 0.0, cores.small_http_s / 2)
    work[:, ASK_SMALL] = np.where(direct, 0.0, rows.small_s[drawn])
    work[:, TO_LARGE] = work[:, FROM_LARGE] = np.where(asked, cores.large_http_s / 2, 0.0)
    work[:, ASK_LARGE] = np.where(asked, rows.large_s[drawn], 0.0)
    work[:, RECORDED] = cores.records_s
    return StageWorks(work, cores.rest_s + np.where(asked, cores.rest_up_s, 0.0))
