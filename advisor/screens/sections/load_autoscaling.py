"""A fleet that follows its load, beside the fixed one: latency while it grows, and cost."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from advisor.decide.recommendation import Role, SelfHostedTier
from advisor.errors import AdvisorError
from advisor.screens import charts
from advisor.screens.formatting import count, milliseconds, plain, seconds, significant, usd
from advisor.screens.sections.load_curve import per_second
from advisor.screens.sections.load_study import ROLES, Subject, risen
from advisor.simulation.rise import RiseStudy


@st.fragment
def draw(subject: Subject) -> None:
    """A switch, and what it changes."""
    own = {
        role: tier
        for role, tier in subject.one.chosen.tiers.items()
        if isinstance(tier, SelfHostedTier) and tier.replicas > 1
    }
    if not own:
        return
    st.header("Autoscaling")
    if not st.toggle(
        "Let the fleet follow the load",
        key=f"load.scaling.{subject.task.name}",
        persist_state="session",
        help="Replicas come and go as a Kubernetes autoscaler makes them: every 15 s it starts "
        "what the requests inside ask for; replicas go after 300 s without need.",
    ):
        st.caption("The fixed fleet is paid for all day; a scaled one starts replicas late.")
        return
    targets, least = _controls(subject, own)
    try:
        study = risen(subject, targets, least)
    except AdvisorError as error:
        st.error(plain(str(error)))
        return
    st.table(_compared(study))
    _replicas(study)
    st.caption(plain(_said(study)))


def _controls(subject: Subject, own: dict[Role, SelfHostedTier]) -> tuple[dict[Role, int], int]:
    boxes = st.columns(3)
    most = max(tier.replicas for tier in own.values())
    least = boxes[0].number_input(
        "Least replicas",
        1,
        most,
        key=f"load.scaling.least.{subject.task.name}.{most}",
        persist_state="session",
    )
    targets: dict[Role, int] = {}
    for box, role in zip(boxes[1:], own, strict=False):
        wanted = box.number_input(
            f"{ROLES[role]}: in flight a replica",
            1,
            100_000,
            value=None,
            placeholder="as at the busiest hour",
            key=f"load.scaling.{role}.{subject.task.name}.{subject.one.chosen.title}",
            persist_state="session",
            help="Requests inside one replica that are wanted; empty: as many as the busiest hour "
            "puts into each replica of the fixed fleet.",
        )
        if wanted is not None:
            targets[role] = int(wanted)
    return targets, int(least)


def _compared(study: RiseStudy) -> pd.DataFrame:
    rows = {
        f"E2E {name}": {
            "Fixed fleet": milliseconds(getattr(study.fixed, f"{name}_ms")),
            "Scaled fleet": milliseconds(getattr(study.scaled, f"{name}_ms")),
        }
        for name in ("p50", "p95", "p99")
    }
    for role, tier in study.tiers.items():
        rows[f"{ROLES[role]}, mean replicas of a day"] = {
            "Fixed fleet": count(tier.max_replicas),
            "Scaled fleet": significant(tier.mean_replicas, 2),
        }
    rows["Accelerators a month"] = {
        "Fixed fleet": plain(usd(study.fixed_usd_per_month)),
        "Scaled fleet": plain(usd(study.scaled_usd_per_month)),
    }
    return pd.DataFrame(rows).T.rename_axis("Figure")


def _replicas(study: RiseStudy) -> None:
    """Replicas that serve, over the time simulated."""
    rows = [
        {"time": (time_s - study.span_s / 2) / 60, "ready": ready, "tier": ROLES[role]}
        for role, tier in study.tiers.items()
        for time_s, ready in zip(tier.fleet.time_s, tier.fleet.ready, strict=True)
    ]
    if not rows:
        return
    st.altair_chart(
        charts.lines(
            rows,
            x="time",
            y="ready",
            series="tier",
            order=[ROLES[role] for role in study.tiers],
            x_title="Minutes from the rise",
            y_title="Replicas ready",
            x_format=",.3~g",
            y_format=",d",
            height=200,
        ),
        alt="Replicas ready over time while the rate rises.",
    )


def _said(study: RiseStudy) -> str:
    starts = " and ".join(
        f"{seconds(tier.cold_start_s)} ({ROLES[role].lower()}, {tier.target_in_flight} in flight)"
        for role, tier in study.tiers.items()
    )
    return (
        f"{seconds(study.span_s)} are simulated; in the middle the rate rises from "
        f"{per_second(study.before_per_s)} to {per_second(study.peak_per_s)}. A new replica serves "
        f"after {starts}: weights ÷ load bandwidth + engine start, both assumed. Cost: the "
        "replicas rented before the rise and after it, over the day's hourly rates, at the same "
        "hourly price; that a replica can be had whenever it is wanted is taken for granted."
    )
