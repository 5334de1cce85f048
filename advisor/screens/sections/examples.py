"""The choice among the shipped example tasks."""

from __future__ import annotations

import streamlit as st

from advisor.screens import scenario

OWN = "Your own"
"""Stands for a task that came from elsewhere."""

_PICKED = "scenario.picked"


def pick(label: str) -> None:
    """A list of the examples; one that is picked becomes the scenario."""
    examples = scenario.examples()
    current = scenario.example() or OWN
    st.session_state[_PICKED] = current
    st.selectbox(
        label,
        list(examples) if current in examples else [OWN, *examples],
        key=_PICKED,
        format_func=lambda name: examples[name].name if name in examples else name,
        on_change=_start,
        filter_mode=None,
    )


def _start() -> None:
    name = st.session_state[_PICKED]
    if name in scenario.examples():
        scenario.start_from(name, scenario.examples()[name])
