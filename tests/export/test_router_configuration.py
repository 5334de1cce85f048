"""A recommendation becomes the router that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor import TaskProfile, recommend
from advisor.catalog import load_catalog
from advisor.catalog.locations import PROFILES
from advisor.decide.recommendation import Recommendation, SelfHostedTier
from advisor.errors import InputError
from advisor.export.router_configuration import (
    PROVIDER_URLS,
    router_configuration,
    router_file,
)
from advisor.router.config import RouterConfig


def answered(name: str) -> tuple[Recommendation, TaskProfile]:
    task = TaskProfile.load(PROFILES / "tasks" / f"{name}.yaml")
    return recommend(task), task


@pytest.mark.parametrize("name", ["intent-classification", "support-assistant", "text-to-sql"])
def test_the_file_is_read_back_as_what_was_recommended(name: str, tmp_path: Path) -> None:
    found, task = answered(name)
    assert found.chosen is not None
    path = tmp_path / "router.yaml"
    path.write_text(router_file(found, task), encoding="utf-8")
    config = RouterConfig.load(path)
    assert config == router_configuration(found, task)
    assert config.policy.name == found.chosen.policy
    assert config.policy.threshold == found.chosen.threshold
    assert {role for role in ("slm", "llm") if getattr(config, role)} == set(found.chosen.tiers)
    assert config.telemetry.escalation_limit == task.constraints.max_escalation_rate


def test_self_hosted_tiers_are_charged_their_share_of_the_fleet() -> None:
    """What a month of requests is charged comes to a month of the accelerators."""
    found, task = answered("intent-classification")
    assert found.chosen is not None and found.projection is not None
    config = router_configuration(found, task)
    escalation = found.projection.escalation_rate
    assert escalation is not None
    for role, share in (("slm", 1.0), ("llm", escalation.value)):
        tier, upstream = found.chosen.tiers[role], getattr(config, role)
        assert isinstance(tier, SelfHostedTier)
        month = tier.accelerators * tier.usd_per_accelerator_hour * 730.5
        charged = upstream.price.usd_per_request * task.traffic.requests_per_month * share
        assert charged == pytest.approx(month, rel=1e-3)


def test_every_provider_of_the_catalogue_has_an_address() -> None:
    assert {model.provider for model in load_catalog().hosted} <= set(PROVIDER_URLS)


def test_where_nothing_was_recommended_there_is_nothing_to_route_to() -> None:
    task = TaskProfile.load(PROFILES / "tasks" / "intent-classification.yaml")
    impossible = task.with_values({"quality.threshold": 0.99999, "latency.e2e_p95_ms": 1})
    with pytest.raises(InputError, match="nothing was recommended"):
        router_configuration(recommend(impossible), impossible)
