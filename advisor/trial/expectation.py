"""From what calibration found to the projection of every arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from advisor.trial.calibration import BLOCKS, EndpointCalibration
from advisor.trial.cascade import Pieces, Played, Rows, Stalls, play, play_alone, without_stalls
from advisor.trial.choice import PairedRows, ThresholdChoice
from advisor.trial.projection import RUNS, Figure, LoadProjection, resampled, summarize
from advisor.trial.records import RequestRecord
from advisor.trial.shared_cores import Machine, SharedCores
from advisor.trial.together import lighter, mean_work_s, play_one, stretch

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RouterCost:
    """What the router adds, measured through it one request at a time."""

    hold_s: float
    """Core time of its process a request, of what it adds."""
    accepted_s: float
    """Added to an accepted answer, the core time included (median)."""
    escalated_s: float
    """Added once more to one that is handed up (median)."""
    sustainable_per_s: float
    """Requests a second that the whole takes, in a closed loop."""
    cpu_s: float | None = None
    """Core time of its process a request, what it does after the answer included."""
    one_user_per_s: float = 0.0
    """Requests a second of one user, who asks again when answered."""
    handed_up_s: float = 0.0
    """`escalated_s` as it was found: negative where handing up takes less than asking directly."""


@dataclass(frozen=True)
class Expectation:
    """Everything that the projections are made from."""

    slm: EndpointCalibration
    llm: EndpointCalibration
    paired: PairedRows
    choice: ThresholdChoice | None
    """None: the policy hands nothing up."""
    router: RouterCost | None
    direct_share: float
    seed: int
    paid_by_time: bool = False
    """Whether the prices are of the engines' time, and not of tokens."""
    company: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By role: engine time a request over that of its calibration, first with one request at a time
    through the router, then with everything at its busiest. On few cores the router, the sender and
    the other engine take some of what an engine has alone; and machines have moods."""

    @property
    def speed_log_sd(self) -> float:
        """How unsteady the machine was while the endpoints were calibrated."""
        return max(self.slm.speed_log_sd, self.llm.speed_log_sd)

    def speed(self, role: str, share: float) -> float:
        """Engine time over that of the calibration at a share of the capacity: as played on shared
        cores, or else linear between the idlest and the busiest that was measured."""
        idle, busy = self.company.get(role, (1.0, 1.0))
        if self.cores is None or self.choice is None:
            return idle + (busy - idle) * min(share, 1.0)
        assert self.router is not None
        rate_per_s = share * self.router.sustainable_per_s
        if not rate_per_s:
            return idle
        pieces = self._together(self.cores, share)
        assert pieces.cores is not None
        small, large = stretch(pieces, pieces.cores, rate_per_s, seed=self.seed)
        return idle * (small if role == "slm" else large)

    @property
    def cores(self) -> SharedCores | None:
        """What is shared where all of the trial runs on this machine; None: it does not, or it is
        not known what each part takes."""
        below, above = self.slm.here, self.llm.here
        if below is None or above is None or self.router is None or self.router.cpu_s is None:
            return None
        small_s, large_s = self._alone_s()
        pace = np.mean([below.machine.pace, above.machine.pace], axis=0)
        return SharedCores(
            machine=Machine(tuple(float(one) for one in pace)),
            client_s=(below.client_s + above.client_s) / 2,
            records_s=(below.records_s + above.records_s) / 2,
            small_besides_s=float(small_s.mean()) - self._core_s(self.slm),
            large_besides_s=float(large_s.mean()) - self._core_s(self.llm),
        )

    def _core_s(self, calibration: EndpointCalibration) -> float:
        """Core time of a server a request, one at a time through the router."""
        assert calibration.server is not None and calibration.server.cpu_s is not None
        return calibration.server.cpu_s * self._idle(calibration.endpoint.role)

    def _idle(self, role: str) -> float:
        """Engine time one at a time through the router, over that of the calibration."""
        return self.company.get(role, (1.0, 1.0))[0]

    def _alone_s(self) -> tuple[FloatArray, FloatArray]:
        """Times of the paired rows at both endpoints alone, without stalls, as they are when asked
        one at a time through the router."""
        small_s, _ = without_stalls(self.slm.times(self.paired.small)[1])
        large_s, _ = without_stalls(self.llm.times(self.paired.large)[1])
        return small_s * self._idle("slm"), large_s * self._idle("llm")

    def pieces(self, share: float) -> Pieces:
        """The cascade's pieces, as calibrated, at a share of the capacity."""
        if (cores := self.cores) is not None:
            return self._together(cores, share)
        slower = {role: self.speed(role, share) / self._idle(role) for role in ("slm", "llm")}
        return self._pieces(slower["slm"], slower["llm"])

    def _together(self, cores: SharedCores, share: float) -> Pieces:
        """The pieces on shared cores: what company costs is played, and in none of the times.

        Per request a busy machine works less than an idle one, since processes that go on with what
        waits need not be woken up. How much less is known at two rates: that of one user, at which
        the works were measured, and the sustainable one, at which they must fill the cores. In
        between it is linear.
        """
        assert self.router is not None and self.router.cpu_s is not None
        pieces = replace(
            self._pieces(1.0, 1.0),
            router_hold_s=self.router.cpu_s,
            router_delay_s=self.router.accepted_s - self.router.cpu_s,
            router_delay_up_s=self.router.handed_up_s,
            cores=cores,
        )
        work_s = float(mean_work_s(pieces, cores))
        full = min(cores.machine.total / (work_s * self.router.sustainable_per_s), 1.0)
        begins = min(self.router.one_user_per_s / self.router.sustainable_per_s, 0.99)
        way = min(max(share - begins, 0.0) / (1 - begins), 1.0)
        return lighter(pieces, cores, 1 - way * (1 - full))

    def _pieces(self, slower: float, slower_up: float) -> Pieces:
        """The pieces with times alone so many times what they are through the idle router."""
        assert self.router is not None
        small, large = self.paired.small, self.paired.large
        kept = np.zeros(len(small), dtype=bool)
        small_s, large_s = self._alone_s()
        large_first_s, large_whole_s = self.llm.times(large)
        small_whole_s = self.slm.times(small)[1]
        _, below = without_stalls(small_whole_s)
        _, above = without_stalls(large_whole_s)
        observed_s = float(small_whole_s.sum() + large_whole_s.sum())
        durations_s = np.concatenate([below, above])
        first_s = np.minimum(large_first_s * self._idle("llm"), large_s)
        return Pieces(
            rows=Rows(
                small_s=small_s * slower,
                large_first_s=first_s * slower_up,
                large_s=large_s * slower_up,
                large_tokens=tokens_of(large),
                escalate=self.paired.escalated(self.choice.threshold) if self.choice else kept,
            ),
            small=self.slm.service,
            large=self.llm.service,
            router_hold_s=self.router.hold_s,
            router_delay_s=max(self.router.accepted_s - self.router.hold_s, 0.0),
            router_delay_up_s=max(self.router.escalated_s, 0.0),
            direct_share=self.direct_share,
            speed_log_sd=self.speed_log_sd,
            stalls=Stalls(len(durations_s) / observed_s, durations_s),
        )

    def cascade(self, sent_s: Sequence[float], *, share: float) -> LoadProjection:
        """The projection of the router's arm for a schedule, at a share of the capacity."""
        pieces = self.pieces(share)
        if pieces.cores is not None:
            lasts_s = float(sent_s[-1])
            unsteady = max(mean_log_sd(one, lasts_s) for one in (self.slm, self.llm))
            pieces = replace(pieces, speed_log_sd=unsteady)
        played = play(pieces, np.asarray(sent_s), runs=RUNS, seed=self.seed)
        found = summarize(played, cascade=True)
        return found.model_copy(
            update={
                "quality": self._quality(len(sent_s)),
                "cost_usd_per_request": self._cost(len(sent_s), share),
            }
        )

    def alone(self, calibration: EndpointCalibration, sent_s: Sequence[float]) -> LoadProjection:
        """The projection of one endpoint's own arm."""
        played, slower = self._played_alone(calibration, np.asarray(sent_s))
        found = summarize(played, cascade=False)
        correct = [record.correct for record in calibration.alone]
        price = calibration.price
        dearer = slower if self.paid_by_time else 1.0
        costs = [dearer * price.of(one) for one in calibration.alone] if price else None
        return found.model_copy(
            update={
                "quality": self._mean(correct, len(sent_s)),
                "cost_usd_per_request": self._mean(costs, len(sent_s)),
            }
        )

    def _played_alone(
        self, calibration: EndpointCalibration, sent_s: FloatArray
    ) -> tuple[Played, float]:
        """One endpoint's own load, and its engine's time over that of the calibration."""
        if (cores := self.cores) is not None:
            # Asked directly, without pause: no other engine takes its caches meanwhile.
            by_itself = replace(self, company={})
            small = calibration.endpoint.role == "slm"
            played, held = play_one(
                by_itself._pieces(1.0, 1.0).rows,
                by_itself.cores or cores,
                sent_s,
                small=small,
                runs=RUNS,
                seed=self.seed,
                speed_log_sd=mean_log_sd(calibration, float(sent_s[-1])),
            )
            return played, held
        first, whole = calibration.times(calibration.alone)
        slower = self.speed(calibration.endpoint.role, 0.0)
        played = play_alone(
            calibration.service,
            first * slower,
            whole * slower,
            tokens_of(calibration.alone),
            sent_s,
            runs=RUNS,
            seed=self.seed,
            speed_log_sd=calibration.speed_log_sd,
        )
        return played, slower

    def _quality(self, count: int) -> Figure | None:
        if not self.paired.is_labelled:
            return None
        return self._mean(np.where(self._up(), *self._correct()).tolist(), count)

    def _correct(self) -> tuple[FloatArray, FloatArray]:
        return self.paired.large_correct, self.paired.small_correct

    def _up(self) -> NDArray[np.bool_]:
        assert self.choice is not None
        up = self.paired.escalated(self.choice.threshold)
        if not self.direct_share:
            return up
        rng = np.random.default_rng(self.seed)
        return np.asarray(up | (rng.random(len(up)) < self.direct_share), dtype=bool)

    def _cost(self, count: int, share: float) -> Figure | None:
        small, large = self.slm.price, self.llm.price
        if small is None or large is None:
            return None
        assert self.choice is not None
        up = self.paired.escalated(self.choice.threshold)
        rng = np.random.default_rng(self.seed)
        direct = rng.random(len(up)) < self.direct_share
        below = self._dearer("slm", share) * np.array([small.of(one) for one in self.paired.small])
        above = self._dearer("llm", share) * np.array([large.of(one) for one in self.paired.large])
        costs = np.where(direct, 0.0, below) + np.where(up | direct, above, 0.0)
        return self._mean(costs.tolist(), count)

    def _dearer(self, role: str, share: float) -> float:
        """What the money grows by where it is the engine's time."""
        return self.speed(role, share) if self.paid_by_time else 1.0

    def _mean(self, values: Sequence[float | None] | None, count: int) -> Figure | None:
        if not values or any(value is None for value in values):
            return None
        return resampled(np.asarray(values, dtype=float), count=count, seed=self.seed)


def mean_log_sd(calibration: EndpointCalibration, lasts_s: float) -> float:
    """1-sd of ln(mean speed over a load / mean speed over the calibration): both are means over
    stretches of which each differs from the next by `speed_log_sd`, of B = `BLOCKS` and of a load's
    T/b: sd·sqrt(1/B + b/T)."""
    share = min(calibration.block_s / max(lasts_s, 1e-3), 1.0)
    return calibration.speed_log_sd * math.sqrt(1 / BLOCKS + share)


def router_cost(
    records: Sequence[RequestRecord],
    *,
    small: Sequence[RequestRecord],
    large: Sequence[RequestRecord],
    cpu_s: float | None,
    sustainable_per_s: float,
) -> RouterCost:
    """What the router added to the same rows, asked of the endpoints directly and through it.

    Args:
        records: through the router, one at a time.
        small, large: the same rows at the endpoints, one at a time.
        cpu_s: core-seconds of its process a request; None: not known, all of it is delay.
    """
    below = {record.row_id: record.e2e_s for record in small}
    above = {record.row_id: record.e2e_s for record in large}
    accepted, escalated = [], []
    for record in records:
        direct_s = below.get(record.row_id)
        if record.status != "completed" or record.e2e_s is None or direct_s is None:
            continue
        upper_s = above.get(record.row_id)
        if record.route == "slm":
            accepted.append(record.e2e_s - direct_s)
        elif record.confidence is not None and upper_s is not None:
            escalated.append(record.e2e_s - direct_s - upper_s)
    added = float(np.median(accepted)) if accepted else 0.0
    up = float(np.median(escalated)) - added if escalated else 0.0
    return RouterCost(
        hold_s=min(cpu_s or 0.0, max(added, 0.0)),
        accepted_s=max(added, 0.0),
        escalated_s=max(up, 0.0),
        sustainable_per_s=sustainable_per_s,
        cpu_s=cpu_s,
        one_user_per_s=_one_user_per_s(records),
        handed_up_s=up,
    )


def _one_user_per_s(records: Sequence[RequestRecord]) -> float:
    times = [record.e2e_s for record in records if record.e2e_s is not None]
    return len(times) / sum(times) if times else 0.0


def tokens_of(records: Sequence[RequestRecord]) -> NDArray[np.int64]:
    """(m,) output tokens; 1 where the server does not say."""
    return np.array([record.output_tokens or 1 for record in records], dtype=np.int64)
