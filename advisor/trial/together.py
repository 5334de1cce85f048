"""The trial's cascade, or one model of it, played on one machine that all of it shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.trial.cascade import Clock, Pieces, Played, Rows, draw_rows
from advisor.trial.shared_cores import (
    ANSWERED,
    ASK_LARGE,
    ASK_SMALL,
    RECORDS,
    STAGES,
    Passed,
    SharedCores,
    pass_through,
)

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SEND, ROUTE_IN, HAND_UP, ROUTE_OUT = 0, 1, 3, 5
"""Stages of `STAGES` besides those at the models."""

LEAST_WORK = 0.2
"""Of its mean, the least work that a model does for a row: times alone are noisy."""


@dataclass(frozen=True, eq=False)
class Works:
    """Core-seconds of each stage, and what passes without work; shapes (n, stages) and (n,)."""

    work_s: FloatArray
    besides_s: FloatArray


def play_together(
    pieces: Pieces, cores: SharedCores, sent_s: FloatArray, *, runs: int, seed: int
) -> Played:
    """Play the cascade for a schedule, as `advisor.trial.cascade.play` does, on shared cores."""
    rng = np.random.default_rng(seed)
    rows = pieces.rows
    index = draw_rows(rng, len(rows), runs, len(sent_s))
    speed = np.exp(pieces.speed_log_sd * rng.standard_normal(runs))
    direct = rng.random(index.shape) < pieces.direct_share
    escalated = rows.escalate[index] & ~direct
    shown, end = np.empty(index.shape), np.empty(index.shape)
    for run, drawn in enumerate(index):
        works = cascade_works(pieces, cores, drawn, up=escalated[run], direct=direct[run])
        clock = Clock.drawn(rng, pieces.stalls, float(sent_s[-1]))
        passed = pass_through(clock.working(sent_s), works.work_s * speed[run], cores.machine)
        ready = passed.answered_s + works.besides_s * speed[run]
        decode = _decode_s(rows, drawn, passed)
        shown[run], end[run] = clock.wall(ready - decode), clock.wall(ready)
    gaps = np.maximum(rows.large_tokens[index] - 1, 1)
    return Played(
        ttft_s=shown - sent_s,
        e2e_s=end - sent_s,
        tpot_s=(end - shown) / gaps,
        escalated=escalated,
        direct=direct,
    )


def cascade_works(
    pieces: Pieces,
    cores: SharedCores,
    drawn: NDArray[np.int64],
    *,
    up: BoolArray,
    direct: BoolArray,
) -> Works:
    """What each request takes: the small model unless it goes straight up, the large one if it
    goes up at all, and the router twice, or three times where an answer is handed up."""
    rows, asked = pieces.rows, up | direct
    work = np.zeros((len(drawn), len(STAGES)))
    work[:, SEND] = work[:, ANSWERED] = cores.client_s / 2
    visit_s = pieces.router_hold_s / np.where(up, 3, 2)
    work[:, ROUTE_IN] = work[:, ROUTE_OUT] = visit_s
    work[:, HAND_UP] = np.where(up, visit_s, 0.0)
    small = model_work(rows.small_s, cores.small_besides_s)[drawn]
    large = model_work(rows.large_s, cores.large_besides_s)[drawn]
    work[:, ASK_SMALL] = np.where(direct, 0.0, small)
    work[:, ASK_LARGE] = np.where(asked, large, 0.0)
    work[:, _RECORDED] = cores.records_s
    besides = (
        np.where(direct, 0.0, cores.small_besides_s)
        + np.where(asked, cores.large_besides_s, 0.0)
        + np.where(up, pieces.router_delay_up_s, 0.0)
        + pieces.router_delay_s
        - cores.client_s
    )
    return Works(work, besides)


def play_one(
    rows: Rows, cores: SharedCores, sent_s: FloatArray, *, small: bool, runs: int, seed: int,
    speed_log_sd: float,
) -> tuple[Played, float]:  # fmt: skip
    """Play one endpoint without the router: every request to the small model, or to the large.

    Returns:
        The load as played, and the time that the model takes for a request over its core time.
    """
    rng = np.random.default_rng(seed)
    index = draw_rows(rng, len(rows), runs, len(sent_s))
    speed = np.exp(speed_log_sd * rng.standard_normal(runs))
    alone_s = rows.small_s if small else rows.large_s
    besides_s = cores.small_besides_s if small else cores.large_besides_s
    asked = model_work(alone_s, besides_s)
    shown, end = np.empty(index.shape), np.empty(index.shape)
    held = np.empty(runs)
    for run, drawn in enumerate(index):
        work = np.zeros((len(drawn), len(STAGES)))
        work[:, SEND] = work[:, ANSWERED] = cores.client_s / 2
        work[:, ASK_SMALL if small else ASK_LARGE] = asked[drawn]
        work[:, _RECORDED] = cores.records_s
        passed = pass_through(sent_s, work * speed[run], cores.machine)
        end[run] = passed.answered_s + (besides_s - cores.client_s) * speed[run] - sent_s
        shown[run] = end[run] - _decode_s(rows, drawn, passed)
        held[run] = (
            _held(passed.small_begin_s, passed.small_end_s, work[:, ASK_SMALL])
            if small
            else _held(passed.large_begin_s, passed.large_end_s, work[:, ASK_LARGE])
        )
    nothing = np.zeros(index.shape, dtype=np.bool_)
    gaps = np.maximum(rows.large_tokens[index] - 1, 1)
    played = Played(shown, end, (end - shown) / gaps, nothing, ~nothing)
    return played, float(np.median(held))


def mean_work_s(pieces: Pieces, cores: SharedCores) -> float:
    """Core-seconds that a request takes of the machine, all stages together, mean over the rows."""
    rows = pieces.rows
    up = float(rows.escalate.mean()) * (1 - pieces.direct_share) + pieces.direct_share
    small_s = float(model_work(rows.small_s, cores.small_besides_s).mean())
    large_s = float(model_work(rows.large_s, cores.large_besides_s).mean())
    engines_s = (1 - pieces.direct_share) * small_s + up * large_s
    return engines_s + pieces.router_hold_s + cores.client_s + cores.records_s


def lighter(pieces: Pieces, cores: SharedCores, factor: float) -> Pieces:
    """The same with every work times a factor; what is not work stays."""
    rows, kept_s, kept_up_s = pieces.rows, cores.small_besides_s, cores.large_besides_s
    large_s = kept_up_s + (rows.large_s - kept_up_s) * factor
    return replace(
        pieces,
        rows=replace(
            rows,
            small_s=kept_s + (rows.small_s - kept_s) * factor,
            large_s=large_s,
            large_first_s=rows.large_first_s * large_s / rows.large_s,
        ),
        router_hold_s=pieces.router_hold_s * factor,
        cores=replace(cores, client_s=cores.client_s * factor, records_s=cores.records_s * factor),
    )


def stretch(pieces: Pieces, cores: SharedCores, rate_per_s: float, *, seed: int) -> tuple[
    float, float
]:  # fmt: skip
    """(small, large): time a model takes for a request among so many, over its core time."""
    rng = np.random.default_rng(seed)
    sent_s = np.cumsum(rng.standard_exponential(STRETCH_REQUESTS)) / rate_per_s
    drawn = rng.integers(0, len(pieces.rows), STRETCH_REQUESTS)
    direct = rng.random(STRETCH_REQUESTS) < pieces.direct_share
    up = pieces.rows.escalate[drawn] & ~direct
    works = cascade_works(pieces, cores, drawn, up=up, direct=direct)
    passed = pass_through(sent_s, works.work_s, cores.machine)
    return (
        _held(passed.small_begin_s, passed.small_end_s, works.work_s[:, ASK_SMALL]),
        _held(passed.large_begin_s, passed.large_end_s, works.work_s[:, ASK_LARGE]),
    )


STRETCH_REQUESTS = 4000
_RECORDED = STAGES.index(RECORDS)


def model_work(alone_s: FloatArray, besides_s: float) -> FloatArray:
    """(m,) core-seconds of a model's server for rows that took so long alone."""
    work = alone_s - besides_s
    return np.asarray(np.maximum(work, LEAST_WORK * float(work.mean())), dtype=float)


def _held(begin_s: FloatArray, end_s: FloatArray, work_s: FloatArray) -> float:
    """Mean time that a queue was held by a request over its work; 1 where it had none."""
    served = work_s > 0
    if not served.any():
        return 1.0
    return float((end_s - begin_s)[served].sum() / work_s[served].sum())


def _decode_s(rows: Rows, drawn: NDArray[np.int64], passed: Passed) -> FloatArray:
    """(n,) time between the large model's first token and its last; 0 where it was not asked."""
    share = ((rows.large_s - rows.large_first_s) / rows.large_s)[drawn]
    held = np.nan_to_num(passed.large_end_s - passed.large_begin_s, nan=0.0)
    return np.asarray(share * held, dtype=float)
