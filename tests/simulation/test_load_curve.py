"""Latency against the rate, the capacity, and what a change of one setting does to both."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from advisor.catalog import load_catalog
from advisor.catalog.locations import PROFILES
from advisor.decide.recommendation import Chosen
from advisor.errors import DoesNotFitError, InputError
from advisor.serving.workload import Batches, Constant, Gamma, Poisson, Stepped
from advisor.simulation.escalation import sized_escalation_rate
from advisor.simulation.load_curve import LoadStudy, fleet_usd_per_month, study_load
from advisor.simulation.what_if import TierChange, WhatIf, arrivals_at, changed, hours_of
from advisor.task import TaskProfile

INTENT = TaskProfile.load(PROFILES / "tasks" / "intent-classification.yaml")
COUNT = 3000


def tier(model: str, accelerator: str, replicas: int = 1) -> dict[str, Any]:
    return {
        "kind": "self_hosted",
        "model": model,
        "weights_dtype": "bf16",
        "kv_dtype": "bf16",
        "adaptation": "zero_shot",
        "accelerator": accelerator,
        "tensor_parallel": 1,
        "replicas": replicas,
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


SMALL = Chosen.model_validate(
    {"tiers": {"slm": tier("Qwen/Qwen2.5-0.5B-Instruct", "L4", 2)}, "policy": "slm_only"}
)
HYBRID = Chosen.model_validate(
    {
        "tiers": {
            "slm": tier("Qwen/Qwen2.5-0.5B-Instruct", "L4", 2),
            "llm": tier("Qwen/Qwen2.5-7B-Instruct", "H100-SXM"),
        },
        "policy": "cascade",
        "threshold": 0.8,
    }
)


@cache
def studied(what_if: str = "{}", *, hybrid: bool = False, bound_ms: float = 80.0) -> LoadStudy:
    """A study, kept: the arguments are plain so that they can be looked up."""
    return study_load(
        HYBRID if hybrid else SMALL,
        INTENT.with_values({"latency.e2e_p95_ms": bound_ms}),
        catalog=load_catalog(),
        escalation_rate=0.1 if hybrid else None,
        what_if=WhatIf.model_validate_json(what_if),
        count=COUNT,
    )


def if_small(**change: Any) -> LoadStudy:
    return studied(WhatIf(tiers={"slm": TierChange(**change)}).model_dump_json())


def p95(study: LoadStudy, metric: str = "e2e") -> float:
    return study.peak.figures[metric]["p95"].value_ms


def test_latency_rises_with_the_rate_and_intervals_hold_the_figures() -> None:
    study = studied()
    rates = [point.rate_per_s for point in study.points]
    assert rates == sorted(rates)
    assert study.peak_rate_per_s in rates
    p95s = [point.figures["e2e"]["p95"].value_ms for point in study.points]
    assert all(later > 0.9 * earlier for earlier, later in pairwise(p95s))
    assert p95s[-1] > 2 * p95s[0]
    for point in study.points:
        for figures in point.figures.values():
            assert figures["p50"].value_ms <= figures["p95"].value_ms <= figures["p99"].value_ms
            for one in figures.values():
                assert one.low_ms <= one.value_ms
                assert one.high_ms is None or one.high_ms >= one.value_ms


def test_the_capacity_is_where_the_bound_is_crossed() -> None:
    study = studied()
    capacity = study.capacity.value
    assert capacity is not None
    assert study.binding == "e2e"
    below = [p for p in study.points if p.rate_per_s <= capacity]
    above = [p for p in study.points if p.rate_per_s > capacity]
    assert below
    assert above
    assert all(point.figures["e2e"]["p95"].value_ms <= 80 for point in below)
    assert all(point.figures["e2e"]["p95"].value_ms > 80 for point in above)
    assert study.headroom == pytest.approx(capacity / study.peak_rate_per_s)


def test_slow_steps_take_less_and_quick_ones_more() -> None:
    study = studied()
    for rate in (study.capacity, study.sustainable):
        assert rate.low is not None
        assert rate.value is not None
        assert rate.high is not None
        assert rate.low < rate.value < rate.high


def test_a_bound_that_is_never_met_leaves_no_capacity() -> None:
    study = studied(bound_ms=1.0)
    assert study.capacity.value == 0
    assert study.capacity.high == 0


def test_a_bound_that_never_binds_leaves_what_can_be_sustained() -> None:
    study = studied(bound_ms=1e6)
    assert study.binding is None
    assert study.capacity.value == pytest.approx(study.sustainable.value, rel=0.02)


@pytest.mark.parametrize("replicas", [3, 4, 8])
def test_more_replicas_never_lower_the_capacity(replicas: int) -> None:
    before, after = studied(), if_small(replicas=replicas)
    assert after.capacity.value is not None
    assert before.capacity.value is not None
    assert after.capacity.value >= before.capacity.value
    assert after.sustainable.value == pytest.approx(
        replicas / 2 * (before.sustainable.value or 0), rel=1e-9
    )
    assert after.fleet_usd_per_month == pytest.approx(replicas * 2.0 * 730.5)


def test_without_prefix_caching_the_shared_beginning_is_computed_again() -> None:
    # 280 of some 350 prompt tokens are shared: each request costs several times the prefill.
    before, after = studied(), if_small(engine={"enable_prefix_caching": False})
    assert (after.sustainable.value or 0) < 0.7 * (before.sustainable.value or 0)
    assert p95(after) > p95(before)


def test_a_batch_of_one_cannot_sustain_more_than_a_batch_of_many() -> None:
    assert (if_small(engine={"max_num_seqs": 1}).sustainable.value or 0) < (
        studied().sustainable.value or 0
    )


def test_burstier_arrivals_wait_longer_and_even_ones_less() -> None:
    even, random, bursty = (
        studied(WhatIf(shape=shape, burstiness=0.1).model_dump_json())
        for shape in ("constant", "poisson", "gamma")
    )
    assert p95(even) <= p95(random) < p95(bursty)
    batched = studied(WhatIf(shape="batches", batch=100).model_dump_json())
    assert p95(batched) > p95(random)


def test_over_a_day_most_requests_meet_less_load_than_at_the_peak() -> None:
    assert p95(studied(WhatIf(shape="day").model_dump_json())) < p95(studied())


def test_impatient_clients_give_up_and_are_counted() -> None:
    median_s = 1e-3 * studied().peak.figures["e2e"]["p50"].value_ms
    study = studied(WhatIf(timeout_s=median_s).model_dump_json())
    # The timeout runs to the engine's end; the overhead of a request comes on top of it.
    assert 0.05 < study.peak.given_up_share < 0.95
    # More than one client in twenty leaves: no p95 of all requests is within its bound.
    assert study.binding == "given_up"
    assert study.capacity.value is not None
    assert study.capacity.value < study.peak_rate_per_s < (studied().capacity.value or 0)
    assert studied().peak.given_up_share == 0


def test_a_hybrid_is_told_by_route_and_tier() -> None:
    study = studied(hybrid=True)
    routes = study.peak.routes
    assert set(routes) == {"small", "escalated"}
    assert sum(part.share for part in routes.values()) == pytest.approx(1)
    assert routes["escalated"].share == pytest.approx(0.1, abs=0.02)
    small, escalated = (routes[name].figures["e2e"]["p50"].value_ms for name in routes)
    assert small < p95(study) < routes["escalated"].figures["e2e"]["p99"].value_ms
    assert small < escalated
    assert set(study.peak.series) == {"slm", "llm"}
    for series in study.peak.series.values():
        assert np.all(np.diff(series.time_s) > 0)
        assert 0 <= max(series.kv_share) <= 1


def test_a_hosted_api_without_a_rate_limit_has_no_capacity_to_find() -> None:
    model = next(model for model in load_catalog().hosted if model.role == "slm")
    reference = {"provider": model.provider, "model": model.id}
    tiers = {"slm": {"kind": "hosted", "hosted": reference, "adaptation": "zero_shot"}}
    hosted = Chosen.model_validate({"tiers": tiers, "policy": "slm_only"})
    study = study_load(hosted, INTENT, catalog=load_catalog(), count=500)
    assert study.sustainable.value is None
    assert study.fleet_usd_per_month == 0
    assert study.peak.series == {}


def test_a_task_that_repeats_itself_is_answered_from_the_cache() -> None:
    task = INTENT.with_values({"traffic.repeat_share": 0.5})
    study = study_load(SMALL, task, catalog=load_catalog(), count=COUNT)
    assert study.peak.routes["cache"].share > 0.3
    assert (study.sustainable.value or 0) > 1.3 * (studied().sustainable.value or 0)


def test_the_same_seed_gives_the_same_study() -> None:
    again = study_load(
        SMALL, INTENT.with_values({"latency.e2e_p95_ms": 80.0}), catalog=load_catalog(), count=COUNT
    )
    assert again == studied()


@pytest.mark.parametrize(
    ("what_if", "said"),
    [
        (WhatIf(tiers={"slm": TierChange(engine={"max_seqs": 1})}), "max_num_seqs"),
        (WhatIf(tiers={"slm": TierChange(engine={"max_num_seqs": 4096})}), "at least max_num_seqs"),
        (WhatIf(tiers={"llm": TierChange(replicas=2)}), "llm has no engine"),
    ],
    ids=["unknown", "budget below the batch", "no such tier"],
)
def test_a_change_that_cannot_be_is_told_in_one_line(what_if: WhatIf, said: str) -> None:
    with pytest.raises(InputError) as raised:
        changed(SMALL, what_if)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_context_too_short_or_too_little_memory_is_told() -> None:
    for engine, said in (
        ({"max_model_len": 300}, "longer than a context"),
        ({"gpu_memory_utilization": 0.05}, "GB short"),
    ):
        with pytest.raises(DoesNotFitError, match=said):
            if_small(engine=engine)


def test_nothing_changed_is_the_same_architecture() -> None:
    assert changed(HYBRID, WhatIf(tiers={"slm": TierChange()})) == HYBRID
    # Two L4 and one H100 at 2 USD an hour each.
    assert fleet_usd_per_month(HYBRID) == pytest.approx(3 * 2.0 * 730.5)


def test_the_hours_of_a_day_keep_mean_and_peak() -> None:
    hours = hours_of(INTENT)
    traffic = INTENT.traffic
    assert max(hours) == 1
    assert len(hours) == 24
    assert sum(hours) / 24 == pytest.approx(traffic.mean_rate_per_s / traffic.peak_rate_per_s)
    stated = INTENT.with_values(
        {"traffic.peak_to_mean": None, "traffic.hourly_rates": [1.0] * 23 + [4.0]}
    )
    assert hours_of(stated) == (0.25,) * 23 + (1.0,)


def test_every_shape_keeps_the_rate_of_the_busiest_hour() -> None:
    kinds = {"poisson": Poisson, "gamma": Gamma, "constant": Constant, "batches": Batches}
    for shape, kind in kinds.items():
        arrivals = arrivals_at(INTENT, WhatIf(shape=shape), 50.0, count=1000)
        assert isinstance(arrivals, kind)
        assert arrivals.rate_per_s == 50
    day = arrivals_at(INTENT, WhatIf(shape="day"), 50.0, count=1000)
    assert isinstance(day, Stepped)
    assert max(day.rates_per_s) == 50
    # The shortened day holds the requests asked for.
    assert day.rate_per_s * 24 * day.step_s == pytest.approx(1000)


def test_fleets_are_sized_for_a_tenth_more_escalations() -> None:
    # 10 % skip the small model; 1.1 · (30 − 10) = 22 points of the others are handed up.
    assert sized_escalation_rate(0.3, high_risk_share=0.1) == pytest.approx(0.32)
    assert sized_escalation_rate(0.99, high_risk_share=0.0) == 1
