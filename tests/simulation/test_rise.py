"""Fleets that follow the load: what they save, what the cold start costs, and who is refused."""

from __future__ import annotations

from statistics import mean
from typing import Any

import pytest

from advisor.catalog import load_catalog
from advisor.catalog.locations import PROFILES
from advisor.decide.recommendation import Chosen
from advisor.errors import InputError
from advisor.simulation.rise import hour_before, study_rise
from advisor.task import TaskProfile

INTENT = TaskProfile.load(PROFILES / "tasks" / "intent-classification.yaml")
STEEP = INTENT.with_values(
    {
        "traffic.requests_per_day": 400_000,
        "traffic.peak_to_mean": None,
        "traffic.hourly_rates": [1.0] * 12 + [12.0] + [1.0] * 11,
    }
)
TIER: dict[str, Any] = {
    "kind": "self_hosted",
    "model": "Qwen/Qwen2.5-7B-Instruct",
    "weights_dtype": "bf16",
    "kv_dtype": "bf16",
    "adaptation": "zero_shot",
    "accelerator": "L4",
    "tensor_parallel": 1,
    "replicas": 4,
    "engine": {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "gpu_memory_utilization": 0.9,
        "max_model_len": 1024,
    },
    "provider": "own price",
    "usd_per_accelerator_hour": 2.0,
    "calibration": "calibrated",
}
FLEET = Chosen.model_validate({"tiers": {"slm": TIER}, "policy": "slm_only"})


def test_the_scaled_fleet_is_cheaper_and_slower_while_it_grows() -> None:
    study = study_rise(FLEET, STEEP, catalog=load_catalog())
    tier = study.tiers["slm"]
    # 400,000 · 12/35 requests in the busiest hour, a twelfth of that in the others.
    assert study.peak_per_s == pytest.approx(400_000 * 12 / 35 / 3600)
    assert study.before_per_s == pytest.approx(study.peak_per_s / 12)
    # 7.6 billion parameters in 16 bit at 1.5 GB/s take some 10 s; the engine takes 60.
    assert tier.cold_start_s == pytest.approx(60 + 15.2e9 / 1.5e9, rel=0.02)
    assert min(tier.fleet.ready) >= tier.min_replicas == 1
    assert max(tier.fleet.ready) > min(tier.fleet.ready)
    assert max(tier.fleet.ready) <= tier.max_replicas == 4
    assert study.scaled.p99_ms > study.fixed.p99_ms
    # 23 hours are like the one before the rise, one is like the one after it.
    rented = [
        ready + starting
        for ready, starting in zip(tier.fleet.ready, tier.fleet.starting, strict=True)
    ]
    half = [time_s <= study.span_s / 2 for time_s in tier.fleet.time_s].count(True)
    quiet, busy = mean(rented[:half]), mean(rented[half:])
    assert tier.mean_replicas == pytest.approx((23 * quiet + busy) / 24)
    assert 1 <= quiet < busy <= 4
    assert study.fixed_usd_per_month == pytest.approx(4 * 2.0 * 730.5)
    assert study.scaled_usd_per_month == pytest.approx(tier.mean_replicas * 2.0 * 730.5)


def test_a_fleet_that_may_not_shrink_is_the_fixed_one() -> None:
    study = study_rise(FLEET, STEEP, catalog=load_catalog(), min_replicas=4)
    assert set(study.tiers["slm"].fleet.ready) == {4}
    assert study.scaled_usd_per_month == study.fixed_usd_per_month


def test_the_hour_before_the_busiest() -> None:
    hours = [1.0, 5.0, 10.0] + [2.0] * 21
    task = INTENT.with_values({"traffic.peak_to_mean": None, "traffic.hourly_rates": hours})
    assert hour_before(task) == 0.5
    # At midnight the hour before is the last of the day.
    task = INTENT.with_values(
        {"traffic.peak_to_mean": None, "traffic.hourly_rates": [10.0, *hours[:1], *[2.0] * 22]}
    )
    assert hour_before(task) == 0.2


def test_a_hosted_model_has_no_replicas_to_scale() -> None:
    model = load_catalog().hosted[0]
    reference = {"provider": model.provider, "model": model.id}
    tiers = {"llm": {"kind": "hosted", "hosted": reference, "adaptation": "zero_shot"}}
    hosted = Chosen.model_validate({"tiers": tiers, "policy": "llm_only"})
    with pytest.raises(InputError, match="no tier has replicas"):
        study_rise(hosted, INTENT, catalog=load_catalog())
