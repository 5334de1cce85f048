"""What the points are for: the p95 of a load on the engine, and how it answers to coefficients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.bench.law import SHAPE_LOG_SD, Belief, inward
from advisor.calibrate.bench.points import EngineFacts
from advisor.calibrate.served import measured
from advisor.catalog.fits import interval_90
from advisor.errors import DoesNotFitError
from advisor.figures import percent
from advisor.physics.own_steps import IN_PROCESS, Behind
from advisor.physics.step_cost import StepCost
from advisor.serving.capacity import LEAST_REQUESTS, saturated_throughput
from advisor.serving.engine import EngineSettings
from advisor.serving.lengths import Fixed
from advisor.serving.simulate import simulate_engine
from advisor.serving.workload import Poisson, Requests, Workload, workload_of
from advisor.task import TaskProfile

FloatArray = NDArray[np.float64]

REQUESTS = 1_500
"""Simulated for one p95: its own scatter is the same at every coefficient."""

LOADED = 0.6
"""Share of the sustainable rate at which a load is looked at where a task does not fill it."""

SATURATED = 0.9
"""Share from which a p95 is a queue's, and depends on how long it is watched."""

DEFAULT_INPUT, DEFAULT_OUTPUT = 256, 64
"""Tokens of a request where no task is given."""

_STEP = 0.1

_AROUND = (0.935, 0.9425, 0.95, 0.9575, 0.965)


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """A p95 with its 90 % interval, seconds."""

    value_s: float
    low_s: float
    high_s: float
    log_sd: float

    @property
    def half_width(self) -> float:
        """Half the interval as a share of the figure: (high − low)/(2·value)."""
        return (self.high_s - self.low_s) / (2 * self.value_s)


@dataclass(frozen=True, eq=False)
class Target:
    """One load on one engine."""

    load: str
    requests: Requests
    rate_per_s: float
    settings: EngineSettings
    kv_blocks: int
    overhead_s: float = 0.0
    """What client and HTTP add to a request."""
    overhead_log_sd: float = 0.0
    behind: Behind = IN_PROCESS
    """How its steps behind HTTP differ from those in process."""

    @property
    def title(self) -> str:
        """E.g. `256 tokens in, 64 out at 9.2 requests/s`."""
        return f"{self.load} at {self.rate_per_s:.3g} requests/s"

    def served(self, cost: StepCost) -> StepCost:
        """A step's cost behind HTTP."""
        return self.behind.served(cost)

    def p95_s(self, cost: StepCost) -> float:
        """95th percentile of E2E within the engine: the mean of those close to it."""
        timeline = simulate_engine(
            cost, self.settings, kv_blocks=self.kv_blocks, requests=self.requests
        )
        return float(np.quantile(measured(timeline).e2e_s, _AROUND).mean())

    def slopes(self, belief: Belief) -> tuple[float, FloatArray, float]:
        """p95 within the engine, ∂ln p95/∂ln c of each active coefficient, and ∂ln p95/∂ln T.

        The last says how much longer it is where every step is: more than 1 where requests wait.

        By the parts of a step's cost: Σ_k ∂ln p95/∂ln C_k · ∂ln C_k/∂ln c. The first factors are
        simulated, the second exact, so that coefficients which stand in for each other inside a
        part, and only together are known, cancel there.
        """
        cost = self._cost(belief, belief.logs)
        base = self.p95_s(cost)
        parts = self._parts(cost)
        weights = np.array([np.log(self.p95_s(part.longer(cost)) / base) for part in parts])
        weights /= np.log1p(_STEP)
        slopes = np.zeros(len(belief.active))
        for place, index in enumerate(belief.active):
            step = inward(index, belief.logs[index], _STEP)
            moved = belief.logs.copy()
            moved[index] += step
            other = self._cost(belief, moved)
            ratios = np.array([part.value(other) / part.value(cost) for part in parts])
            slopes[place] = weights @ np.log(ratios) / step
        return base, slopes, float(weights.sum())

    def interval(self, belief: Belief) -> Interval:
        """The p95 that a client sees, with its 90 % interval.

        sd² = (engine's share)²·(gᵀΣg + (form·∂ln p95/∂ln T)²) + (overhead's share)²·sd_o²
        """
        base, gradient, elasticity = self.slopes(belief)
        total = base + self.overhead_s
        engine = np.sqrt(gradient @ belief.covariance @ gradient + (SHAPE_LOG_SD * elasticity) ** 2)
        sd = float(np.hypot(base / total * engine, self.overhead_s / total * self.overhead_log_sd))
        low, high = interval_90(total, sd)
        return Interval(total, low, high, sd)

    def with_overhead(
        self, overhead_s: float, log_sd: float, *, behind: Behind | None = None
    ) -> Target:
        """The same load with another overhead, and other steps."""
        return replace(
            self,
            overhead_s=overhead_s,
            overhead_log_sd=log_sd,
            behind=behind or self.behind,
        )

    def sustained(self, cost: StepCost) -> Target:
        """The same at a rate that the engine sustains behind HTTP.

        What was `LOADED` in process may be too much for a server that shares its cores.
        """
        most = sustainable_per_s(self.requests, self.served(cost), self.settings, self.kv_blocks)
        if self.rate_per_s <= SATURATED * most:
            return self
        rate = LOADED * most
        slower = replace(
            self.requests, arrival_s=self.requests.arrival_s * (self.rate_per_s / rate)
        )
        return replace(self, requests=slower, rate_per_s=rate)

    def _cost(self, belief: Belief, logs: FloatArray) -> StepCost:
        return self.served(
            belief.cost_at(
                logs,
                max_tokens=self.settings.max_num_batched_tokens,
                max_seqs=self.settings.max_num_seqs,
            )
        )

    def _parts(self, cost: StepCost) -> list[_Part]:
        """Parts of a step's cost: the tables around powers of two, and each rate."""
        parts = [
            _Part(name, knot)
            for name, most in (
                ("token_s", self.settings.max_num_batched_tokens),
                ("sample_s", self.settings.max_num_seqs),
            )
            for knot in (2**power for power in range(20))
            if knot <= most
        ]
        parts += [
            _Part(name)
            for name in ("kv_s", "prefill_s", "mixed_s", "window_kv_s", "window_prefill_s")
        ]
        return [part for part in parts if part.value(cost) > 0]


@dataclass(frozen=True, slots=True)
class _Part:
    """A rate of a step's cost, or its table around one size."""

    name: str
    knot: int = 0

    def value(self, cost: StepCost) -> float:
        """Seconds of the part."""
        found = getattr(cost, self.name)
        return float(found[self.knot] if self.knot else found)

    def longer(self, cost: StepCost) -> StepCost:
        """The cost with this part `_STEP` longer; a table by a hat over log size."""
        found = getattr(cost, self.name)
        if not self.knot:
            return replace(cost, **{self.name: found * (1 + _STEP)})
        size = np.maximum(np.arange(len(found)), 1)
        distance = np.abs(np.log2(size / self.knot))
        return replace(cost, **{self.name: found * (1 + _STEP * np.clip(1 - distance, 0, None))})


def target_of(
    task: TaskProfile | None,
    facts: EngineFacts,
    belief: Belief,
    *,
    overhead_s: float = 0.0,
    overhead_log_sd: float = 0.0,
) -> Target:
    """The busiest hour of a task on this engine, or a plain load where none is given.

    More than one engine sustains is not sent to it: then the rate is `LOADED` of that.

    Raises:
        DoesNotFitError: the task's requests are longer than the engine's context.
    """
    settings = settings_of(facts)
    blocks = (facts.kv_tokens or 64 * facts.max_model_len) // facts.block_size
    workload, load = _load_of(task, facts)
    cost = belief.step_cost(
        max_tokens=settings.max_num_batched_tokens, max_seqs=settings.max_num_seqs
    )
    drawn = workload.draw(count=REQUESTS, seed=0, prefix_caching=settings.enable_prefix_caching)
    drawn = within(drawn, facts.max_model_len)
    sustained = sustainable_per_s(drawn, cost, settings, blocks)
    wanted = task.traffic.peak_rate_per_s if task else np.inf
    rate = min(wanted, LOADED * sustained)
    scaled = replace(drawn, arrival_s=drawn.arrival_s * drawn.offered_rate_per_s / rate)
    return Target(
        load=load,
        requests=scaled,
        rate_per_s=rate,
        settings=settings,
        kv_blocks=blocks,
        overhead_s=overhead_s,
        overhead_log_sd=overhead_log_sd,
    )


def sustainable_per_s(
    requests: Requests, cost: StepCost, settings: EngineSettings, kv_blocks: int
) -> float:
    """Requests a second that one engine completes with a full queue.

    The queue repeats the requests until the batch has been filled a dozen times.
    """
    tokens = float((requests.input_tokens + requests.output_tokens / 2).mean())
    held = kv_blocks * settings.block_size / tokens
    count = max(LEAST_REQUESTS, int(12 * min(settings.max_num_seqs, held)))
    index = np.arange(count) % len(requests)
    burst = Requests(
        arrival_s=np.zeros(count),
        input_tokens=requests.input_tokens[index],
        output_tokens=requests.output_tokens[index],
        cached_tokens=requests.cached_tokens[index],
    )
    return saturated_throughput(cost, settings, kv_blocks, burst)


def settings_of(facts: EngineFacts) -> EngineSettings:
    """An engine's settings as the simulator takes them."""
    return EngineSettings(
        max_num_seqs=min(facts.max_num_seqs, facts.max_num_batched_tokens),
        max_num_batched_tokens=facts.max_num_batched_tokens,
        block_size=facts.block_size,
        enable_prefix_caching=facts.prefix_caching,
        max_model_len=facts.max_model_len,
        async_scheduling=facts.async_scheduling,
    )


def plain_lengths(max_model_len: int) -> tuple[int, int]:
    """Prompt and answer of a plain load within a context."""
    answer = min(DEFAULT_OUTPUT, max(2, max_model_len // 5))
    return min(DEFAULT_INPUT, max(2, max_model_len - answer)), answer


def within(requests: Requests, max_model_len: int) -> Requests:
    """Requests cut to a context; where more than a few would be cut, they are refused.

    Raises:
        DoesNotFitError: more than a twentieth are longer.
    """
    total = requests.input_tokens + requests.output_tokens
    share = float((total > max_model_len).mean())
    if share > 0.05:
        raise DoesNotFitError(
            f"{percent(share)} of the task's requests are longer than the engine's context of "
            f"{max_model_len:,} tokens (set it with --engine-args max_model_len=…)"
        )
    outputs = np.minimum(requests.output_tokens, max_model_len // 2)
    inputs = np.minimum(requests.input_tokens, max_model_len - outputs)
    cached = np.minimum(requests.cached_tokens, inputs - 1)
    return replace(requests, input_tokens=inputs, output_tokens=outputs, cached_tokens=cached)


def _load_of(task: TaskProfile | None, facts: EngineFacts) -> tuple[Workload, str]:
    if task is not None:
        return workload_of(task), f"task {task.name}"
    prompt, answer = plain_lengths(facts.max_model_len)
    load = Workload(Poisson(1.0), Fixed(prompt), Fixed(answer))
    return load, f"{prompt} tokens in, {answer} out"


def interval_text(interval: Interval) -> str:
    """E.g. `p95 812 ms (640 to 1,030)`."""
    return (
        f"p95 {interval.value_s * 1e3:,.0f} ms ({interval.low_s * 1e3:,.0f} to "
        f"{interval.high_s * 1e3:,.0f})"
    )
