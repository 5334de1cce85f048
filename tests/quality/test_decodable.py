"""What of a schema is sent to servers that decode by it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from advisor.errors import InputError
from advisor.quality.decodable import NOT_DECODABLE, decodable
from advisor.quality.schema_gate import SchemaGate


def keywords(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        return set(schema).union(*(keywords(value) for value in schema.values()))
    if isinstance(schema, list):
        return set().union(*(keywords(value) for value in schema)) if schema else set()
    return set()


def test_conditions_are_left_out_and_the_rest_stays() -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "if": {"type": "string", "not": {}}},
        "required": ["kind"],
        "allOf": [{"if": {"required": ["if"]}, "then": {"maxProperties": 2}}],
    }

    assert decodable(schema) == {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "if": {"type": "string"}},
        "required": ["kind"],
    }


def test_parts_of_which_one_had_to_match_may_all_match_once_they_say_less() -> None:
    """{"not": …} tells the two apart; without it both accept a string, and oneOf would refuse."""
    schema = {"oneOf": [{"type": "string"}, {"type": "string", "not": {"const": "a"}}]}

    assert decodable(schema) == {"anyOf": [{"type": "string"}, {"type": "string"}]}
    both = {"anyOf": [{"minimum": 1}], "oneOf": [{"maximum": 2}], "allOf": [{"not": {}}]}
    assert decodable(both) == {"anyOf": [{"minimum": 1}], "allOf": [{"anyOf": [{"maximum": 2}]}]}


@pytest.mark.parametrize("pattern", [r"^[A-Z]{3}-\d+$", "^(?:a|b)c$", r"^(?<year>\d{4})$", r"\.$"])
def test_a_pattern_that_an_automaton_can_follow_stays(pattern: str) -> None:
    assert decodable({"type": "string", "pattern": pattern}) == {
        "type": "string",
        "pattern": pattern,
    }


@pytest.mark.parametrize(
    "pattern", ["^(?!x)", "(?<=a)b", r"^(a)\1$", r"\bword\b", r"(?P<a>.)(?P=a)"]
)
def test_a_pattern_that_none_can_is_left_to_the_gates(pattern: str) -> None:
    assert decodable({"type": "string", "pattern": pattern}) == {"type": "string"}


def test_formats_that_not_every_grammar_knows_are_left_to_the_gates() -> None:
    assert decodable({"type": "string", "format": "date"}) == {"type": "string", "format": "date"}
    assert decodable({"type": "string", "format": "iri"}) == {"type": "string"}


@pytest.mark.parametrize(
    "data",
    [{"const": {"if": 1}}, {"enum": [{"not": 2}]}, {"x-note": {"if": {}}}, {"items": False}],
)
def test_data_in_a_schema_is_no_schema(data: dict[str, Any]) -> None:
    assert decodable(data) == data


LEAVES = st.sampled_from(
    [
        {"type": "string"}, {"type": "integer"}, {"const": 1}, {"enum": ["a", 2]}, {"minimum": 1},
        {"pattern": "^(?!a)"}, {"minLength": 2}, {"required": ["a"]}, {"maxProperties": 1},
        {"uniqueItems": True}, {"contains": {"const": 1}}, True, {},
    ]
)  # fmt: skip


def grown(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(parts, min_size=1, max_size=3)
    named = st.dictionaries(st.sampled_from(["a", "b"]), parts, max_size=2)
    keys: dict[str, st.SearchStrategy[Any]] = {
        "allOf": several, "anyOf": several, "oneOf": several, "not": parts, "if": parts,
        "then": parts, "else": parts, "items": parts, "properties": named,
        "additionalProperties": parts, "dependentSchemas": named, "prefixItems": several,
    }  # fmt: skip
    return st.fixed_dictionaries({}, optional=keys)


SCHEMAS = st.recursive(LEAVES, grown, max_leaves=8).filter(lambda one: isinstance(one, dict))
VALUES = st.recursive(
    st.sampled_from([1, 2, "a", "bb", None]),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), parts, max_size=3)
    ),
    max_leaves=5,
)


@given(schema=SCHEMAS, value=VALUES)
def test_every_answer_that_a_schema_accepts_can_be_decoded(
    schema: dict[str, Any], value: Any
) -> None:
    known = decodable(schema)

    Draft202012Validator.check_schema(known)
    assert not keywords(known) & (NOT_DECODABLE | {"oneOf"})
    assert decodable(known) == known
    if Draft202012Validator(schema).is_valid(value):
        assert Draft202012Validator(known).is_valid(value)


@pytest.mark.parametrize("depth", [10, 30, 100, 300, 900])
def test_what_is_nested_too_deep_the_gate_refuses_first(depth: int) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    try:
        SchemaGate(schema)
    except InputError as refused:
        assert "nested too deep" in str(refused)
    else:
        assert decodable(schema) == schema
