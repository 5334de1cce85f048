"""A trial while it runs: what it does, how far it is, its figures so far, and Stop."""

from __future__ import annotations

import streamlit as st

from advisor.errors import AdvisorError
from advisor.screens.formatting import count, milliseconds, percent, plain, seconds
from advisor.screens.sections import trial_charts
from advisor.screens.sections.trial_worker import LiveTrial, records
from advisor.task import TaskProfile
from advisor.trial.progress import Progress, progress_of
from advisor.trial.standing import task_of

STEPS = 9
"""What a trial announces, about; the bar before the router's load counts them."""

BEFORE_LOAD, AFTER_LOAD = 0.45, 0.85
"""Where on the bar the router's load begins, after the calibrations, and where it ends: then each
model is loaded by itself."""


REDRAWN_EVERY_S = 5.0
"""A browser on the machine under load takes cores from what is measured, each time it draws."""


@st.fragment(run_every=REDRAWN_EVERY_S)
def draw(trial: LiveTrial) -> None:
    """Everything about the running trial; the page is drawn again when it has ended."""
    if trial.finished:
        st.rerun()
    progress = _progress(trial)
    with st.container(border=True):
        share = _share(trial, progress)
        st.progress(share, text=plain(_text(trial, progress)))
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button(
                "Stop", icon=":material/stop:", key="trial.stop", disabled=trial.ending.is_set()
            ):
                trial.stop()
            if trial.stopping:
                st.caption("Stopping; what was measured is judged.")
        with st.expander("Steps so far"):
            st.markdown("\n".join(f"- {plain(step)}" for step in trial.steps) or "–")
    if progress is not None and progress.counts.total:
        figures(progress)
        live_charts(progress, task_of(records(), progress.summary.id))


def figures(progress: Progress) -> None:
    """The counts and running figures."""
    counts = progress.counts
    bad = counts.failed + counts.timed_out
    with st.grid(4, min_column_width=150):
        _figure("Answered", f"{counts.completed:,} of {counts.total:,}", f"{bad:,} failed")
        latest = sorted(point.e2e_ms for point in progress.latencies)
        p95 = milliseconds(latest[int(0.95 * (len(latest) - 1))]) if latest else "–"
        projected = progress.projection
        expected = milliseconds(projected.e2e_p95_ms.value) if projected else "–"
        _figure("E2E p95 so far", p95, f"projected {expected}")
        up = progress.escalation[-1] if progress.escalation else None
        _figure("Escalation rate", percent(up.value) if up else "–", "of the small answers")
        right = progress.quality[-1] if progress.quality else None
        _figure("Quality", percent(right.value) if right else "–", "right answers")


def live_charts(progress: Progress, task: TaskProfile) -> None:
    """The five charts, two beside each other."""
    with st.container(border=True):
        st.subheader("Latency by route")
        trial_charts.latency(progress)
    with st.grid(2, min_column_width=340):
        with st.container(border=True):
            st.subheader("Escalation")
            trial_charts.escalation(progress, task.constraints.max_escalation_rate)
        with st.container(border=True):
            st.subheader("Quality")
            trial_charts.quality(progress, task.quality.threshold)
        with st.container(border=True):
            st.subheader("Cost")
            trial_charts.money(progress)
        with st.container(border=True):
            st.subheader("Queue")
            trial_charts.queue(progress)


def _progress(trial: LiveTrial) -> Progress | None:
    if trial.trial is None:
        return None
    try:
        return progress_of(records(), trial.trial)
    except AdvisorError:
        # Its last line is told when it ends.
        return None


def _share(trial: LiveTrial, progress: Progress | None) -> float:
    """How far the whole is, roughly: steps before the load, requests during it."""
    if progress is not None and progress.counts.total:
        return min(BEFORE_LOAD + (AFTER_LOAD - BEFORE_LOAD) * progress.share, AFTER_LOAD)
    return min(BEFORE_LOAD * len(trial.steps) / STEPS, BEFORE_LOAD)


def _text(trial: LiveTrial, progress: Progress | None) -> str:
    text = f"{trial.step[:1].upper()}{trial.step[1:]}"
    if progress is None or progress.lasts_s is None or progress.now_s is None:
        return text
    left_s = progress.lasts_s - progress.now_s
    if left_s <= 0 or not progress.counts.planned:
        return text
    return f"{text}; {count(progress.counts.planned)} left, about {seconds(left_s)}"


def _figure(title: str, value: str, note: str) -> None:
    with st.container(border=True, height="stretch", gap="xxsmall"):
        st.metric(title, value)
        st.caption(plain(note))
