"""The part of a JSON Schema that servers can decode by.

Grammars of structured outputs know no conditions and few assertions about a whole object. vLLM 0.32
tries xgrammar, which leaves out silently what it does not know but refuses some combinations, and
then llguidance, which refuses what it does not know: `if` beside two parts of an `allOf` is HTTP
400, and so are `uniqueItems`, a `format` of an unknown name, or a pattern with a backreference.
OpenAI's strict mode takes `anyOf` and no `oneOf`. Leaving an assertion out only admits more
answers, and the gates check every answer by the whole schema: nothing is lost but help.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NOT_DECODABLE = frozenset(
    {
        "if", "then", "else", "not", "dependentSchemas", "dependentRequired", "dependencies",
        "unevaluatedProperties", "unevaluatedItems", "contains", "minContains", "maxContains",
        "propertyNames", "uniqueItems", "minProperties", "maxProperties", "$dynamicRef",
        "$dynamicAnchor",
    }
)  # fmt: skip
"""Keywords that depend on more than the place they stand at."""

DECODABLE_FORMATS = frozenset(
    {"date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
"""Formats that each of the grammars knows; the standard calls all of them annotations."""

HOLDS_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions"})
HOLDS_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
HOLDS_SCHEMA = frozenset({"items", "additionalItems", "additionalProperties"})

_BEYOND_GRAMMARS = re.compile(r"\(\?(?!:|P?<[A-Za-z_])|\\[1-9kbBAZzGc]")
"""In a regular expression: groups that do more than group, references back, and anchors besides ^
and $. A text that only looks like one of them costs the help of its pattern, no more."""


def decodable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without what grammars do not know; accepts everything that the schema accepts.

    Raises:
        RecursionError: nested some hundreds of levels deep.
    """
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NOT_DECODABLE:
            continue
        if key in HOLDS_NAMES and isinstance(value, Mapping):
            found[key] = {name: _part(one) for name, one in value.items()}
        elif key in HOLDS_SCHEMAS and isinstance(value, list):
            found[key] = [_part(one) for one in value]
        elif key in HOLDS_SCHEMA:
            found[key] = _part(value)
        elif not _is_unknown(key, value):
            found[key] = value
    return _one_of_as_any_of(found)


def _part(value: Any) -> Any:
    return decodable(value) if isinstance(value, Mapping) else value


def _is_unknown(key: str, value: Any) -> bool:
    """Whether grammars do not know what is asked of a text."""
    if key == "format":
        return value not in DECODABLE_FORMATS
    return key == "pattern" and isinstance(value, str) and bool(_BEYOND_GRAMMARS.search(value))


def _one_of_as_any_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Without all of their assertions several parts of a `oneOf` may match; what is empty says
    nothing."""
    parts = [part for part in schema.pop("allOf", []) if part not in ({}, True)]
    either = schema.pop("oneOf", None)
    if either is not None:
        if "anyOf" in schema:
            parts.append({"anyOf": either})
        else:
            schema["anyOf"] = either
    if parts:
        schema["allOf"] = parts
    return schema
