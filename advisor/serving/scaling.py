"""Fleets that grow and shrink with their load, and what stands before the replicas of any fleet."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from advisor.records import Record
from advisor.serving import dispatch
from advisor.serving.engine import EngineSettings
from advisor.serving.preparation import prefix_slots
from advisor.serving.timeline import FleetSize, Timeline
from advisor.serving.workload import Requests

Balancing = Literal["round_robin", "least_loaded", "prefix_aware"]

POLICIES: dict[Balancing, int] = {
    "round_robin": dispatch.ROUND_ROBIN,
    "least_loaded": dispatch.LEAST_LOADED,
    "prefix_aware": dispatch.PREFIX_AWARE,
}


class Scaling(Record):
    """Replicas come and go with the load, as a Kubernetes autoscaler makes them.

    At every tick: desired = ceil(requests inside / target_in_flight), within the limits. More are
    started at once and serve after the cold start; fewer are kept only when that would have
    sufficed for `scale_down_delay_s` (the HorizontalPodAutoscaler's stabilisation window), and the
    ones that go finish what they have.
    """

    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt
    target_in_flight: PositiveInt
    """Requests inside one replica, waiting or running, that are wanted."""
    interval_s: PositiveFloat = 15.0
    """Time between two decisions; Kubernetes' default."""
    cold_start_s: NonNegativeFloat
    """From the decision to the first request: see `cold_start`."""
    scale_down_delay_s: NonNegativeFloat = 300.0
    """Kubernetes' default."""

    @model_validator(mode="after")
    def _limits_are_ordered(self) -> Scaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"max_replicas must be at least min_replicas ({self.min_replicas})")
        return self


def cold_start(*, weight_bytes: float, load_bytes_per_s: float, engine_start_s: float) -> float:
    """Seconds from starting a replica to its first request: weights/bandwidth + engine start."""
    return weight_bytes / load_bytes_per_s + engine_start_s


class FleetFront:
    """What stands before the replicas: balancer, cancellations and the autoscaler."""

    def __init__(
        self,
        requests: Requests,
        *,
        engine: EngineSettings,
        kv_blocks: int,
        replicas: int,
        ready: int,
        balancing: Balancing,
        scaling: Scaling | None,
    ) -> None:
        self.scaling = scaling
        slots = prefix_slots(engine, kv_blocks, requests)
        groups = np.full(len(requests), -1, dtype=np.int64)
        if requests.prefix_group is not None and slots > 0:
            groups = np.ascontiguousarray(requests.prefix_group, dtype=np.int64)
        cancel_order, cancel_s = _cancellations(requests)
        settings, rates = _front_settings(balancing, scaling)
        ticks = 1 if scaling is None else 1 + int(requests.arrival_s[-1] / scaling.interval_s)
        status = np.full(replicas, dispatch.OFF, dtype=np.int64)
        status[:ready] = dispatch.READY
        self.arrays = dispatch.Front(
            settings=settings,
            rates=rates,
            groups=groups,
            cancel_order=cancel_order,
            cancel_s=cancel_s,
            replica_of=np.zeros(len(requests), dtype=np.int64),
            status=status,
            ready_s=np.zeros(replicas),
            launched_s=np.zeros(replicas),
            rented_s=np.zeros(replicas),
            residents=np.full((replicas, max(slots, 1)), -1, dtype=np.int64),
            pushed=np.zeros(replicas, dtype=np.int64),
            loads=np.zeros(replicas, dtype=np.int64),
            history=np.zeros((ticks, 3), dtype=np.int64),
        )

    def told(self, timeline: Timeline) -> Timeline:
        """The timeline with what only the front knows."""
        fleet = None
        if self.scaling is not None:
            # The last tick may lie after the last arrival, and was not decided then.
            history = self.arrays.history
            history = history[history[:, 0] + history[:, 1] > 0]
            ready, starting, inside = history.T.tolist()
            times = self.scaling.interval_s * np.arange(1, len(ready) + 1)
            fleet = FleetSize(
                time_s=tuple(times.tolist()),
                ready=tuple(ready),
                starting=tuple(starting),
                inside=tuple(inside),
            )
        return replace(
            timeline,
            replica=self.arrays.replica_of,
            replica_seconds=float(self.arrays.rented_s.sum()),
            fleet=fleet,
        )


def _cancellations(
    requests: Requests,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Requests that are given up, in order, and when."""
    if requests.cancel_s is None:
        return np.empty(0, dtype=np.int64), np.empty(0)
    order = np.argsort(requests.cancel_s, kind="stable")
    times = requests.cancel_s[order]
    return order[times < np.inf], times[times < np.inf]


def _front_settings(
    balancing: Balancing, scaling: Scaling | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    settings = np.zeros(dispatch.FRONT_SETTINGS, dtype=np.int64)
    rates = np.zeros(dispatch.FRONT_RATES)
    settings[dispatch.POLICY] = POLICIES[balancing]
    if scaling is not None:
        settings[dispatch.LEAST_REPLICAS] = scaling.min_replicas
        settings[dispatch.MOST_REPLICAS] = scaling.max_replicas
        settings[dispatch.TARGET] = scaling.target_in_flight
        settings[dispatch.DOWN_TICKS] = math.ceil(scaling.scale_down_delay_s / scaling.interval_s)
        rates[dispatch.INTERVAL] = scaling.interval_s
        rates[dispatch.COLD_START] = scaling.cold_start_s
    return settings, rates
