"""The part of a JSON Schema that servers can decode by.

Grammars of structured outputs (xgrammar, llguidance, OpenAI's strict mode) know no conditions: vLLM
0.32 answers `if`, `then` and `else` with HTTP 400. Leaving a keyword out only admits more answers,
and the gates check every answer by the whole schema, so that nothing is lost but help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_DECODABLE = frozenset(
    {
        "if", "then", "else", "not", "dependentSchemas", "dependentRequired", "dependencies",
        "unevaluatedProperties", "unevaluatedItems", "contains", "minContains", "maxContains",
        "propertyNames", "uniqueItems", "minProperties", "maxProperties",
    }
)  # fmt: skip
"""Keywords that depend on more than the place they stand at."""

HOLDS_DATA = frozenset({"const", "enum", "default", "examples"})
HOLDS_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions"})
HOLDS_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})


def decodable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without what no grammar knows; accepts everything that the schema accepts."""
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NOT_DECODABLE:
            continue
        if key in HOLDS_DATA:
            found[key] = value
        elif key in HOLDS_NAMES and isinstance(value, Mapping):
            found[key] = {name: _part(one) for name, one in value.items()}
        elif key in HOLDS_SCHEMAS and isinstance(value, list):
            parts = [_part(one) for one in value]
            if key == "oneOf":
                # Without their conditions several of the parts may match.
                key = "oneOf" if parts == value else "anyOf"
            if key == "allOf":
                parts = [part for part in parts if part != {}]
            if parts:
                found[key] = parts
        else:
            found[key] = _part(value)
    return found


def _part(value: Any) -> Any:
    return decodable(value) if isinstance(value, Mapping) else value
