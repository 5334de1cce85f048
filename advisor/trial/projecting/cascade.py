"""The trial's cascade played from measured pieces: the router, the small endpoint, the large one.

The three are queues on one clock. What the small model hands up reaches the large one when it is
known to be needed, late and in bursts, as in `advisor.serving.cascade`; here the tiers are queues
with measured times (`service`) instead of engines computed from a model's size.

The pieces stand side by side so that any of them can be exchanged for another measurement, which is
how a wrong projection is traced to what was wrong in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from advisor.trial.projecting.service import MeasuredService, fifo_finish

if TYPE_CHECKING:
    from advisor.trial.projecting.shared_cores import SharedCores

STALLED = 4.0
"""A request that takes so many times the median was not slow: the machine was elsewhere."""

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """What each of m calibration rows showed at both endpoints, asked alone; all shape (m,)."""

    small_s: FloatArray
    """Seconds to the small model's whole answer."""
    large_first_s: FloatArray
    """Seconds to the large model's first token."""
    large_s: FloatArray
    """Seconds to its last."""
    large_tokens: IntArray
    escalate: BoolArray
    """Whether the small answer is handed up."""

    def __len__(self) -> int:
        return len(self.small_s)


@dataclass(frozen=True, eq=False)
class Stalls:
    """Moments in which the whole machine stood still: other work, or a quota of core time.

    They come by the second and not by the request: one asked at a time meets few of them, while of
    a load everything that is under way does. So they are taken out of the times alone and played on
    the clock.
    """

    rate_per_s: float
    durations_s: FloatArray
    """Seen in calibration; empty: none was."""

    @classmethod
    def none(cls) -> Stalls:
        """A machine that never stands still."""
        return cls(0.0, np.zeros(0))


@dataclass(frozen=True, eq=False)
class Pieces:
    """What a projection is made of."""

    rows: Rows
    small: MeasuredService
    large: MeasuredService
    router_hold_s: float = 0.0
    """Time the router's process works on a request: one at a time."""
    router_delay_s: float = 0.0
    """What the router adds to an accepted answer besides."""
    router_delay_up_s: float = 0.0
    """What it adds once more to one that is handed up."""
    direct_share: float = 0.0
    """Share that goes straight to the large model (high risk)."""
    speed_log_sd: float = 0.0
    """1-sd of ln(speed now / speed at calibration): how steady the machine was."""
    stalls: Stalls = field(default_factory=Stalls.none)
    tpot_s: FloatArray | None = None
    """Time per token of answers that streamed in the rehearsal: what reads and passes on a stream
    is late for some tokens and finds several at once. None: as far apart as alone."""
    cores: SharedCores | None = None
    """Where all of it runs on this machine; None: nothing slows down anything else. Then the rows'
    times are core-seconds of the engines, `router_hold_s` those of the router, and what passes
    without work is in `cores`."""


@dataclass(frozen=True, eq=False)
class Played:
    """Runs of a load; shape (runs, n), seconds from sending."""

    ttft_s: FloatArray
    e2e_s: FloatArray
    tpot_s: FloatArray
    """0 for answers released whole, which do not stream."""
    escalated: BoolArray
    """Handed up after the small model, of all."""
    direct: BoolArray

    @classmethod
    def of(
        cls,
        sent_s: FloatArray,
        shown_s: FloatArray,
        end_s: FloatArray,
        large_tokens: NDArray[np.int64],
        *,
        escalated: BoolArray,
        direct: BoolArray,
    ) -> Played:
        """From the times on the wall; (runs, n), those of sending (n,)."""
        return cls(
            ttft_s=shown_s - sent_s,
            e2e_s=end_s - sent_s,
            tpot_s=(end_s - shown_s) / np.maximum(large_tokens - 1, 1),
            escalated=escalated,
            direct=direct,
        )

    @property
    def escalation_rate(self) -> FloatArray:
        """(runs,) of the requests that the small model was asked."""
        asked = (~self.direct).sum(axis=1)
        return np.asarray(self.escalated.sum(axis=1) / np.maximum(asked, 1), dtype=float)


def play(pieces: Pieces, sent_s: FloatArray, *, runs: int, seed: int) -> Played:
    """Play the cascade for a schedule.

    Every run draws its own rows with replacement from a resample of the calibration's (so the
    spread of the runs holds what so few rows leave open) and one speed of the machine.

    Args:
        sent_s: (n,) ascending.
        runs: independent runs.
    """
    if pieces.cores is not None:
        from advisor.trial.projecting.together import play_together

        return play_together(pieces, pieces.cores, sent_s, runs=runs, seed=seed)
    rng = np.random.default_rng(seed)
    index = draw_rows(rng, len(pieces.rows), runs, len(sent_s))
    rows = pieces.rows
    speed = speeds(rng, pieces.speed_log_sd, runs)[:, None]
    direct = rng.random(index.shape) < pieces.direct_share
    escalated = rows.escalate[index] & ~direct

    clocks = [Clock.drawn(rng, pieces.stalls, float(sent_s[-1])) for _ in range(runs)]
    arrive = np.stack([clock.working(sent_s) for clock in clocks])
    enter = fifo_finish(arrive, np.full(index.shape, pieces.router_hold_s) * speed)
    half = pieces.router_delay_s / 2
    small_done = _tier(pieces.small, enter + half, rows.small_s[index] * speed, ~direct)
    up = np.where(direct, enter + half, small_done + pieces.router_delay_up_s)
    asked = escalated | direct
    alone = rows.large_s[index] * speed
    large_done = _tier(pieces.large, up, alone, asked)

    ready = np.where(asked, large_done, small_done) + half
    share = ((rows.large_s - rows.large_first_s) / rows.large_s)[index]
    engine = large_done - up if pieces.large.queue == "sharing" else alone
    decode = np.zeros(index.shape)
    for run, tokens in enumerate(rows.large_tokens[index]):
        apart = paced(pieces, (share * engine)[run], asked[run], tokens, rng)
        decode[run] = np.minimum(apart, (ready - arrive)[run])
    shown = np.stack([c.wall(one) for c, one in zip(clocks, ready - decode, strict=True)])
    end = np.stack([clock.wall(one) for clock, one in zip(clocks, ready, strict=True)])
    tokens = rows.large_tokens[index]
    return Played.of(sent_s, shown, end, tokens, escalated=escalated, direct=direct)


@dataclass(frozen=True, eq=False)
class Clock:
    """The time that a machine has worked, and the wall's: the first stands still in a stall."""

    begin_s: FloatArray
    """Of each stall, on the wall."""
    worked_s: FloatArray
    """Time worked until then."""
    lost_s: FloatArray
    """Shape (stalls + 1,): time lost in the first so many stalls."""

    @classmethod
    def drawn(cls, rng: np.random.Generator, stalls: Stalls, lasts_s: float) -> Clock:
        """A draw of the stalls within a load: a Poisson process on the time worked."""
        count = rng.poisson(stalls.rate_per_s * lasts_s) if len(stalls.durations_s) else 0
        worked = np.sort(rng.random(count) * lasts_s)
        durations = rng.choice(stalls.durations_s, count) if count else np.zeros(0)
        lost = np.concatenate([[0.0], np.cumsum(durations)])
        return cls(worked + lost[:-1], worked, lost)

    def working(self, wall_s: FloatArray) -> FloatArray:
        """Time worked at moments of the wall's clock."""
        after = np.searchsorted(self.begin_s, wall_s, side="right")
        if not len(self.begin_s):
            return wall_s
        last = np.maximum(after - 1, 0)
        # Within the stall that began last, the work stands where it stood.
        ended = wall_s - self.lost_s[after]
        held = np.maximum(ended, self.worked_s[last])
        found: FloatArray = np.where(after > 0, held, wall_s)
        return found

    def wall(self, worked_s: FloatArray) -> FloatArray:
        """The wall's clock when so much is worked."""
        found: FloatArray = (
            worked_s + self.lost_s[np.searchsorted(self.worked_s, worked_s, side="left")]
        )
        return found


def without_stalls(alone_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Times alone without what stalls added to them, and how long those were.

    A time of more than `STALLED` times the median is the median and a stall.
    """
    median = float(np.median(alone_s))
    stalled = alone_s > STALLED * median
    return np.where(stalled, median, alone_s), (alone_s - median)[stalled]


def draw_rows(rng: np.random.Generator, rows: int, runs: int, count: int) -> IntArray:
    """(runs, count) rows, each run from its own resample of them."""
    resample = rng.integers(0, rows, (runs, rows))
    drawn = rng.integers(0, rows, (runs, count))
    found: IntArray = np.take_along_axis(resample, drawn, axis=1)
    return found


def speeds(rng: np.random.Generator, log_sd: float, runs: int) -> FloatArray:
    """(runs,) times of each run over the calibration's: log-normal, one draw from each of as many
    equally likely parts. Drawn freely, their median alone would move that of a p95 near saturation
    by a tenth."""
    shares = (rng.permutation(runs) + 0.5) / runs
    found: FloatArray = np.exp(log_sd * ndtri(shares))
    return found


def paced(
    pieces: Pieces, decode_s: FloatArray, asked: BoolArray, tokens: IntArray,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Time between the first token of each stream and its last; 0 of what does not stream.

    The times per token are those of the rehearsal, from a resample of it, and come in the order of
    the played ones: what is slow is so in both. Without a rehearsal they are as played.

    Args:
        decode_s: (n,) as played from what the engine takes alone.
        asked: (n,) what streams.
        tokens: (n,) of each answer.
    """
    found = np.where(asked, decode_s, 0.0)
    streams = np.flatnonzero(asked & (tokens > 1))
    if pieces.tpot_s is None or not len(streams):
        return found
    gaps = tokens[streams] - 1
    drawn = rng.choice(rng.choice(pieces.tpot_s, len(pieces.tpot_s)), len(streams))
    order = np.argsort(decode_s[streams] / gaps, kind="stable")
    paces = np.empty(len(streams))
    paces[order] = np.sort(drawn)
    found[streams] = paces * gaps
    return found


def _tier(
    service: MeasuredService, sent_s: FloatArray, alone_s: FloatArray, asked: BoolArray
) -> FloatArray:
    """When each asked request is answered; NaN for the others."""
    done = np.full(sent_s.shape, np.nan)
    for run, chosen in enumerate(asked):
        index = np.flatnonzero(chosen)
        if not len(index):
            continue
        index = index[np.argsort(sent_s[run, index], kind="stable")]
        sent, alone = sent_s[run, index], alone_s[run, index]
        done[run, index] = service.serve(sent[None], alone[None])[0]
    return done
