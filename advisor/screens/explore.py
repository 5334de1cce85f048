"""Explore: what a model costs to run, law by law, for any model on any accelerator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from advisor.catalog import Precision, load_catalog
from advisor.documents import validate
from advisor.errors import InputError
from advisor.physics.deployment import Deployment
from advisor.records import Record
from advisor.screens.formatting import plain
from advisor.screens.sections import (
    attention,
    claims,
    compute,
    kv_cache,
    memory_fit,
    step_time,
    tabs,
)

TABS = {
    "Step time": step_time.draw,
    "Memory fit": memory_fit.draw,
    "KV cache": kv_cache.draw,
    "FLOPs": compute.draw,
    "Attention": attention.draw,
    "Common claims": claims.draw,
}


Spec = TypeVar("Spec", bound=Record)


def _named(
    box: DeltaGenerator,
    label: str,
    known: Iterable[str],
    read: Callable[[str], Spec],
    *,
    start: str,
    accepts: str,
) -> Spec | None:
    """What a name or a path stands for; None, with a line below the control, where nothing."""
    names = list(known)
    with box:
        name = st.selectbox(
            label,
            names,
            index=names.index(start),
            key=f"explore.{label.lower()}",
            persist_state="session",
            accept_new_options=True,
            help=accepts,
        )
        try:
            return read(str(name))
        except InputError as error:
            st.caption(f":red[{plain(str(error))}]")
            return None


def chosen_deployment() -> Deployment | None:
    """Controls for one deployment; None, with a line beside the control, where it cannot exist."""
    catalog = load_catalog()
    model_box, accelerator_box, weights_box, cache_box, parallel_box = st.columns([3, 2, 1, 1, 1])
    model = _named(
        model_box,
        "Model",
        catalog.models,
        catalog.model,
        start="meta-llama/Meta-Llama-3.1-8B-Instruct",
        accepts="A catalogue model, or the path of a config.json.",
    )
    accelerator = _named(
        accelerator_box,
        "Accelerator",
        catalog.accelerators,
        catalog.accelerator,
        start="H100-SXM",
        accepts="A catalogue accelerator, or the path of a YAML file with one.",
    )
    if model is None or accelerator is None:
        return None
    formats: list[Precision] = list(dict.fromkeys((model.published_precision, *model.quantized_to)))
    weights = weights_box.selectbox(
        "Weights",
        formats,
        key=f"explore.weights.{model.id}",
        persist_state="session",
        help="Number format of the linears.",
    )
    cache = cache_box.selectbox(
        "KV cache", ["bf16", "fp8"], key="explore.cache", persist_state="session"
    )
    sizes = [t for t in (1, 2, 4, 8, 16) if t <= accelerator.max_per_node]
    parallel = parallel_box.selectbox(
        "Tensor parallel",
        sizes,
        key=f"explore.parallel.{accelerator.max_per_node}",
        persist_state="session",
        help=f"Accelerators that share each layer; {accelerator.id} joins up to "
        f"{accelerator.max_per_node} in a node.",
    )
    try:
        return validate(
            Deployment,
            {
                "model": model,
                "accelerator": accelerator,
                "weights_dtype": weights,
                "kv_dtype": cache,
                "tensor_parallel": parallel,
            },
            what="This deployment cannot exist",
        )
    except InputError as error:
        parallel_box.caption(f":red[{plain(str(error))}]")
        return None


st.title("Explore")
st.caption(
    "The laws behind the projections, for one deployment: every figure is computed from the "
    "model's shape and the accelerator's data sheet, and times from calibrated coefficients."
)
deployment = chosen_deployment()
if deployment is not None:
    tabs.draw("explore.tab", {title: partial(draw, deployment) for title, draw in TABS.items()})
