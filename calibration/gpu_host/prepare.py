"""Write what a GPU host measures: shapes of models, points, and loads with their predictions.

    python calibration/gpu_host/prepare.py --accelerator H200-SXM --output PLAN

The predictions are made here, from the shipped coefficients, before anything is measured: the
loads are a test and not a fit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from advisor.calibrate.bench.checkpoint import config_of
from advisor.calibrate.bench.hardware import Machine
from advisor.calibrate.bench.law import Law
from advisor.calibrate.bench.loads import predict_load
from advisor.calibrate.bench.plan import cost_s
from advisor.calibrate.bench.points import EngineFacts, Shape
from advisor.calibrate.bench.prior import prior_belief
from advisor.calibrate.bench.target import Target, settings_of, sustainable_per_s
from advisor.catalog import load_catalog
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.fits import load_fits
from advisor.catalog.models import ModelSpec, Precision
from advisor.errors import DoesNotFitError
from advisor.physics.deployment import Deployment
from advisor.physics.memory import plan_memory
from advisor.serving.engine import vllm_defaults
from advisor.serving.lengths import Fixed
from advisor.serving.workload import Poisson, draw_requests

MAIN = "meta-llama/Llama-3.1-8B"
TRANSFER: tuple[tuple[str, Precision], ...] = (
    ("Qwen/Qwen3-0.6B", "bf16"),
    ("Qwen/Qwen3-1.7B", "bf16"),
    ("Qwen/Qwen3-32B", "bf16"),
    ("meta-llama/Llama-3.1-70B", "fp8"),
    ("Qwen/Qwen3-30B-A3B", "bf16"),
)
"""The floor of host overhead, a large model, one that fits in 8 bit alone, a mixture of experts."""

SHARES = (0.2, 0.4, 0.6, 0.8, 0.95)
LENGTHS = ((512, 128), (2048, 256))
SECONDS = 30.0

CONTEXTS = (128, 2048, 8192, 32_000)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROMPTS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_000)
MIXED = tuple((batch, tokens) for batch in (16, 64, 128) for tokens in (256, 1024, 2048))

ENGINE_VERSION = "0.20.2"
"""Of the vLLM on the host, whose defaults the predictions assume."""


def main() -> None:
    """Write the plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--accelerator", default="H200-SXM")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--engine-version", default=ENGINE_VERSION)
    chosen = parser.parse_args()
    catalog = load_catalog()
    chip = catalog.accelerator(chosen.accelerator)
    models = []
    for name, dtype in ((MAIN, "bf16"), *TRANSFER):
        spec = catalog.model(name)
        try:
            plan = model_plan(spec, chip, dtype, chosen.engine_version, main=name == MAIN)
        except DoesNotFitError as error:
            print(f"left out: {error}")
        else:
            models.append(plan)
    write_plan(models, chosen.output, catalog.models)
    print(
        f"{sum(len(one['steps']) for one in models)} points and "
        f"{sum(len(one['loads']) for one in models)} loads: {chosen.output / 'plan.json'}"
    )


def write_plan(
    models: list[dict[str, Any]],
    folder: Path,
    specs: Any,
    *,
    arguments: dict[str, Any] | None = None,
) -> None:
    """plan.json, and a config.json for each of its models."""
    for model in models:
        place = folder / model["folder"]
        place.mkdir(parents=True, exist_ok=True)
        config = config_of(specs[model["name"]])
        if model["weights_dtype"] == "fp8":
            config["quantization_config"] = {
                "quant_method": "fp8",
                "activation_scheme": "dynamic",
            }
        (place / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    document = {
        "arguments": {"load_format": "dummy", "enable_prefix_caching": False} | (arguments or {}),
        "models": models,
    }
    (folder / "plan.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


def model_plan(
    spec: ModelSpec,
    chip: AcceleratorSpec,
    dtype: Precision,
    engine_version: str,
    *,
    main: bool,
) -> dict[str, Any]:
    """Points of a model, cheapest first, and for the main one its loads."""
    deployment = Deployment(model=spec, accelerator=chip, weights_dtype=dtype)
    settings = vllm_defaults(chip, api_server=False, engine_version=engine_version)
    pool = plan_memory(
        deployment,
        context_tokens=2048,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        gpu_memory_utilization=settings.gpu_memory_utilization,
    )
    if not pool.fits:
        raise DoesNotFitError(f"{spec.id} in {dtype} does not fit one {chip.id}")
    length = min(spec.context_window, 32_768)
    facts = EngineFacts(
        model=spec.id,
        model_digest="",
        accelerator=chip.id,
        vllm_version=engine_version,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_model_len=length,
        kv_tokens=pool.kv_tokens,
        async_scheduling=settings.async_scheduling,
        machine=Machine(processor="", cores=0, memory_bytes=0.0, system=""),
    )
    law = Law(deployment, "v1_latest", settings.max_num_batched_tokens)
    belief = prior_belief(law, load_fits())
    shapes = sorted(_shapes(facts, main=main), key=lambda one: cost_s(belief, one))
    return {
        "name": spec.id,
        "folder": spec.id.replace("/", "--"),
        "weights_dtype": dtype,
        "arguments": {"max_model_len": length},
        "steps": [*({"ask": "copy"}, {"ask": "matmul"}), *map(question_of, shapes)],
        "loads": [load for pair in LENGTHS for load in _loads(facts, belief, *pair)]
        if main
        else [],
    }


def _shapes(facts: EngineFacts, *, main: bool) -> list[Shape]:
    contexts, batches = (CONTEXTS, BATCHES) if main else ((128, 2048), (1, 8, 64, 256))
    prompts, mixed = (PROMPTS, MIXED) if main else ((128, 512, 2048, 8192), MIXED[:2])
    shapes = [
        Shape(kind="decode", batch=batch, context_tokens=context)
        for context in contexts
        for batch in batches
        if batch * (context + 64) < 0.9 * facts.kv_tokens and context + 64 < facts.max_model_len
    ]
    shapes += [
        Shape(kind="prefill", prompt_tokens=tokens)
        for tokens in prompts
        if tokens < facts.max_model_len
    ]
    return shapes + [
        Shape(kind="mixed", batch=batch, context_tokens=128, prompt_tokens=tokens)
        for batch, tokens in mixed
    ]


def question_of(shape: Shape) -> dict[str, Any]:
    """A shape as `program.py` takes it: at least 32 timed steps."""
    question: dict[str, Any] = {"ask": shape.kind, "repeats": 3}
    if shape.batch:
        question |= {"batch": shape.batch, "context": shape.context_tokens}
    if shape.kind == "decode":
        return question | {"steps": 32, "repeats": 1 if shape.context_tokens > 4096 else 2}
    return question | {"tokens": shape.prompt_tokens}


def _loads(facts: EngineFacts, belief: Any, prompt: int, answer: int) -> list[dict[str, Any]]:
    settings = settings_of(facts)
    cost = belief.step_cost(
        max_tokens=settings.max_num_batched_tokens, max_seqs=settings.max_num_seqs
    )

    def target(rate: float, seed: int) -> Target:
        count = max(8, round(rate * SECONDS))
        requests = draw_requests(
            Poisson(rate),
            Fixed(prompt),
            Fixed(answer),
            count=count,
            seed=seed,
            prefix_caching=False,
        )
        return Target("", requests, rate, settings, facts.kv_tokens // facts.block_size)

    some = target(20.0, 0)
    sustained = sustainable_per_s(some.requests, cost, settings, some.kv_blocks)
    loads = []
    for number, share in enumerate(SHARES):
        rate = float(f"{share * sustained:.3g}")
        one = target(rate, number + 1)
        predicted = predict_load(one, cost, one.requests, 0.0)
        loads.append(
            {
                "ask": "load",
                "rate_per_s": rate,
                "seconds": SECONDS,
                "input_tokens": prompt,
                "output_tokens": answer,
                "seed": number + 1,
                "predicted": {
                    "share_of_capacity": share,
                    **{
                        name: round(float(np.float64(value)), 4)
                        for name, value in predicted.items()
                    },
                },
            }
        )
    return loads


if __name__ == "__main__":
    main()
