"""Tables of the catalogue, its prices and its evidence, each row with source and date."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from typing import Any

import pandas as pd
import streamlit as st

from advisor.catalog import ModelSpec, load_catalog
from advisor.catalog.coefficients import Coefficients
from advisor.catalog.fits import calibration_for, load_fits
from advisor.catalog.locations import DATA_ROOT
from advisor.physics.parameters import parameter_count
from advisor.records import attribute_docstrings
from advisor.screens import charts
from advisor.screens.formatting import significant
from advisor.screens.sections.task_fields import named

ROW_HEIGHT, MOST_HEIGHT = 33, 563
"""Pixels of one row, and of a table before it scrolls."""

number = st.column_config.NumberColumn
text = st.column_config.TextColumn


def models() -> None:
    """Shapes of the open-weight models."""
    catalog = load_catalog()
    st.caption(
        f"{len(catalog.models)} open-weight models; parameters are counted from the shapes. Newest "
        f"entry: {catalog.as_of}. Add one by naming the path of its config.json wherever a model "
        "is asked for."
    )
    table(
        [_model_row(model) for model in catalog.models.values()],
        "Open-weight models with their shapes, licences and sources.",
        {
            "Parameters, billions": number(format="%.2f"),
            "Active, billions": number(format="%.2f"),
            "Context, tokens": number(format="localized"),
        },
    )


def _model_row(model: ModelSpec) -> dict[str, Any]:
    parameters = parameter_count(model)
    return {
        "Model": model.id,
        "Tier": model.role.upper(),
        "Parameters, billions": parameters.total / 1e9,
        "Active, billions": parameters.active / 1e9,
        "Layers": model.num_layers,
        "Width": model.hidden_size,
        "KV heads": model.num_kv_heads,
        "Attention": _attention(model),
        "Context, tokens": model.context_window,
        "Published in": model.published_precision,
        "Also in": ", ".join(model.quantized_to),
        "Considered unasked": model.considered,
        "License": model.license,
        "Source": model.source,
        "As of": model.as_of,
        "Note": "; ".join(filter(None, (model.note, model.count_exception))),
    }


def _attention(model: ModelSpec) -> str:
    kind = "latent" if model.mla else "grouped" if model.num_kv_heads < model.num_heads else "full"
    return f"{kind}, sliding window" if model.sliding_window else kind


def accelerators() -> None:
    """Data sheets."""
    catalog = load_catalog()
    st.caption(
        f"{len(catalog.accelerators)} accelerators at dense peak rates (no sparsity). Add your own "
        "by naming the path of a YAML file with the same keys."
    )
    table(
        [
            {
                "Accelerator": chip.id,
                "Vendor": chip.vendor,
                "Generation": chip.arch,
                "Memory, GB": chip.memory_bytes / 1e9,
                "Bandwidth, GB/s": chip.mem_bw_gbps,
                "BF16, TFLOP/s": chip.bf16_tflops_dense,
                "FP8, TFLOP/s": chip.fp8_tflops_dense,
                "FP4, TFLOP/s": chip.fp4_tflops_dense,
                "Link, GB/s one way": chip.interconnect_gbps_unidir,
                "Per node": chip.max_per_node,
                "Power, W": chip.tdp_w,
                "Calibration": calibration_for(chip).label,
                "Figures": chip.confidence,
                "Source": chip.source,
                "As of": chip.as_of,
                "Note": chip.note,
            }
            for chip in catalog.accelerators.values()
        ],
        "Accelerators with memory, bandwidth, peak rates, links and sources.",
        {
            "Memory, GB": number(
                format="%.1f", help="What the driver shows, in units of 1e9 bytes."
            ),
            "Calibration": text(help="What latency on it rests on; see the tab of that name."),
            "Figures": text(help="`sourced`, or `memory` where recalled and not compared."),
        },
    )


def gpu_prices() -> None:
    """On-demand prices by provider."""
    catalog = load_catalog()
    st.caption(
        f"USD for one accelerator for an hour, on demand; newest {catalog.prices_as_of}. "
        "Marketplace asks are volatile, come without a service agreement and are never a default. "
        "A price of your own goes into the task (constraints, usd_per_accelerator_hour)."
    )
    table(
        [
            {
                "Accelerator": price.accelerator,
                "Provider": price.provider,
                "Kind": price.kind,
                "USD per hour": price.usd_per_hour,
                "As of": price.as_of,
                "Source": price.source,
                "Note": price.note,
            }
            for price in sorted(catalog.prices, key=lambda one: (one.accelerator, one.usd_per_hour))
        ],
        "GPU-hour prices by accelerator and provider, with date and source.",
        {"USD per hour": number(format="$%.2f")},
    )


def hosted_prices() -> None:
    """List prices of hosted models."""
    hosted = load_catalog().hosted
    st.caption(
        "USD per million tokens at standard list prices, for today: from the installed "
        "genai-prices where it knows the model, else from the shipped list."
    )
    table(
        [
            {
                "Model": model.id,
                "Provider": model.provider,
                "Tier": model.role.upper(),
                "Input": model.input_usd_per_mtok,
                "Cached input": model.cached_input_usd_per_mtok,
                "Output": model.output_usd_per_mtok,
                "Context, tokens": model.context_tokens,
                "Retires on": model.retires_on,
                "As of": model.as_of,
                "Source": model.source,
                "Note": model.note,
            }
            for model in hosted
        ],
        "Hosted models with their prices per million tokens, date and source.",
        {
            "Input": number(format="$%.3f"),
            "Cached input": number(format="$%.3f"),
            "Output": number(format="$%.3f"),
            "Context, tokens": number(format="localized"),
        },
    )


def quality() -> None:
    """Published scores, as a chart by size and as a table."""
    rows = load_catalog().evidence
    kinds = Counter(row.task_type for row in rows)
    kind = st.segmented_control(
        "Task type",
        list(kinds),
        default=next(iter(kinds)),
        required=True,
        key="evidence.task_type",
        persist_state="session",
        format_func=lambda name: f"{named(str(name))} ({kinds[name]})",
    )
    chosen = [row for row in rows if row.task_type == kind]
    points = [
        {
            "params": row.params_b,
            "score": 100 * row.score,
            "model": row.model,
            "adaptation": named(row.adaptation),
            "dataset": row.dataset,
            "metric": row.metric,
            "source": row.source,
        }
        for row in chosen
        if row.params_b and row.scale != "recovery"
    ]
    if points:
        st.altair_chart(
            charts.scores(points),
            alt=f"{len(points)} published {kind} scores by model size and adaptation.",
        )
    st.caption(
        f"{len(chosen)} published scores for {kind}. Scores on different data sets and metrics do "
        "not compare directly: the prior reads differences within a study."
    )
    table(
        [
            {
                "Model": row.model,
                "Parameters, billions": row.params_b,
                "Adaptation": named(row.adaptation),
                "Quantisation": row.quantization,
                "Data set": row.dataset,
                "Metric": row.metric,
                "Score": row.score,
                "Test rows": row.n,
                "Source": row.source,
                "Link": row.url,
                "Year": row.year,
                "By a vendor": row.vendor_reported,
                "Read in": "the source" if row.verified == "read" else "a secondary source",
                "Note": row.notes,
            }
            for row in chosen
        ],
        f"Published {kind} scores with their sources.",
        {
            "Score": number(format="percent"),
            "Year": number(format="%d"),
            "Parameters, billions": number(format="%.1f"),
        },
    )


def calibration() -> None:
    """What latency rests on, accelerator by accelerator."""
    fit = load_fits()
    st.caption(
        "Latency comes from one law whose coefficients are fitted on public and own measurements "
        f"of vLLM ({fit.as_of}). The uncertainty is that of a deployment that was not measured "
        "itself, found by leaving models or accelerators out of the fit."
    )
    chips = load_catalog().accelerators
    labels = {"measured": 0, "calibrated": 1, "transferred": 2, "assumed": 3}
    found = {name: calibration_for(chip) for name, chip in chips.items()}
    table(
        [
            {
                "Accelerator": name,
                "Label": one.label,
                "Decode, 90 % factor": _factor(one.decode_interval(1.0)),
                "Prefill, 90 % factor": _factor(one.prefill_interval(1.0)),
                "Basis": one.basis,
                "As of": one.as_of,
            }
            for name, one in sorted(found.items(), key=lambda item: labels[item[1].label])
        ],
        "Calibration of each accelerator: label, uncertainty and basis.",
        {
            "Decode, 90 % factor": text(help="A step takes up to so many times more, or less."),
            "Basis": text(width="large"),
        },
    )
    st.header("Coefficients")
    name = st.selectbox(
        "Accelerator",
        list(chips),
        index=list(chips).index("H100-SXM"),
        key="evidence.accelerator",
        persist_state="session",
    )
    st.caption(f"{found[name].label.capitalize()}: {found[name].basis}.")
    values = found[name].coefficients.model_dump()
    prior = fit.coefficients.model_dump()
    meanings = attribute_docstrings(Coefficients)
    table(
        [
            {
                "Coefficient": field,
                "Value": significant(values[field], 3),
                "All accelerators": significant(prior[field], 3),
                "Meaning": meanings.get(field, "").replace("\n", " "),
            }
            for field in Coefficients.model_fields
        ],
        f"Calibrated coefficients of {name}.",
        {"Meaning": text(width="large"), "Value": text(help="Seconds where the name ends in _s.")},
    )


def notices() -> None:
    """Licences and sources of the data that are carried over."""
    path = DATA_ROOT / "NOTICE"
    if path.is_file():
        notice = path.read_text(encoding="utf-8")
    else:
        notice = importlib.metadata.distribution("advisor").read_text("licenses/NOTICE") or ""
    st.code(notice, language=None, wrap_lines=True)


def _factor(interval: tuple[float, float]) -> str:
    """The interval around 1, as a factor."""
    return f"×/÷ {interval[1]:.2f}"


def table(rows: list[dict[str, Any]], description: str, columns: dict[str, Any]) -> None:
    """A table that can be sorted, searched and downloaded."""
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    st.dataframe(
        frame,
        hide_index=True,
        column_config=columns,
        height=min(MOST_HEIGHT, ROW_HEIGHT * (len(frame) + 1) + 2),
        placeholder="–",
        alt=description,
    )
