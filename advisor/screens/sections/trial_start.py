"""How a trial begins: the sandbox at one click, or two endpoints of one's own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import streamlit as st

from advisor.decide.recommendation import Role
from advisor.errors import AdvisorError, InputError
from advisor.screens import scenario
from advisor.screens.formatting import plain
from advisor.screens.sections.trial_worker import LiveTrial, stage
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow, check_rows, read_rows
from advisor.trial.endpoints import KEY_VARIABLES, Endpoint
from advisor.trial.judging import Price
from advisor.trial.report import TrialReport
from advisor.trial.run import run_trial
from advisor.trial.sandbox import sandbox_task

SUFFIXES = ("jsonl", "csv")
MAX_MB = 200
PREVIEW_ROWS = 5

SEVERITIES = {
    "good": ("green", "check_circle"),
    "note": ("orange", "info"),
    "problem": ("red", "error"),
}
_LOADS = {"30 % of its capacity": 0.3, "50 % of its capacity": 0.5, "60 % of its capacity": 0.6}


def draw() -> None:
    """Both ways to begin."""
    with st.container(border=True):
        st.header("Sandbox")
        st.markdown(
            "Two small language models that ship with Advisor, served on this machine one request "
            "at a time. No GPU, key or download; it takes about two minutes."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            share = st.selectbox("Load", list(_LOADS), index=1, key="trial.load", width=240)
            if st.button(
                "Run the sandbox trial", icon=":material/play_arrow:", key="trial.sandbox"
            ):
                _begin_sandbox(_LOADS[share])
    with st.expander("Your own endpoints", icon=":material/lan:"):
        _own_endpoints(scenario.current())


def _begin_sandbox(load: float) -> None:
    def run(trial: LiveTrial) -> TrialReport:
        return run_trial(
            sandbox_task(),
            sandbox=True,
            load=load,
            announce=trial.announce,
            on_begin=trial.begun,
            stop=trial.stop,
        )

    stage().begin(run)
    st.rerun()


def _own_endpoints(task: TaskProfile) -> None:
    st.caption(
        f"Any OpenAI-compatible server. The task is that of the other screens: {plain(task.name)}. "
        "Keys stay in the memory of this app while the trial runs; they are written nowhere."
    )
    rows = _data(task)
    with st.form("trial.endpoints", border=False):
        small, large = st.columns(2)
        with small:
            st.subheader("Small model")
            slm = _endpoint_fields("slm")
        with large:
            st.subheader("Large model")
            llm = _endpoint_fields("llm")
        rate_column, count_column, budget_column = st.columns(3)
        rate = rate_column.number_input(
            "Rate, requests/s", min_value=0.1, value=5.0, key="trial.rate"
        )
        count = count_column.number_input(
            "Requests", min_value=1, max_value=100_000, value=300, key="trial.requests"
        )
        budget = budget_column.number_input(
            "Spending cap, USD", min_value=0.0, value=1.0, key="trial.budget",
            help="Counts at the prices stated above. 0: no cap.",
        )  # fmt: skip
        if not st.form_submit_button("Run the trial", icon=":material/play_arrow:"):
            return
    if not rows:
        st.error("Upload the rows to send first.")
        return
    try:
        pair = (_endpoint("slm", slm), _endpoint("llm", llm))
    except InputError as error:
        st.error(plain(str(error)))
        return
    keys = {
        KEY_VARIABLES[endpoint.role]: fields["key"]
        for endpoint, fields in zip(pair, (slm, llm), strict=True)
        if fields["key"]
    }
    _begin_own(task, pair, rows, keys, rate, int(count), budget or None)


def _begin_own(
    task: TaskProfile,
    pair: tuple[Endpoint, Endpoint],
    rows: tuple[TrialRow, ...],
    keys: dict[str, str],
    rate: float,
    count: int,
    budget: float | None,
) -> None:
    def run(trial: LiveTrial) -> TrialReport:
        return run_trial(
            task,
            slm=pair[0],
            llm=pair[1],
            data=rows,
            rate_per_s=rate,
            requests=count,
            budget_usd=budget,
            keys=keys,
            announce=trial.announce,
            on_begin=trial.begun,
            stop=trial.stop,
        )

    stage().begin(run)
    st.rerun()


def _endpoint_fields(role: str) -> dict[str, str]:
    return {
        "url": st.text_input("URL, up to /v1", placeholder="http://127.0.0.1:8000/v1",
                             key=f"trial.{role}.url"),
        "model": st.text_input("Model", key=f"trial.{role}.model"),
        "key": st.text_input("Key (optional)", type="password", key=f"trial.{role}.key"),
        "price": st.text_input("Price, USD per million tokens in/out (optional)",
                               placeholder="0.1/0.4", key=f"trial.{role}.price"),
    }  # fmt: skip


def _endpoint(role: Role, fields: dict[str, str]) -> Endpoint:
    """An endpoint from its fields.

    Raises:
        InputError: a field that is missing or wrong.
    """
    if not fields["url"].strip() or not fields["model"].strip():
        raise InputError(f"--{role}: a URL and a model are needed")
    price = Price.stated(f"--{role}-price", fields["price"]) if fields["price"].strip() else None
    found = Endpoint.at(role, fields["url"].strip(), fields["model"].strip(), price=price)
    return found.with_key_in(KEY_VARIABLES[role]) if fields["key"] else found


def _data(task: TaskProfile) -> tuple[TrialRow, ...]:
    """The uploaded rows, previewed and checked."""
    with st.popover("Upload the rows to send", icon=":material/upload:"):
        file = st.file_uploader(
            "JSONL or CSV: input, optionally expected, risk and type",
            type=list(SUFFIXES),
            key="trial.data",
            max_upload_size=MAX_MB,
        )
    if file is None:
        return ()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(file.name).name
        path.write_bytes(file.getvalue())
        try:
            rows = read_rows(path)
            findings = check_rows(rows, task)
        except AdvisorError as error:
            st.error(plain(str(error)))
            return ()
    for finding in findings:
        colour, icon = SEVERITIES[finding.severity]
        st.markdown(f":{colour}[:material/{icon}:] {plain(finding.text)}")
    st.dataframe(
        [
            {"id": row.id, "input": row.text, "expected": str(row.expected or ""), "risk": row.risk}
            for row in rows[:PREVIEW_ROWS]
        ],
        width="stretch",
        hide_index=True,
    )
    return rows
