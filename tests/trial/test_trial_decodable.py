"""What of its task's schema a trial sends along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from advisor.quality.decodable import NOT_DECODABLE, decodable
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow
from advisor.trial.endpoints import body_of

ROOT = Path(__file__).parents[2]
SANDBOX = TaskProfile.from_yaml(
    (ROOT / "profiles" / "tasks" / "sandbox-service-desk.yaml").read_text(encoding="utf-8")
)


def keywords(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        return set(schema).union(*(keywords(value) for value in schema.values()))
    if isinstance(schema, list):
        return set().union(*(keywords(value) for value in schema)) if schema else set()
    return set()


def test_a_request_asks_by_what_can_be_decoded() -> None:
    row = TrialRow("1", ({"role": "user", "content": "hello"},))

    sent = body_of(row, SANDBOX, logprobs=True)["response_format"]["json_schema"]["schema"]

    whole = SANDBOX.task.output_schema
    assert whole is not None
    assert {"if", "then"} <= keywords(whole)
    assert not keywords(sent) & NOT_DECODABLE
    assert sent["properties"] == whole["properties"]


FIELDS = st.fixed_dictionaries(
    {"intent": st.sampled_from(["book", "cancel", "move", "order", "report", "other", "x"])},
    optional={
        "item": st.sampled_from(["room", "desk", "chair"]),
        "day": st.sampled_from(["monday", "sunday", "never"]),
        "to_day": st.sampled_from(["monday", "sunday"]),
        "ticket": st.sampled_from(["123", "12"]),
        "count": st.integers(0, 13),
    },
)


@given(answer=FIELDS)
def test_every_answer_that_the_task_accepts_can_be_decoded(answer: dict[str, Any]) -> None:
    whole = SANDBOX.task.output_schema
    assert whole is not None
    if Draft202012Validator(whole).is_valid(answer):
        assert Draft202012Validator(decodable(whole)).is_valid(answer)
