"""A run's state: points on disk, what is believed, what is left to spend, and who is told."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt

from advisor.calibrate.bench.law import Belief, Law, updated
from advisor.calibrate.bench.noise import Steadiness, at_best
from advisor.calibrate.bench.outputs import OutputFiles, write_outputs
from advisor.calibrate.bench.points import STEPS, EngineFacts, Point, PointFile, Shape
from advisor.calibrate.bench.prior import prior_belief, with_products
from advisor.calibrate.bench.target import Interval, Target, interval_text, target_of
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.fits import FitFile, load_fits
from advisor.catalog.models import ModelSpec, Precision
from advisor.errors import DoesNotFitError
from advisor.physics.deployment import Deployment
from advisor.physics.engine import engine_generation
from advisor.records import Record
from advisor.task import TaskProfile

End = Literal["narrow enough", "budget spent", "nothing left to gain", "stopped"]

FEWEST_POINTS = 4
"""Without them no interval is believed, whatever its width."""


class Bounds(Record):
    """The target's p95 with its 90 % interval, milliseconds."""

    value_ms: float
    low_ms: float
    high_ms: float

    @classmethod
    def of(cls, interval: Interval) -> Bounds:
        return cls(
            value_ms=1e3 * interval.value_s,
            low_ms=1e3 * interval.low_s,
            high_ms=1e3 * interval.high_s,
        )


class Comparison(Record):
    """A load that was predicted first: measured over predicted."""

    rate_per_s: float
    share_of_capacity: float
    requests: NonNegativeInt
    predicted_ms: dict[str, float]
    as_shared_ms: dict[str, float]
    """The same for the machine at the pace that closed loops found just before and just after."""
    measured_ms: dict[str, float]
    errors: dict[str, float]
    """predicted/measured − 1."""
    errors_as_shared: dict[str, float]
    notes: tuple[str, ...] = ()


class Outcome(Record):
    """What a run came to: what `--json` prints."""

    ended: End
    model: str
    accelerator: str
    vllm_version: str
    points: NonNegativeInt
    """Of this engine in the file."""
    new_points: NonNegativeInt
    spent_s: NonNegativeFloat
    target: str
    before: Bounds | None
    """The target's p95 as projected without a point."""
    after: Bounds | None
    median_error: float
    """Median |measured/fitted − 1| of the step times."""
    start_s: float | None = None
    request_overhead_ms: float | None = None
    ceilings: dict[str, float]
    coefficients: dict[str, float]
    """Those that this deployment's steps depend on."""
    loads: tuple[Comparison, ...] = ()
    disturbed: NonNegativeInt
    """Points during which others had the core, or the machine was slower than at its best."""
    worst_slowdown: float
    files: dict[str, str]


@dataclass(frozen=True)
class Update:
    """What is told as a run goes on."""

    message: str
    spent_s: float
    point: Point | None = None
    interval: Interval | None = None
    belief: Belief | None = None


@dataclass
class Session:
    """One run over one engine."""

    output: Path
    budget_s: float
    task: TaskProfile | None = None
    fits: Path | None = None
    precision: float = 0.1
    """Half-width of the target's interval, as a share, that is narrow enough."""
    tell: Callable[[Update], None] = lambda update: None
    stop: threading.Event = field(default_factory=threading.Event)
    files: OutputFiles = field(init=False)
    store: PointFile = field(init=False)
    shipped: FitFile = field(init=False)
    steadiness: Steadiness = field(default_factory=Steadiness)
    facts: EngineFacts | None = None
    belief: Belief | None = None
    target: Target | None = None
    interval: Interval | None = None
    before: Interval | None = None
    new_points: int = 0
    started_s: float = 0.0
    """Seconds until the engine stood."""

    def __post_init__(self) -> None:
        """Raises InputError where the points cannot be read or written, or the fits read."""
        self.files = OutputFiles.beside(self.output)
        self.shipped = load_fits(self.fits)
        self.store = PointFile(self.output)
        self._begin = time.monotonic()
        self._spent_on_points = self._expected_of_points = 0.0

    @property
    def spent_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._begin

    @property
    def points(self) -> list[Point]:
        """Of this engine."""
        return self.store.of(self.facts) if self.facts else []

    @property
    def step_points(self) -> list[Point]:
        """Those that the law is fitted to, against the best that the machine showed so far."""
        return [point for point in self._at_best if point.shape.kind in STEPS]

    @property
    def _at_best(self) -> list[Point]:
        """What was timed in the engine's process."""
        return at_best([one for one in self.points if one.shape.kind in (*STEPS, "products")])

    @property
    def pace(self) -> float:
        """Seconds that points took over those expected of them."""
        if self._expected_of_points <= 0:
            return 1.0
        return max(1.0, self._spent_on_points / self._expected_of_points)

    def left_s(self) -> float:
        """Seconds left of the budget."""
        return self.budget_s - self.spent_s

    def begin(
        self,
        facts: EngineFacts,
        *,
        model: ModelSpec,
        accelerator: AcceleratorSpec,
        weights_dtype: Precision,
    ) -> None:
        """Set what is measured, and start from what the file holds of it."""
        self.facts = facts
        deployment = Deployment(
            model=model,
            accelerator=accelerator,
            weights_dtype=weights_dtype,
            tensor_parallel=int(facts.arguments.get("tensor_parallel_size", 1)),
        )
        generation = engine_generation(facts.vllm_version or None)
        law = Law(deployment, generation, facts.max_num_batched_tokens)
        self._plain = prior_belief(law, self.shipped)
        self.prior = with_products(self._plain, self._at_best)
        self.belief = updated(self.prior, self.step_points)
        for point in self._at_best:
            self.steadiness.best_s = min(
                self.steadiness.best_s, point.results.get("reference_s", float("inf"))
            )
        kept = len(self.points) - self.new_points
        self.say(f"{kept} points of this engine are in {self.output}" if kept else "measuring")

    def has(self, shape: Shape) -> bool:
        """Whether a shape has a point."""
        return self.facts is not None and self.store.has(shape, self.facts)

    def add(self, point: Point, *, expected_s: float = 0.0) -> None:
        """Keep a point, learn from it and tell.

        Raises:
            InputError: it cannot be written.
        """
        self.store.append(point)
        self.new_points += 1
        if expected_s > 0:
            self._spent_on_points += point.spent_s
            self._expected_of_points += expected_s / self.pace
        if point.shape.kind in STEPS:
            self.learn()
        value = f": {1e3 * point.value_s:,.2f} ms" if point.value_s else ""
        noise = f" ({'; '.join(point.notes)})" if point.notes else ""
        text = f"{point.shape.title}{value}{noise}"
        if self.interval is not None and point.shape.kind in STEPS:
            text += f" → {interval_text(self.interval)}"
        self.say(text, point)

    def learn(self) -> None:
        """Fit the law to every point, and the target's interval to the law."""
        assert self.belief is not None
        self.prior = with_products(self._plain, self._at_best)
        self.belief = updated(self.prior, self.step_points)
        if self.target is not None:
            self.interval = self.target.interval(self.belief)

    def aim(self, overhead_s: float, overhead_log_sd: float) -> None:
        """Set the target, from what is believed of the engine by now.

        Raises:
            DoesNotFitError: the task does not fit the engine's context.
        """
        assert self.belief is not None and self.facts is not None
        target = target_of(
            self.task,
            self.facts,
            self.belief,
            overhead_s=overhead_s,
            overhead_log_sd=overhead_log_sd,
        )
        self.target = None
        self.look_at(target)
        if self.interval is not None:
            self.say(f"{target.title}: {interval_text(self.interval)}")

    def look_at(self, target: Target) -> None:
        """Take this as the target, and its interval without a point and with all of them."""
        if (
            self.before is None
            or self.target is None
            or target.rate_per_s != self.target.rate_per_s
        ):
            self.before = None
            with contextlib.suppress(DoesNotFitError):
                self.before = target.interval(self._plain)
        self.target = target
        self.learn()

    @property
    def narrow(self) -> bool:
        """Whether the target's interval is narrow enough."""
        if self.interval is None or len(self.step_points) < FEWEST_POINTS:
            return False
        return self.interval.half_width <= self.precision

    def say(self, message: str, point: Point | None = None) -> None:
        """Tell what happens."""
        self.tell(Update(message, self.spent_s, point, self.interval, self.belief))

    def finish(self, ended: End, *, own_accelerator: bool) -> Outcome | None:
        """Write the results; None where there are no points to make them of.

        Raises:
            InputError: they cannot be written.
        """
        if self.belief is None or self.facts is None or not self.step_points:
            return None
        if len(self.belief.points) < len(self.step_points):  # interrupted while it learnt
            self.belief = updated(self.prior, self.step_points)
        write_outputs(
            self.files,
            self.belief,
            self.shipped,
            self.points,
            own_accelerator=own_accelerator,
        )
        return self._outcome(ended, own_accelerator=own_accelerator)

    def _outcome(self, ended: End, *, own_accelerator: bool) -> Outcome:
        assert self.belief is not None and self.facts is not None
        by_kind = {point.shape.kind: point for point in self.points}
        overhead, start = by_kind.get("overhead"), by_kind.get("start")
        files = {"points": self.output, "fits": self.files.fits, "rows": self.files.rows}
        if own_accelerator:
            files["accelerator"] = self.files.accelerator
        coefficients = self.belief.coefficients.model_dump()
        names = list(coefficients)
        return Outcome(
            ended=ended,
            model=self.facts.model,
            accelerator=self.facts.accelerator,
            vllm_version=self.facts.vllm_version,
            points=len(self.points),
            new_points=self.new_points,
            spent_s=self.spent_s,
            target=self.target.title if self.target else "",
            before=Bounds.of(self.before) if self.before else None,
            after=Bounds.of(self.interval) if self.interval else None,
            median_error=self.belief.median_error,
            start_s=start.value_s if start else None,
            request_overhead_ms=1e3 * overhead.value_s if overhead else None,
            ceilings=ceilings_of(self.points),
            coefficients={
                names[index]: coefficients[names[index]]
                for index in self.belief.active
                if index < len(names)
            },
            loads=tuple(
                comparison_of(point) for point in self.points if point.shape.kind == "load"
            ),
            disturbed=sum(bool(point.notes) for point in self.points),
            worst_slowdown=max((point.slowdown for point in self.points), default=1.0),
            files={name: str(path) for name, path in files.items()},
        )


def ceilings_of(points: Sequence[Point]) -> dict[str, float]:
    """Measured ceilings: `copy_gb_per_s` and `product_tflops`."""
    found = {}
    for point in points:
        if point.shape.kind == "copy":
            found["copy_gb_per_s"] = point.results["bytes_per_s"] / 1e9
        elif point.shape.kind == "matmul":
            found["product_tflops"] = point.results["operations_per_s"] / 1e12
    return found


COMPARED = tuple(
    f"{name}_{rank}_ms" for name in ("ttft", "tpot", "e2e") for rank in ("p50", "p95", "p99")
)


def comparison_of(point: Point) -> Comparison:
    """A load's figures beside those predicted before it."""
    measured = {name: point.results[name] for name in COMPARED if name in point.results}
    alone = {name: point.predicted[name] for name in measured if name in point.predicted}
    shared = {
        name: point.predicted[f"shared_{name}"]
        for name in measured
        if f"shared_{name}" in point.predicted
    }
    return Comparison(
        rate_per_s=point.shape.rate_per_s or 0.0,
        share_of_capacity=point.predicted.get("share_of_capacity", 0.0),
        requests=int(point.results.get("requests", 0)),
        predicted_ms=alone,
        as_shared_ms=shared,
        measured_ms=measured,
        errors={name: value / measured[name] - 1 for name, value in alone.items()},
        errors_as_shared={name: value / measured[name] - 1 for name, value in shared.items()},
        notes=point.notes,
    )


def utc_now() -> str:
    """Now, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
