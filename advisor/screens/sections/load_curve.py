"""What an architecture can take: the headline, percentiles against the rate, and each route."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from advisor.screens import load_charts
from advisor.screens.formatting import (
    NBSP,
    interval,
    milliseconds,
    percent,
    plain,
    significant,
    usd,
)
from advisor.screens.sections.load_study import METRICS, Subject, escalation_note
from advisor.simulation.load_curve import COUNT, COUNT_CACHED, LoadStudy, RateRange
from advisor.simulation.loaded import FEWER, SHOWN, Figure

ROUTES = {
    "cache": "Answer cache",
    "small": "Small model, accepted",
    "escalated": "Escalated to the large model",
    "direct": "Straight to the model",
}

ABOVE_BOUND = 2.5
ABOVE_PEAK = 4.0
"""Where the chart ends: so many times the bound, or the p95 of the busiest hour."""


def per_second(rate: float) -> str:
    """A rate of requests: `231/s`."""
    return f"{significant(rate)}/s"


def rate_range(rate: RateRange) -> str:
    """The interval of a rate, in words where an end is not known."""
    if rate.low is None:
        return "no limit is known"
    if rate.high is None:
        return f"{per_second(rate.low)} or more"
    return interval(rate.low, rate.high, per_second)


def figure_range(figure: Figure) -> str:
    """The interval of a duration."""
    return interval(figure.low_ms, figure.high_ms, milliseconds)


def headline(study: LoadStudy, subject: Subject) -> None:
    """How much it takes within the bounds, in one sentence, then the figures."""
    with st.container(border=True):
        st.markdown(f"## {plain(_sentence(study, subject))}")
        st.caption(plain(_binding(study, subject)))
    with st.grid(4, min_column_width=150):
        _metric("Holds the bounds up to", study.capacity)
        _metric("Can sustain", study.sustainable)
        with st.container(border=True, height="stretch", gap="xxsmall"):
            st.metric("Busiest hour", per_second(study.peak_rate_per_s))
            st.caption("requests a second, as the task says")
        with st.container(border=True, height="stretch", gap="xxsmall"):
            st.metric("Accelerators a month", usd(study.fleet_usd_per_month))
            st.caption("list price of all replicas; what is paid by the token is not in it")


def _metric(title: str, rate: RateRange) -> None:
    with st.container(border=True, height="stretch", gap="xxsmall"):
        if rate.value is None:
            st.metric(title, "–")
            st.caption("no limit is known: a hosted API without a stated rate limit")
            return
        st.metric(title, per_second(rate.value))
        st.caption(plain(f"requests a second; 90{NBSP}% interval {rate_range(rate)}"))


def _sentence(study: LoadStudy, subject: Subject) -> str:
    peak = f"the busiest hour ({per_second(study.peak_rate_per_s)})"
    bounds = "every latency bound" if len(subject.bounds_ms) > 1 else "its latency bound"
    does = f"Holds {bounds}" if subject.bounds_ms else "Keeps up"
    value, times = study.capacity.value, study.headroom
    if value is None or times is None:
        return f"{does} at {significant(4.0, 1)} times {peak} and more: no limit is known"
    if value == 0:
        return "Misses a latency bound at any rate"
    if times < 1:
        return f"{does} only up to {per_second(value)}: {percent(times, 0)} of {peak}"
    return f"{does} up to {per_second(value)}: {significant(times, 2)} times {peak}"


def _binding(study: LoadStudy, subject: Subject) -> str:
    ranged = f"90 % interval {rate_range(study.capacity)}. "
    if study.capacity.value is None:
        return "The latency of a hosted API is an assumption that no load changes here."
    if study.binding is None:
        return f"{ranged}What ends it is the rate that can be sustained, not a bound."
    if study.binding == "given_up":
        return f"{ranged}Beyond it more than 5{NBSP}% of the clients give up."
    bound = milliseconds(subject.bounds_ms[study.binding])
    return f"{ranged}The first bound to be missed is {METRICS[study.binding]} p95, {bound}."


def against_rate(study: LoadStudy, subject: Subject) -> None:
    """Percentiles of one metric against the rate, with the bound, the busiest hour and the end."""
    st.header("Latency against the rate")
    metric = metric_control(subject)
    if not study.points:
        st.info("It is overloaded at every rate.")
        return
    unit, scale = unit_of(study, metric)
    most = _top(study, subject, metric)
    rows = [
        _row(point.rate_per_s, name, point.figures[metric][name], scale, most)
        for point in study.points
        for name in SHOWN
    ]
    bound_ms = subject.bounds_ms.get(metric)
    marks = {f"Busiest hour {per_second(study.peak_rate_per_s)}": study.peak_rate_per_s}
    if study.sustainable.value is not None:
        marks[f"Can sustain {per_second(study.sustainable.value)}"] = study.sustainable.value
    if study.capacity.value:
        marks[f"Bounds hold up to {per_second(study.capacity.value)}"] = study.capacity.value
    st.altair_chart(
        load_charts.percentiles(
            rows,
            names=SHOWN,
            y_title=f"{METRICS[metric]}, {unit}",
            most=most / scale,
            marks=marks,
            bound=None
            if bound_ms is None
            else (f"p95 bound {milliseconds(bound_ms)}", bound_ms / scale),
        ),
        alt=f"p50, p95 and p99 of {METRICS[metric]} at {len(study.points)} rates, with intervals.",
    )
    st.caption(
        "Bands are 90 % intervals: how well the latency model is known, and chance. A band that "
        "leaves the chart at the top has no upper end: with steps as slow as is plausible that "
        "rate is overload. Near the rate that can be sustained the figures are those of a run of "
        f"{COUNT:,} requests ({COUNT_CACHED:,} with an answer cache)."
    )


def metric_control(subject: Subject) -> str:
    """Which metric is shown, a bounded one first."""
    first = next((name for name in METRICS if name in subject.bounds_ms), "e2e")
    found = st.segmented_control(
        "Metric",
        list(METRICS),
        default=first,
        required=True,
        key=f"load.metric.{subject.task.name}",
        persist_state="session",
        format_func=METRICS.__getitem__,
        help="TTFT: until something may be shown; an answer that is checked first counts whole. "
        "TPOT: time per output token. E2E: the whole request. Queue wait: before the first step.",
    )
    return str(found or first)


def unit_of(study: LoadStudy, metric: str) -> tuple[str, float]:
    """The unit that suits a metric, and milliseconds in it."""
    values = [point.figures[metric]["p95"].value_ms for point in study.points]
    return ("s", 1000.0) if sorted(values)[len(values) // 2] >= 1000 else ("ms", 1.0)


def _top(study: LoadStudy, subject: Subject, metric: str) -> float:
    """Where the vertical axis ends, milliseconds."""
    highest = max(point.figures[metric]["p99"].value_ms for point in study.points)
    near = min(study.points, key=lambda point: abs(point.rate_per_s - study.peak_rate_per_s))
    wanted = max(
        ABOVE_BOUND * subject.bounds_ms.get(metric, 0.0),
        ABOVE_PEAK * near.figures[metric]["p95"].value_ms,
        1.3 * near.figures[metric]["p99"].value_ms,
        0.2 * highest,
    )
    return max(min(wanted, 1.1 * highest), 1.2 * subject.bounds_ms.get(metric, 0.0), 1e-3)


def _row(rate: float, name: str, figure: Figure, scale: float, most: float) -> dict[str, Any]:
    high = figure.high_ms if figure.high_ms is not None else 10 * most
    return {
        "rate": rate,
        "name": name,
        "value": figure.value_ms / scale,
        "low": figure.low_ms / scale,
        "high": high / scale,
        "range": figure_range(figure),
    }


def by_route(study: LoadStudy, subject: Subject) -> None:
    """Each route's latency at the busiest hour."""
    routes = study.peak.routes
    if not routes:
        return
    st.header("Latency by route")
    several = len(subject.one.chosen.tiers) > 1
    rows, points = {}, []
    whole = [part.figures["e2e"]["p95"].value_ms for part in routes.values()]
    unit, scale = ("s", 1000.0) if max(whole) >= 2000 else ("ms", 1.0)
    for route, part in routes.items():
        name = "Straight to the large model" if route == "direct" and several else ROUTES[route]
        e2e, ttft, queue = (part.figures[metric] for metric in ("e2e", "ttft", "queue"))
        rows[name] = {
            "Share": percent(part.share),
            "TTFT p95": _cell(ttft["p95"]),
            "E2E p50": _cell(e2e["p50"]),
            "E2E p95": _cell(e2e["p95"]),
            "E2E p99": _cell(e2e["p99"]),
            "Queue wait p95": _cell(queue["p95"]),
        }
        levels = {level: e2e[level].value_ms / scale for level in SHOWN}
        points.append({"route": name, "share": percent(part.share), **levels})
    st.altair_chart(
        load_charts.routes(points, order=list(rows), title=f"E2E, {unit}"),
        alt=f"E2E from p50 to p99 of {len(rows)} routes, p95 marked.",
    )
    st.caption("Bars reach from p50 to p99; the mark is p95. At the busiest hour's rate.")
    st.table(pd.DataFrame(rows).T.rename_axis("Route"))


def _cell(figure: Figure) -> str:
    return f"{milliseconds(figure.value_ms)}  \n:small[{plain(figure_range(figure))}]"


def grounds(study: LoadStudy, subject: Subject) -> None:
    """What the figures rest on."""
    notes = [*(plain(f"{note[:1].upper()}{note[1:]}.") for note in study.notes)]
    escalation = escalation_note(subject)
    if escalation:
        notes.insert(0, escalation)
    basis = subject.one.projection.e2e_p95_ms.basis
    notes.append(plain(f"Latency rests on: {basis}."))
    notes.append(
        f"Each rate: {COUNT:,} requests of the task ({COUNT_CACHED:,} with an answer cache), at "
        f"most {FEWER:,} for each end of the interval; the first 10{NBSP}% are left out."
    )
    with st.expander("What these figures rest on"):
        st.markdown("\n".join(f"- {note}" for note in dict.fromkeys(notes)))
