"""Load: how a recommended architecture behaves as the rate of requests rises."""

from __future__ import annotations

import streamlit as st

from advisor.decide.recommendation import Recommendation
from advisor.errors import AdvisorError
from advisor.screens import scenario
from advisor.screens.background import watch
from advisor.screens.formatting import plain
from advisor.screens.search import FullSearch, archive, own
from advisor.screens.sections import (
    load_autoscaling,
    load_curve,
    load_over_time,
    load_what_if,
)
from advisor.screens.sections.load_study import Subject, chosen_subject, studied
from advisor.task import TaskProfile

ANSWERED = "load.answered"


def answered(search: FullSearch, task: TaskProfile) -> Recommendation:
    """The answer of a finished search, kept until it is another's."""
    if ANSWERED not in st.session_state or st.session_state[ANSWERED][0] is not search:
        assert search.exploration is not None
        st.session_state[ANSWERED] = (search, search.exploration.answer(task))
    found: Recommendation = st.session_state[ANSWERED][1]
    return found


def draw(subject: Subject) -> None:
    """Everything about one architecture."""
    try:
        study = studied(subject)
    except AdvisorError as error:
        st.error(plain(str(error)))
        return
    load_curve.headline(study, subject)
    load_curve.against_rate(study, subject)
    load_what_if.draw(study, subject)
    load_autoscaling.draw(subject)
    load_over_time.draw(study)
    load_curve.by_route(study, subject)
    load_curve.grounds(study, subject)


task = scenario.current()
st.title("Load")
st.caption(
    plain(
        f"{task.name}: the recommended architecture on the simulator, from a few requests a second "
        "to more than it can take."
    )
)
search = own(task, scenario.labels())
if not search.finished:
    watch(search, "Simulating")
    st.skeleton(height=420)
elif search.exploration is None:
    st.error(plain(search.problem or "The search failed."))
else:
    subject = chosen_subject(answered(search, task), task)
    if subject is None:
        st.info("Nothing fits this task, so there is nothing to put under load.")
    else:
        draw(subject)
archive().start(search)
