"""The step-time law of one deployment, fitted to the points measured of it.

The unknowns are the logarithms of the project's own coefficients. Their prior is the shipped fit
with its covariance, widened by what one deployment may differ from its accelerator; of a processor
hardly anything is known beforehand. The fit is the most probable value inside the coefficients'
bounds, its covariance Laplace's (Gauss-Newton): Σ = (HᵀR⁻¹H + Σ0⁻¹)⁻¹ with H = ∂ln T/∂ln c.

A processor's products are timed alone (`products`), and the law's are multiplied by what those
took over it. For what is left the part of a step that does not attend is multiplied by exp g(ln n),
n its tokens: g is a Gaussian process with mean 0 and covariance sd²·exp(−|Δ ln n|/length), linear
between knots at powers of two, and its values there are unknowns beside the coefficients. It
returns to the law away from the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.bench.points import Point, Shape
from advisor.calibrate.bench.products import STRAIGHT, Bends
from advisor.catalog.coefficients import COEFFICIENT_NAMES, Coefficients, bounds_of
from advisor.catalog.fits import NORMAL_90
from advisor.physics.deployment import Deployment
from advisor.physics.engine import Generation
from advisor.physics.rates import engine_flags, rates_of
from advisor.physics.step_cost import StepCost
from advisor.physics.step_time import StepTerms, step_cost, step_terms
from advisor.physics.work import Work, work_of

FloatArray = NDArray[np.float64]

SHAPE_LOG_SD = 0.02
"""What the law's form leaves unexplained along batch and length, once its level is known."""

KNOTS: FloatArray = np.array([2.0**power for power in range(12)])
"""Tokens of a step at which g is an unknown."""

_KNOT_BOUND = 1.0

_STEP = 1e-4

BOUNDS: FloatArray = np.hstack(
    [
        np.log(np.array([bounds_of(name) for name in COEFFICIENT_NAMES]).T),
        np.tile([[-_KNOT_BOUND], [_KNOT_BOUND]], len(KNOTS)),
    ]
)
"""Of the logarithms: coefficients, then knots; shape (2, unknowns)."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Engine steps as columns: what the law is asked for."""

    batch: FloatArray
    context: FloatArray
    """Tokens in the cache of each decoding sequence."""
    prompt: FloatArray

    def __len__(self) -> int:
        return len(self.batch)

    @classmethod
    def of_points(cls, points: Sequence[Point]) -> Steps:
        """The steps that points timed."""
        return cls(
            np.array([float(one.shape.batch) for one in points]),
            np.array([one.mean_context for one in points]),
            np.array([float(one.shape.prompt_tokens) for one in points]),
        )

    @classmethod
    def of_shapes(cls, shapes: Sequence[Shape]) -> Steps:
        """The steps that shapes would time."""
        return cls(
            np.array([float(one.batch) for one in shapes]),
            np.array([one.context_tokens + 8.0 if one.batch else 0.0 for one in shapes]),
            np.array([float(one.prompt_tokens) for one in shapes]),
        )


@dataclass(frozen=True)
class Law:
    """ln T of a deployment's steps by its unknowns: log-coefficients, then g at `KNOTS`."""

    deployment: Deployment
    generation: Generation
    budget: int
    """Tokens a step may take: a longer prompt takes several."""
    bends: Bends = STRAIGHT
    """Of the products, where they were timed alone."""

    def log_seconds(self, logs: FloatArray, steps: Steps) -> FloatArray:
        """ln of each step's seconds (of a prompt longer than the budget: of all its steps)."""
        rates = rates_of(coefficients_at(logs), self._work, engine_flags(self.generation))
        total = np.zeros(len(steps))
        left, past = steps.prompt.copy(), np.zeros(len(steps))
        first = True
        while first or np.any(left > 0):
            room = np.maximum(1.0, self.budget - steps.batch)
            chunk = np.minimum(left, room)
            ends = (left > 0) & (left <= room)
            terms = step_terms(
                self._work,
                rates,
                tokens=steps.batch + chunk,
                sampled=steps.batch + ends,
                context=steps.batch * steps.context,
                window_context=steps.batch * np.minimum(steps.context, self._window),
                pairs=chunk * past + chunk * (chunk + 1) / 2,
                window_pairs=_windowed(chunk, past, self._window),
                prefilling=chunk > 0,
            )
            attending = np.asarray(terms.kv_attention + terms.prefill_attention)
            bent = self.bends.at(steps.batch + chunk) - 1
            whole = np.asarray(terms.total + _products(terms) * bent)
            whole = whole + (whole - attending) * surplus(logs, steps.batch + chunk)
            total += np.where(first | (left > 0), whole, 0.0)
            left, past, first = left - chunk, past + chunk, False
        return np.log(total)

    def slopes(self, logs: FloatArray, steps: Steps, active: Sequence[int]) -> FloatArray:
        """H: derivatives of ln T by the active log-coefficients, shape (steps, active)."""
        base = self.log_seconds(logs, steps)
        columns = []
        for index in active:
            step = inward(index, logs[index], _STEP)
            moved = logs.copy()
            moved[index] += step
            columns.append((self.log_seconds(moved, steps) - base) / step)
        return np.stack(columns, axis=1) if columns else np.zeros((len(steps), 0))

    def products_s(self, logs: FloatArray, rows: FloatArray, sampled: FloatArray) -> FloatArray:
        """Seconds of a step's products and head by the law, without its bends."""
        rates = rates_of(coefficients_at(logs), self._work, engine_flags(self.generation))
        return _products(step_terms(self._work, rates, tokens=rows, sampled=sampled))

    @cached_property
    def _work(self) -> Work:
        return work_of(self.deployment)

    @property
    def _window(self) -> float:
        window = self.deployment.model.sliding_window
        return float(window.size) if window else float("inf")


def _products(terms: StepTerms) -> FloatArray:
    return np.asarray(terms.linears_memory + terms.linears_compute + terms.head)


def _windowed(chunk: FloatArray, past: FloatArray, window: float) -> FloatArray:
    """Σ min(context, window) over the tokens of a chunk after `past` others."""
    if not np.isfinite(window):
        return chunk * past + chunk * (chunk + 1) / 2
    growing = np.clip(window - past, 0.0, chunk)
    return growing * past + growing * (growing + 1) / 2 + (chunk - growing) * window


def inward(index: int, log: float, step: float) -> float:
    """The step, turned round where it would leave the coefficient's upper bound."""
    return -step if log + step > BOUNDS[1][index] else step


def surplus(logs: FloatArray, tokens: FloatArray) -> FloatArray:
    """exp g(ln n) − 1: by how much the part that does not attend exceeds the law."""
    knots = logs[len(COEFFICIENT_NAMES) :]
    return np.asarray(np.expm1(np.interp(np.log(np.maximum(tokens, 1.0)), np.log(KNOTS), knots)))


def coefficients_at(logs: FloatArray) -> Coefficients:
    """Coefficients from logarithms, cut to their bounds."""
    count = len(COEFFICIENT_NAMES)
    values = np.exp(np.clip(logs[:count], *BOUNDS[:, :count])).tolist()
    named: dict[str, Any] = dict(zip(COEFFICIENT_NAMES, values, strict=True))
    return Coefficients.model_construct(**named)


@dataclass(frozen=True)
class Belief:
    """What is believed of a deployment's unknowns: normal, inside their bounds."""

    law: Law
    logs: FloatArray
    covariance: FloatArray
    """Of the active ones."""
    active: tuple[int, ...]
    """Unknowns that this deployment's steps depend on."""
    points: tuple[Point, ...] = ()
    scatter: float = 1.0
    """Root mean square of (measured − fitted)/noise: above 1 the law fits worse than its points'
    noise explains, and the covariance is wider by its square."""
    residuals: FloatArray = field(default_factory=lambda: np.zeros(0))
    """ln(measured/fitted) of each point."""

    @property
    def coefficients(self) -> Coefficients:
        """The most probable ones."""
        return coefficients_at(self.logs)

    @property
    def median_error(self) -> float:
        """Median |measured/fitted − 1| of its points; 0 without any."""
        return float(np.median(np.abs(np.expm1(self.residuals)))) if len(self.residuals) else 0.0

    def step_cost(self, *, max_tokens: int, max_seqs: int) -> StepCost:
        """The tables that the simulator takes."""
        return self.cost_at(self.logs, max_tokens=max_tokens, max_seqs=max_seqs)

    def cost_at(self, logs: FloatArray, *, max_tokens: int, max_seqs: int) -> StepCost:
        """The same at other unknowns."""
        cost = step_cost(
            self.law.deployment,
            coefficients_at(logs),
            max_tokens=max_tokens,
            max_seqs=max_seqs,
            generation=self.law.generation,
        )
        tokens = np.arange(len(cost.token_s), dtype=np.float64)
        # As many sequences as tokens where that is a step's most, else one prompt's last chunk.
        alone = tokens <= max_seqs
        sampled = np.where(alone, tokens, 1.0).astype(np.int64)
        products_s = self.law.products_s(logs, tokens, sampled.astype(np.float64))
        bent_s = products_s * (self.law.bends.at(tokens) - 1)
        part_s = np.asarray(cost.token_s + bent_s + cost.sample_s[sampled] + ~alone * cost.mixed_s)
        whole_s = cost.token_s + bent_s + part_s * surplus(logs, tokens)
        return replace(cost, token_s=np.asarray(whole_s))

    def seconds(self, steps: Steps) -> FloatArray:
        """Seconds of some steps."""
        return np.asarray(np.exp(self.law.log_seconds(self.logs, steps)))

    def log_sd(self, steps: Steps) -> FloatArray:
        """1-sd of ln T of some steps: coefficients and the law's form."""
        slopes = self.law.slopes(self.logs, steps, self.active)
        variance = np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes)
        return np.asarray(np.sqrt(variance + SHAPE_LOG_SD**2))

    def interval_s(self, steps: Steps) -> tuple[FloatArray, FloatArray]:
        """90 % interval of some steps' seconds."""
        middle, half = self.seconds(steps), NORMAL_90 * self.log_sd(steps)
        return middle * np.exp(-half), middle * np.exp(half)


def updated(prior: Belief, points: Sequence[Point]) -> Belief:
    """The belief after some points (all of them: the prior is not changed by earlier calls).

    The coefficients are found first, with g at 0, then all unknowns together from there: one
    spoilt point cannot be explained by g before the law was tried on it.
    """
    if not points:
        return prior
    law, active = prior.law, prior.active
    steps = Steps.of_points(points)
    measured = np.log([one.value_s for one in points])
    noise = np.hypot([one.log_sd for one in points], SHAPE_LOG_SD)
    coefficients = [place for place, index in enumerate(active) if index < len(COEFFICIENT_NAMES)]
    logs = _search(prior, coefficients, _starts(prior, coefficients), steps, measured, noise)
    if len(coefficients) < len(active):
        everything = list(range(len(active)))
        logs = _search(
            prior, everything, [logs[list(active)]], steps, measured, noise, forgetful=True
        )
    residuals = measured - law.log_seconds(logs, steps)
    slopes = law.slopes(logs, steps, active)
    scatter = max(1.0, float(np.sqrt(np.mean(np.minimum(np.abs(residuals / noise), 3.0) ** 2))))
    precision = (slopes.T / (noise * scatter) ** 2) @ slopes + np.linalg.inv(prior.covariance)
    return Belief(
        law,
        logs,
        np.linalg.inv(precision),
        active,
        points=tuple(points),
        scatter=scatter,
        residuals=residuals,
    )


def _starts(prior: Belief, places: Sequence[int]) -> list[FloatArray]:
    """Where searches begin: reading and computing hide behind each other, either can explain a
    flat beginning, and a search from one does not find the other."""
    chosen = [prior.active[place] for place in places]
    starts = [prior.logs[chosen].copy() for _ in range(3)]
    reading = COEFFICIENT_NAMES.index("linear_bandwidth")
    if reading not in chosen:
        return starts[:1]
    place = chosen.index(reading)
    starts[1][place], starts[2][place] = BOUNDS[:, reading]
    return starts


def _search(
    prior: Belief,
    places: Sequence[int],
    starts: Sequence[FloatArray],
    steps: Steps,
    measured: FloatArray,
    noise: FloatArray,
    *,
    forgetful: bool = False,
) -> FloatArray:
    """The most probable unknowns, those at other places left as they are in the prior.

    Errors beyond 2 sd count as if linear (Huber), or, `forgetful`, by their logarithm: a spoilt
    point must not bend the law.
    """
    from scipy.optimize import least_squares

    chosen = [prior.active[place] for place in places]
    low, high = BOUNDS[:, chosen]
    origin = prior.logs[chosen]
    whiten = np.linalg.cholesky(np.linalg.inv(prior.covariance[np.ix_(places, places)])).T

    def everything(values: FloatArray) -> FloatArray:
        logs = prior.logs.copy()
        logs[chosen] = values
        return logs

    def misfit(values: FloatArray) -> FloatArray:
        error = (prior.law.log_seconds(everything(values), steps) - measured) / noise
        size = np.maximum(np.abs(error), 2.0)
        beyond = 4 + 8 * np.log(size / 2) if forgetful else 4 * size - 4
        soft = np.sign(error) * np.sqrt(np.where(np.abs(error) < 2, error**2, beyond))
        return np.concatenate([soft, whiten @ (values - origin)])

    margin = 1e-6 * (high - low)
    found = [
        least_squares(
            misfit,
            np.clip(start, low + margin, high - margin),
            bounds=(low, high),
            xtol=1e-6,
            ftol=1e-6,
        )
        for start in starts
    ]
    return everything(min(found, key=lambda one: float(one.cost)).x)
