"""Measure vLLM on this machine: points arriving on the fitted curves, the interval narrowing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from advisor.calibrate.bench.law import Steps
from advisor.calibrate.bench.points import Shape
from advisor.calibrate.bench.session import Bounds, Outcome, Session
from advisor.calibrate.bench.target import Target, sustainable_per_s
from advisor.errors import AdvisorError, InputError
from advisor.screens import charts, scenario
from advisor.screens.formatting import count, milliseconds, percent, plain, significant
from advisor.screens.measuring import Measuring, workbench
from advisor.screens.sections.tables import table

BUDGETS_MIN = (1, 2, 5, 10, 20, 30, 60)

FIRST_MODEL = "Qwen/Qwen3-0.6B"

CONTEXTS = (64, 256, 1024, 4096)
"""Contexts whose decode curves are drawn, where the engine holds them."""


def draw(_: object = None) -> None:
    """What to measure, and how it goes."""
    st.markdown(
        "Start real vLLM on the machine that this app runs on, with random weights where there "
        "are none, and let it measure what narrows the p95 of your task most."
    )
    missing = _missing()
    if missing:
        st.markdown(f":orange[:material/info:] {plain(missing)}")
        return
    bench = workbench()
    running = bench.current is not None and not bench.current.finished
    _controls(running=running)
    if bench.current is not None:
        _watch(running)


def _missing() -> str | None:
    """Why nothing can be measured here."""
    from advisor.calibrate.bench.local import find_python

    try:
        find_python()
    except InputError as error:
        return str(error)
    return None


def _controls(*, running: bool) -> None:
    model, settings = st.columns(2)
    model.text_input(
        "Model",
        value=FIRST_MODEL,
        key="calibration.run.model",
        persist_state="session",
        disabled=running,
        help="A name of the catalogue, or a folder with a config.json; weights are not needed.",
    )
    settings.text_input(
        "vLLM settings",
        value="max_model_len=2048,max_num_seqs=32",
        key="calibration.run.arguments",
        persist_state="session",
        disabled=running,
        help="As vLLM names them, e.g. enforce_eager=true,dtype=float32.",
    )
    time, button = st.columns([3, 1], vertical_alignment="bottom")
    time.select_slider(
        "Time",
        BUDGETS_MIN,
        value=5,
        key="calibration.run.budget",
        persist_state="session",
        format_func=lambda minutes: f"{minutes} min",
        disabled=running,
        help="It ends sooner when the interval is narrower than ±10 %.",
    )
    if running:
        button.button("Stop", icon=":material/stop:", on_click=_stop, width="stretch")
    else:
        button.button("Start", icon=":material/play_arrow:", on_click=_start, width="stretch")
    problem = st.session_state.pop("calibration.run.problem", None)
    if problem:
        st.markdown(f":red[:material/error: {plain(problem)}]")


def _start() -> None:
    from advisor.cli.arguments import engine_arguments

    state = st.session_state
    text = str(state["calibration.run.arguments"]).strip()
    try:
        arguments = engine_arguments(text) if text else {}
    except AdvisorError as error:
        state["calibration.run.problem"] = str(error).replace("--engine-args", "vLLM settings:")
        return
    measuring = Measuring(
        str(state["calibration.run.model"]).strip(),
        arguments,
        budget_s=60.0 * state["calibration.run.budget"],
        task=scenario.current(),
    )
    if not workbench().start(measuring):
        state["calibration.run.problem"] = "another run is under way on this machine"


def _stop() -> None:
    current = workbench().current
    if current is not None:
        current.stop()


def _watch(running: bool) -> None:
    """The run, drawn again every second while it lasts."""
    st.fragment(_progress, run_every=1.0 if running else None)(running)


def _progress(running: bool) -> None:
    measuring = workbench().current
    if measuring is None:
        return
    if running and measuring.finished:
        st.rerun()
    _state(measuring)
    session = measuring.session
    if session is None or session.facts is None:
        return
    _figures(session, measuring.outcome)
    left, right = st.columns(2)
    with left:
        _narrowing(measuring)
    with right:
        _curves(session)
    if measuring.outcome is not None:
        _result(measuring.outcome)


def _state(measuring: Measuring) -> None:
    if not measuring.finished:
        word = "Stopping" if measuring.stopping else "Measuring"
        st.badge(f"{word} {measuring.model}", icon=":material/progress_activity:", color="blue")
        st.caption(plain(measuring.step))
    elif measuring.problem:
        st.markdown(f":red[:material/error: {plain(measuring.problem)}]")
    elif measuring.outcome:
        one = measuring.outcome
        st.badge(f"{one.model}: {one.ended}", icon=":material/check:", color="green")


def _figures(session: Session, outcome: Outcome | None) -> None:
    boxes = st.columns(4)
    boxes[0].metric("Points", count(len(session.points)), border=True, height="stretch")
    known = session.belief is not None and session.belief.points
    error = percent(session.belief.median_error, 1) if known and session.belief else "–"
    boxes[1].metric(
        "Median error of the fit",
        error,
        border=True,
        height="stretch",
        help="|measured/fitted − 1| of the step times measured so far.",
    )
    after = Bounds.of(session.interval) if session.interval else None
    before = Bounds.of(session.before) if session.before else None
    title = "E2E p95 of your task" if session.task else "E2E p95"
    boxes[2].metric(
        title,
        _range(after) if after else "–",
        delta=f"before: {_range(before)}" if before else None,
        delta_color="off",
        delta_arrow="off",
        border=True,
        height="stretch",
        help="90 % interval on one engine of this machine, "
        + (session.target.title if session.target else ""),
    )
    boxes[3].metric(*_engines(session), border=True, height="stretch")


def _range(bounds: Bounds) -> str:
    high = milliseconds(bounds.high_ms) if bounds.high_ms < 1e6 else "over 1,000 s"
    return f"{milliseconds(bounds.low_ms)} to {high}"


def _engines(session: Session) -> tuple[str, str]:
    """How many such engines the busiest hour takes, as projected and as measured."""
    label = "Engines for the busiest hour"
    target, task = session.target, session.task
    if target is None or task is None or session.belief is None:
        return label, "–"
    wanted = task.traffic.peak_rate_per_s
    before, after = (
        math.ceil(wanted / max(1e-9, _sustained(target, belief)))
        for belief in (session.prior, session.belief)
    )
    return label, f"{count(before)} → {count(after)}"


def _sustained(target: Target, belief: Any) -> float:
    settings = target.settings
    cost = belief.step_cost(
        max_tokens=settings.max_num_batched_tokens, max_seqs=settings.max_num_seqs
    )
    return sustainable_per_s(target.requests, cost, settings, target.kv_blocks)


def _narrowing(measuring: Measuring) -> None:
    """The interval of the task's p95 over the time spent."""
    st.markdown("**The p95's interval narrows**")
    if len(measuring.steps) < 2:
        st.caption("It is drawn once there are two points behind it.")
        return
    rows = [
        {"spent": one.spent_s, "p95": one.value_ms, "low": one.low_ms, "high": one.high_ms}
        for one in measuring.steps
    ]
    first, last = measuring.steps[0], measuring.steps[-1]
    st.altair_chart(
        charts.band(
            rows,
            x="spent",
            y="p95",
            low="low",
            high="high",
            x_title="Seconds since the start",
            y_title="E2E p95, ms",
            value_title="Estimate with 90 % interval",
        ),
        alt=f"E2E p95 from {first.low_ms:,.0f} to {first.high_ms:,.0f} ms at first, now from "
        f"{last.low_ms:,.0f} to {last.high_ms:,.0f} ms.",
    )


def _curves(session: Session) -> None:
    """Decode steps by batch: measured points on the fitted curves."""
    st.markdown("**Decode steps on the fitted law**")
    points = [point for point in session.step_points if point.shape.kind == "decode"]
    belief, facts = session.belief, session.facts
    if belief is None or facts is None or not points:
        st.caption("It is drawn once a decode step is measured.")
        return
    most = max(2, *(point.shape.batch for point in points))
    contexts = sorted({point.shape.context_tokens for point in points} & set(CONTEXTS))
    batches = np.unique(np.geomspace(1, most, 24).round())
    fitted = []
    for context in contexts:
        shapes = [Shape(kind="decode", batch=int(one), context_tokens=context) for one in batches]
        seconds = belief.seconds(Steps.of_shapes(shapes))
        fitted += [
            {"batch": int(one), "ms": 1e3 * value, "context": f"{context:,} tokens"}
            for one, value in zip(batches, seconds, strict=True)
        ]
    measured = [
        {
            "batch": point.shape.batch,
            "ms": 1e3 * point.value_s,
            "context": f"{point.shape.context_tokens:,} tokens",
        }
        for point in points
        if point.shape.context_tokens in contexts
    ]
    order = [f"{context:,} tokens" for context in contexts]
    lines = charts.lines(
        fitted,
        x="batch",
        y="ms",
        series="context",
        order=order,
        x_title="Sequences in the batch",
        y_title="Step, ms",
        x_log=True,
    )
    marks = (
        alt.Chart(pd.DataFrame(measured))
        .mark_point(filled=True, size=60, opacity=0.9)
        .encode(
            x="batch:Q",
            y="ms:Q",
            color=alt.Color("context:N", sort=order, scale=alt.Scale(domain=order)),
            tooltip=[
                alt.Tooltip("context:N", title="Context"),
                alt.Tooltip("batch:Q", title="Batch"),
                alt.Tooltip("ms:Q", title="Measured, ms", format=",.4~g"),
            ],
        )
    )
    st.altair_chart(
        charts.layered(lines, marks),
        alt=f"{len(measured)} measured decode steps beside the fitted curves of "
        f"{len(contexts)} contexts.",
    )


def _result(outcome: Outcome) -> None:
    """Loads predicted and measured, what was disturbed, and the files to take away."""
    if outcome.loads:
        rows = [
            {
                "Load, requests/s": load.rate_per_s,
                "Figure": _titled(name),
                "Predicted before, ms": load.predicted_ms[name],
                "Machine as shared then, ms": load.as_shared_ms.get(name),
                "Measured, ms": load.measured_ms[name],
                "Off, %": 100 * load.errors[name],
            }
            for load in outcome.loads
            for name in load.errors
        ]
        formats = dict.fromkeys(
            ("Predicted before, ms", "Machine as shared then, ms", "Measured, ms"),
            st.column_config.NumberColumn(format="%.1f"),
        )
        off = {"Off, %": st.column_config.NumberColumn(format="%.0f")}
        table(rows, "Open loops, predicted before they were sent.", formats | off)
    if outcome.disturbed:
        st.markdown(
            f":orange[:material/info:] {count(outcome.disturbed)} of {count(outcome.points)} "
            "points were disturbed by others on this machine (up to "
            f"{significant(outcome.worst_slowdown, 3)} × slower than at its best); their intervals "
            "are wider for it."
        )
    names = {
        "points": "Points (JSON lines)",
        "fits": "Coefficients",
        "rows": "Measurement rows (CSV)",
        "accelerator": "Accelerator file",
    }
    boxes = st.columns(4)
    for box, (name, path) in zip(boxes, outcome.files.items(), strict=False):
        file = Path(path)
        if file.is_file():
            box.download_button(
                names[name],
                file.read_bytes(),
                file_name=file.name,
                icon=":material/download:",
                on_click="ignore",
                width="stretch",
            )


def _titled(name: str) -> str:
    """`tpot_p50_ms` as people write it: TPOT p50."""
    quantity, statistic, _ = name.split("_")
    return f"{quantity.upper()} {statistic}"
