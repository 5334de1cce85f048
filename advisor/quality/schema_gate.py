"""JSON Schema as a gate: local references only, patterns under a time limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from advisor.errors import InputError
from advisor.quality.patterns import PatternTimeoutError, compile_pattern, found_in

PROBLEMS_NAMED = 3
"""Violations named of one answer; one is enough to refuse it."""


class SchemaGate:
    """A JSON Schema (draft 2020-12) that answers are checked against.

    Raises:
        InputError: not a schema, a reference that leaves it, or a pattern that does not compile.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._document = dict(schema)
        for key, value in _keywords(self._document):
            if key in ("$ref", "$dynamicRef") and not str(value).startswith("#"):
                raise InputError(f"schema: remote reference '{value}': only references within it")
            if key == "pattern" and isinstance(value, str):
                compile_pattern(value)
            if key == "patternProperties" and isinstance(value, dict):
                for pattern in value:
                    compile_pattern(pattern)
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError

        try:
            Draft202012Validator.check_schema(self._document)
        except SchemaError as error:
            where = ".".join(str(part) for part in error.absolute_path) or "the document"
            raise InputError(f"schema: {where}: {' '.join(error.message.split())[:200]}") from None
        except RecursionError:
            raise InputError("schema: nested too deep") from None

    def problems(self, value: Any) -> tuple[str, ...]:
        """What is wrong with an answer; empty where it conforms."""
        try:
            found = []
            for error in self._validator.iter_errors(value):
                where = ".".join(str(part) for part in error.absolute_path) or "the answer"
                found.append(f"{where}: {' '.join(error.message.split())[:200]}")
                if len(found) == PROBLEMS_NAMED:
                    break
        except PatternTimeoutError as error:
            return (str(error),)
        except RecursionError:
            return ("the schema refers to itself without end",)
        return tuple(found)

    @cached_property
    def _validator(self) -> Any:
        # Imported here: jsonschema takes 0.1 s, which only those with a schema should pay.
        from jsonschema import Draft202012Validator, FormatChecker, validators
        from referencing import Registry

        extend: Any = validators.extend
        kind = extend(
            Draft202012Validator,
            {"pattern": _pattern, "patternProperties": _pattern_properties},
        )
        return kind(self._document, registry=Registry(), format_checker=FormatChecker())


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    """`pattern` with a time limit: the standard library's has none."""
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not found_in(pattern, instance):
        yield ValidationError(f"{instance[:60]!r} does not match {pattern[:60]!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for key, value in instance.items():
            if found_in(pattern, key):
                yield from validator.descend(value, subschema, path=key, schema_path=pattern)


def _keywords(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a document, without recursion."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            yield from current.items()
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)
