"""From what calibration found to the projection of every arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.trial.calibration import EndpointCalibration
from advisor.trial.cascade import Pieces, Rows, Stalls, play, play_alone, without_stalls
from advisor.trial.choice import PairedRows, ThresholdChoice
from advisor.trial.projection import RUNS, Figure, LoadProjection, resampled, summarize
from advisor.trial.records import RequestRecord

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RouterCost:
    """What the router adds, measured through it one request at a time."""

    hold_s: float
    """Core time of its process a request."""
    accepted_s: float
    """Added to an accepted answer, the core time included (median)."""
    escalated_s: float
    """Added once more to one that is handed up (median)."""
    sustainable_per_s: float
    """Requests a second that the whole takes, closed loop."""


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
        """Engine time over that of the calibration at a share of the capacity: linear between the
        idlest and the busiest that was measured."""
        idle, busy = self.company.get(role, (1.0, 1.0))
        return idle + (busy - idle) * min(share, 1.0)

    def pieces(self, share: float) -> Pieces:
        """The cascade's pieces, as calibrated, at a share of the capacity."""
        assert self.choice is not None
        assert self.router is not None
        small, large = self.paired.small, self.paired.large
        slower, slower_up = self.speed("slm", share), self.speed("llm", share)
        _, small_alone_s = self.slm.times(small)
        large_first_s, large_alone_s = self.llm.times(large)
        small_s, below = without_stalls(small_alone_s)
        large_s, above = without_stalls(large_alone_s)
        observed_s = float(small_alone_s.sum() + large_alone_s.sum())
        durations_s = np.concatenate([below, above])
        delay_s = max(self.router.accepted_s - self.router.hold_s, 0.0)
        return Pieces(
            rows=Rows(
                small_s=small_s * slower,
                large_first_s=np.minimum(large_first_s, large_s) * slower_up,
                large_s=large_s * slower_up,
                large_tokens=tokens_of(large),
                escalate=self.paired.escalated(self.choice.threshold),
            ),
            small=self.slm.service,
            large=self.llm.service,
            router_hold_s=self.router.hold_s,
            router_delay_s=delay_s,
            router_delay_up_s=max(self.router.escalated_s, 0.0),
            direct_share=self.direct_share,
            speed_log_sd=self.speed_log_sd,
            stalls=Stalls(len(durations_s) / observed_s, durations_s),
        )

    def cascade(self, sent_s: Sequence[float], *, share: float) -> LoadProjection:
        """The projection of the router's arm for a schedule, at a share of the capacity."""
        played = play(self.pieces(share), np.asarray(sent_s), runs=RUNS, seed=self.seed)
        found = summarize(played, cascade=True)
        return found.model_copy(
            update={
                "quality": self._quality(len(sent_s)),
                "cost_usd_per_request": self._cost(len(sent_s), share),
            }
        )

    def alone(self, calibration: EndpointCalibration, sent_s: Sequence[float]) -> LoadProjection:
        """The projection of one endpoint's own arm."""
        first, whole = calibration.times(calibration.alone)
        slower = self.speed(calibration.endpoint.role, 0.0)
        played = play_alone(
            calibration.service,
            first * slower,
            whole * slower,
            tokens_of(calibration.alone),
            np.asarray(sent_s),
            runs=RUNS,
            seed=self.seed,
            speed_log_sd=calibration.speed_log_sd,
        )
        found = summarize(played, cascade=False)
        correct = [record.correct for record in calibration.alone]
        price = calibration.price
        dearer = self._dearer(calibration.endpoint.role, 0.0)
        costs = [dearer * price.of(one) for one in calibration.alone] if price else None
        return found.model_copy(
            update={
                "quality": self._mean(correct, len(sent_s)),
                "cost_usd_per_request": self._mean(costs, len(sent_s)),
            }
        )

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
    )


def tokens_of(records: Sequence[RequestRecord]) -> NDArray[np.int64]:
    """(m,) output tokens; 1 where the server does not say."""
    return np.array([record.output_tokens or 1 for record in records], dtype=np.int64)
