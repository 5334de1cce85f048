"""The verdict of a trial: requirements, measured beside projected, why, and what to do."""

from __future__ import annotations

from functools import partial
from typing import Literal

import pandas as pd
import streamlit as st

from advisor.screens.formatting import percent, plain, significant
from advisor.screens.sections import tabs
from advisor.screens.sections.trial_live import live_charts
from advisor.trial.progress import progress_of
from advisor.trial.reporting.html_report import html_report
from advisor.trial.reporting.report import ArchitectureFigures, TrialReport
from advisor.trial.reporting.verdict import State
from advisor.trial.reporting.wording import ARM_NAMES, MEASURES, endpoint_lines, error_text, shown
from advisor.trial.standing import task_of
from advisor.trial.store import TrialStore

Colour = Literal["green", "red", "orange"]

STATES: dict[State, tuple[str, Colour, str]] = {
    "held": ("Held", "green", "check_circle"),
    "failed": ("Failed", "red", "cancel"),
    "undecided": ("Undecided", "orange", "help"),
}

ARCHITECTURES = {"slm": "Small model", "llm": "Large model", "hybrid": "Hybrid"}


def draw(report: TrialReport, store: TrialStore) -> None:
    """The verdict first, then its grounds."""
    _headline(report)
    parts = {
        "Measured beside projected": partial(_comparisons, report),
        "Over time": partial(_over_time, report, store),
        "What was wrong": partial(_attributions, report),
        "Recommendation": partial(_advice, report),
        "Method": partial(_method, report),
    }
    tabs.draw("trial.tab", parts)


def _headline(report: TrialReport) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            for verdict in report.verdicts:
                title, colour, icon = STATES[verdict.state]
                name = _capital(MEASURES[verdict.measure])
                st.badge(
                    f"{name}: {title.lower()}",
                    color=colour,
                    icon=f":material/{icon}:",
                )
        st.markdown(f"## {plain(report.task)}: {plain(_sentence(report))}")
        if not report.valid:
            st.markdown(f":orange[:material/warning: Invalid: {plain(report.invalid_because)}]")
        if report.load is not None and report.load.disturbance:
            disturbed = plain(_capital(report.load.disturbance))
            st.markdown(f":orange[:material/warning: {disturbed}; no projection foresees that.]")
        if report.note:
            st.caption(plain(_capital(report.note)))
        st.dataframe(
            pd.DataFrame([_verdict_row(report, index) for index in range(len(report.verdicts))]),
            width="stretch",
            hide_index=True,
        )
        st.download_button(
            "Download the report",
            lambda: html_report(report),
            file_name=f"trial-{report.trial}.html",
            mime="text/html",
            on_click="ignore",
            icon=":material/download:",
        )


def _sentence(report: TrialReport) -> str:
    states = [verdict.state for verdict in report.verdicts]
    if not states or all(verdict.measured is None for verdict in report.verdicts):
        return "nothing was measured"
    parts = [f"{states.count(state)} {state}" for state in STATES if states.count(state)]
    return f"{len(states)} requirements, {', '.join(parts)}"


def _verdict_row(report: TrialReport, index: int) -> dict[str, str]:
    verdict = report.verdicts[index]
    measured = verdict.measured
    more = f"{verdict.more_requests:,} more requests" if verdict.more_requests else "–"
    return {
        "Verdict": STATES[verdict.state][0],
        "Requirement": _capital(verdict.requirement),
        "Measured": "–" if measured is None else shown(verdict.measure, measured.value),
        "90 % interval": "–"
        if measured is None
        else f"{shown(verdict.measure, measured.low)} – {shown(verdict.measure, measured.high)}",
        "Would decide": more,
        "Basis": verdict.basis,
    }


def _comparisons(report: TrialReport) -> None:
    if not report.comparisons:
        st.info("The trial ended before there was anything to compare.")
        return
    st.caption(
        "The projection was written down before the load. Errors are (projected − measured) over "
        "measured; of shares, the difference in points."
    )
    rows = [
        {
            "Arm": ARM_NAMES[one.arm].capitalize(),
            "Figure": _capital(MEASURES[one.measure]),
            "Projected": shown(one.measure, one.projected),
            "Projected, 90 %": f"{shown(one.measure, one.projected_low)} – "
            f"{shown(one.measure, one.projected_high)}",
            "Measured": shown(one.measure, one.measured),
            "Measured, 90 %": f"{shown(one.measure, one.measured_low)} – "
            f"{shown(one.measure, one.measured_high)}",
            "Error": error_text(one),
            "Inside": "yes" if one.inside else "no",
        }
        for one in sorted(report.comparisons, key=lambda one: one.arm != "router")
    ]
    st.dataframe(pd.DataFrame(rows), width="stretch", hide_index=True)


def _over_time(report: TrialReport, store: TrialStore) -> None:
    live_charts(progress_of(store, report.trial), task_of(store, report.trial))


def _attributions(report: TrialReport) -> None:
    if not report.attributions:
        st.info("There is no projection of a cascade to take apart.")
        return
    st.caption(
        "The projected p95 again, with one measured piece swapped in at a time: where it moves, "
        "the projection was wrong. What is left after all of them is the queues' own error."
    )
    rows = [
        {
            "Piece": _capital(one.piece),
            "Projected as": one.projected_as,
            "Measured as": one.measured_as,
            "E2E p95 then": f"{one.e2e_p95_ms:.1f} ms",
            "Change": f"{one.change_ms:+.1f} ms",
        }
        for one in report.attributions
    ]
    st.dataframe(pd.DataFrame(rows), width="stretch", hide_index=True)


def _advice(report: TrialReport) -> None:
    if report.advice is None:
        st.info("The trial ended before all three architectures were measured.")
        return
    st.markdown(f"**{plain(_capital(report.advice.because))}.**")
    st.caption(plain(_capital(report.what_changed)))
    rows = [_option(one) for one in report.advice.options]
    st.dataframe(pd.DataFrame(rows), width="stretch", hide_index=True)


def _option(one: ArchitectureFigures) -> dict[str, str]:
    cost = one.cost_usd_per_million_requests
    return {
        "Architecture": ARCHITECTURES[one.architecture],
        "Quality": "–" if one.quality is None else percent(one.quality),
        "E2E p95": "–" if one.e2e_p95_ms is None else f"{one.e2e_p95_ms:.1f} ms",
        "A million requests": "–" if cost is None else f"${significant(cost)}",
        "Misses": "; ".join(one.misses) or "nothing",
    }


def _method(report: TrialReport) -> None:
    settings, lines = report.settings, []
    lines.append(f"Small model: {settings.slm}. Large model: {settings.llm}.")
    if report.load is not None:
        load = report.load
        lines.append(
            f"{load.requests:,} requests at {load.rate_per_s:.1f}/s ({settings.arrivals} "
            f"arrivals), {percent(load.share)} of the {load.sustainable_rate_per_s:.1f}/s that the "
            "whole was measured to take."
        )
    if report.threshold is not None:
        lines.append(f"Threshold {report.threshold.threshold:.6g}: {report.threshold.basis}.")
    for arm, one in report.measurements.items():
        counts = one.requests
        late = "" if one.lag is None else f"; p99 of the send lag {one.lag.p99_ms:.1f} ms"
        lines.append(
            f"{ARM_NAMES[arm].capitalize()}: {counts.total:,} scheduled = {counts.completed:,} "
            f"completed + {counts.failed:,} failed + {counts.timed_out:,} timed out + "
            f"{counts.cancelled:,} cancelled{late}."
        )
    for split in report.splits:
        lines.append(
            f"Accuracy on {split.split} ({split.rows:,} rows): small {percent(split.slm)}, "
            f"large {percent(split.llm)}."
        )
    lines.extend(endpoint_lines(report))
    lines.append(f"Cost: {report.cost_basis}.")
    st.markdown("\n".join(f"- {plain(line)}" for line in lines))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
