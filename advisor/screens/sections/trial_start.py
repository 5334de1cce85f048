"""How a trial begins: the sandbox at one click, or two endpoints of one's own."""

from __future__ import annotations

import streamlit as st

from advisor.decide.recommendation import Role
from advisor.errors import InputError
from advisor.screens import scenario
from advisor.screens.background import watch
from advisor.screens.formatting import plain
from advisor.screens.sections.trial_worker import LiveTrial, stage
from advisor.screens.trial_rows import MAX_MB, SUFFIXES, tray
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow
from advisor.trial.endpoints import KEY_VARIABLES, Endpoint
from advisor.trial.judging import Price
from advisor.trial.reporting.report import TrialReport
from advisor.trial.run import run_trial
from advisor.trial.sandbox import sandbox_task

UPLOAD, _FILE = "trial.upload", "trial.data"
"""The rows, which stay while other pages are shown; and the control, which does not."""

PREVIEW_ROWS = 5

SEVERITIES = {
    "good": ("green", "check_circle"),
    "note": ("orange", "info"),
    "problem": ("red", "error"),
}
TITLES: dict[Role, str] = {"slm": "Small model", "llm": "Large model"}
_LOADS = {"30 % of its capacity": 0.3, "50 % of its capacity": 0.5, "60 % of its capacity": 0.6}


def draw() -> None:
    """Both ways to begin."""
    with st.container(border=True):
        st.header("Sandbox")
        st.markdown(
            "Two small language models that ship with Advisor, served on this machine one request "
            "at a time. No GPU, key or download; it takes some two and a half minutes."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            share = st.selectbox(
                "Load",
                list(_LOADS),
                index=1,
                key="trial.load",
                persist_state="session",
                width=240,
            )
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
            stop=trial.ending,
        )

    stage().start(LiveTrial(run))
    st.rerun()


def _own_endpoints(task: TaskProfile) -> None:
    st.caption(
        f"Any OpenAI-compatible server. The task is that of the other screens: {plain(task.name)}. "
        "Keys stay in the memory of this app while the trial runs; they are written nowhere, and "
        "asked for again when you come back to this page."
    )
    # Of its own, so that what it comes to say does not move the fields below: a field that moves
    # is drawn anew, and a key is then lost.
    with st.container():
        rows = _data(task)
    small, large = st.columns(2)
    with small:
        st.subheader("Small model")
        slm = _endpoint_fields("slm")
    with large:
        st.subheader("Large model")
        llm = _endpoint_fields("llm")
    rate_column, count_column, budget_column = st.columns(3)
    rate = rate_column.number_input(
        "Rate, requests/s", min_value=0.1, value=5.0, key="trial.rate", persist_state="session"
    )
    count = count_column.number_input(
        "Requests",
        min_value=1,
        max_value=100_000,
        value=300,
        key="trial.requests",
        persist_state="session",
    )
    budget = budget_column.number_input(
        "Spending cap, USD",
        min_value=0.0,
        value=1.0,
        key="trial.budget",
        persist_state="session",
        help="Counts at the prices stated above. 0: no cap.",
    )
    # No form: what is typed into one is lost where the page is left before it is sent.
    if not st.button("Run the trial", icon=":material/play_arrow:", key="trial.own"):
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
            stop=trial.ending,
        )

    stage().start(LiveTrial(run))
    st.rerun()


def _endpoint_fields(role: Role) -> dict[str, str]:
    def asked(name: str, label: str, placeholder: str = "") -> str:
        return st.text_input(
            label, placeholder=placeholder, key=f"trial.{role}.{name}", persist_state="session"
        )

    return {
        "url": asked("url", "URL, up to /v1", "http://127.0.0.1:8000/v1"),
        "model": asked("model", "Model"),
        "key": st.text_input("Key (optional)", type="password", key=f"trial.{role}.key"),
        "price": asked("price", "Price, USD per million tokens in/out (optional)", "0.1/0.4"),
    }


def _endpoint(role: Role, fields: dict[str, str]) -> Endpoint:
    """An endpoint from its fields.

    Raises:
        InputError: a field that is missing or wrong.
    """
    if not fields["url"].strip() or not fields["model"].strip():
        raise InputError(f"{TITLES[role]}: a URL and a model are needed")
    price = fields["price"].strip()
    try:
        found = Endpoint.at(
            role,
            fields["url"].strip(),
            fields["model"].strip(),
            price=Price.stated("price", price) if price else None,
        )
    except InputError as error:
        raise InputError(f"{TITLES[role]}: {str(error).removeprefix(f'--{role}: ')}") from None
    return found.with_key_in(KEY_VARIABLES[role]) if fields["key"] else found


def _data(task: TaskProfile) -> tuple[TrialRow, ...]:
    """The uploaded rows, previewed and checked."""
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Upload the rows to send", icon=":material/upload:"):
            st.file_uploader(
                f"JSONL or CSV of at most {MAX_MB} MB: input, optionally expected, risk and type",
                type=list(SUFFIXES),
                key=_FILE,
                max_upload_size=MAX_MB,
                on_change=_take,
            )
        upload: tuple[str, bytes] | None = st.session_state.get(UPLOAD)
        if upload is None:
            return ()
        st.markdown(f"**{plain(upload[0])}**")
        st.button("Remove the rows", key="trial.data.remove", on_click=_remove)
    sent = tray().rows(*upload, task)
    if not sent.finished:
        watch(sent, "Reading the rows")
        return ()
    if sent.problem:
        st.markdown(f":red[:material/error: {plain(sent.problem)}]")
        return ()
    for finding in sent.findings:
        colour, icon = SEVERITIES[finding.severity]
        st.markdown(f":{colour}[:material/{icon}:] {plain(finding.text)}")
    st.dataframe(
        [
            {"id": row.id, "input": row.text, "expected": str(row.expected or ""), "risk": row.risk}
            for row in sent.rows[:PREVIEW_ROWS]
        ],
        width="stretch",
        hide_index=True,
        alt="The first rows to send.",
    )
    return sent.rows


def _take() -> None:
    file = st.session_state.get(_FILE)
    st.session_state[UPLOAD] = (file.name, file.getvalue()) if file is not None else None


def _remove() -> None:
    st.session_state[UPLOAD] = None
