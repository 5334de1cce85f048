"""Past trials: which there are, one of them to look at, compare, export or delete."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pandas as pd
import streamlit as st

from advisor.screens.formatting import plain
from advisor.trial.exports import compared_trials, export_requests, report_of_trial
from advisor.trial.records import TrialSummary
from advisor.trial.reporting.report import TrialReport
from advisor.trial.reporting.wording import ARM_NAMES, MEASURES, shown
from advisor.trial.standing import judge_as_it_stands
from advisor.trial.store import TrialStore

_SHOWN = "trial.shown"


def chosen(store: TrialStore, newest: TrialReport | None) -> TrialReport | None:
    """The trial to show: the one picked below, else the one that just ended."""
    picked = st.session_state.get(_SHOWN)
    states = {one.id: one.state for one in store.trials()}
    if picked is None or states.get(picked, "running") == "running":
        return newest
    return report_of_trial(store, picked) or judge_as_it_stands(store, picked)


def draw(store: TrialStore) -> None:
    """The list and what can be done with its members."""
    trials = store.trials()
    st.header("Past trials")
    if not trials:
        st.caption("None yet. Every request of a trial is kept on this machine.")
        return
    st.dataframe(pd.DataFrame([_row(trial) for trial in trials]), width="stretch", hide_index=True)
    names = {trial.id: f"{trial.id} · {trial.name}" for trial in trials}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        picked = st.selectbox(
            "Trial",
            list(names),
            format_func=names.__getitem__,
            key="trial.pick",
            persist_state="session",
            width=420,
        )
        st.button("Show", key="trial.show", on_click=_show, args=(picked,))
        st.download_button(
            "Export CSV",
            lambda: _csv(store, picked),
            file_name=f"trial-{picked}.csv",
            mime="text/csv",
            on_click="ignore",
        )
        running = next(trial for trial in trials if trial.id == picked).state == "running"
        with st.popover("Delete", icon=":material/delete:", disabled=running):
            st.markdown(f"Delete {plain(picked)} and all of its records?")
            st.button("Delete it", key="trial.delete", on_click=store.delete, args=(picked,))
    reported = [trial.id for trial in trials if store.document(trial.id, "report") is not None]
    if len(reported) > 1:
        with st.expander("Compare two trials"):
            _compare(store, reported)


def _show(trial: str) -> None:
    st.session_state[_SHOWN] = trial


def _csv(store: TrialStore, trial: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.csv"
        export_requests(store, trial, path)
        return path.read_bytes()


def _row(trial: TrialSummary) -> dict[str, object]:
    arms = trial.arms
    return {
        "Trial": trial.id,
        "Task": trial.name,
        "State": trial.state,
        "Begun (UTC)": time.strftime("%Y-%m-%d %H:%M", time.gmtime(trial.created_epoch_s)),
        "Requests": sum(arm.requests.total for arm in arms),
        "Completed": sum(arm.requests.completed for arm in arms),
        "Note": trial.note,
    }


def _compare(store: TrialStore, trials: list[str]) -> None:
    left, right = st.columns(2)
    first = left.selectbox("First", trials, index=1, key="trial.first", persist_state="session")
    second = right.selectbox("Second", trials, index=0, key="trial.second", persist_state="session")
    rows = [
        {
            "Arm": ARM_NAMES[arm].capitalize(),
            "Figure": MEASURES[measure],
            first: "–" if one is None else shown(measure, one),
            f"{second} " if second == first else second: "–"
            if other is None
            else shown(measure, other),
        }
        for arm, measure, one, other in compared_trials(store, first, second)
    ]
    st.dataframe(pd.DataFrame(rows), width="stretch", hide_index=True)
