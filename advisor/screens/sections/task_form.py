"""The form of a task profile, with each error beside its control."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import streamlit as st
from pydantic import ValidationError

from advisor.screens.formatting import plain
from advisor.screens.sections.task_fields import SECTIONS, Field, named
from advisor.task import TaskProfile

Draft = dict[str, Any]
"""A profile as plain data, possibly wrong."""

FIELDS: Mapping[str, Field] = {field.key: field for part in SECTIONS for field in part.fields}
COLUMNS = 3


def draft_of(task: TaskProfile) -> Draft:
    """Every value of a profile, defaults included."""
    return task.model_dump(mode="json", by_alias=True, exclude_none=True)


def checked(draft: Draft) -> tuple[TaskProfile | None, dict[str, str]]:
    """The profile that a draft describes, or what is wrong with it, by dotted key."""
    try:
        return TaskProfile.model_validate(draft), {}
    except ValidationError as error:
        problems: dict[str, str] = {}
        for problem in error.errors(include_url=False):
            key = _field_at([str(part) for part in problem["loc"]])
            problems.setdefault(key, _message(key, problem["msg"]))
        return None, problems


def draw(draft: Draft, problems: Mapping[str, str], *, revision: int) -> Draft:
    """Draw the form and return what it says now, unchecked.

    Args:
        draft: what it starts from.
        problems: messages by dotted key, shown beside the controls.
        revision: counts how often the draft came from elsewhere.
    """
    result = copy.deepcopy(draft)
    for section in SECTIONS:
        with st.container(border=True):
            st.header(section.title)
            _say(problems.get(section.key))
            for start in range(0, len(section.fields), COLUMNS):
                row = section.fields[start : start + COLUMNS]
                for column, field in zip(st.columns(COLUMNS), row, strict=False):
                    with column:
                        value = _control(field, _get(draft, field.key), f"{field.key}@{revision}")
                        _put(result, field.key, value)
                        _say(problems.get(field.key))
    for tokens in (result["traffic"].get("input_tokens"), result["traffic"].get("output_tokens")):
        if tokens and "mean" in tokens:
            tokens.pop("samples", None)
            tokens.pop("values", None)
    return result


def _control(field: Field, value: Any, key: str) -> Any:
    """The control of a field; it starts from a value and then keeps its own state."""
    if key not in st.session_state:
        st.session_state[key] = _shown(field, value)
    match field.kind:
        case "text":
            return st.text_input(field.label, key=key, help=field.help) or None
        case "area":
            return st.text_area(field.label, key=key, help=field.help, height=100)
        case "number" | "percent":
            number = st.number_input(
                field.label,
                value=None,
                step=1.0 if field.kind == "percent" else None,
                format="%g",
                key=key,
                help=field.help,
                placeholder=field.empty,
            )
            scale = 100 if field.kind == "percent" else 1
            return None if number is None else round(number / scale, 12)
        case "whole":
            return st.number_input(
                field.label, value=None, step=1, key=key, help=field.help, placeholder=field.empty
            )
        case "choice":
            return st.selectbox(
                field.label, list(field.options()), key=key, format_func=named, help=field.help
            )
        case "many":
            options = list(dict.fromkeys((*field.options(), *(value or ()))))
            many = st.multiselect(
                field.label,
                options,
                key=key,
                format_func=named,
                help=field.help,
                placeholder=field.empty,
            )
            return many or None
        case "lines" | "json" | "prices":
            text = st.text_area(field.label, key=key, help=field.help, height=100)
            return _read(field, text.strip())


def _shown(field: Field, value: Any) -> Any:
    """A value of the profile as its control holds it."""
    match field.kind:
        case "number" | "percent":
            scale = 100 if field.kind == "percent" else 1
            return None if value is None else round(scale * float(value), 10)
        case "whole":
            return None if value is None else int(value)
        case "many":
            return list(value or ())
        case "choice":
            return value
        case "text" | "area":
            return value or ""
        case "lines" | "json" | "prices":
            return _written(field, value)


def _written(field: Field, value: Any) -> str:
    """A value as the text of its area."""
    if value is None or isinstance(value, str):
        return value or ""
    if field.kind == "json":
        return json.dumps(value, indent=2)
    if field.kind == "prices":
        return "\n".join(f"{name}: {usd:g}" for name, usd in value.items())
    return "\n".join(str(one) for one in value) if isinstance(value, list) else str(value)


def _read(field: Field, text: str) -> Any:
    """The value that a text means; the text itself where it means none."""
    if not text:
        return None
    if field.kind == "json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    items = [line.strip() for line in text.splitlines() if line.strip()]
    if field.kind == "prices":
        pairs = [item.rsplit(":", 1) for item in items]
        if any(len(pair) < 2 for pair in pairs):
            return text
        return {name.strip(): usd.strip() for name, usd in pairs}
    if len(items) == 1 and items[0].isdecimal():
        return int(items[0])
    return items


def _get(draft: Draft, key: str) -> Any:
    node: Any = draft
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _put(draft: Draft, key: str, value: Any) -> None:
    """Set a value by dotted key; None takes the key away."""
    *parents, last = key.split(".")
    node = draft
    for part in parents:
        node = node.setdefault(part, {})
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value


def _field_at(location: list[str]) -> str:
    """The form's field (or section) that a problem's location lies in."""
    for length in range(len(location), 0, -1):
        key = ".".join(location[:length])
        if key in FIELDS or f"{key}.mean" in FIELDS or length == 1:
            return key if key in FIELDS or f"{key}.mean" not in FIELDS else f"{key}.mean"
    return ""


def _message(key: str, message: str) -> str:
    field = FIELDS.get(key)
    own = message.startswith("Value error, ")
    if field is not None and field.accepts and (field.kind == "percent" or not own):
        return f"{field.accepts} is expected"
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return "a value is needed" if message == "Field required" else message


def _say(problem: str | None) -> None:
    if problem:
        st.markdown(f":red[:material/error: {plain(problem)}]")
