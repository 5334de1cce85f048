"""Shapes of real request streams: how long prompts and answers are, and how requests arrive."""

from __future__ import annotations

import streamlit as st

from advisor.catalog import WorkloadShape, load_catalog
from advisor.catalog.workloads import QUANTILE_LEVELS
from advisor.screens import charts
from advisor.screens.sections.tables import number, table


def draw() -> None:
    """Distributions of both lengths, and the parameters fitted to each trace."""
    shapes = list(load_catalog().workloads.values())
    st.caption(
        "Public traces in a few parameters, to compare with your own traffic. A task states its "
        "lengths itself: a mean and a p95, or samples of its own."
    )
    prompts, answers = st.columns(2)
    with prompts:
        _distribution("Input tokens", [(one.title, one.input.quantiles) for one in shapes])
    with answers:
        _distribution("Output tokens", [(one.title, one.output.quantiles) for one in shapes])
    table(
        [_row(one) for one in shapes],
        "Traces with lengths, arrivals, licence and source.",
        {
            "Requests": number(format="localized"),
            "Burstiness": number(help="Shape of the gaps: 1 is Poisson, less is burstier."),
        },
    )


def _distribution(title: str, traces: list[tuple[str, tuple[float, ...]]]) -> None:
    st.header(title)
    st.altair_chart(
        charts.lines(
            [
                {"tokens": tokens, "share": 100 * level, "trace": name}
                for name, quantiles in traces
                for tokens, level in zip(quantiles, QUANTILE_LEVELS, strict=True)
            ],
            x="tokens",
            y="share",
            series="trace",
            order=[name for name, _ in traces],
            x_title=title,
            y_title="Requests with at most so many, %",
            x_log=True,
            height=280,
        ),
        alt=f"Distribution of {title.lower()} in {len(traces)} public traces.",
    )


def _row(one: WorkloadShape) -> dict[str, object]:
    arrivals = one.arrivals
    return {
        "Trace": one.title,
        "Requests": one.requests,
        "Input, mean": one.input.mean,
        "Output, mean": one.output.mean,
        "Requests/s": arrivals.rate_per_s if arrivals else None,
        "Burstiness": arrivals.burstiness if arrivals else None,
        "Peak to mean": arrivals.peak_to_mean if arrivals else None,
        "License": one.license,
        "Source": one.source,
        "As of": one.as_of,
        "Note": one.note,
    }
