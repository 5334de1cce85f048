"""What quality the recommendation is expected to reach, and what that rests on."""

from __future__ import annotations

import streamlit as st

from advisor.decide.recommendation import Recommendation
from advisor.screens.formatting import interval, likelihood, percent, plain
from advisor.screens.sections import figures
from advisor.screens.sections.answer import ARCHITECTURES
from advisor.screens.sections.task_fields import named
from advisor.task import TaskProfile


def draw(answer: Recommendation, task: TaskProfile) -> None:
    """One sentence and its figures."""
    target = percent(task.quality.threshold)
    metric = named(task.quality.metric).lower()
    if answer.projection is None or answer.architecture is None:
        st.error(plain(answer.summary))
        return
    quality = answer.projection.quality
    chance = answer.conditions[0].probability if answer.conditions else None
    with st.container(border=True):
        st.badge(ARCHITECTURES[answer.architecture], color="blue")
        sure = "" if chance is None else f"; it reaches {target} with a probability of "
        sure += "" if chance is None else likelihood(chance)
        st.markdown(
            f"## {plain(f'Expected {metric}: {figures.quality(quality.value)} ')}"
            f"{plain(f'({interval(quality.low, quality.high, figures.quality)}){sure}.')}"
        )
        st.caption(f"Rests on {plain(quality.basis)}. The range is a 90 % interval.")
    with st.grid(4, min_column_width=150):
        _figure("Expected quality", figures.quality(quality.value), "median")
        _figure("Required", target, f"{metric}, least")
        _figure("Chance to reach it", "–" if chance is None else likelihood(chance), "posterior")
        escalated = answer.projection.escalation_rate
        _figure(
            "Escalation rate",
            percent(escalated.value) if escalated else "–",
            "to the large model" if escalated else "does not apply",
        )


def _figure(title: str, value: str, note: str) -> None:
    with st.container(border=True, height="stretch", gap="xxsmall"):
        st.metric(title, value)
        st.caption(note)
