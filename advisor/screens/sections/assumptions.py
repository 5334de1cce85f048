"""The assumptions, with their ranges and reasons; the user's own figures replace them."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from advisor.catalog import Assumption, Assumptions, load_catalog
from advisor.errors import InputError
from advisor.screens import scenario
from advisor.screens.formatting import plain
from advisor.screens.sections.tables import MOST_HEIGHT

EDITOR = "evidence.assumptions"


def draw() -> None:
    """A table whose last column is the user's; what is entered there goes into the scenario."""
    assumed = load_catalog().assumptions
    task = scenario.current()
    st.caption(
        "Not measured by this project: each has a range (read as 90 %), its reason, and what would "
        "replace it. Write a figure of your own under Yours: it becomes part of the task, and no "
        "range is left."
    )
    names = assumed.names()
    stated = [named(assumed, name) for name in names]
    frame = pd.DataFrame(
        {
            "Assumption": names,
            "Yours": [task.assumptions.get(name) for name in names],
            "Value": [f"{one.value:,g}" for one in stated],
            "Low": [f"{one.low:,g}" for one in stated],
            "High": [f"{one.high:,g}" for one in stated],
            "Unit": [one.unit for one in stated],
            "Why": [one.why for one in stated],
        }
    ).astype({"Yours": "float64"})
    edited = st.data_editor(
        frame,
        hide_index=True,
        disabled=[column for column in frame if column != "Yours"],
        column_config={
            "Yours": st.column_config.NumberColumn(format="plain"),
            "Why": st.column_config.TextColumn(width="large"),
        },
        key=EDITOR,
        height=MOST_HEIGHT,
        placeholder="–",
        alt="Assumptions with value, range, unit and reason.",
    )
    own = dict(zip(edited["Assumption"], edited["Yours"], strict=True))
    values = {name: float(value) for name, value in own.items() if pd.notna(value)}
    if values == dict(task.assumptions):
        return
    try:
        assumed.with_values(values)
        scenario.change(task.with_values({"assumptions": values}))
    except InputError as error:
        st.error(plain(str(error)))
        return
    st.toast("The recommendation now uses your figure.")


def named(assumed: Assumptions, name: str) -> Assumption:
    """The assumption of a name as `names` lists it."""
    field, _, key = name.partition(".")
    value = getattr(assumed, field)
    found = value[key] if key else value
    assert isinstance(found, Assumption)
    return found
