"""What each term of the law is worth: the fit without it, in sample and with sources left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.board import Ablation
from advisor.calibrate.fit import Fit
from advisor.calibrate.problem import METRICS, Problem, start_of
from advisor.calibrate.solver import Solution, solve
from advisor.calibrate.spread import labels_of
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.physics.rates import EXPERT_KERNELS

FloatArray = NDArray[np.float64]

SHOWN = ("tpot", "e2e", "ttft")
"""TPOT of every load, E2E of static batches, TTFT of loads that flow (uncongested)."""

NOTHING, ENDLESS = 1e-12, 1e6
"""A cost of nothing; a rate that makes what it divides take no time."""

FULL = "full law"

EXPERT_KINDS = ("16bit", *EXPERT_KERNELS.values())

WITHOUT: dict[str, dict[str, float]] = {
    "host time a step": {
        "host_step_early_s": NOTHING,
        "host_step_v0_s": NOTHING,
        "host_step_v1_s": NOTHING,
    },
    "host time a sequence": {
        "host_sequence_early_s": NOTHING,
        "host_sequence_v0_s": NOTHING,
        "host_sequence_v1_s": NOTHING,
    },
    "tensor-parallel workers": {
        "worker_early_s": NOTHING,
        "worker_v0_s": NOTHING,
        "worker_v1_s": NOTHING,
    },
    "kernel launches a layer": {
        "layer_s": NOTHING,
        "moe_layer_16bit_s": NOTHING,
        "moe_layer_8bit_s": NOTHING,
        "moe_layer_fp4_s": NOTHING,
        "moe_layer_weight_only_s": NOTHING,
        "moe_layer_mxfp4_s": NOTHING,
        "latent_layer_s": NOTHING,
        "quantize_layer_s": NOTHING,
    },
    "launches outside the CUDA graph": {
        "mixed_layer_s": NOTHING,
        "mixed_latent_layer_s": NOTHING,
        "mixed_moe_layer_s": NOTHING,
        "mixed_reduce_s": NOTHING,
    },
    "engine releases (0.15, 0.18)": {"recent_layer_factor": 1.0, "latest_moe_factor": 1.0},
    "cache reads": {
        "kv_bandwidth": ENDLESS,
        "kv_bandwidth_8bit": ENDLESS,
        "kv_bandwidth_v0": ENDLESS,
    },
    "cache kernels of engine V0": {
        "kv_sharing_early": NOTHING,
        "kv_sharing_v0": NOTHING,
        "kv_split_v0": NOTHING,
    },
    "prefill attention": {"prefill_attention": ENDLESS},
    "LM head and sampler": {"head_bandwidth": ENDLESS, "sampling_bandwidth": ENDLESS},
    "norms and activations": {"activation_bandwidth": ENDLESS},
    "expert reads": {f"expert_bandwidth_{kind}": ENDLESS for kind in EXPERT_KINDS},
    "uneven routing": {"routing_evenness": ENDLESS},
    "expert padding": {f"expert_padding_{kind}": NOTHING for kind in EXPERT_KINDS},
    "all-reduce latency": {"reduce_s": NOTHING, "reduce_hop_s": NOTHING},
    "all-reduce bytes": {"link_bandwidth": ENDLESS},
    "request overhead": {"request_overhead_s": NOTHING},
    "serial frontend": {"frontend_request_s": NOTHING, "frontend_token_s": NOTHING},
}
"""Terms, and the coefficients that switch them off."""


@dataclass(frozen=True, slots=True, eq=False)
class _Variant:
    """A law with something missing."""

    term: str
    problem: Problem
    values: dict[str, float]
    deviations: bool = True


def ablations(
    fit: Fit,
    progress: Callable[[str], None] = lambda term: None,
    *,
    terms: Collection[str] | None = None,
) -> list[Ablation]:
    """Median errors of the law without each term, all else fitted again (closed form, fractions).

    In sample, and of each source's rows with coefficients fitted without them. All terms, where
    none are named.
    """
    found = []
    for variant in _variants(fit):
        if terms is not None and variant.term not in terms:
            continue
        progress(variant.term)
        found.append(_measured(fit, variant))
    return found


def _variants(fit: Fit) -> Iterator[_Variant]:
    yield _Variant(FULL, fit.problem, {})
    for term, values in WITHOUT.items():
        yield _Variant(term, fit.problem, values)
    yield _Variant("deviations by hardware", fit.problem, {}, deviations=False)
    bare = dataclasses.replace(fit.problem, offsets=np.zeros_like(fit.problem.offsets))
    yield _Variant("kernel tables by accelerator", bare, {})


def _measured(fit: Fit, variant: _Variant) -> Ablation:
    begin = fit.solution.theta.copy()
    for name, value in variant.values.items():
        begin[COEFFICIENT_NAMES.index(name)] = np.log(value)
    if not variant.deviations:
        size = len(COEFFICIENT_NAMES)
        begin[size:] = start_of(fit.problem)[size:]

    def solved(start: FloatArray, use: NDArray[np.bool_] | None, iterations: int) -> Solution:
        return solve(
            variant.problem,
            start=start,
            use=use,
            frozen=tuple(variant.values),
            deviations=variant.deviations,
            iterations=iterations,
            unbounded=bool(variant.values),
        )

    whole = solved(begin, None, 12)
    sources = np.array(labels_of(fit, "source"))
    row = fit.problem.observations.row
    left_out = np.full(len(row), np.nan)
    for source in np.unique(sources):
        out = sources == source
        part = solved(whole.theta, ~out, 6)
        left_out[out[row]] = part.residuals[out[row]]
    return Ablation(
        term=variant.term,
        in_sample=_medians(fit, whole.residuals),
        source_left_out=_medians(fit, left_out),
    )


def _medians(fit: Fit, errors: FloatArray) -> dict[str, float]:
    metric = fit.problem.observations.metric
    relative = {name: np.abs(np.expm1(errors[metric == METRICS.index(name)])) for name in SHOWN}
    return {
        name: round(float(np.median(found)), 4) for name, found in relative.items() if len(found)
    }
