"""How attention grows with the sequence, alone and within the whole prefill."""

from __future__ import annotations

import streamlit as st

from advisor.physics.attention import attention_flops, full_and_sliding_layers
from advisor.physics.deployment import Deployment
from advisor.physics.flops import request_flops
from advisor.screens import charts
from advisor.screens.formatting import count, operations, percent, ratio
from advisor.screens.sections.controls import LENGTHS, token_slider


def draw(deployment: Deployment) -> None:
    """A prompt, the same prompt doubled, and the growth over all lengths."""
    model = deployment.model
    most = min(LENGTHS[-2], model.context_window // 2)
    tokens = token_slider("Prompt tokens", "explore.attention.tokens", 2048, most=most)
    once, twice = request_flops(model, tokens, 1), request_flops(model, 2 * tokens, 1)
    full, sliding = full_and_sliding_layers(model)
    with st.grid(4, min_column_width=150):
        st.metric("Attention", operations(once.attention), border=True)
        st.metric("Share of the prefill", percent(once.attention / once.total), border=True)
        st.metric(
            f"Attention at {count(2 * tokens)} tokens",
            ratio(twice.attention / once.attention),
            border=True,
            help="Attention of a prompt twice as long, as a multiple.",
        )
        st.metric(
            f"Whole prefill at {count(2 * tokens)} tokens",
            ratio(twice.total / once.total),
            border=True,
            help="All operations of a prompt twice as long, as a multiple.",
        )
    lengths = [length for length in LENGTHS if length <= model.context_window]
    parts = ("Linears and head", "Attention")
    rows = []
    for length in lengths:
        flops = request_flops(model, length, 1)
        rows += [
            {"tokens": length, "part": parts[0], "FLOP": (flops.linears + flops.head)},
            {"tokens": length, "part": parts[1], "FLOP": flops.attention},
        ]
    left, right = st.columns(2)
    with left:
        st.header("Operations of a prefill")
        st.altair_chart(
            charts.lines(
                rows,
                x="tokens",
                y="FLOP",
                series="part",
                order=parts,
                x_title="Prompt tokens",
                y_title="FLOP",
                x_log=True,
                y_log=True,
                y_format="~s",
            ),
            alt="Operations of a prefill by prompt length: linears grow in proportion, attention "
            "with the square.",
        )
    with right:
        st.header("Operations of one decoded token")
        st.altair_chart(
            charts.lines(
                [
                    {
                        "context": length,
                        "FLOP": attention_flops(model, 1, length),
                        "part": "Attention",
                    }
                    for length in lengths
                ],
                x="context",
                y="FLOP",
                series="part",
                order=["Attention"],
                x_title="Context tokens",
                y_title="FLOP a token",
                y_format="~s",
            ),
            alt="Attention operations of one decoded token by context length: a straight line.",
        )
    windows = (
        f"{sliding} of {full + sliding} attention layers see only the last "
        f"{count(model.sliding_window.size)} tokens. "
        if sliding and model.sliding_window
        else ""
    )
    st.caption(
        f"{windows}Attention takes 4·H·dh operations per layer for each pair of a token and one "
        "before it, so a prompt twice as long takes four times as much; the linears only double. "
        "While decoding, each token adds one row: linear in the context."
    )
