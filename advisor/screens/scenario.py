"""The task that every screen is about: kept for the session, shareable as a link."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st
import yaml

from advisor.catalog.locations import PROFILES
from advisor.errors import InputError
from advisor.task import TaskProfile

FIRST_EXAMPLE = "intent-classification"
"""What a newcomer sees."""

SANDBOX = "sandbox-service-desk"
"""The task of the live trial's own models: no example, since its answer is no product."""

HEADLINE = (
    "quality.threshold",
    "latency.e2e_p95_ms",
    "latency.ttft_p95_ms",
    "traffic.requests_per_day",
    "traffic.peak_to_mean",
    "constraints.data_residency",
)
"""Inputs that have a control beside the recommendation and a place in the link."""

_TASK, _EXAMPLE, _LABELS = "scenario.task", "scenario.example", "scenario.labels"
_STARTED = "scenario.started"


@dataclass(frozen=True)
class Labels:
    """Labelled outputs that the recommendation takes into account."""

    name: str
    """As the user calls them."""
    path: Path
    """A JSONL log that the search can read."""
    digest: str
    """Of its content."""
    rows: int


@lru_cache(maxsize=1)
def examples() -> Mapping[str, TaskProfile]:
    """The shipped example profiles by file name, the newcomer's first."""
    paths = (PROFILES / "tasks").glob("*.yaml")
    loaded = {path.stem: TaskProfile.load(path) for path in paths if path.stem != SANDBOX}
    return dict(sorted(loaded.items(), key=lambda item: (item[0] != FIRST_EXAMPLE, item[1].name)))


def current() -> TaskProfile:
    """The session's task; on the first run the one that the link names."""
    if _TASK not in st.session_state:
        name, task = from_link(st.query_params.to_dict())
        st.session_state[_EXAMPLE], st.session_state[_TASK] = name, task
    task = st.session_state[_TASK]
    assert isinstance(task, TaskProfile)
    return task


def example() -> str | None:
    """Which example the task was made from; None where it was uploaded or written."""
    current()
    name = st.session_state[_EXAMPLE]
    return name if isinstance(name, str) else None


def change(task: TaskProfile) -> None:
    """Go on with another version of the task."""
    st.session_state[_TASK] = task


def start_from(example: str | None, task: TaskProfile) -> None:
    """Go on with another task: an example of that name, or one from elsewhere.

    Labels say how good answers to the task before were: they are no longer used.
    """
    st.session_state[_EXAMPLE], st.session_state[_TASK] = example, task
    st.session_state[_STARTED] = started() + 1
    use_labels(None)


def started() -> int:
    """How many times the session has gone on with another task; tells one task's from the next."""
    return int(st.session_state.get(_STARTED, 0))


def labels() -> Labels | None:
    """The session's labelled outputs; None without any."""
    found = st.session_state.get(_LABELS)
    return found if isinstance(found, Labels) else None


def use_labels(labels: Labels | None) -> None:
    """Let the recommendation rest on labelled outputs, or on none."""
    st.session_state[_LABELS] = labels


def write_link() -> None:
    """Keep the address bar a link to this scenario, as far as a link can carry it."""
    link = to_link(example(), current())
    if st.query_params.to_dict() != link:
        st.query_params.from_dict(link)


def from_link(query: Mapping[str, str]) -> tuple[str, TaskProfile]:
    """The example and task of a link; what it has wrong is left out."""
    name = query.get("example", FIRST_EXAMPLE)
    if name not in examples():
        name = FIRST_EXAMPLE
    task = examples()[name]
    for key in HEADLINE:
        if key in query:
            try:
                task = task.with_values({key: _parsed(query[key])})
            except InputError:
                continue
    return name, task


def to_link(example: str | None, task: TaskProfile) -> dict[str, str]:
    """Query parameters that lead back to a task; empty where more than headline inputs differ."""
    if example is None:
        return {}
    original = examples()[example]
    differing = {
        key: value for key, value in leaves(task).items() if leaves(original).get(key) != value
    }
    gone = leaves(original).keys() - leaves(task).keys()
    if not (differing.keys() | gone) <= set(HEADLINE):
        return {}
    query = {} if example == FIRST_EXAMPLE else {"example": example}
    query |= {
        key: f"{value:g}" if isinstance(value, float) else str(value)
        for key, value in differing.items()
    }
    return query | dict.fromkeys(gone, "none")


def leaves(task: TaskProfile) -> dict[str, Any]:
    """The stated values of a task by dotted key."""
    return dict(_leaves(task.to_mapping(), ""))


def to_yaml(task: TaskProfile) -> str:
    """The task as the file that the command line reads."""
    return yaml.safe_dump(task.to_mapping(), sort_keys=False, allow_unicode=True, width=100)


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _parsed(text: str) -> float | str | None:
    """A value as a link writes it: a number, `none`, or a word."""
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        return text
