"""The answer: one sentence, its figures with intervals, and what it depends on."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import streamlit as st

from advisor.decide.recommendation import (
    Architecture,
    Condition,
    Projected,
    Projection,
    Recommendation,
    Status,
)
from advisor.screens.formatting import interval, likelihood, milliseconds, percent, plain, usd
from advisor.screens.sections.figures import FIGURES
from advisor.screens.sections.task_fields import named
from advisor.task import TaskProfile

Colour = Literal["green", "orange", "red"]

STATUSES: dict[Status, tuple[str, Colour, str]] = {
    "proven": ("Proven", "green", "Every requirement holds on measured or calibrated grounds."),
    "conditional": (
        "Conditional",
        "orange",
        "The median estimate meets every requirement; the conditions below say how surely.",
    ),
    "infeasible": ("Infeasible", "red", "No candidate's median estimate meets every requirement."),
}

ARCHITECTURES: dict[Architecture, str] = {
    "slm": "Small model",
    "llm": "Large model",
    "hybrid": "Hybrid: small model first, escalation to the large one",
}

SURE, EVEN = 0.95, 0.5
"""Probabilities from which a condition is shown as sure, and as more likely than not."""


def draw(answer: Recommendation, task: TaskProfile) -> None:
    """Status and sentence, then the figures."""
    title, colour, meaning = STATUSES[answer.status]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(title, color=colour, help=meaning)
            if answer.architecture:
                st.badge(ARCHITECTURES[answer.architecture], color="blue")
        st.markdown(f"## {plain(answer.summary)}")
        for warning in answer.warnings:
            st.markdown(f":orange[:material/warning: {plain(warning)}]")
    if answer.projection is not None:
        _figures(answer.projection, task)


def _figures(projection: Projection, task: TaskProfile) -> None:
    required = _required(task)
    with st.grid(4, min_column_width=150):
        for name, title, show in FIGURES:
            figure: Projected | None = getattr(projection, name)
            with st.container(border=True, height="stretch", gap="xxsmall"):
                if figure is None:
                    st.metric(title, "–")
                    st.caption("does not apply")
                    continue
                st.metric(title, show(figure.value), help=plain(figure.basis))
                st.caption(plain(interval(figure.low, figure.high, show)))
                if name == "tpot_p95_ms" and projection.escalation_rate is not None:
                    st.caption("of escalated answers: accepted ones come whole")
                if name in required:
                    st.caption(plain(required[name]))
    st.caption("Ranges are 90 % intervals.")
    with st.expander("What each figure rests on"):
        figures = {title: getattr(projection, name) for name, title, _ in FIGURES}
        st.table(
            pd.DataFrame(
                {"Figure": title, "Rests on": plain(figure.basis)}
                for title, figure in figures.items()
                if figure
            ).set_index("Figure")
        )


def _required(task: TaskProfile) -> dict[str, str]:
    """What the task asks of each figure, in words."""
    asked = {"quality": f"required: at least {percent(task.quality.threshold)}"}
    for name, bound_ms in task.latency.bounds.items():
        asked[name] = f"required: at most {milliseconds(bound_ms)}"
    budget = task.constraints.budget_usd_per_month
    if budget is not None:
        asked["cost_usd_per_month"] = f"required: at most {usd(budget)}"
    asked["escalation_rate"] = f"warning above {percent(task.constraints.max_escalation_rate)}"
    return asked


def conditions(answer: Recommendation, task: TaskProfile) -> None:
    """What must hold, how likely it is, and what would settle it."""
    if not answer.conditions:
        return
    st.header("Conditions")
    for one in answer.conditions:
        with st.container(border=True):
            what, chance, basis, settled = st.columns([4, 3, 6, 6])
            what.markdown(f":small[Requirement]  \n**{_worded(one.requirement, task)}**")
            sure = f":{_confidence(one)}-badge[{likelihood(one.probability)}]"
            chance.markdown(f":small[Holds with]  \n{sure}")
            basis.markdown(f":small[Rests on]  \n{plain(one.basis)}")
            settled.markdown(f":small[Settled by]  \n{plain(one.settle_by)}")


def _worded(text: str, task: TaskProfile) -> str:
    """A requirement with its metric as people write it."""
    metric = task.quality.metric
    return plain(text.replace(metric, named(metric)))


def _confidence(one: Condition) -> Colour:
    return "green" if one.probability >= SURE else "orange" if one.probability >= EVEN else "red"


def next_measurement(answer: Recommendation, task: TaskProfile) -> None:
    """The one measurement to make first."""
    if answer.next_measurement is None:
        return
    st.header("Measure next")
    with st.container(border=True):
        what = answer.next_measurement.what
        st.markdown(
            f"**{_worded(what[:1].upper() + what[1:], task)}**: "
            f"{plain(answer.next_measurement.reduces)}."
        )
        st.caption(f"Effort: {plain(answer.next_measurement.effort)}")
