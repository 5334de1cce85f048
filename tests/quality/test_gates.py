"""Gates: a broken answer is refused, by name of the gate."""

from __future__ import annotations

import json

import pytest

from advisor.errors import InputError
from advisor.quality.gates import Gates
from advisor.task import TaskShape

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["total", "currency"],
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "net": {"type": "number"},
        "currency": {"enum": ["EUR", "USD"]},
        "due": {"type": "string", "format": "date"},
        "code": {"type": "string", "pattern": "^[A-Z]{3}$"},
    },
}


def gates() -> Gates:
    return Gates(output="json", schema=SCHEMA, rules=["total >= net if total > 0 else True"])


def test_a_good_answer_passes_and_comes_back_parsed() -> None:
    report = gates().check(' {"total": 12, "net": 10, "currency": "EUR", "due": "2026-01-31"} ')
    assert report.passed
    assert report.cause == ""
    assert report.value["total"] == 12


@pytest.mark.parametrize(
    ("answer", "gate", "detail"),
    [
        ("", "parse", "not JSON"),
        ('{"total": 1', "parse", "not JSON"),
        ('Sure! {"total": 1, "currency": "EUR"}', "parse", "not JSON"),
        ('{"total": 1, "total": 2, "currency": "EUR"}', "parse", "given twice"),
        ('{"total": NaN, "currency": "EUR"}', "parse", "NaN"),
        ("[" * 100_000, "parse", "not usable"),
        ("[1]", "schema", "is not of type 'object'"),
        ('{"total": -1, "net": 0, "currency": "EUR"}', "schema", "total"),
        ('{"total": 1, "net": 0, "currency": "GBP"}', "schema", "currency"),
        ('{"net": 0, "currency": "EUR"}', "schema", "'total' is a required property"),
        ('{"total": 1, "net": 0, "currency": "EUR", "x": 1}', "schema", "'x' was unexpected"),
        ('{"total": 1, "net": 0, "currency": "EUR", "due": "31.1."}', "schema", "due"),
        ('{"total": 1, "net": 0, "currency": "EUR", "code": "ab"}', "schema", "does not match"),
        ('{"total": 1, "net": 2, "currency": "EUR"}', "rule", "total >= net"),
        ('{"total": 1, "currency": "EUR"}', "rule", "field 'net' is missing"),
    ],
)
def test_a_broken_answer_is_refused_by_name(answer: str, gate: str, detail: str) -> None:
    report = gates().check(answer)
    assert not report.passed
    assert report.cause == gate
    assert detail in report.failures[0].detail


def test_labels_come_back_as_the_task_spells_them() -> None:
    shape = TaskShape(type="classification", output="label", labels=("Card_lost", "refund"))
    task_gates = Gates.of_task(shape)
    assert task_gates.check(" card_lost\n").value == "Card_lost"
    assert task_gates.check("card").cause == "label"
    assert task_gates.check("refund\nbecause …").cause == "parse"
    assert task_gates.check("  ").cause == "parse"
    counted = Gates.of_task(TaskShape(type="classification", output="label", labels=20))
    assert counted.check("anything").passed


def test_text_only_has_to_be_there_and_match_its_pattern() -> None:
    assert Gates(output="text").check("hello").passed
    assert Gates(output="text").check(" \n").cause == "parse"
    ticket = Gates(output="text", pattern="T-[0-9]+")
    assert ticket.check("T-12\n").passed
    assert ticket.check("ticket T-12").cause == "pattern"


def test_hostile_patterns_end() -> None:
    slow = Gates(output="text", pattern="(a|aa)+b")
    report = slow.check("a" * 60)
    assert report.cause == "pattern"
    assert "more than" in report.failures[0].detail
    in_schema = Gates(
        output="json",
        schema={
            "properties": {"x": {"pattern": "^(a|aa)+b$"}},
            "patternProperties": {"(z|zz)+y": {}},
        },
    )
    assert in_schema.check(json.dumps({"x": "a" * 60})).cause == "schema"
    assert in_schema.check(json.dumps({"z" * 60: 1})).cause == "schema"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schema": {"$ref": "https://example.org/x.json"}}, "remote reference"),
        ({"schema": {"properties": {"a": {"$ref": "file:///etc/passwd"}}}}, "remote reference"),
        ({"schema": {"type": "objekt"}}, "schema: type"),
        ({"schema": {"properties": {"a": {"pattern": "("}}}}, "pattern '\\('"),
        ({"schema": {"patternProperties": {"[": {}}}}, "pattern '\\['"),
        ({"pattern": "("}, "pattern"),
        ({"pattern": "a" * 2000}, "more than 1,000 characters"),
        ({"rules": ["import os"]}, "not an expression"),
    ],
)
def test_what_cannot_be_a_gate_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Gates(output="json", **settings)  # type: ignore[arg-type]


def test_a_schema_that_refers_to_itself_ends() -> None:
    endless = Gates(output="json", schema={"$ref": "#"})
    assert endless.check("{}").cause == "schema"
    nested = Gates(
        output="json",
        schema={"type": "object", "properties": {"child": {"$ref": "#"}}},
    )
    assert nested.check('{"child": {"child": {}}}').passed
    assert nested.check('{"child": {"child": 1}}').cause == "schema"


def test_queries_are_checked_without_a_database() -> None:
    task_gates = Gates(output="sql", tables={"users": ["id", "name"]}, dialect="sqlite")
    assert task_gates.check("SELECT name FROM users;").passed
    assert task_gates.check("SELECT mail FROM users").cause == "sql"
    assert Gates(output="sql").check("SELECT mail FROM anything").passed
    assert Gates(output="sql").check("DROP TABLE users").cause == "sql"


def test_an_endless_answer_is_refused_unread() -> None:
    assert Gates(output="text").check("x" * 2_000_000).cause == "parse"
