"""The answer: one sentence, its figures with intervals, and what it depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pandas as pd
import streamlit as st

from advisor.decide.recommendation import Architecture, Projected, Recommendation, Status
from advisor.screens.formatting import interval, milliseconds, percent, plain, usd
from advisor.task import TaskProfile

Colour = Literal["green", "orange", "red"]
Show = Callable[[float], str]

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


def draw(answer: Recommendation, task: TaskProfile) -> None:
    """Status and sentence, then the figures."""
    title, colour, meaning = STATUSES[answer.status]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(title, color=colour, help=meaning)
            if answer.architecture:
                st.badge(ARCHITECTURES[answer.architecture], color="blue")
        st.markdown(f"#### {plain(answer.summary)}")
        for warning in answer.warnings:
            st.markdown(f":orange[:material/warning: {plain(warning)}]")
    if answer.projection is not None:
        _figures(answer, task)


def _figures(answer: Recommendation, task: TaskProfile) -> None:
    projection = answer.projection
    assert projection is not None
    bounds = task.latency
    with st.grid(4, min_column_width=180):
        _card("Quality", projection.quality, percent, f"at least {percent(task.quality.threshold)}")
        _card("TTFT p95", projection.ttft_p95_ms, milliseconds, _at_most(bounds.ttft_p95_ms))
        _card("E2E p95", projection.e2e_p95_ms, milliseconds, _at_most(bounds.e2e_p95_ms))
        _card("TPOT p95", projection.tpot_p95_ms, milliseconds, _at_most(bounds.tpot_p95_ms))
        budget = task.constraints.budget_usd_per_month
        _card(
            "Cost a month", projection.cost_usd_per_month, usd, budget and f"at most {usd(budget)}"
        )
        _card("Cost per million requests", projection.cost_usd_per_million_requests, usd)
        _card(
            "Cost per million correct answers",
            projection.cost_usd_per_correct_answer,
            lambda value: usd(1e6 * value),
        )
        _card(
            "Escalation rate",
            projection.escalation_rate,
            percent,
            projection.escalation_rate
            and f"warning above {percent(task.constraints.max_escalation_rate)}",
        )
    st.caption("Ranges are 90 % intervals. The tip of each card says what its figure rests on.")


def _card(label: str, figure: Projected | None, show: Show, required: str | None = None) -> None:
    if figure is None:
        st.metric(
            label,
            "–",
            "does not apply",
            delta_color="off",
            delta_arrow="off",
            border=True,
            height="stretch",
        )
        return
    st.metric(
        label,
        show(figure.value),
        interval(figure.low, figure.high, show),
        delta_color="off",
        delta_arrow="off",
        delta_description=required,
        help=plain(figure.basis),
        border=True,
        height="stretch",
    )


def _at_most(bound_ms: float | None) -> str | None:
    return None if bound_ms is None else f"at most {milliseconds(bound_ms)}"


def conditions(answer: Recommendation) -> None:
    """What must hold, how likely it is, and what would settle it."""
    if not answer.conditions:
        return
    st.subheader("Conditions")
    st.table(
        pd.DataFrame(
            {
                "Requirement": plain(one.requirement),
                "Probability": percent(one.probability, 0),
                "Rests on": plain(one.basis),
                "Settled by": plain(one.settle_by),
            }
            for one in answer.conditions
        ).set_index("Requirement")
    )


def next_measurement(answer: Recommendation) -> None:
    """The one measurement to make first."""
    if answer.next_measurement is None:
        return
    st.subheader("Measure next")
    with st.container(border=True):
        st.markdown(f"**{plain(answer.next_measurement.what)}**")
        st.caption(
            f"{plain(answer.next_measurement.reduces)} Effort: {plain(answer.next_measurement.effort)}"
        )
