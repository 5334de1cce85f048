"""A load: arrivals and lengths, and the requests drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.catalog.workloads import QUANTILE_LEVELS, WorkloadShape
from advisor.errors import InputError
from advisor.physics.kv_cache import BLOCK_TOKENS
from advisor.serving.arrivals import (
    Arrivals,
    Batches,
    Burst,
    ClosedLoop,
    Constant,
    DayProfile,
    Gamma,
    Poisson,
    Stepped,
    Trace,
)
from advisor.serving.lengths import Empirical, Fixed, Lengths, Lognormal, Tabulated, Uniform
from advisor.task import TaskProfile, Tokens

__all__ = [
    "Arrivals",
    "Batches",
    "Burst",
    "ClosedLoop",
    "Constant",
    "DayProfile",
    "Empirical",
    "Fixed",
    "Gamma",
    "Lengths",
    "Lognormal",
    "Poisson",
    "Requests",
    "Stepped",
    "Tabulated",
    "Trace",
    "Uniform",
    "Workload",
    "day_of",
    "draw_requests",
    "example_tokens",
    "with_examples",
    "workload_of",
    "workload_of_shape",
]


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Requests in order of arrival, as equally long arrays."""

    arrival_s: NDArray[np.float64]
    """Arrival at the engine, seconds, ascending; NaN where a closed loop decides it."""
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    cached_tokens: NDArray[np.int64]
    """Prompt tokens found in the prefix cache: whole blocks, never the whole prompt."""
    prompt_key: NDArray[np.int64] | None = None
    """Equal where two requests are the same word for word; None: all differ."""
    prefix_group: NDArray[np.int64] | None = None
    """Which prompt beginning each request has, from 0, -1: none. Then `cached_tokens` is the length
    of that beginning, found only where a replica holds it. None: one for all, held everywhere."""
    cancel_s: NDArray[np.float64] | None = None
    """When each client gives up, seconds on the clock of the arrivals; infinity: never."""
    closed_loop: ClosedLoop | None = None
    """The users behind the requests, where arrivals follow from completions."""

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            values = np.ascontiguousarray(getattr(self, name), dtype=np.int64)
            object.__setattr__(self, name, values)
            if values.shape != (n,):
                raise InputError(f"{name}: {n} values are expected, one a request")
        object.__setattr__(
            self, "arrival_s", np.ascontiguousarray(self.arrival_s, dtype=np.float64)
        )
        self._check_values()

    def _check_values(self) -> None:
        if len(self.arrival_s) == 0:
            raise InputError("at least one request is expected")
        if self.closed_loop is None and not (
            np.all(np.isfinite(self.arrival_s)) and np.all(np.diff(self.arrival_s) >= 0)
        ):
            raise InputError("arrival times must be finite and ascending")
        if self.input_tokens.min() < 1 or self.output_tokens.min() < 1:
            raise InputError("every request has at least one input and one output token")
        if np.any(self.cached_tokens < 0) or np.any(self.cached_tokens >= self.input_tokens):
            raise InputError("cached tokens: from 0 to less than the whole prompt")

        if self.cancel_s is not None:
            if self.closed_loop is not None:
                raise InputError("a closed loop is simulated without cancellations")
            cancel_s = np.ascontiguousarray(self.cancel_s, dtype=np.float64)
            object.__setattr__(self, "cancel_s", cancel_s)
            if cancel_s.shape != self.arrival_s.shape or not np.all(cancel_s >= self.arrival_s):
                raise InputError("cancel_s: one time a request, not before its arrival")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def with_timeout(self, timeout_s: float) -> Requests:
        """The same requests, each given up `timeout_s` after its arrival, or before as it was."""
        limit = self.arrival_s + timeout_s
        earlier = limit if self.cancel_s is None else np.minimum(limit, self.cancel_s)
        return replace(self, cancel_s=earlier)

    @property
    def offered_rate_per_s(self) -> float:
        """Requests per second over the span of the arrivals; infinite for a burst."""
        span = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span if span > 0 else float("inf")

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Requests:
        """Some of the requests, in the order of the index."""
        return Requests(
            arrival_s=self.arrival_s[index],
            input_tokens=self.input_tokens[index],
            output_tokens=self.output_tokens[index],
            cached_tokens=self.cached_tokens[index],
            prompt_key=None if self.prompt_key is None else self.prompt_key[index],
            prefix_group=None if self.prefix_group is None else self.prefix_group[index],
            cancel_s=None if self.cancel_s is None else self.cancel_s[index],
            closed_loop=self.closed_loop,
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """What is drawn: when requests arrive and how long they are."""

    arrivals: Arrivals
    input_lengths: Lengths
    """Whole prompts, the shared beginning included."""
    output_lengths: Lengths
    shared_prefix_tokens: int = 0
    """Tokens that every prompt begins with."""
    prefix_groups: int = 1
    """Different beginnings of that length, equally frequent; a replica holds some of them."""
    repeat_share: float = 0.0
    """Share of requests that repeat an earlier one word for word."""
    correlation: float = 0.0
    """Correlation of input and output length, of their normal scores (Gaussian copula)."""

    def draw(
        self, *, count: int, seed: int, prefix_caching: bool = True, block_size: int = BLOCK_TOKENS
    ) -> Requests:
        """`count` requests; the same seed gives the same ones."""
        return draw_requests(
            self.arrivals,
            self.input_lengths,
            self.output_lengths,
            count=count,
            seed=seed,
            shared_prefix_tokens=self.shared_prefix_tokens,
            prefix_groups=self.prefix_groups,
            prefix_caching=prefix_caching,
            block_size=block_size,
            repeat_share=self.repeat_share,
            correlation=self.correlation,
        )

    def at_rate(self, rate_per_s: float) -> Workload:
        """The same load at another mean rate; closed loops and bursts become Poisson."""
        change = getattr(self.arrivals, "at_rate", None)
        return replace(self, arrivals=change(rate_per_s) if change else Poisson(rate_per_s))


def draw_requests(
    arrivals: Arrivals,
    input_lengths: Lengths,
    output_lengths: Lengths,
    *,
    count: int,
    seed: int,
    shared_prefix_tokens: int = 0,
    prefix_groups: int = 1,
    prefix_caching: bool = True,
    block_size: int = BLOCK_TOKENS,
    repeat_share: float = 0.0,
    correlation: float = 0.0,
) -> Requests:
    """Draw requests from arrivals and length distributions.

    With prefix caching every request but the first finds the whole blocks of the shared beginning
    in the cache, and never its whole prompt (vLLM recomputes at least the last token). Prompts
    shorter than the shared beginning are lengthened to one token more than it. With several
    beginnings (`prefix_groups`) a hit depends on what the request's replica holds.

    Arrivals and each kind of length have random streams of their own, so that a load at two rates
    has the same prompts and answers.

    Raises:
        InputError: a count below 1, or shares or a correlation out of range.
    """
    if count < 1:
        raise InputError(f"requests = {count}: at least 1 is expected")
    if not 0 <= repeat_share < 1 or not -1 <= correlation <= 1:
        raise InputError("repeat_share must lie in [0, 1) and correlation in [-1, 1]")
    if prefix_groups < 1:
        raise InputError(f"prefix_groups = {prefix_groups}: at least 1 is expected")
    when, sizes, repeats, beginnings = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)
    )
    arrival_s = arrivals.draw(when, count)
    normal_in, normal_out = sizes.standard_normal((count, 2)).T
    normal_out = correlation * normal_in + np.sqrt(1 - correlation**2) * normal_out
    inputs = np.maximum(input_lengths.from_normal(normal_in), shared_prefix_tokens + 1)
    outputs = output_lengths.from_normal(normal_out)
    keys = None
    if repeat_share > 0:
        keys = _prompt_keys(repeats, count, repeat_share)
        inputs, outputs = inputs[keys], outputs[keys]
    groups = beginnings.integers(0, prefix_groups, count) if prefix_groups > 1 else None
    if groups is not None and keys is not None:
        groups = groups[keys]
    return Requests(
        arrival_s=arrival_s,
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=cached_prefix(
            inputs,
            shared_prefix_tokens if prefix_caching else 0,
            block_size=block_size,
            first_misses=groups is None,
        ),
        prompt_key=keys,
        prefix_group=groups,
        closed_loop=arrivals if isinstance(arrivals, ClosedLoop) else None,
    )


def cached_prefix(
    input_tokens: NDArray[np.int64],
    shared_tokens: int,
    *,
    block_size: int,
    first_misses: bool = True,
) -> NDArray[np.int64]:
    """Tokens of a shared beginning that each prompt finds in the cache; the first finds none."""
    whole_blocks = shared_tokens // block_size * block_size
    longest_hit = (input_tokens - 1) // block_size * block_size
    cached: NDArray[np.int64] = np.minimum(longest_hit, whole_blocks)
    if first_misses:
        cached[0] = 0
    return cached


def example_tokens(task: TaskProfile, shots: int) -> int:
    """Tokens that `shots` worked examples add to every prompt.

    An example is a prompt of mean length, without the beginning that all prompts share, and its
    answer: shots·(input − shared + output), rounded.
    """
    traffic = task.traffic
    own = traffic.input_tokens.mean_tokens - traffic.shared_prefix_tokens
    return round(shots * (own + traffic.output_tokens.mean_tokens))


def with_examples(
    requests: Requests, task: TaskProfile, *, tokens: int, longest_tokens: int | None = None
) -> Requests:
    """The requests with `tokens` of worked examples in every prompt, shared by all of them.

    Args:
        longest_tokens: prompt and answer together; prompts are cut to it. None: as they come.
    """
    inputs = requests.input_tokens + tokens
    if longest_tokens is not None:
        inputs = np.minimum(inputs, longest_tokens - requests.output_tokens)
    shared = task.traffic.shared_prefix_tokens + tokens
    cached = cached_prefix(inputs, shared, block_size=BLOCK_TOKENS)
    return replace(requests, input_tokens=inputs, cached_tokens=cached)


def _prompt_keys(rng: np.random.Generator, count: int, repeat_share: float) -> NDArray[np.int64]:
    """For each request the first one with the same prompt (itself where it is new).

    A repeat copies one of the earlier requests, each equally likely, so popular prompts grow more
    popular (Simon 1955: a power law of exponent 1 + 1/repeat_share).
    """
    index = np.arange(count)
    parent = np.where(rng.random(count) < repeat_share, (rng.random(count) * index), index)
    keys = parent.astype(np.int64)
    while True:
        grandparents = keys[keys]
        if np.array_equal(grandparents, keys):
            return keys
        keys = grandparents


def workload_of(task: TaskProfile, *, rate_per_s: float | None = None) -> Workload:
    """The load of a task in its busiest hour (or at a given rate).

    Raises:
        InputError: a p95 that no lognormal distribution of that mean has.
    """
    traffic = task.traffic
    rate = traffic.peak_rate_per_s if rate_per_s is None else rate_per_s
    arrivals = Poisson(rate) if traffic.burstiness == 1 else Gamma(rate, traffic.burstiness)
    return Workload(
        arrivals=arrivals,
        input_lengths=lengths_of(traffic.input_tokens, floor=traffic.shared_prefix_tokens),
        output_lengths=lengths_of(traffic.output_tokens),
        shared_prefix_tokens=traffic.shared_prefix_tokens,
        repeat_share=traffic.repeat_share,
    )


def day_of(task: TaskProfile) -> Workload:
    """The load of a task over whole days, by its hourly rates (a flat day without them).

    Raises:
        InputError: as `workload_of`.
    """
    traffic = task.traffic
    shape = np.asarray(traffic.hourly_rates or (1.0,) * DayProfile.HOURS)
    rates = shape / shape.mean() * traffic.mean_rate_per_s
    day = DayProfile(tuple(float(rate) for rate in rates), burstiness=traffic.burstiness)
    return replace(workload_of(task), arrivals=day)


def workload_of_shape(shape: WorkloadShape, *, rate_per_s: float | None = None) -> Workload:
    """The load that a shape of profiles/workloads/ describes, at its own rate or another.

    Raises:
        InputError: a shape without times, and no rate given.
    """
    if shape.arrivals is None:
        if rate_per_s is None:
            raise InputError(f"workload {shape.id} has no times of its own; give a rate")
        arrivals: Arrivals = Poisson(rate_per_s)
    else:
        arrivals = Gamma(rate_per_s or shape.arrivals.rate_per_s, shape.arrivals.burstiness)
    return Workload(
        arrivals=arrivals,
        input_lengths=Tabulated(QUANTILE_LEVELS, shape.input.quantiles),
        output_lengths=Tabulated(QUANTILE_LEVELS, shape.output.quantiles),
        correlation=shape.log_correlation,
    )


def lengths_of(tokens: Tokens, *, floor: int = 0) -> Lengths:
    """The distribution a task states; the part above `floor` varies where that is possible."""
    if tokens.values:
        return Empirical(np.asarray(tokens.values))
    mean, p95 = tokens.mean_tokens, tokens.p95
    if p95 is None or p95 == mean:
        return Fixed(max(round(mean), 1))
    try:
        return Lognormal(mean, p95, floor=floor)
    except InputError:
        return Lognormal(mean, p95)
