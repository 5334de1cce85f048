"""FLOPs of a request: counted, beside the 2·P·T rule of thumb."""

from __future__ import annotations

import streamlit as st

from advisor.physics.deployment import Deployment
from advisor.physics.flops import request_flops
from advisor.physics.parameters import parameter_count
from advisor.screens import charts
from advisor.screens.formatting import count, operations, percent
from advisor.screens.sections.controls import LENGTHS, token_slider

PARTS = {
    "linears": "Linears",
    "head": "LM head",
    "attention_prefill": "Attention, prefill",
    "attention_decode": "Attention, decode",
}

ANSWERS = {1: "1 output token", 128: "128 output tokens", 1024: "1,024 output tokens"}


def draw(deployment: Deployment) -> None:
    """Sliders for one request, its operations by part, and how far the rule is off by length."""
    model = deployment.model
    left, right = st.columns(2)
    with left:
        prompt = token_slider("Input tokens", "explore.flops.input", 512)
    with right:
        answer = token_slider("Output tokens", "explore.flops.output", 128)
    flops = request_flops(model, prompt, answer)
    parameters = parameter_count(model)
    with st.grid(4, min_column_width=150):
        st.metric("Counted", operations(flops.total), border=True)
        st.metric("Rule of thumb 2·P·T", operations(flops.rule_of_thumb), border=True)
        st.metric("Rule is off by", f"{100 * flops.difference:+.1f} %", border=True)
        st.metric(
            "Active parameters",
            count(parameters.active),
            border=True,
            help=f"Of {count(parameters.total)} in all. A mixture of experts uses a part of them "
            "for each token; a dense model uses them all.",
        )
    bars = ["Counted", "2·P·T"]
    rows = [
        {"bar": "Counted", "part": title, "TFLOP": getattr(flops, name) / 1e12}
        for name, title in PARTS.items()
    ]
    rows.append({"bar": "2·P·T", "part": "Rule of thumb", "TFLOP": flops.rule_of_thumb / 1e12})
    st.altair_chart(
        charts.stacked_bars(
            rows,
            value="TFLOP",
            part="part",
            bar="bar",
            parts=[*PARTS.values(), "Rule of thumb"],
            bars=bars,
            title="TFLOP for one request",
        ),
        alt=f"Operations of one request by part: {operations(flops.total)} counted, "
        f"{operations(flops.rule_of_thumb)} by the rule of thumb.",
    )
    st.header("Where the rule of thumb fails")
    st.altair_chart(
        charts.lines(
            [
                {
                    "tokens": tokens,
                    "difference": 100 * request_flops(model, tokens, output).difference,
                    "answer": title,
                }
                for tokens in LENGTHS
                if tokens <= model.context_window
                for output, title in ANSWERS.items()
            ],
            x="tokens",
            y="difference",
            series="answer",
            order=list(ANSWERS.values()),
            x_title="Input tokens",
            y_title="Rule minus counted, %",
            x_log=True,
            y_zero=False,
        ),
        alt="How far the rule of thumb is off, by input length and output length.",
    )
    tables = 1 - parameters.active_body / parameters.active
    st.caption(
        f"Counted: 2·P·n for the layers ({count(parameters.active_body)} active parameters without "
        "embedding and head), 2·V·d for each sampled position, and attention over the context each "
        "token sees. The rule takes all active parameters for every token (arXiv 2001.08361): it "
        f"counts the embedding and the head for prompt tokens ({percent(tables)} of the parameters "
        "here), and leaves attention out."
    )
