"""How long a step takes, what it is made of, and how far from the roofline."""

from __future__ import annotations

from typing import Any

import streamlit as st

from advisor.catalog.fits import Calibration, calibration_for
from advisor.physics.deployment import Deployment
from advisor.physics.step_time import breakdown, decode_step_s, prefill_s, roofline
from advisor.screens import charts
from advisor.screens.formatting import count, milliseconds, plain, seconds
from advisor.screens.sections.controls import BATCHES, LENGTHS, batch_slider, token_slider

TERMS = {
    "host": "Host",
    "launches": "Launches",
    "linears_memory": "Linears, reading weights",
    "linears_compute": "Linears, computing",
    "experts": "Experts",
    "head": "LM head and sampling",
    "kv_attention": "Attention, reading the cache",
    "prefill_attention": "Attention, prefill",
    "collectives": "Collectives",
}


def draw(deployment: Deployment) -> None:
    """Sliders for batch and context, the step's parts, and both sweeps."""
    calibration = calibration_for(deployment.accelerator)
    left, right = st.columns(2)
    with left:
        batch = batch_slider("Batch, sequences", "explore.step.batch", 32)
    with right:
        context = token_slider(
            "Context of each, tokens",
            "explore.step.context",
            2048,
            most=min(LENGTHS[-1], deployment.model.context_window),
        )
    step = decode_step_s(deployment, calibration.coefficients, batch=batch, context_tokens=context)
    bound = roofline(deployment, batch=batch, context_tokens=context)
    prefill = prefill_s(deployment, calibration.coefficients, prompt_tokens=context)
    low, high = calibration.decode_interval(step)
    first_low, first_high = calibration.prefill_interval(prefill)
    with st.grid(4, min_column_width=150):
        st.metric(
            "Decode step (TPOT)",
            seconds(step),
            border=True,
            delta=f"{seconds(low)} – {seconds(high)}",
            delta_color="off",
            delta_arrow="off",
        )
        st.metric(
            "Naive roofline",
            seconds(bound),
            border=True,
            delta=f"{step / bound:.1f} times faster",
            delta_color="off",
            delta_arrow="off",
            help="max(bytes / bandwidth, operations / peak) at data-sheet rates, nothing else.",
        )
        st.metric(
            "Output rate",
            f"{count(round(batch / step))} tokens/s",
            border=True,
            delta=f"{count(round(1 / step))} tokens/s each",
            delta_color="off",
            delta_arrow="off",
        )
        st.metric(
            f"Prefill of {count(context)} tokens",
            seconds(prefill),
            border=True,
            delta=f"{seconds(first_low)} – {seconds(first_high)}",
            delta_color="off",
            delta_arrow="off",
        )
    st.caption(
        f"Latency model of {deployment.accelerator.id}: **{calibration.label}** "
        f"({plain(calibration.basis)}). "
        "Ranges are 90 % intervals of a deployment that was not measured itself."
    )
    _parts(deployment, calibration, batch, context)
    left, right = st.columns(2)
    with left:
        st.header("By batch")
        _sweep(
            [_point(deployment, calibration, n, context) | {"x": n} for n in BATCHES],
            "Batch, sequences",
            f"Decode step by batch at {count(context)} tokens of context",
        )
    with right:
        st.header("By context")
        lengths = [n for n in LENGTHS if n <= deployment.model.context_window]
        _sweep(
            [_point(deployment, calibration, batch, n) | {"x": n} for n in lengths],
            "Context of each, tokens",
            f"Decode step by context for {count(batch)} sequences",
        )


def _parts(deployment: Deployment, calibration: Calibration, batch: int, context: int) -> None:
    st.header("What a step is made of")
    steps = {
        f"Decode, {count(batch)} sequences": breakdown(
            deployment, calibration.coefficients, batch=batch, context_tokens=context
        ),
        "Decode, 1 sequence": breakdown(
            deployment, calibration.coefficients, batch=1, context_tokens=context
        ),
        f"Prefill, {count(context)} tokens": breakdown(
            deployment, calibration.coefficients, prompt_tokens=context
        ),
    }
    rows = [
        {
            "step": name,
            "part": title,
            "share": float(getattr(terms, term)) / float(terms.total) * 100,
        }
        for name, terms in steps.items()
        for term, title in TERMS.items()
    ]
    st.altair_chart(
        charts.stacked_bars(
            rows,
            value="share",
            part="part",
            bar="step",
            parts=list(TERMS.values()),
            bars=list(steps),
            title="Share of the step, %",
            unit_format=".0f",
            most=100,
        ),
        alt="; ".join(
            f"{name}: {milliseconds(1000 * float(terms.total))}" for name, terms in steps.items()
        ),
    )


def _point(
    deployment: Deployment, calibration: Calibration, batch: int, context: int
) -> dict[str, Any]:
    step = decode_step_s(deployment, calibration.coefficients, batch=batch, context_tokens=context)
    low, high = calibration.decode_interval(step)
    bound = roofline(deployment, batch=batch, context_tokens=context)
    return {"ms": 1e3 * step, "low": 1e3 * low, "high": 1e3 * high, "roofline": 1e3 * bound}


def _sweep(rows: list[dict[str, Any]], x_title: str, description: str) -> None:
    st.altair_chart(
        charts.band(
            rows,
            x="x",
            y="ms",
            low="low",
            high="high",
            reference="roofline",
            reference_title="Naive roofline",
            value_title="Calibrated law, 90 % interval",
            x_title=x_title,
            y_title="Decode step, ms",
            x_log=True,
        ),
        alt=f"{description}, with its interval and the naive roofline.",
    )
