"""The eight example tasks end to end: right answers for the right reasons."""

import json
import math
from functools import lru_cache
from pathlib import Path

import pytest

from advisor.catalog.locations import PROFILES
from advisor.decide import Exploration, Recommendation, explore
from advisor.decide.recommendation import HostedTier, SelfHostedTier
from advisor.errors import InputError
from advisor.task import TaskProfile

TASKS = sorted(path.stem for path in (PROFILES / "tasks").glob("*.yaml"))


def task(name: str) -> TaskProfile:
    return TaskProfile.load(PROFILES / "tasks" / f"{name}.yaml")


@lru_cache(maxsize=16)
def explored(name: str) -> Exploration:
    return explore(task(name))


def answer(name: str) -> Recommendation:
    return explored(name).answer()


def tiers(found: Recommendation) -> list[SelfHostedTier | HostedTier]:
    shown = [found.chosen, *(other.chosen for other in found.alternatives)]
    return [tier for one in shown if one for tier in one.tiers.values()]


@pytest.mark.parametrize("name", TASKS)
def test_every_figure_has_an_interval_around_it_and_a_basis(name: str) -> None:
    found = answer(name)
    projections = [other.projection for other in found.alternatives]
    assert projections
    for projection in projections:
        for _, figure in projection:
            if figure is not None:
                assert figure.low <= figure.value * (1 + 1e-9)
                assert figure.high is None or figure.value <= figure.high * (1 + 1e-9)
                assert figure.basis


@pytest.mark.parametrize("name", TASKS)
def test_the_json_round_trips(name: str) -> None:
    found = answer(name)
    assert Recommendation.model_validate_json(found.model_dump_json()) == found
    assert "NaN" not in found.model_dump_json() and "Infinity" not in found.model_dump_json()


@pytest.mark.parametrize("name", TASKS)
def test_a_feasible_answer_meets_every_requirement_by_its_median(name: str) -> None:
    found, wanted = answer(name), task(name)
    if found.status == "infeasible":
        assert found.chosen is None and found.rejected
        return
    assert found.projection is not None and found.chosen is not None
    assert found.projection.quality.value >= wanted.quality.threshold - 1e-6
    for field, bound in wanted.latency.bounds.items():
        assert getattr(found.projection, field).value <= bound
    assert {0 <= c.probability <= 1 for c in found.conditions} == {True}


def test_intents_without_labels_are_conditional_and_say_what_would_settle_them() -> None:
    found = answer("intent-classification")
    assert found.status == "conditional"
    quality = found.conditions[0]
    assert "exact_match ≥ 95 %" in quality.requirement
    assert 0.3 < quality.probability < 0.95
    assert "rows" in quality.settle_by
    assert found.next_measurement is not None


def test_private_and_air_gapped_tasks_never_name_a_hosted_api() -> None:
    for name in TASKS:
        if task(name).constraints.hosted_allowed:
            continue
        found = answer(name)
        assert not [tier for tier in tiers(found) if isinstance(tier, HostedTier)]
        assert any("hosted APIs" in rejected.what for rejected in found.rejected)


def test_air_gapped_hardware_is_owned_and_within_its_limit() -> None:
    found = answer("clinical-extraction")
    assert found.chosen is not None
    chosen = list(found.chosen.tiers.values())
    assert all(isinstance(tier, SelfHostedTier) for tier in chosen)
    assert {tier.provider for tier in chosen if isinstance(tier, SelfHostedTier)} == {"owned"}
    assert sum(tier.accelerators for tier in chosen) <= 1


def test_a_task_without_latency_bounds_is_sized_for_cost_alone() -> None:
    found = answer("batch-tagging")
    assert found.chosen is not None
    assert [c for c in found.conditions if "p95" in c.requirement] == []
    patient = found.projection
    hurried = explored("batch-tagging").answer(
        task("batch-tagging").with_values({"latency.e2e_p95_ms": 25})
    )
    assert patient is not None
    if hurried.projection is not None:
        assert hurried.projection.cost_usd_per_month.value >= patient.cost_usd_per_month.value


def test_high_risk_requests_rule_out_a_small_model_alone() -> None:
    found = answer("invoice-extraction")
    assert found.architecture in ("hybrid", "llm", None)
    alone = next(a for a in found.alternatives if a.architecture == "slm")
    assert any("high-risk" in miss for miss in alone.misses)


def test_a_hybrid_pays_for_the_wasted_small_answer() -> None:
    for name in TASKS:
        for other in answer(name).alternatives:
            if other.architecture == "hybrid":
                small = other.chosen.tiers["slm"]
                if isinstance(small, SelfHostedTier):
                    fleet = small.accelerators * small.usd_per_accelerator_hour * 730.5
                    assert other.projection.cost_usd_per_month.value > fleet
                assert other.projection.ttft_p95_ms.value > 0
                assert other.chosen.policy == "cascade"
                assert other.projection.escalation_rate is not None


def test_an_impossible_task_says_which_constraint_and_what_would_admit_it() -> None:
    hopeless = task("intent-classification").with_values(
        {"quality.threshold": 0.9999, "latency.e2e_p95_ms": 2}
    )
    found = explore(hopeless).answer()
    assert found.status == "infeasible"
    assert found.chosen is None
    text = json.dumps([rejected.model_dump() for rejected in found.rejected])
    assert "quality" in text and "E2E p95" in text
    assert all(rejected.by for rejected in found.rejected)


def test_a_changed_bound_is_answered_from_what_is_simulated() -> None:
    before = explored("intent-classification")
    looser = task("intent-classification").with_values({"quality.threshold": 0.9})
    assert before.covers(looser)
    found = before.answer(looser)
    assert found.status == "conditional"
    assert found.projection is not None and before.answer().projection is not None
    cheaper = found.projection.cost_usd_per_month.value
    assert cheaper <= before.answer().projection.cost_usd_per_month.value  # type: ignore[union-attr]
    longer = task("intent-classification").with_values({"traffic.output_tokens": 60})
    assert not before.covers(longer)


def test_twice_the_volume_costs_no_less() -> None:
    base = explored("text-to-sql")
    volume = task("text-to-sql").traffic.requests_per_day
    more = base.answer(task("text-to-sql").with_values({"traffic.requests_per_day": 200 * volume}))
    less = base.answer()
    assert more.projection is not None and less.projection is not None
    assert more.projection.cost_usd_per_month.value > less.projection.cost_usd_per_month.value


def test_the_answer_is_the_same_every_time() -> None:
    first, second = explore(task("batch-tagging")).answer(), explore(task("batch-tagging")).answer()
    ignored = {"provenance"}
    assert first.model_dump(exclude=ignored) == second.model_dump(exclude=ignored)


def test_labels_move_the_answer(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [
        {
            "slm_correct": i % 50 != 0,
            "llm_correct": i % 60 != 0,
            "confidence": 0.3 + 0.6 * (i % 50 != 0),
        }
        for i in range(1500)
    ]
    log.write_text("\n".join(json.dumps(row) for row in rows))
    wanted = task("intent-classification")
    found = explore(wanted, log).answer()
    assert found.projection is not None
    assert found.projection.quality.value == pytest.approx(0.98, abs=0.01)
    assert found.conditions[0].probability > 0.99
    assert "labelled rows" in found.conditions[0].basis
    assert math.isfinite(found.projection.cost_usd_per_month.value)


def test_answers_without_a_mark_are_marked_by_the_metric_of_the_task(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [
        {"expected": "refund", "outputs": {"slm": {"text": "refund" if i % 20 else "order"}}}
        for i in range(400)
    ]
    log.write_text("\n".join(json.dumps({"input": "x", **row}) for row in rows))
    found = explore(task("intent-classification"), log).answer()
    assert "labelled rows" in found.conditions[0].basis


def test_an_unknown_model_or_accelerator_is_named() -> None:
    for key, value in {"models": ["no/such-model"], "accelerators": ["H900"]}.items():
        with pytest.raises(InputError, match=value[0]):
            explore(task("text-to-sql").with_values({f"constraints.{key}": value}))
