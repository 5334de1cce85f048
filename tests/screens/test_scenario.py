"""Links that carry a scenario."""

from __future__ import annotations

import pytest

from advisor.screens import scenario


def test_the_newcomer_sees_intent_classification() -> None:
    name, task = scenario.from_link({})
    assert name == "intent-classification"
    assert task.latency.e2e_p95_ms == 80
    assert task.traffic.requests_per_day == 10_000_000
    assert next(iter(scenario.examples())) == name


def test_an_unchanged_example_needs_no_parameters() -> None:
    name, task = scenario.from_link({})
    assert scenario.to_link(name, task) == {}


@pytest.mark.parametrize("name", list(scenario.examples()))
def test_a_link_leads_back_to_its_task(name: str) -> None:
    task = scenario.examples()[name].with_values(
        {"quality.threshold": 0.87, "latency.e2e_p95_ms": 345, "traffic.requests_per_day": 12345}
    )
    link = scenario.to_link(name, task)
    assert scenario.from_link(link) == (name, task)


def test_a_bound_that_was_taken_away_is_in_the_link() -> None:
    _, task = scenario.from_link({})
    free = task.with_values({"latency.e2e_p95_ms": None})
    link = scenario.to_link("intent-classification", free)
    assert link == {"latency.e2e_p95_ms": "none"}
    assert scenario.from_link(link)[1].latency.e2e_p95_ms is None


def test_a_task_that_a_link_cannot_carry_has_none() -> None:
    _, task = scenario.from_link({})
    assert scenario.to_link("intent-classification", task.with_values({"name": "Mine"})) == {}
    assert scenario.to_link(None, task) == {}


@pytest.mark.parametrize(
    "query",
    [
        {"example": "../../etc/passwd"},
        {"quality.threshold": "95"},
        {"latency.e2e_p95_ms": "fast"},
        {"traffic.requests_per_day": "-1"},
        {"traffic.peak_to_mean": "nan"},
        {"constraints.data_residency": "moon"},
    ],
)
def test_what_a_link_has_wrong_is_left_out(query: dict[str, str]) -> None:
    assert scenario.from_link(query) == scenario.from_link({})


def test_the_file_reads_back_to_the_same_task() -> None:
    for task in scenario.examples().values():
        assert type(task).from_yaml(scenario.to_yaml(task)) == task
