"""Where the memory of one accelerator goes, what does not fit, and what would."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from advisor.physics.deployment import Deployment
from advisor.physics.memory import MemoryPlan, plan_memory
from advisor.screens import charts
from advisor.screens.formatting import count, percent, size
from advisor.screens.sections.controls import LENGTHS, token_slider

PARTS = {
    "weights_bytes": "Weights",
    "activation_bytes": "Activations",
    "framework_bytes": "Framework and buffers",
    "kv_pool_bytes": "KV cache",
    "shortfall_bytes": "Missing",
}


def draw(deployment: Deployment) -> None:
    """Sliders for context and utilisation, the verdict, and the bytes by part."""
    left, right = st.columns(2)
    with left:
        context = token_slider(
            "Context of one request, tokens",
            "explore.memory.context",
            8192,
            most=min(LENGTHS[-1], deployment.model.context_window),
        )
    with right:
        utilisation = st.slider(
            "GPU memory utilisation, %",
            50,
            98,
            90,
            key="explore.memory.utilisation",
            persist_state="session",
            help="Share of the memory that the engine may use (gpu_memory_utilization).",
        )
    plan = plan_memory(deployment, context_tokens=context, gpu_memory_utilization=utilisation / 100)
    _verdict(deployment, plan)
    st.altair_chart(_bar(deployment, plan), alt=_in_words(plan))
    lengths = [length for length in LENGTHS if length <= deployment.model.context_window]
    if plan.fits:
        st.header("Requests at once")
        st.altair_chart(
            charts.lines(
                [
                    {
                        "context": length,
                        "requests": plan.max_concurrency_at(length),
                        "series": "Requests",
                    }
                    for length in lengths
                    if plan.max_concurrency_at(length)
                ],
                x="context",
                y="requests",
                series="series",
                order=["Requests"],
                x_title="Context of each request, tokens",
                y_title="Requests at once",
                x_log=True,
                y_log=True,
                y_format=",.3~s",
                height=280,
            ),
            alt="How many requests the KV cache holds at once, by the context of each.",
        )
    st.caption(
        "Weights from the model's shape (embedding and head in 16 bit), activations of a step of "
        "8,192 tokens, 1 GB for the framework and 0.6 GB for collectives across accelerators; what "
        "is left holds the KV cache."
    )


def _verdict(deployment: Deployment, plan: MemoryPlan) -> None:
    chip = deployment.accelerator
    where = f"{deployment.ranks} × {chip.id}" if deployment.ranks > 1 else f"one {chip.id}"
    if plan.fits:
        requests = count(plan.max_concurrency_at(plan.context_tokens))
        st.success(
            f"Fits on {where}: weights take {size(plan.weights_bytes)} of the "
            f"{size(plan.usable_bytes)} usable on each, and the cache holds "
            f"{count(plan.kv_tokens)} tokens, or {requests} requests of "
            f" {count(plan.context_tokens)}."
        )
        return
    changes = (
        ", or ".join(plan.smallest_changes) or "none of the usual changes; a larger accelerator"
    )
    st.error(
        f"Does not fit on {where}: {size(plan.shortfall_bytes)} missing on each "
        f"({percent(plan.shortfall_bytes / plan.usable_bytes)} of what is usable). "
        f"Smallest change that makes it fit: {changes}."
    )


def _bar(deployment: Deployment, plan: MemoryPlan) -> alt.LayerChart:
    shown = {name: title for name, title in PARTS.items() if getattr(plan, name) > 0}
    name = deployment.accelerator.id
    bars = charts.stacked_bars(
        [
            {"bar": name, "part": title, "GB": getattr(plan, part) / 1e9}
            for part, title in shown.items()
        ],
        value="GB",
        part="part",
        bar="bar",
        parts=list(PARTS.values()),
        bars=[name],
        title="GB on each accelerator",
        unit_format=",.0f",
    )
    limits = pd.DataFrame(
        {
            "GB": [plan.usable_bytes / 1e9, deployment.accelerator.memory_bytes / 1e9],
            "limit": ["Usable by the engine", "Memory"],
        }
    )
    rules = (
        alt.Chart(limits)
        .mark_rule(strokeDash=[4, 3], strokeWidth=2, color=charts.ink())
        .encode(x="GB:Q", tooltip=["limit:N", alt.Tooltip("GB:Q", format=",.1f")])
    )
    return charts.layered(bars, rules)


def _in_words(plan: MemoryPlan) -> str:
    parts = ", ".join(
        f"{title.lower()} {size(getattr(plan, name))}" for name, title in PARTS.items()
    )
    return f"Memory of one accelerator: {parts}, of {size(plan.usable_bytes)} usable."
