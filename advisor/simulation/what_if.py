"""What a what-if changes: settings and replicas of each tier, and the shape of the load."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from advisor.decide.recommendation import Chosen, Role, SelfHostedTier
from advisor.documents import validate
from advisor.errors import InputError
from advisor.records import Record
from advisor.serving.engine import EngineSettings
from advisor.serving.simulate import Balancing
from advisor.serving.workload import (
    Arrivals,
    Batches,
    Constant,
    DayProfile,
    Gamma,
    Poisson,
    Stepped,
    workload_of,
)
from advisor.task import TaskProfile

Shape = Literal["stated", "poisson", "gamma", "constant", "batches", "day"]

Setting = float | int | bool


class TierChange(Record):
    """What is changed of one tier; what is not named stays."""

    replicas: PositiveInt | None = None
    balancing: Balancing | None = None
    engine: dict[str, Setting] = Field(default_factory=dict)
    """vLLM settings by name."""


class WhatIf(Record):
    """Changes of an architecture and its load; nothing changes where nothing is stated."""

    tiers: dict[Role, TierChange] = Field(default_factory=dict)
    shape: Shape = "stated"
    """How requests arrive; `stated`: as the task profile says."""
    burstiness: PositiveFloat = 0.25
    """Of the shape `gamma`: 1 is Poisson, less is burstier."""
    batch: PositiveInt = 50
    """Requests that arrive at the same moment, in the shape `batches`."""
    timeout_s: PositiveFloat | None = None
    """Time after arrival at which a client gives up; None: they wait."""


def changed(chosen: Chosen, what_if: WhatIf) -> Chosen:
    """The architecture with the replicas and engine settings of a what-if.

    Raises:
        InputError: a setting that the engine lacks or refuses, or a tier that has no engine.
    """
    tiers = dict(chosen.tiers)
    for role, change in what_if.tiers.items():
        if change == TierChange():
            continue
        tier = tiers.get(role)
        if not isinstance(tier, SelfHostedTier):
            raise InputError(f"what-if: tiers: {role} has no engine of one's own to change")
        unknown = change.engine.keys() - type(tier.engine).model_fields.keys()
        if unknown:
            known = ", ".join(type(tier.engine).model_fields)
            raise InputError(f"engine.{min(unknown)}: one of {known} is expected")
        engine = tier.engine.model_dump() | change.engine
        validate(EngineSettings, engine, what="engine settings")
        tiers[role] = tier.model_copy(
            update={
                "replicas": change.replicas or tier.replicas,
                "engine": type(tier.engine).model_validate(engine),
            }
        )
    return chosen.model_copy(update={"tiers": tiers})


def arrivals_at(task: TaskProfile, what_if: WhatIf, rate_per_s: float, *, count: int) -> Arrivals:
    """How `count` requests arrive where the busiest hour has a rate.

    A day has the 24 hourly rates of the task (`hours_of`). Its hours are shortened so that the day
    has `count` requests: right where an hour so short still lasts much longer than a request.
    """
    if what_if.shape == "poisson":
        return Poisson(rate_per_s)
    if what_if.shape == "gamma":
        return Gamma(rate_per_s, what_if.burstiness)
    if what_if.shape == "constant":
        return Constant(rate_per_s)
    if what_if.shape == "batches":
        return Batches(rate_per_s, what_if.batch)
    if what_if.shape == "day":
        rates = tuple(share * rate_per_s for share in hours_of(task))
        return Stepped(rates, count / sum(rates), burstiness=task.traffic.burstiness)
    return workload_of(task, rate_per_s=rate_per_s).arrivals


def hours_of(task: TaskProfile) -> tuple[float, ...]:
    """Rates of the 24 hours over that of the busiest.

    Where the task states only its peak, the rest of the day shares evenly what the mean leaves; a
    peak of over 24 times the mean would leave nothing, so the rest is then empty.
    """
    traffic = task.traffic
    if traffic.hourly_rates is not None:
        most = max(traffic.hourly_rates)
        return tuple(rate / most for rate in traffic.hourly_rates)
    peak = traffic.peak_rate_per_s / traffic.mean_rate_per_s
    others = DayProfile.HOURS - 1
    rest = max(DayProfile.HOURS / peak - 1, 0.0) / others
    return (*(rest,) * (others // 2), 1.0, *(rest,) * (others - others // 2))
