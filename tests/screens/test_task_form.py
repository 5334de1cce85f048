"""What the form makes of a profile, and where it puts what is wrong."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel

from advisor.screens import scenario
from advisor.screens.sections import task_form
from advisor.screens.sections.task_fields import SECTIONS
from advisor.task import TaskProfile


def draft(**changes: Any) -> task_form.Draft:
    result = task_form.draft_of(scenario.examples()["intent-classification"])
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = result
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return result


@pytest.mark.parametrize("name", list(scenario.examples()))
def test_a_draft_means_its_task(name: str) -> None:
    task = scenario.examples()[name]
    assert task_form.checked(task_form.draft_of(task)) == (task, {})


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"latency__e2e_p95_ms": -5}, "latency.e2e_p95_ms", "must be greater than 0"),
        ({"quality__threshold": 9.5}, "quality.threshold", "0 to 100 % is expected"),
        ({"quality__confidence": 0.2}, "quality.confidence", "50 to less than 100 % is expected"),
        ({"traffic__input_tokens": {"p95": 3}}, "traffic.input_tokens.mean", "a number"),
        ({"traffic__shared_prefix_tokens": 999}, "traffic", "exceeds the mean"),
        ({"task__schema": "{"}, "task.schema", "a JSON object is expected"),
        ({"task__schema": {"$ref": "http://x/y"}}, "task.schema", "remote reference"),
        ({"task__labels": ["a", "a"]}, "task.labels", "labels must differ"),
        ({"constraints__usd_per_accelerator_hour": "L4"},
         "constraints.usd_per_accelerator_hour", "one `ACCELERATOR: USD` a line"),
        ({"traffic__hourly_rates": [1] * 23}, "traffic.hourly_rates", "24"),
        ({"name": ""}, "name", "at least 1 character"),
    ],
)  # fmt: skip
def test_a_problem_lies_with_its_field(changes: dict[str, Any], key: str, message: str) -> None:
    task, problems = task_form.checked(draft(**changes))
    assert task is None
    assert list(problems) == [key]
    assert message in problems[key]
    assert "\n" not in problems[key]


def test_every_value_of_a_profile_has_a_field() -> None:
    """Nothing can be stated in a file that the form does not show, but for the exceptions."""
    elsewhere = {"assumptions", "traffic.input_tokens.samples", "traffic.input_tokens.values",
                 "traffic.output_tokens.samples", "traffic.output_tokens.values"}  # fmt: skip
    asked = {field.key for section in SECTIONS for field in section.fields}
    assert set(keys_of(TaskProfile)) - elsewhere == asked


def keys_of(record: type[BaseModel], path: str = "") -> list[str]:
    keys: list[str] = []
    for name, info in record.model_fields.items():
        key = f"{path}{info.alias or name}"
        options = (info.annotation, *get_args(info.annotation))
        inner = next((t for t in options if isinstance(t, type) and issubclass(t, BaseModel)), None)
        keys += keys_of(inner, f"{key}.") if inner else [key]
    return keys
