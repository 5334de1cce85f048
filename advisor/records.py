"""The base of every record in the package: frozen, and closed to unknown keys."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Record(BaseModel):
    """A value: immutable, compared by content, refusing keys it does not know.

    Attribute docstrings become the descriptions in the JSON Schemas. They are read from the source
    when a schema is asked for, and validators are built at their first use: pydantic's own option
    would read every class's source on each import, a tenth of a second of a short command.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties: dict[str, Any] = handler.resolve_ref_schema(schema).get("properties", {})
        for name, meaning in attribute_docstrings(cls).items():
            alias = cls.model_fields[name].alias or name
            if alias in properties:
                properties[alias]["description"] = meaning
        return schema


@cache
def attribute_docstrings(record: type[BaseModel]) -> Mapping[str, str]:
    """What each documented field means, by name: the string below it in its class."""
    found: dict[str, str] = {}
    for owner in reversed(record.__mro__):
        if issubclass(owner, BaseModel) and owner.__module__.partition(".")[0] != "pydantic":
            found |= _documented(owner)
    return {name: meaning for name, meaning in found.items() if name in record.model_fields}


def _documented(owner: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, SyntaxError):  # made without a source file
        return {}
    (definition,) = tree.body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
