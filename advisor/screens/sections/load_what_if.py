"""One change of the load, the fleet or an engine setting: before and after, side by side."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from advisor.decide.recommendation import Role, SelfHostedTier
from advisor.errors import AdvisorError
from advisor.screens import charts, load_charts
from advisor.screens.formatting import count, milliseconds, percent, plain, usd
from advisor.screens.sections.load_curve import figure_range, per_second, rate_range, unit_of
from advisor.screens.sections.load_study import METRICS, NOTHING, ROLES, Subject, studied
from advisor.serving.simulate import Balancing
from advisor.simulation.load_curve import LoadStudy, RateRange
from advisor.simulation.what_if import Shape, TierChange, WhatIf

SHAPES: dict[Shape, str] = {
    "stated": "As the task says",
    "poisson": "Poisson",
    "gamma": "Gamma, bursty",
    "constant": "Constant gaps",
    "batches": "In batches",
    "day": "Whole day",
}

BALANCING: dict[Balancing, str] = {"round_robin": "Round robin", "least_loaded": "Least loaded"}

SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
BUDGETS = tuple(2**power for power in range(8, 16))
BURSTINESS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
BATCHES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
TIMEOUTS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
ESCALATION = tuple(step / 100 for step in (*range(20), *range(20, 101, 5)))


@st.fragment
def draw(study: LoadStudy, subject: Subject) -> None:
    """The controls, and what they change."""
    st.header("What if")
    with st.container(border=True):
        what_if, escalation_rate = _controls(subject)
    if what_if == NOTHING and escalation_rate is None:
        st.caption(
            "Change a setting to see the busiest hour, the capacity and the cost before and after."
        )
        return
    try:
        after = studied(subject, what_if, escalation_rate=escalation_rate)
    except AdvisorError as error:
        st.error(plain(str(error)))
        return
    st.table(_compared(study, after, subject))
    _curves(study, after, subject)
    if what_if.shape == "day":
        st.caption(
            "The day has the task's hourly rates; its hours are shortened to some hundred "
            "requests each. Rates are those of its busiest hour, percentiles those of all day."
        )


def _controls(subject: Subject) -> tuple[WhatIf, float | None]:
    """A what-if, and the escalation rate where it is another than the fleets are sized for."""
    # Controls remember; of another deployment, or another escalation rate, they must not.
    own = f"{subject.one.chosen.model_dump_json()}{subject.escalation_rate}"
    name = f"load.what_if.{hashlib.sha256(own.encode()).hexdigest()[:16]}"
    boxes = st.columns(4)
    load, used = _load_controls(name, boxes)
    with boxes[used]:
        escalation = _escalation_control(name, subject)
    tiers: dict[Role, TierChange] = {}
    for role, tier in subject.one.chosen.tiers.items():
        if isinstance(tier, SelfHostedTier):
            change = _tier_controls(f"{name}.{role}", role, tier)
            if change != TierChange():
                tiers[role] = change
    return WhatIf(tiers=tiers, **load), escalation


def _load_controls(name: str, boxes: Sequence[DeltaGenerator]) -> tuple[dict[str, Any], int]:
    """What is said of the load, and how many boxes its controls fill."""
    shape: Shape = boxes[0].selectbox(
        "Arrivals",
        list(SHAPES),
        key=f"{name}.shape",
        persist_state="session",
        format_func=SHAPES.__getitem__,
        help="Same rate, other pattern.",
    )
    found: dict[str, Any] = {"shape": shape}
    if shape == "gamma":
        found["burstiness"] = boxes[1].select_slider(
            "Burstiness",
            BURSTINESS,
            value=0.25,
            key=f"{name}.burstiness",
            persist_state="session",
            help="Shape of the gamma-distributed gaps: 1 is Poisson, less is burstier.",
        )
    elif shape == "batches":
        found["batch"] = boxes[1].select_slider(
            "Requests in a batch",
            BATCHES,
            value=50,
            key=f"{name}.batch",
            persist_state="session",
            help="They arrive at the same moment; batches come at random moments.",
        )
    used = 1 + (shape in ("gamma", "batches"))
    timeout_s = boxes[used].select_slider(
        "Request timeout",
        (*TIMEOUTS_S, math.inf),
        value=math.inf,
        key=f"{name}.timeout",
        persist_state="session",
        format_func=lambda value: "none" if math.isinf(value) else milliseconds(1e3 * value),
        help="Clients give up after this time; the engine then drops their requests.",
    )
    return found | {"timeout_s": None if math.isinf(timeout_s) else timeout_s}, used + 1


def _escalation_control(name: str, subject: Subject) -> float | None:
    rate = subject.escalation_rate
    if rate is None:
        return None
    options = sorted({*ESCALATION, rate})
    found = st.select_slider(
        "Escalation rate",
        options,
        value=rate,
        key=f"{name}.escalation",
        persist_state="session",
        format_func=percent,
        help="Share of the requests that the large model gets; it starts at what the fleets are "
        "sized for.",
    )
    return None if found == rate else float(found)


def _tier_controls(name: str, role: Role, tier: SelfHostedTier) -> TierChange:
    """The fleet and engine of one tier; what is left as it is does not appear in the change."""
    st.markdown(f"**{ROLES[role]}**: {plain(tier.title)}")
    engine = tier.engine
    boxes = st.columns(6)
    replicas = boxes[0].number_input(
        "Replicas",
        1,
        10_000,
        value=tier.replicas,
        key=f"{name}.replicas",
        persist_state="session",
    )
    balancing: Balancing = boxes[1].selectbox(
        "Balancing",
        list(BALANCING),
        key=f"{name}.balancing",
        persist_state="session",
        format_func=BALANCING.__getitem__,
        help="How requests are dealt out to the replicas.",
    )
    wanted: dict[str, Any] = {
        "max_num_seqs": boxes[2].select_slider(
            "max_num_seqs",
            sorted({*SEQUENCES, engine.max_num_seqs}),
            value=engine.max_num_seqs,
            key=f"{name}.seqs",
            persist_state="session",
            help="Requests that run at a time.",
        ),
        "max_num_batched_tokens": boxes[3].select_slider(
            "max_num_batched_tokens",
            sorted({*BUDGETS, engine.max_num_batched_tokens}),
            value=engine.max_num_batched_tokens,
            key=f"{name}.budget",
            persist_state="session",
            help="Token budget of a step, prefill and decode together.",
        ),
        "gpu_memory_utilization": boxes[4].number_input(
            "gpu_memory_utilization",
            0.05,
            1.0,
            value=engine.gpu_memory_utilization,
            step=0.02,
            key=f"{name}.memory",
            persist_state="session",
            help="Share of the accelerator's memory that the engine may fill.",
        ),
        "max_model_len": boxes[5].number_input(
            "max_model_len",
            16,
            value=engine.max_model_len,
            step=256,
            key=f"{name}.length",
            persist_state="session",
            help="Longest prompt with its answer, tokens.",
        ),
        "enable_prefix_caching": boxes[0].toggle(
            "Prefix caching",
            value=engine.enable_prefix_caching,
            key=f"{name}.prefix",
            persist_state="session",
            help="enable_prefix_caching: prompt beginnings in the cache are not computed again.",
        ),
        "enable_chunked_prefill": boxes[1].toggle(
            "Chunked prefill",
            value=engine.enable_chunked_prefill,
            key=f"{name}.chunked",
            persist_state="session",
            help="enable_chunked_prefill: long prompts are split over steps.",
        ),
    }
    own = engine.model_dump()
    return TierChange(
        replicas=None if replicas == tier.replicas else int(replicas),
        balancing=None if balancing == "round_robin" else balancing,
        engine={key: value for key, value in wanted.items() if value != own[key]},
    )


def _compared(before: LoadStudy, after: LoadStudy, subject: Subject) -> pd.DataFrame:
    """Figures of the busiest hour, capacity and cost."""
    rows: dict[str, dict[str, str]] = {}
    for metric, title in METRICS.items():
        values = [_peak_p95(one, metric) for one in (before, after)]
        rows[f"{title} p95, busiest hour"] = {
            "Before": _duration(before, metric),
            "After": _duration(after, metric),
            "Change": _change(*values),
        }
    for title, one, other in (
        ("Holds the bounds up to", before.capacity, after.capacity),
        ("Can sustain", before.sustainable, after.sustainable),
    ):
        rows[title] = {
            "Before": _rate(one),
            "After": _rate(other),
            "Change": _change(one.value, other.value),
        }
    cost = subject.one.projection.cost_usd_per_month.value
    changed = cost + after.fleet_usd_per_month - before.fleet_usd_per_month
    rows["Cost a month"] = {
        "Before": plain(usd(cost)),
        "After": plain(usd(changed)),
        "Change": _change(cost, changed),
    }
    rows["Clients that give up"] = {
        "Before": percent(before.peak.given_up_share),
        "After": percent(after.peak.given_up_share),
        "Change": "–",
    }
    rows["Preemptions"] = {
        "Before": count(before.peak.preemptions),
        "After": count(after.peak.preemptions),
        "Change": "–",
    }
    return pd.DataFrame(rows).T.rename_axis("Figure")


def _peak_p95(study: LoadStudy, metric: str) -> float | None:
    return study.peak.figures[metric]["p95"].value_ms if study.peak.figures else None


def _duration(study: LoadStudy, metric: str) -> str:
    if not study.peak.figures:
        return "overloaded" if not study.peak.stable else "none answered"
    figure = study.peak.figures[metric]["p95"]
    return f"{milliseconds(figure.value_ms)}  \n:small[{plain(figure_range(figure))}]"


def _rate(rate: RateRange) -> str:
    if rate.value is None:
        return "no limit is known"
    if rate.value == 0:
        return "at no rate"
    return f"{per_second(rate.value)}  \n:small[{plain(rate_range(rate))}]"


def _change(before: float | None, after: float | None) -> str:
    """Relative change; a dash where there is nothing to compare."""
    if not before or after is None:
        return "–"
    change = after / before - 1
    return "none" if abs(change) < 5e-4 else f"{'+' if change > 0 else '−'}{percent(abs(change))}"


def _curves(before: LoadStudy, after: LoadStudy, subject: Subject) -> None:
    """p95 of the metric shown above against the rate, before and after."""
    metric = str(st.session_state.get(f"load.metric.{subject.task.name}") or "e2e")
    if not before.points or not after.points:
        return
    unit, scale = unit_of(before, metric)
    names = ["Before", "After"]
    bound_ms = subject.bounds_ms.get(metric)
    near = [value for one in (before, after) if (value := _peak_p95(one, metric))]
    top = max([5 * max(near, default=0.0), 2 * (bound_ms or 0.0)]) or math.inf
    rows: list[dict[str, Any]] = []
    for name, one in zip(names, (before, after), strict=True):
        for point in one.points:
            value = point.figures[metric]["p95"].value_ms
            if value <= top:
                rows.append({"rate": point.rate_per_s, "value": value / scale, "which": name})
    if not rows:
        return
    if bound_ms is not None:
        names.append(f"Bound {milliseconds(bound_ms)}")
        ends = (0.0, max(float(row["rate"]) for row in rows))
        rows += [{"rate": rate, "value": bound_ms / scale, "which": names[2]} for rate in ends]
    st.altair_chart(
        charts.lines(
            rows,
            x="rate",
            y="value",
            series="which",
            order=names,
            x_title="Requests a second",
            y_title=f"{METRICS[metric]} p95, {unit}",
            x_format=load_charts.rate_format(max(float(row["rate"]) for row in rows)),
            dashed=names[2:],
            height=260,
        ),
        alt=f"{METRICS[metric]} p95 against the rate, before and after the change.",
    )
