"""Bytes of the KV cache: per token, per request, by number format and tensor parallelism."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from advisor.catalog import Precision
from advisor.physics.deployment import Deployment
from advisor.physics.kv_cache import kv_bytes, kv_bytes_per_token
from advisor.physics.memory import plan_memory
from advisor.screens import charts
from advisor.screens.formatting import count, size
from advisor.screens.sections.controls import LENGTHS, token_slider

FORMATS: tuple[Precision, ...] = ("bf16", "fp8")


def draw(deployment: Deployment) -> None:
    """One request's cache, the table of formats and layouts, and its growth."""
    model, t = deployment.model, deployment.tensor_parallel
    context = token_slider(
        "Context of one request, tokens",
        "explore.kv.context",
        8192,
        most=min(LENGTHS[-1], model.context_window),
    )
    plan = plan_memory(deployment, context_tokens=context)
    with st.grid(4, min_column_width=150):
        st.metric(
            "Per token",
            size(kv_bytes_per_token(model, deployment.kv_dtype, t)),
            border=True,
            help="On each accelerator.",
        )
        st.metric(
            "Per request",
            size(kv_bytes(model, context, deployment.kv_dtype, t)),
            border=True,
            help="On each accelerator, in blocks of 16 tokens.",
        )
        st.metric("Left for the cache", size(plan.kv_pool_bytes), border=True)
        st.metric(
            "Requests at once",
            count(plan.max_concurrency_at(context)),
            border=True,
            help=f"Requests of {count(context)} tokens that the cache holds together.",
        )
    left, right = st.columns([3, 2])
    names = [f"{dtype}, TP {parallel}" for dtype in FORMATS for parallel in (1, 8)]
    with left:
        st.header("Growth with context, on each accelerator")
        st.altair_chart(
            charts.lines(
                [
                    {
                        "context": length,
                        "GB": kv_bytes(model, length, dtype, parallel) / 1e9,
                        "format": f"{dtype}, TP {parallel}",
                    }
                    for length in LENGTHS
                    if length <= model.context_window
                    for dtype in FORMATS
                    for parallel in (1, 8)
                ],
                x="context",
                y="GB",
                series="format",
                order=names,
                x_title="Context tokens",
                y_title="GB a request",
            ),
            alt="KV cache of one request by context length, for two number formats, on one and on "
            "eight accelerators.",
        )
    with right:
        st.header("Format and layout")
        st.dataframe(
            pd.DataFrame(
                {
                    "Tensor parallel": parallel,
                    **{
                        f"{dtype}, per request": size(kv_bytes(model, context, dtype, parallel))
                        for dtype in FORMATS
                    },
                }
                for parallel in (1, 2, 4, 8, 16)
            ),
            hide_index=True,
            alt="KV cache of one request by tensor parallelism and number format.",
        )
        st.caption(
            "Latent attention: one compressed vector a token, and a full copy on each accelerator."
            if model.mla
            else f"2 · layers · max(1, Hkv/t) · dh · bytes, with {model.num_kv_heads:g} KV heads: "
            "more accelerators than KV heads save nothing."
        )
