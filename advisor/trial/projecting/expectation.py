"""From what calibration found to the projection of every arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from advisor.decide.recommendation import Role
from advisor.trial.choice import PairedRows, ThresholdChoice
from advisor.trial.projecting.calibration import EndpointCalibration
from advisor.trial.projecting.cascade import Pieces, Rows, Stalls, play, without_stalls
from advisor.trial.projecting.projection import RUNS, Figure, LoadProjection, resampled, summarize
from advisor.trial.projecting.rehearsal import (
    FASTEST,
    LEAST_EFFICIENCY,
    LEAST_STREAMED,
    SLOWEST,
    Observed,
    found_by_playing,
)
from advisor.trial.projecting.works import Works, on_cores, works_of
from advisor.trial.records import ArmName, RequestRecord

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
    alone: Mapping[ArmName, Observed] = field(default_factory=dict)
    """One request at a time to what each arm is sent to."""
    rehearsals: Mapping[ArmName, Observed] = field(default_factory=dict)
    """A short load at each arm's own rate; empty where none was sent."""

    @property
    def speed_log_sd(self) -> float:
        """How unsteady the machine was while the endpoints were calibrated."""
        return max(self.slm.speed_log_sd, self.llm.speed_log_sd)

    def speed(self, role: Role, arm: ArmName = "router") -> float:
        """What a request takes of an engine over that in the calibration, as rehearsed."""
        seen = self.rehearsals.get(arm)
        return 1.0 if seen is None else seen.speeds.get(role, 1.0)

    @cached_property
    def pieces(self) -> Pieces:
        """The cascade's pieces, as calibrated and rehearsed."""
        return self._rehearsed("router", self._pieces)

    def _rehearsed(self, arm: ArmName, pieces: Callable[[float], Pieces]) -> Pieces:
        """An arm's pieces: on shared cores where all that takes part in it runs on this machine,
        otherwise with times that the rehearsal stretches.

        Args:
            pieces: by what the endpoints' times alone are multiplied with.
        """
        seen, whole = self.rehearsals.get(arm), pieces(1.0)
        if seen is None or not len(seen.sent_s):
            return whole
        whole = replace(whole, tpot_s=self._paces(arm, seen))
        works, before = self._works(seen), self._works(self.alone.get(arm))
        if works is None or before is None:
            factor, _ = found_by_playing(pieces, seen, quick=FASTEST, slow=SLOWEST, seed=self.seed)
            return replace(pieces(factor), tpot_s=whole.tpot_s)
        rest_s = before.rest_s(self.alone[arm])

        def shared(efficiency: float) -> Pieces:
            return on_cores(whole, works, efficiency=efficiency, rest_s=rest_s)

        efficiency, beyond_s = found_by_playing(
            shared, seen, quick=1.0, slow=LEAST_EFFICIENCY, seed=self.seed
        )
        quicker_s = min(beyond_s, 0.0)
        rest_s = (rest_s[0] + quicker_s, rest_s[1])
        return on_cores(whole, works, efficiency=efficiency, rest_s=rest_s)

    def _paces(self, arm: ArmName, seen: Observed) -> FloatArray | None:
        """Times per token of the rehearsal, and where few answers streamed in it, of those that did
        one at a time; None: too few even so."""
        alone = self.alone.get(arm)
        found = seen.tpot_s
        if len(found) < LEAST_STREAMED and alone is not None:
            found = np.concatenate([found, alone.tpot_s])
        return found if len(found) >= LEAST_STREAMED else None

    def _works(self, seen: Observed | None) -> Works | None:
        """Core-seconds a request of all that takes part in an arm; None: not known, or not all of
        it runs on this machine."""
        if seen is None or not (self.slm.here and self.llm.here):
            return None
        return works_of(seen, self.slm.server, self.llm.server)

    def _pieces(self, slower: float) -> Pieces:
        """The cascade's pieces with times alone so many times those of the calibration."""
        assert self.router is not None
        small, large = self.paired.small, self.paired.large
        kept = np.zeros(len(small), dtype=bool)
        large_first_s, large_whole_s = self.llm.times(large)
        small_whole_s = self.slm.times(small)[1]
        small_s, below = without_stalls(small_whole_s)
        large_s, above = without_stalls(large_whole_s)
        observed_s = float(small_whole_s.sum() + large_whole_s.sum())
        durations_s = np.concatenate([below, above])
        return Pieces(
            rows=Rows(
                small_s=small_s * slower,
                large_first_s=np.minimum(large_first_s, large_s) * slower,
                large_s=large_s * slower,
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

    def cascade(self, sent_s: Sequence[float]) -> LoadProjection:
        """The projection of the router's arm for a schedule."""
        played = play(self.pieces, np.asarray(sent_s), runs=RUNS, seed=self.seed)
        found = summarize(played, cascade=True)
        return found.model_copy(
            update={
                "quality": self._quality(len(sent_s)),
                "cost_usd_per_request": self._cost(len(sent_s)),
            }
        )

    def one_model(
        self, calibration: EndpointCalibration, sent_s: Sequence[float], *, arm: ArmName
    ) -> LoadProjection:
        """The projection of an arm that asks one model alone, directly or through the router."""
        role = calibration.endpoint.role

        def by_itself(slower: float) -> Pieces:
            pieces = self._pieces(slower)
            nobody = np.zeros(len(pieces.rows), dtype=bool)
            alone = replace(
                pieces,
                rows=replace(pieces.rows, escalate=nobody),
                router_delay_up_s=0.0,
                direct_share=0.0 if role == "slm" else 1.0,
            )
            through = arm == "router"
            return alone if through else replace(alone, router_hold_s=0.0, router_delay_s=0.0)

        pieces = self._rehearsed(arm, by_itself)
        played = play(pieces, np.asarray(sent_s), runs=RUNS, seed=self.seed)
        correct = [record.correct for record in calibration.alone]
        price = calibration.price
        dearer = self.speed(role, arm) if self.paid_by_time else 1.0
        costs = [dearer * price.of(one) for one in calibration.alone] if price else None
        return summarize(played, cascade=False).model_copy(
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

    def _cost(self, count: int) -> Figure | None:
        small, large = self.slm.price, self.llm.price
        if small is None or large is None:
            return None
        assert self.choice is not None
        up = self.paired.escalated(self.choice.threshold)
        rng = np.random.default_rng(self.seed)
        direct = rng.random(len(up)) < self.direct_share
        asked = float(np.mean(up | direct))
        below = self._dearer("slm") * np.array([small.of(one) for one in self.paired.small])
        above = self._dearer("llm") * np.array([large.of(one) for one in self.paired.large])
        above *= self._rehearsed_share / asked if self._rehearsed_share and asked else 1.0
        costs = np.where(direct, 0.0, below) + np.where(up | direct, above, 0.0)
        return self._mean(costs.tolist(), count)

    @property
    def _rehearsed_share(self) -> float | None:
        """Of requests that the large model was asked in the rehearsal, where its server's money
        goes by the second and not by the request: processes that wait for each other by spinning,
        as vLLM's on a processor, use their core whether one request comes or ten."""
        seen = self.rehearsals.get("router")
        spins = self.paid_by_time and self.llm.service.queue == "sharing"
        return float(seen.up.mean()) if spins and seen is not None and len(seen.up) else None

    def _dearer(self, role: Role) -> float:
        """What the money grows by where it is the engine's time."""
        return self.speed(role) if self.paid_by_time else 1.0

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
