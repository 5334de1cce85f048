"""Before any label: how many it takes, how much must escalate, when an alarm may ring."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from advisor.quality.bounds import rows_to_certify
from advisor.quality.escalation import ConfidencePrior, least_escalation_bound
from advisor.quality.sequential import anytime_alarm_count, fixed_alarm_count
from advisor.quality.two_ends import EACH_SHARE
from advisor.screens.formatting import count, percent, plain
from advisor.task import TaskProfile

ERROR_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Observed error as a share of what the target allows."""

LOOKS = (50, 100, 200, 500, 1000, 5000)


def draw(task: TaskProfile) -> None:
    """Three tables that need no data."""
    _labels_needed(task)
    _least_escalation(task)
    _alarms(task)


def _labels_needed(task: TaskProfile) -> None:
    target, sure = task.quality.threshold, task.quality.confidence
    st.header("How many labels prove the target")
    st.caption(
        f"Rows that certify more than {percent(target)} at {percent(sure)} confidence, by the "
        "quality that will be observed on them (exact binomial). Just above the target no team "
        "labels enough: aim for less than half of the allowed error."
    )
    rows = []
    for share in ERROR_SHARES:
        observed = round(1 - share * (1 - target), 6)
        one = rows_to_certify(observed, target=target, confidence=sure)
        two = rows_to_certify(observed, target=target, confidence=1 - (1 - sure) * EACH_SHARE)
        rows.append(
            {
                "Observed quality": percent(observed, 2),
                "From one end": _shown(one),
                "From both ends": _shown(two),
            }
        )
    st.table(pd.DataFrame(rows).set_index("Observed quality"))
    st.caption(
        "“Both ends” is the certificate for when it is not known which model is the better one; "
        "the risk is shared between two starts."
    )


def _shown(rows: int | None) -> str:
    return "over 1,000,000" if rows is None else f"{rows:,}"


def _least_escalation(task: TaskProfile) -> None:
    target = task.quality.threshold
    st.header("The least that must escalate")
    small_box, large_box, result = st.columns([1, 1, 2])
    with small_box:
        small = _share("Small model, % right", f"quality.small.{target}", target - 0.05)
    with large_box:
        large = _share("Large model, % right", f"quality.large.{target}", (1 + target) / 2)
    ratio = ConfidencePrior.for_task(task.task.type).error_dependence
    bounds = [
        least_escalation_bound(small, large, target=target, odds_ratio=value)
        for value in (ratio.low, ratio.value, ratio.high)
    ]
    with result:
        shown = "impossible" if bounds[1] > 1 else percent(bounds[1])
        st.metric(f"At least, for {percent(target)}", shown)
    most = "impossible" if bounds[2] > 1 else percent(bounds[2])
    least = "impossible" if bounds[0] > 1 else percent(bounds[0])
    st.caption(
        "Were the confidence to find every error: missing quality over P(large right | small "
        f"wrong). The two models' errors depend on each other by an assumed odds ratio of "
        f"{ratio.value:g} ({ratio.low:g} – {ratio.high:g}: {plain(least)} – {plain(most)}); "
        "labels on both models measure it."
    )


def _share(label: str, key: str, start: float) -> float:
    """A share of right answers, asked for in percent."""
    shown = round(100 * max(0.0, start), 2)
    asked = st.number_input(
        label, 0.0, 100.0, shown, 0.5, format="%g", key=key, persist_state="session"
    )
    return asked / 100


def _alarms(task: TaskProfile) -> None:
    limit = task.constraints.max_escalation_rate
    st.header("When the escalation rate is an alarm")
    st.caption(
        f"Escalations from which the true rate exceeds {percent(limit)} with 95 % confidence. The "
        "count for one look rings in a quarter of all sound runs when it is looked at again and "
        "again; the running watch may be looked at after every request."
    )
    rows = [
        {
            "Requests": count(trials),
            "One look": _count(fixed_alarm_count(trials, limit=limit, confidence=0.95)),
            "Running watch": _count(anytime_alarm_count(trials, limit=limit, confidence=0.95)),
        }
        for trials in LOOKS
    ]
    st.table(pd.DataFrame(rows).set_index("Requests"))


def _count(events: int | None) -> str:
    return "never" if events is None else f"{events:,}"
