"""Read the YAML and JSON files people edit: safely, and with errors they can act on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from advisor.errors import InputError

MAX_DOCUMENT_BYTES = 2_000_000
"""Largest file read as a document; the biggest profile shipped is a tenth of it."""

MAX_ALIASES = 16
"""YAML aliases a document may use: nested, 16 expand to hundreds of values, not to gigabytes."""

MAX_DEPTH = 60
"""Levels a document may nest; the parser's own stack ends the process at some thousands."""

RecordType = TypeVar("RecordType", bound=BaseModel)

try:
    _SafeLoader: type[Any] = yaml.CSafeLoader
except AttributeError:  # pyyaml built without libyaml
    _SafeLoader = yaml.SafeLoader


class _StrictLoader(_SafeLoader):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.YAMLError(
                    f"key '{key}' is given twice (line {key_node.start_mark.line + 1})"
                )
            if not isinstance(key, list | dict):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_text(path: Path, *, what: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """The text of a file of at most `max_bytes`.

    Raises:
        InputError: missing, a folder, unreadable, too large, empty or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InputError(f"{what}: {path} is a folder; a file was expected")
        if size > max_bytes:
            raise InputError(f"{what}: {path} has {size:,} bytes; at most {max_bytes:,} are read")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{what}: no file {path}") from None
    except UnicodeDecodeError:
        raise InputError(f"{what}: {path} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{what}: cannot read {path}: {error.strerror}") from None
    if not text.strip():
        raise InputError(f"{what}: {path} is empty")
    return text


def parse_yaml(text: str, *, what: str) -> Any:
    """The value of a YAML (or JSON) text.

    Raises:
        InputError: not YAML, too many aliases, a key given twice, too deep.
    """
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{what}: more than {MAX_DOCUMENT_BYTES:,} bytes")
    try:
        _check_shape(text, what)
        return yaml.load(text, Loader=_StrictLoader)
    except InputError:
        raise
    except yaml.YAMLError as error:
        raise InputError(f"{what}: not valid YAML: {_one_line(str(error))}") from None
    except (RecursionError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{what}: not usable YAML: {_one_line(str(error))}") from None


def _check_shape(text: str, what: str) -> None:
    """Refuse what would expand or nest without bound, before anything is built from it."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > MAX_DEPTH:
            raise InputError(f"{what}: nested more than {MAX_DEPTH} deep")
        if aliases > MAX_ALIASES:
            raise InputError(f"{what}: more than {MAX_ALIASES} YAML aliases")


def read_yaml(path: Path, *, what: str) -> Any:
    """The value of a YAML file; see `read_text` and `parse_yaml` for what is refused."""
    return parse_yaml(read_text(path, what=what), what=f"{what} {path.name}")


def read_json(path: Path, *, what: str) -> Any:
    """The value of a JSON file.

    Raises:
        InputError: as `read_text`, or not JSON.
    """
    text = read_text(path, what=what)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{what} {path.name}: not valid JSON: {_one_line(str(error))}") from None


def validate(record_type: type[RecordType], value: Any, *, what: str) -> RecordType:
    """A record from plain data.

    Raises:
        InputError: one line naming the first wrong field, its value and what is accepted.
    """
    if not isinstance(value, dict):
        kind = "nothing" if value is None else type(value).__name__
        raise InputError(f"{what}: a mapping of keys to values was expected, not {kind}")
    try:
        return record_type.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{what}: {describe(error, record_type)}") from None


def describe(error: ValidationError, record_type: type[BaseModel] | None = None) -> str:
    """The first problem of a validation, and how many more there are, in one line."""
    problems = error.errors(include_url=False)
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"]) or "the document"
    message = first["msg"].removeprefix("Value error, ")
    match first["type"]:
        case "extra_forbidden":
            accepted = _keys_at(record_type, first["loc"][:-1])
            text = f"unknown key '{field}'" + (
                f"; accepted: {', '.join(accepted)}" if accepted else ""
            )
        case "missing":
            text = f"'{field}' is missing"
        case _:
            text = f"{field} = {_short(first.get('input'))}: {_lower_first(message)}"
    more = len(problems) - 1
    return text + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _keys_at(record_type: type[BaseModel] | None, location: tuple[Any, ...]) -> list[str]:
    """The keys that the record at a location accepts, where that can be told."""
    current = record_type
    for part in location:
        if current is None or part not in current.model_fields:
            return []
        annotation = current.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        current = next(
            (kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)),
            None,
        )
    if current is None:
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _short(value: Any, limit: int = 60) -> str:
    text = _one_line(repr(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
