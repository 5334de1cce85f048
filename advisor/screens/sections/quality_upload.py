"""A labelled log: uploaded or simulated, checked, and used for the recommendation or not."""

from __future__ import annotations

import streamlit as st

from advisor.quality.example_log import simulated_log
from advisor.screens import scenario
from advisor.screens.background import watch
from advisor.screens.formatting import count, plain
from advisor.screens.labelled import MAX_MB, SUFFIXES, LogAnalysis, Upload, desk
from advisor.task import TaskProfile

UPLOAD, ANALYSIS = "quality.upload", "quality.analysis"
_FILE, _GIVEN_FOR = "quality.file", "quality.given_for"

EXAMPLE_NAME = "simulated-example.jsonl"

FORMAT = """\
**JSONL**, one request a line: `confidence` (of the small model's answer, higher is surer),
`slm_correct` and `llm_correct` (true, false or a score from 0 to 1). Or with the answers:
`input`, `expected` and `outputs: {slm: {text, logprobs, correct, latency_ms, cost_usd}, llm: {…}}`;
answers without `correct` are scored by the task's metric, and `logprobs` give the confidence.

**CSV** with the columns `confidence`, `slm_correct`, `llm_correct` and optionally `gate_passed`.
"""

SEVERITIES = {
    "good": ("green", "check_circle"),
    "note": ("orange", "info"),
    "problem": ("red", "error"),
}


def draw(task: TaskProfile) -> LogAnalysis | None:
    """The log's controls; returns its evaluation, or None without a log."""
    with st.container(border=True):
        st.header("Your labels")
        chosen, checks = st.columns([1, 1])
        with chosen:
            _choose()
        upload: Upload | None = st.session_state.get(UPLOAD)
        with checks:
            analysis = desk().analysis(upload, task) if upload else None
            st.session_state[ANALYSIS] = analysis
            if analysis is None or upload is None:
                st.markdown(FORMAT)
            else:
                _checks(analysis, upload)
        _feed(analysis, upload)
    return analysis


def _choose() -> None:
    st.caption(
        "Both models' answers to the same requests, right or wrong, measure what published scores "
        "only suggest. They stay on the machine that this app runs on."
    )
    with st.container(horizontal=True):
        with st.popover("Upload a log", icon=":material/upload:"):
            st.file_uploader(
                f"Labelled log (JSONL or CSV, at most {MAX_MB} MB)",
                type=list(SUFFIXES),
                key=_FILE,
                max_upload_size=MAX_MB,
                on_change=_take,
            )
        st.button("Try a simulated log", key="quality.example", on_click=_simulate)
        st.download_button(
            "Download the example",
            simulated_log,
            file_name=EXAMPLE_NAME,
            mime="application/jsonl",
            on_click="ignore",
            icon=":material/download:",
        )
        if st.session_state.get(UPLOAD):
            st.button("Remove the log", key="quality.remove", on_click=_remove)


def _take() -> None:
    file = st.session_state.get(_FILE)
    if file is None:
        _remove()
        return
    st.session_state[UPLOAD] = Upload.of(file.name, file.getvalue())
    st.session_state[_GIVEN_FOR] = scenario.started()


def _simulate() -> None:
    content = simulated_log().encode()
    st.session_state[UPLOAD] = Upload.of(EXAMPLE_NAME, content, simulated=True)
    # Simulated labels say nothing of the user's models.
    st.session_state[_GIVEN_FOR] = None


def _remove() -> None:
    st.session_state[UPLOAD] = None
    scenario.use_labels(None)


def _checks(analysis: LogAnalysis, upload: Upload) -> None:
    st.markdown(f"**{plain(upload.name)}**")
    if upload.simulated:
        st.badge("Simulated, not measured", icon=":material/science:", color="violet")
    if not analysis.finished:
        watch(analysis, "Evaluating the log")
        return
    if analysis.problem:
        st.markdown(f":red[:material/error: {plain(analysis.problem)}]")
        return
    for finding in analysis.findings:
        colour, icon = SEVERITIES[finding.severity]
        st.markdown(f":{colour}[:material/{icon}:] {plain(finding.text)}")


def _feed(analysis: LogAnalysis | None, upload: Upload | None) -> None:
    """Let the recommendation rest on the log, where that is wanted and possible."""
    if analysis is None or upload is None or not analysis.finished or analysis.problem:
        if upload is None or (analysis is not None and analysis.problem):
            scenario.use_labels(None)
        return
    if analysis.labels is None:
        st.caption(
            f"The recommendation cannot take this log: {plain(analysis.refused or 'no labels')}"
        )
        scenario.use_labels(None)
        return
    given_for, now = st.session_state.get(_GIVEN_FOR), scenario.started()
    wanted = st.toggle(
        f"Let the recommendation rest on these {count(analysis.labels.rows)} rows",
        value=given_for == now,
        key=f"quality.used.{upload.digest[:12]}.{given_for}.{now}",
        persist_state="session",
        help="They update the published evidence and the assumed confidence of the pair.",
    )
    if given_for not in (None, now):
        st.caption("The log was given for another task.")
    scenario.use_labels(analysis.labels if wanted else None)
