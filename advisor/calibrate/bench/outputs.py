"""What a run leaves beside its points: accelerator file, coefficients, rows of the format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from advisor.calibrate.bench.behind import FIGURE_LOG_SD, round_of, unrest_of
from advisor.calibrate.bench.law import Belief, Steps
from advisor.calibrate.bench.points import EngineFacts, Point
from advisor.calibrate.fitted import write_fit
from advisor.calibrate.importers import write_measurements
from advisor.calibrate.measurements import METRICS, Measurement, Setup
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.coefficients import COEFFICIENT_NAMES, bounds_of
from advisor.catalog.fits import Evidence, FitFile, OwnSteps, ServedSteps
from advisor.catalog.operators import family_of, operator_offsets
from advisor.errors import InputError
from advisor.physics.own_steps import identity_of
from advisor.physics.step_time import step_cost

SOURCE = "advisor calibrate run"

EXTRA_TOKENS = (
    *range(1, 65),
    *(size for power in range(6, 14) for size in (2**power + 2 ** (power - 1), 2 ** (power + 1))),
)
"""Sizes of steps whose time beyond the law is written down."""


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Where they lie: the points' own path with other endings."""

    points: Path
    accelerator: Path
    fits: Path
    rows: Path
    log: Path
    work: Path

    @classmethod
    def beside(cls, points: Path) -> OutputFiles:
        """E.g. `run.jsonl`: `run.accelerator.yaml`, `run.fits.json`, `run.rows.csv`, `run.log`."""
        stem = points.with_suffix("") if points.suffix else points
        return cls(
            points=points,
            accelerator=Path(f"{stem}.accelerator.yaml"),
            fits=Path(f"{stem}.fits.json"),
            rows=Path(f"{stem}.rows.csv"),
            log=Path(f"{stem}.log"),
            work=Path(f"{stem}.work"),
        )


def write_outputs(
    files: OutputFiles,
    belief: Belief,
    shipped: FitFile,
    points: Sequence[Point],
    *,
    own_accelerator: bool,
) -> None:
    """Write them all.

    Args:
        own_accelerator: the accelerator is not in the catalogue, so that rows name its file.

    Raises:
        InputError: they cannot be written.
    """
    accelerator = belief.law.deployment.accelerator
    named = str(files.accelerator) if own_accelerator else accelerator.id
    wanted = (files.accelerator, files.fits, files.rows)
    parts = {path: path.with_name(path.name + ".part") for path in wanted}
    try:
        measured = accelerator.model_copy(update={"fits": Path(files.fits.name)})
        parts[files.accelerator].write_text(accelerator_text(measured), encoding="utf-8")
        overheads = [one for one in points if one.shape.kind == "overhead"]
        overhead = overheads[-1] if overheads else None  # each holds what is known by then
        fit = fit_with(shipped, belief, overhead=overhead)
        own = own_steps(belief, points)
        identity = identity_of(belief.law.deployment, belief.law.generation)
        write_fit(
            fit.model_copy(update={"deployments": {**shipped.deployments, identity: own}}),
            parts[files.fits],
        )
        rows = [row for point in points if (row := row_of(point, accelerator=named))]
        write_measurements(rows, parts[files.rows])
        for path, part in parts.items():
            part.replace(path)  # all or none: those of an earlier run are whole until then
    except OSError as error:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise InputError(
            f"--output {files.points}: its results cannot be written: {error.strerror}"
        ) from None


def accelerator_text(accelerator: AcceleratorSpec) -> str:
    """An accelerator file."""
    keys = accelerator.model_dump(exclude_defaults=True, mode="json")
    return yaml.safe_dump(keys, sort_keys=False, allow_unicode=True, width=98)


def fit_with(shipped: FitFile, belief: Belief, *, overhead: Point | None = None) -> FitFile:
    """The shipped fit with what the points say of this accelerator.

    Its own deviations become ln(fitted) − ln(shared) − those of kernel tables and family, so that
    whoever reads the file gets the fitted coefficients. The measured `overhead` of a lone request
    becomes the request overhead beyond what the frontend takes for a prompt as short.
    """
    accelerator = belief.law.deployment.accelerator
    offsets = operator_offsets(accelerator)
    family = shipped.families.get(family_of(accelerator))
    deviations: dict[str, float] = {}
    own = shipped.accelerators.get(accelerator.id)
    if own:
        deviations |= own.log_deviations
    for index in (one for one in belief.active if one < len(COEFFICIENT_NAMES)):
        name = COEFFICIENT_NAMES[index]
        level = math.log(getattr(shipped.coefficients, name)) + offsets.get(name, 0.0)
        level += family.log_deviations.get(name, 0.0) if family else 0.0
        deviations[name] = round(float(belief.logs[index]) - level, 4)
    if overhead is not None:
        c, name = shipped.coefficients, "request_overhead_s"
        frontend_s = c.frontend_request_s + c.frontend_token_s * overhead.shape.prompt_tokens
        level = math.log(c.request_overhead_s) + offsets.get(name, 0.0)
        level += family.log_deviations.get(name, 0.0) if family else 0.0
        left_s = max(overhead.value_s - frontend_s, bounds_of(name)[0])
        deviations[name] = round(math.log(left_s) - level, 4)
    versions = {one.facts.vllm_version for one in belief.points if one.facts.vllm_version}
    versions |= set(own.engine_versions) if own else set()
    ordered = sorted(versions, key=_release)
    evidence = Evidence(
        rows=len(belief.points) + (own.rows if own else 0),
        sources=tuple(sorted({SOURCE, *(own.sources if own else ())})),
        engine_versions=tuple(dict.fromkeys((ordered[0], ordered[-1]))) if ordered else (),
        log_deviations=deviations,
    )
    return shipped.model_copy(
        update={
            "note": f"{shipped.note}; {accelerator.id} from {len(belief.points)} points of "
            "advisor calibrate run".strip("; "),
            "accelerators": {**shipped.accelerators, accelerator.id: evidence},
        }
    )


def own_steps(belief: Belief, points: Sequence[Point]) -> OwnSteps:
    """What the points say of their own deployment: steps beyond its coefficients', and served ones.

    Its doubt is the middle one of the points' steps; behind HTTP also that of the closed loops.
    """
    facts = points[-1].facts
    most, seqs = facts.max_num_batched_tokens, min(facts.max_num_seqs, facts.max_num_batched_tokens)
    whole = belief.step_cost(max_tokens=most, max_seqs=seqs)
    law = step_cost(
        belief.law.deployment,
        belief.coefficients,
        max_tokens=most,
        max_seqs=seqs,
        generation=belief.law.generation,
    )
    tokens = [one for one in EXTRA_TOKENS if one <= most]
    rounds = [point for point in points if point.shape.kind == "overhead"]
    doubt = float(np.median(belief.log_sd(Steps.of_points(belief.points))))
    return OwnSteps(
        points=len(belief.points),
        log_sd=round(math.hypot(doubt, FIGURE_LOG_SD if rounds else 0.0), 4),
        tokens=tuple(tokens),
        extra_s=tuple(float(f"{one:.4g}") for one in (whole.token_s - law.token_s)[tokens]),
        served=_served(rounds) if rounds and "served_factor" in rounds[-1].results else None,
    )


def _served(rounds: Sequence[Point]) -> ServedSteps:
    """What closed loops have shown by the last of their rounds."""
    last = rounds[-1].results
    return ServedSteps(
        factor=last["served_factor"],
        step_s=last["served_step_ms"] / 1e3,
        sequence_s=last["served_sequence_ms"] / 1e3,
        newcomer_s=last["served_newcomer_ms"] / 1e3,
        request_s=rounds[-1].value_s,
        unrest_log_sd=unrest_of([round_of(point) for point in rounds]),
    )


def row_of(point: Point, *, accelerator: str) -> Measurement | None:
    """A point as a row of the measurement format; None where that has no row for it.

    Decode steps are a steady batch with the context in its middle, prefills a static batch of one
    that ends with its first token; mixed steps have no row.
    """
    facts, shape = point.facts, point.shape
    common: dict[str, Any] = {
        "row_id": f"{shape.kind}-{shape.batch}-{shape.context_tokens}-{shape.prompt_tokens}"
        + (f"-{shape.rate_per_s:.4g}" if shape.rate_per_s else "")
        + (f"-{shape.repeat}" if shape.repeat else ""),
        "engine_version": facts.vllm_version or None,
        "model": facts.model,
        "weights_dtype": {"bfloat16": "bf16", "float16": "fp16"}.get(facts.dtype),
        "accelerator": accelerator,
        "n_accelerators": max(1, int(facts.arguments.get("tensor_parallel_size", 1))),
        "tensor_parallel": max(1, int(facts.arguments.get("tensor_parallel_size", 1))),
        "length_spread": "fixed",
        "prefix_caching": facts.prefix_caching,
        "max_num_seqs": facts.max_num_seqs,
        "max_num_batched_tokens": facts.max_num_batched_tokens,
    }
    measured: dict[str, float] = {}
    if shape.kind == "decode":
        common |= {
            "load": "steady_batch",
            "batch_size": shape.batch,
            "input_tokens": max(1.0, point.mean_context - 1),
            "output_tokens": 2,
        }
        measured["tpot_mean_ms"] = 1e3 * point.value_s
    elif shape.kind == "prefill":
        common |= {
            "load": "static_batch",
            "batch_size": 1,
            "input_tokens": shape.prompt_tokens,
            "output_tokens": 1,
        }
        measured["ttft_mean_ms"] = 1e3 * point.value_s
    elif shape.kind == "load":
        overhead = point.predicted.get("request_overhead_ms")
        common |= {
            "load": "poisson",
            "request_rate_per_s": shape.rate_per_s,
            "requests": max(1, int(point.results.get("requests", 1))),
            "input_tokens": max(1, shape.prompt_tokens),
            "output_tokens": max(1, shape.output_tokens),
            "length_spread": "fixed" if point.results.get("fixed_lengths") else "distribution",
            **({"request_overhead_ms": overhead} if overhead is not None else {}),
        }
        names = (*(f"{name}_ms" for name in METRICS), "output_tokens_per_s", "requests_per_s")
        measured = {name: point.results[name] for name in names if point.results.get(name, 0) > 0}
    if not measured:
        return None
    return Measurement(
        setup=Setup.model_validate(
            {key: value for key, value in common.items() if value is not None}
        ),
        source=SOURCE,
        measured={name: float(f"{value:.6g}") for name, value in measured.items()},
        caveat="; ".join(point.notes),
        notes=_notes(facts, point),
    )


def _notes(facts: EngineFacts, point: Point) -> str:
    parts = [f"{facts.machine.processor}, {facts.threads} threads", f"computed in {facts.dtype}"]
    if point.basis:
        parts.append(point.basis)
    if facts.weights == "random":
        parts.append("random weights")
    return "; ".join(part for part in parts if part)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.lstrip("v").split(".") if part.isdigit())
