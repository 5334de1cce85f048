"""Rules of thumb one hears about small and large models, beside what their shapes give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from advisor.catalog import Catalog, ModelSpec, Precision, load_catalog
from advisor.catalog.fits import calibration_for
from advisor.physics.deployment import Deployment
from advisor.physics.flops import request_flops, rule_of_thumb_flops
from advisor.physics.kv_cache import kv_bytes
from advisor.physics.memory import plan_memory, weights_bytes
from advisor.physics.step_time import breakdown, decode_step_s, prefill_s
from advisor.screens.formatting import count, operations, percent, plain, ratio, seconds, size

Verdict = Literal["holds", "roughly", "misleading", "wrong"]
COLOURS: dict[Verdict, Literal["green", "orange", "red"]] = {
    "holds": "green",
    "roughly": "green",
    "misleading": "orange",
    "wrong": "red",
}

SMALL, LARGE = "meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"
SEVEN = "mistralai/Mistral-7B-Instruct-v0.3"

GPT_3 = ModelSpec(
    id="GPT-3 175B",
    family="gpt-3",
    role="llm",
    num_layers=96,
    hidden_size=12288,
    num_heads=96,
    num_kv_heads=96,
    head_dim=128,
    intermediate_size=49152,
    ffn_matrices=2,
    vocab_size=50257,
    tie_word_embeddings=True,
    learned_positions=2048,
    context_window=2048,
    license="not published",
    source="arXiv 2005.14165, table 2.1",
    as_of="2020-05-28",
)
"""The model people mean by `a 175B model`."""


@dataclass(frozen=True)
class Finding:
    """A claim, what the laws give, and how the two compare."""

    claim: str
    quoted: str
    computed: str
    verdict: Verdict
    explanation: str


def flops_of_a_prompt(catalog: Catalog) -> Finding:
    model = catalog.model(SEVEN)
    counted = request_flops(model, 512, 1).total
    rule = rule_of_thumb_flops(model, 512)
    return Finding(
        "A 7B model spends about 7 TFLOP on 512 tokens",
        "7 TFLOP",
        operations(counted),
        _verdict(counted, 7e12),
        f"Mistral-7B, counted. The rule 2·P·T gives {operations(rule)}.",
    )


def ten_times_the_compute(catalog: Catalog) -> Finding:
    small, large = (request_flops(catalog.model(name), 512, 1).total for name in (SMALL, LARGE))
    return Finding(
        "70B takes ten times the compute of 7B",
        "×10",
        ratio(large / small),
        _verdict(large / small, 10),
        f"Llama 70B over Llama 8B, 512 tokens: {operations(large)} and {operations(small)}.",
    )


def ten_times_the_wait(catalog: Catalog) -> Finding:
    chip = catalog.accelerator("H200-SXM")
    law = calibration_for(chip)
    pair = [
        Deployment(model=catalog.model(name), accelerator=chip, weights_dtype="fp8")
        for name in (SMALL, LARGE)
    ]
    short = [prefill_s(one, law.coefficients, prompt_tokens=512) for one in pair]
    long = [prefill_s(one, law.coefficients, prompt_tokens=4096) for one in pair]
    step = [decode_step_s(one, law.coefficients, batch=1, context_tokens=512) for one in pair]
    return Finding(
        "On the same hardware, ten times the parameters mean ten times the time to first token",
        "×10",
        f"{ratio(short[1] / short[0])} at 512 tokens, {ratio(long[1] / long[0])} at 4,096",
        _verdict(short[1] / short[0], 10),
        f"Llama 70B over 8B, FP8 on one H200, nothing else running: {seconds(short[1])} over "
        f"{seconds(short[0])} for 512 tokens. Launches and host time do not grow with the "
        f"parameters. Each later token takes {ratio(step[1] / step[0])} as long. Under load the "
        "queue decides, and more accelerators buy the difference back.",
    )


def quadratic_attention(catalog: Catalog) -> Finding:
    model = catalog.model(SMALL)
    once, twice = request_flops(model, 2048, 1), request_flops(model, 4096, 1)
    return Finding(
        "Going from 2k to 4k tokens quadruples the cost of attention",
        "×4",
        f"{ratio(twice.attention / once.attention)} attention, "
        f"{ratio(twice.total / once.total)} the whole prefill",
        "misleading",
        f"True of the attention term, which is {percent(once.attention / once.total)} of a "
        "2k prefill of Llama 8B: the bill for the whole prompt little more than doubles.",
    )


def cache_of_one_request(catalog: Catalog) -> Finding:
    model = catalog.model(LARGE)
    real = kv_bytes(model, 8192, "bf16")
    every_head = kv_bytes(model.model_copy(update={"num_kv_heads": model.num_heads}), 8192, "bf16")
    return Finding(
        "The KV cache of one 8k-token request to a 70B model exceeds 40 GB",
        "over 40 GB",
        size(real),
        "wrong",
        f"Llama 70B has 8 KV heads for its 64 query heads, and caches in 16 bit. With a key and a "
        f"value for every head it would be {size(every_head)}; the quoted figure needs 32 bit too "
        f"({size(2 * every_head)}).",
    )


def collectives_add(catalog: Catalog) -> Finding:
    chip = catalog.accelerator("H100-SXM")
    law = calibration_for(chip)
    deployment = Deployment(
        model=catalog.model(LARGE), accelerator=chip, weights_dtype="bf16", tensor_parallel=8
    )
    decode = breakdown(deployment, law.coefficients, batch=16, context_tokens=1024)
    prefill = breakdown(deployment, law.coefficients, prompt_tokens=1024)
    first, step = float(prefill.collectives), float(decode.collectives)
    return Finding(
        "Running on several GPUs adds 10 to 50 ms of communication to a request",
        "10–50 ms",
        f"{seconds(first + 6 * step)} with 6 output tokens, {seconds(first + 256 * step)} with 256",
        "misleading",
        f"It is paid per step, not per request. Llama 70B on 8 H100: {seconds(step)} of each "
        f"decode step ({percent(step / float(decode.total))}) with 16 sequences, and "
        f"{seconds(first)} of a prefill of 1,024 tokens. What eight save by sharing the weights is "
        "not deducted.",
    )


def quantisation_saves(catalog: Catalog) -> Finding:
    model, chip = catalog.model(SMALL), catalog.accelerator("H100-SXM")

    def weights(dtype: Precision) -> float:
        return weights_bytes(Deployment(model=model, accelerator=chip, weights_dtype=dtype))

    full, eight, four = weights("bf16"), weights("int8"), weights("int4")
    return Finding(
        "INT8 or INT4 cut the memory by 2 to 4 times",
        "×2 to ×4",
        f"{ratio(full / eight)} and {ratio(full / four)}",
        "roughly",
        f"Llama 8B: {size(full)} in 16 bit, {size(eight)} in INT8, {size(four)} in INT4. Embedding "
        "and head stay in 16 bit, and the scales take room; the KV cache is not touched.",
    )


def large_on_premises(catalog: Catalog) -> Finding:
    chip = catalog.accelerator("A100-80GB-SXM")
    needed = {
        dtype: next(
            t
            for t in (1, 2, 4, 8)
            if plan_memory(
                Deployment(model=GPT_3, accelerator=chip, weights_dtype=dtype, tensor_parallel=t),
                context_tokens=2048,
            ).fits
        )
        for dtype in ("bf16", "int8", "int4")
    }
    return Finding(
        "A 175B model needs eight A100s",
        "8",
        " · ".join(f"{gpus} ({dtype})" for dtype, gpus in needed.items()),
        "roughly",
        "Smallest power of two of A100-80GB that holds GPT-3's shape and one request of 2,048 "
        "tokens. Eight is right for 16 bit.",
    )


def small_on_one(catalog: Catalog) -> Finding:
    chip = catalog.accelerator("L4")
    plan = plan_memory(
        Deployment(model=catalog.model(SEVEN), accelerator=chip, weights_dtype="int4"),
        context_tokens=4096,
    )
    return Finding(
        "A quantised 7B model runs on a single small GPU",
        "1 GPU",
        f"1 × L4, {count(plan.max_concurrency_at(4096))} requests of 4,096 tokens at once",
        "holds" if plan.fits else "wrong",
        f"Mistral-7B in INT4 on a 24 GB card: {size(plan.weights_bytes)} of weights leave "
        f"{size(plan.kv_pool_bytes)} for the cache.",
    )


def _verdict(computed: float, quoted: float) -> Verdict:
    """How far a quoted figure is from the computed one: within 5 %, within a third, or further."""
    off = max(computed / quoted, quoted / computed)
    return "holds" if off <= 1.05 else "roughly" if off <= 4 / 3 else "misleading"


FINDINGS: tuple[Callable[[Catalog], Finding], ...] = (
    cache_of_one_request,
    ten_times_the_wait,
    collectives_add,
    quadratic_attention,
    flops_of_a_prompt,
    ten_times_the_compute,
    quantisation_saves,
    large_on_premises,
    small_on_one,
)


@st.cache_data(max_entries=1, show_spinner=False)
def findings() -> tuple[Finding, ...]:
    """Every claim with its computed figure."""
    catalog = load_catalog()
    return tuple(find(catalog) for find in FINDINGS)


def draw(_: Deployment) -> None:
    """One row a claim; the models are those that the claims are about."""
    st.caption(
        "Figures that circulate about small and large models, computed here from the shapes of "
        "the models they are about. They do not follow the selection above."
    )
    for finding in findings():
        with st.container(border=True):
            claim, quoted, computed, verdict = st.columns(
                [4, 2, 3, 1.2], vertical_alignment="center"
            )
            claim.markdown(f"**{plain(finding.claim)}**")
            quoted.markdown(f":small[Often quoted]  \n**{plain(finding.quoted)}**")
            computed.markdown(f":small[Computed]  \n**{plain(finding.computed)}**")
            with verdict:
                st.badge(finding.verdict.capitalize(), color=COLOURS[finding.verdict])
            st.caption(plain(finding.explanation))
