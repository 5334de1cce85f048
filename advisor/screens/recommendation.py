"""Recommendation: what to run for the task, how sure that is, and what else there is."""

from __future__ import annotations

import streamlit as st

from advisor.decide.recommendation import Recommendation
from advisor.screens import scenario
from advisor.screens.background import watch
from advisor.screens.formatting import count, plain
from advisor.screens.search import FullSearch, archive, own
from advisor.screens.sections import alternatives, answer, headline, robustness
from advisor.task import TaskProfile

LAST, ANSWERED = "recommendation.last", "recommendation.answered"

PRELIMINARY = "Answered from what is already simulated; full search running"


def answered(search: FullSearch, task: TaskProfile) -> Recommendation:
    """The answer for a task from a finished search, kept until either changes."""
    key = (id(search), task)
    if ANSWERED in st.session_state and st.session_state[ANSWERED][0] == key:
        kept: Recommendation = st.session_state[ANSWERED][1]
        return kept
    assert search.exploration is not None
    found = search.exploration.answer(task)
    st.session_state[ANSWERED] = (key, found)
    return found


def usable(search: FullSearch | None, task: TaskProfile) -> bool:
    """Whether a finished search can answer for a task at once."""
    return bool(search and search.exploration and search.exploration.covers(task))


with st.sidebar:
    task = headline.draw()
labels = scenario.labels()
search = own(task, labels)
if search.finished and search.exploration:
    st.session_state[LAST] = search
last: FullSearch | None = st.session_state.get(LAST)

st.title(task.name)
if task.description:
    st.caption(plain(task.description))
if labels is not None:
    st.caption(f"Quality from your {count(labels.rows)} labels in {plain(labels.name)}.")
if not search.finished:
    watch(search, PRELIMINARY if usable(last, task) else "Simulating")
elif search.problem:
    st.error(plain(search.problem))
else:
    st.badge("Full search finished", icon=":material/check:", color="gray")

if usable(last, task):
    assert last is not None
    found = answered(last, task)
    answer.draw(found, task)
    answer.conditions(found, task)
    answer.next_measurement(found, task)
    alternatives.comparison(found)
    alternatives.trade_off(found)
    alternatives.rejected(found)
    robustness.sensitivities(found)
    robustness.provenance(found)
    st.download_button(
        "Download recommendation.json",
        lambda: found.model_dump_json(indent=2),
        file_name="recommendation.json",
        mime="application/json",
        on_click="ignore",
        icon=":material/download:",
    )
elif not search.finished:
    st.skeleton(height=420)
# Only now: beside the drawing, both would take twice as long.
archive().start(search)
