"""Raw results of calibration/gpu_host/measure.py as points, and what they teach."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advisor.calibrate.bench.checkpoint import digest_of
from advisor.calibrate.bench.hardware import Machine
from advisor.calibrate.bench.law import Belief, Law, updated
from advisor.calibrate.bench.noise import Steadiness, reading_of, times_of
from advisor.calibrate.bench.outputs import OutputFiles, write_outputs
from advisor.calibrate.bench.points import STEPS, EngineFacts, Point, PointFile, Shape
from advisor.calibrate.bench.prior import prior_belief
from advisor.calibrate.bench.served import Sent, statistics
from advisor.catalog import Catalog
from advisor.catalog.fits import load_fits
from advisor.catalog.models import Precision
from advisor.documents import read_text
from advisor.errors import InputError
from advisor.physics.deployment import Deployment
from advisor.physics.engine import engine_generation

MAX_RAW_BYTES = 256 * 2**20

MOST_TOKENS = 8192
"""Of a step, where kernels were called alone."""

FACTS = (
    *("vllm_version", "torch_version", "device", "threads", "dtype", "max_num_seqs"),
    *("max_num_batched_tokens", "max_model_len", "block_size", "kv_tokens"),
    *("async_scheduling", "enforce_eager", "prefix_caching"),
)


def read_raw(path: Path) -> list[dict[str, Any]]:
    """The lines of a raw file; one that was cut off is passed over.

    Raises:
        InputError: missing, or not such a file.
    """
    lines = []
    for number, line in enumerate(
        read_text(path, what="raw results", max_bytes=MAX_RAW_BYTES).splitlines(keepends=True), 1
    ):
        if not line.endswith("\n"):
            continue
        try:
            found = json.loads(line)
            lines.append({**found, "stage": found["stage"], "question": dict(found["question"])})
        except (ValueError, KeyError, TypeError):
            raise InputError(f"raw results: line {number} of {path} is none") from None
    return lines


def points_of(
    lines: Sequence[Mapping[str, Any]],
    *,
    model: str,
    digest: str,
    accelerator: str,
    arguments: Mapping[str, Any],
) -> list[Point]:
    """Points of one model: engine steps, then its loads; failed questions are left out.

    Raises:
        InputError: the model's engine never started.
    """
    own = [line for line in lines if line.get("model") == model]
    starts = [line for line in own if line["stage"] == "steps" and line.get("facts")]
    if not starts:
        raise InputError(f"raw results: no engine step of {model}")
    facts = _facts(starts[0], model, digest, accelerator, arguments)
    on_gpu = facts.device != "cpu"
    steadiness = Steadiness()
    for line in own:
        steadiness.slowdown(line.get("answer", {}).get("reference_s", []))
    points = []
    for line in own:
        answer = line.get("answer")
        if not answer:
            continue
        if line["question"].get("ask") in STEPS:
            points.append(_step(line, answer, facts, steadiness, on_gpu=on_gpu))
        elif line["stage"] == "loads":
            points.append(_load(line, answer, facts))
    return points


def fit_recorded(
    raw: Path,
    *,
    model: str,
    accelerator: str,
    folder: Path,
    arguments: Mapping[str, Any],
    weights_dtype: Precision,
    output: Path,
    catalog: Catalog,
    fits: Path | None = None,
) -> tuple[Belief, list[Point]]:
    """Points of a model on disk in the format of `advisor calibrate run`, fitted, with all files.

    Args:
        folder: of its config.json.
        output: e.g. `h200.jsonl`; its neighbours are as `OutputFiles` says.

    Raises:
        InputError: nothing to read, unknown names, or the output cannot be written.
    """
    spec, chip = catalog.model(model), catalog.accelerator(accelerator)
    points = points_of(
        read_raw(raw),
        model=model,
        digest=digest_of(folder / "config.json"),
        accelerator=chip.id,
        arguments=arguments,
    )
    store = PointFile(output)
    for point in points:
        if not store.has(point.shape, point.facts):
            store.append(point)
    facts = points[0].facts
    deployment = Deployment(model=spec, accelerator=chip, weights_dtype=weights_dtype)
    law = Law(
        deployment, engine_generation(facts.vllm_version or None), facts.max_num_batched_tokens
    )
    shipped = load_fits(fits)
    steps = [point for point in points if point.shape.kind in STEPS]
    belief = updated(prior_belief(law, shipped), steps)
    own = accelerator.endswith((".yaml", ".yml"))
    write_outputs(OutputFiles.beside(output), belief, shipped, points, own_accelerator=own)
    return belief, points


def kernel_ratios(
    lines: Sequence[Mapping[str, Any]], *, model: str, deployment: Deployment
) -> list[tuple[str, str, float, float]]:
    """Kernels that were called by themselves beside the law's: an engine never started.

    Returns:
        What was asked, by which kernel, seconds measured (median) and seconds of the shipped law.
    """
    law = Law(deployment, "v1_latest", MOST_TOKENS)
    prior = prior_belief(law, load_fits())
    cost = prior.step_cost(max_tokens=1, max_seqs=1)
    found = []
    for line in lines:
        answer, asked = line.get("answer"), line["question"]
        if line["stage"] != "kernels" or line.get("model") != model or not answer:
            continue
        if asked["ask"] == "linears":
            rows = np.array([float(asked["tokens"])])
            told, expected_s = (
                f"{asked['tokens']:,} tokens",
                law.products_s(prior.logs, rows, rows)[0],
            )
        else:
            batch, context = asked["batch"], asked["context"]
            told, expected_s = f"{batch} × {context:,} tokens", cost.kv_s * batch * context
        median_s = float(np.median(answer["wall_s"]))
        found.append(
            (f"{asked['ask']} of {told}", str(answer["kernel"]), median_s, float(expected_s))
        )
    return found


def _facts(
    start: Mapping[str, Any],
    model: str,
    digest: str,
    accelerator: str,
    arguments: Mapping[str, Any],
) -> EngineFacts:
    told = start["facts"]
    gpu = [part.strip() for part in str(start.get("gpu", "")).split(",")]
    return EngineFacts(
        model=model,
        model_digest=digest,
        weights="random",
        arguments=dict(arguments),
        accelerator=accelerator,
        machine=Machine(
            processor="not recorded",
            cores=0,
            memory_bytes=0.0,
            system="GPU host",
            gpu=gpu[0] or None,
            gpu_driver=gpu[1] if len(gpu) > 1 else None,
        ),
        **{name: told[name] for name in FACTS},
    )


def _step(
    line: Mapping[str, Any],
    answer: Mapping[str, Any],
    facts: EngineFacts,
    steadiness: Steadiness,
    *,
    on_gpu: bool,
) -> Point:
    question = line["question"]
    slowdown = steadiness.slowdown(answer["reference_s"])
    reading = reading_of(
        answer["wall_s"],
        answer["cpu_s"],
        on_gpu=on_gpu,
        slowdown=slowdown,
        paces=steadiness.paces(answer.get("probe_s", [])),
    )
    return Point(
        shape=Shape(
            kind=question["ask"],
            batch=question.get("batch", 0),
            context_tokens=question.get("context", 0),
            prompt_tokens=question.get("tokens", 0),
        ),
        facts=facts,
        at=str(line["at"]),
        wall=times_of(answer["wall_s"]),
        cpu=times_of(answer["cpu_s"]),
        mean_context=float(answer.get("mean_context", 0.0)),
        value_s=reading.value_s,
        basis=reading.basis,
        log_sd=reading.log_sd,
        slowdown=slowdown,
        notes=reading.notes,
    )


def _load(line: Mapping[str, Any], answer: Mapping[str, Any], facts: EngineFacts) -> Point:
    question = line["question"]
    sent = [
        Sent(due_s=due, sent_s=begun, first_s=first, last_s=last, tokens=int(tokens))
        for due, begun, first, last, tokens in answer["requests"]
    ]
    return Point(
        shape=Shape(
            kind="load",
            prompt_tokens=question["input_tokens"],
            output_tokens=question["output_tokens"],
            rate_per_s=question["rate_per_s"],
        ),
        facts=facts,
        at=str(line["at"]),
        basis="wall time",
        results=statistics(sent) | {"fixed_lengths": 1.0},
        predicted=question.get("predicted", {}),
    )
