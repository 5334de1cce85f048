"""Requests in, a timeline out: one engine, or a fleet of replicas."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from advisor.errors import DoesNotFitError, InputError
from advisor.physics.step_cost import StepCost
from advisor.records import Record
from advisor.serving import dispatch, kernel
from advisor.serving.engine import EngineSettings
from advisor.serving.heaps import GAP_BINS
from advisor.serving.workload import Requests

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Balancing = Literal["round_robin", "least_loaded", "prefix_aware"]

POLICIES: dict[Balancing, int] = {
    "round_robin": dispatch.ROUND_ROBIN,
    "least_loaded": dispatch.LEAST_LOADED,
    "prefix_aware": dispatch.PREFIX_AWARE,
}

PREFIX_CACHE_SHARE = 0.5
"""Share of a replica's KV blocks that may keep prompt beginnings which requests share by group."""

IN_BACKGROUND_FROM = 100_000
"""Requests from which a run leaves the main thread, so that Ctrl-C is obeyed while it lasts."""


class Scaling(Record):
    """Replicas come and go with the load, as a Kubernetes autoscaler makes them.

    At every tick: desired = ceil(requests inside / target_in_flight), within the limits. More are
    started at once and serve after the cold start; fewer are kept only when that would have
    sufficed for `scale_down_delay_s` (the HorizontalPodAutoscaler's stabilisation window), and the
    ones that go finish what they have.
    """

    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt
    target_in_flight: PositiveInt
    """Requests inside one replica, waiting or running, that are wanted."""
    interval_s: PositiveFloat = 15.0
    """Time between two decisions; Kubernetes' default."""
    cold_start_s: NonNegativeFloat
    """From the decision to the first request: see `cold_start`."""
    scale_down_delay_s: NonNegativeFloat = 300.0
    """Kubernetes' default."""

    @model_validator(mode="after")
    def _limits_are_ordered(self) -> Scaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"max_replicas must be at least min_replicas ({self.min_replicas})")
        return self


def cold_start(*, weight_bytes: float, load_bytes_per_s: float, engine_start_s: float) -> float:
    """Seconds from starting a replica to its first request: weights/bandwidth + engine start."""
    return weight_bytes / load_bytes_per_s + engine_start_s


class FleetSize(Record):
    """Replicas over time."""

    time_s: tuple[float, ...]
    ready: tuple[int, ...]
    starting: tuple[int, ...]
    inside: tuple[int, ...]
    """Requests inside, waiting or running."""


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """What happened to each request, in seconds on one clock, and to the engines in all."""

    arrival_s: FloatArray
    scheduled_s: FloatArray
    """Begin of the first step that works on the request; NaN where it was cancelled before."""
    first_token_s: FloatArray
    """End of that token's step; NaN where the request was cancelled before."""
    finish_s: FloatArray
    """End of the step that yields the last token; NaN where the request was cancelled."""
    input_tokens: IntArray
    output_tokens: IntArray
    """Tokens asked for; cancelled requests got fewer."""
    preemptions: IntArray
    """How often each request lost its KV blocks."""
    gap_histogram: IntArray = field(repr=False)
    """Times between two tokens of a request, counted in the bins of `advisor.serving.heaps`."""
    replicas: int
    steps: int
    """Engine steps of all replicas together."""
    busy_s: float
    """Seconds that steps took, of all replicas together."""
    decode_time_s: float
    """Integral of the number of decoding requests: sequence-seconds."""
    kv_time_s: float
    """Integral of the tokens in the contexts of decoding requests: token-seconds."""
    kv_peak_share: float
    """Most KV blocks held at a time, as a share of all, on the fullest replica."""
    kv_capacity_tokens: int
    """Tokens that the KV cache of one replica holds."""
    max_num_seqs: int
    cancel_s: FloatArray | None = None
    """When each client would give up, where any does."""
    replica: IntArray | None = None
    """Which replica served each request; None: in turn."""
    replica_seconds: float | None = None
    """Time that replicas were paid for, cold starts included; None: all were there throughout."""
    fleet: FleetSize | None = None
    """Replicas over time, where the fleet scales."""

    def __len__(self) -> int:
        return len(self.arrival_s)


class StopSignal:
    """Ends a simulation from another thread; a stopped one raises `Stopped`."""

    def __init__(self) -> None:
        self.flag = np.zeros(1, dtype=np.int64)

    def stop(self) -> None:
        self.flag[0] = 1

    @property
    def stopped(self) -> bool:
        return bool(self.flag[0])


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A simulation was told to stop."""


def simulate_engine(
    step: StepCost,
    engine: EngineSettings,
    *,
    kv_blocks: int,
    requests: Requests,
    stop: StopSignal | None = None,
) -> Timeline:
    """Serve requests with one engine.

    Args:
        step: what a step costs; its tables must reach the engine's budget and batch.
        engine: scheduler settings.
        kv_blocks: KV-cache blocks of `engine.block_size` tokens.
        requests: in order of arrival; a closed loop's arrivals come out of the run.
        stop: ends the run from another thread.

    Raises:
        DoesNotFitError: a request that no empty engine could hold.
        InputError: tables of the step cost that are too short, or negative rates.
        Stopped: by the signal.
    """
    return simulate_fleet(
        step, engine, kv_blocks=kv_blocks, requests=requests, replicas=1, stop=stop
    )


def simulate_fleet(
    step: StepCost,
    engine: EngineSettings,
    *,
    kv_blocks: int,
    requests: Requests,
    replicas: int,
    balancing: Balancing = "round_robin",
    scaling: Scaling | None = None,
    stop: StopSignal | None = None,
) -> Timeline:
    """Serve requests with equal replicas behind a load balancer.

    Args:
        replicas: of a fleet that scales, how many are ready at the start.
        balancing: `round_robin` deals requests out in turn; `least_loaded` to the replica with the
            fewest requests inside; `prefix_aware` prefers one that holds the prompt's beginning
            (`Requests.prefix_group`) unless it is crowded.
        scaling: how replicas come and go; None: they stay.

    Raises:
        DoesNotFitError, InputError, Stopped: as `simulate_engine`; a closed loop needs one replica.
    """
    if engine.max_model_len is not None:
        requests = _within_model_length(requests, engine.max_model_len)
    check(step, engine, kv_blocks, requests)
    if replicas < 1:
        raise InputError(f"replicas = {replicas}: at least 1 is expected")
    if requests.closed_loop is not None and (replicas > 1 or scaling is not None):
        raise InputError("a closed loop is simulated on one replica")
    if scaling is not None and not scaling.min_replicas <= replicas <= scaling.max_replicas:
        raise InputError(
            f"replicas = {replicas}: from {scaling.min_replicas} to {scaling.max_replicas} "
            "is expected at the start of a fleet that scales"
        )
    signal = stop or StopSignal()
    slots = replicas if scaling is None else scaling.max_replicas
    run = _Run(step, engine, kv_blocks=kv_blocks, requests=requests, replicas=slots, stop=signal)
    dealt = balancing == "round_robin" or replicas == 1
    if dealt and scaling is None and requests.cancel_s is None and requests.prefix_group is None:
        work: Callable[[], None] = run.deal_and_serve
    else:
        run.prepare_fleet(replicas, balancing, scaling)
        work = run.dispatch
    _obeying_interrupts(work, signal, len(requests))
    if signal.stopped:
        raise Stopped("the simulation was stopped")
    return run.timeline()


def _obeying_interrupts(work: Callable[[], None], signal: StopSignal, count: int) -> None:
    """Run compiled code; a long run off the main thread, so that Ctrl-C can stop it."""
    if count < IN_BACKGROUND_FROM or threading.current_thread() is not threading.main_thread():
        work()
        return
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=guarded, name="simulator")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.05)
    except BaseException:
        signal.stop()
        thread.join()
        raise
    if failures:
        raise failures[0]


class _Run:
    """The flat arrays of a run: requests, results and one engine state a replica."""

    def __init__(
        self,
        step: StepCost,
        engine: EngineSettings,
        *,
        kv_blocks: int,
        requests: Requests,
        replicas: int,
        stop: StopSignal,
    ) -> None:
        count = len(requests)
        self.requests, self.engine = requests, engine
        self.replicas, self.kv_blocks, self.stop = replicas, kv_blocks, stop
        self.settings, self.rates = engine_arrays(step, engine, kv_blocks, requests)
        self.token_s, self.sample_s = step.token_s, step.sample_s
        closed = requests.closed_loop is not None
        self.arrival_s = requests.arrival_s.copy() if closed else requests.arrival_s
        self.cached = requests.cached_tokens
        if not engine.enable_prefix_caching:
            self.cached = np.zeros(count, dtype=np.int64)
        elif requests.prefix_group is not None:
            self.cached = self.cached.copy()
        self.link = np.arange(replicas, count + replicas, dtype=np.int64)
        mortal = requests.cancel_s is not None
        self.cancelled = np.zeros(count if mortal else 1, dtype=np.int64)
        self.scheduled_s = np.full(count, np.nan)
        self.first_s = np.full(count, np.nan)
        self.finish_s = np.full(count, np.nan)
        self.preemptions = np.zeros(count, dtype=np.int64)
        self.engines = EngineArrays(engine, replicas)
        self.gaps = np.zeros(GAP_BINS, dtype=np.int64)
        self.front: _Front | None = None

    def deal_and_serve(self) -> None:
        """Deal requests out in turn and serve each replica's to the end."""
        for replica in range(self.replicas):
            self._deal(replica)
            self._advance(replica)

    def _deal(self, replica: int) -> None:
        """Queue every `replicas`-th request at one replica, or the first of a closed loop."""
        count, loop = len(self.requests), self.requests.closed_loop
        known = count if loop is None else min(loop.concurrency, count)
        if replica >= known:
            return
        last = replica + (known - 1 - replica) // self.replicas * self.replicas
        self.link[last] = -1
        state = self.engines.state[replica]
        state[kernel.HEAD], state[kernel.TAIL] = replica, last
        state[kernel.UNISSUED] = known if known < count else -1

    def _advance(self, replica: int) -> None:
        engines = self.engines
        kernel.advance(
            math.inf, False, self.stop.flag, self.settings, self.rates, self.token_s,
            self.sample_s, self.arrival_s, self.requests.input_tokens,
            self.requests.output_tokens, self.cached, self.link, self.cancelled,
            self.scheduled_s, self.first_s, self.finish_s, self.preemptions,
            engines.state[replica], engines.moments[replica], engines.rows[replica],
            engines.last_s[replica], engines.phases[replica], self.gaps,
        )  # fmt: skip

    def prepare_fleet(self, ready: int, balancing: Balancing, scaling: Scaling | None) -> None:
        self.front = _Front(
            self.requests,
            engine=self.engine,
            kv_blocks=self.kv_blocks,
            replicas=self.replicas,
            ready=ready,
            balancing=balancing,
            scaling=scaling,
        )

    def dispatch(self) -> None:
        """Send each request where the balancer wants it, at its arrival."""
        front, engines = self.front, self.engines
        assert front is not None
        dispatch.dispatch(
            self.stop.flag, front.settings, front.rates, self.settings, self.rates,
            self.token_s, self.sample_s, self.arrival_s, self.requests.input_tokens,
            self.requests.output_tokens, self.cached, front.groups, front.cancel_order,
            front.cancel_s, self.link, self.cancelled, self.scheduled_s, self.first_s,
            self.finish_s, self.preemptions, front.replica_of, engines.state, engines.moments,
            engines.rows, engines.last_s, engines.phases, self.gaps, front.status,
            front.ready_s, front.launched_s, front.rented_s, front.residents, front.history,
        )  # fmt: skip

    def timeline(self) -> Timeline:
        state, moments = self.engines.state, self.engines.moments
        shared = self.kv_blocks - int(self.settings[kernel.POOL])
        peak = int(state[:, kernel.PEAK_BLOCKS].max()) + shared
        if self.requests.cancel_s is not None:
            # What came after a client had gone nobody saw.
            for times in (self.first_s, self.finish_s):
                times[times > self.requests.cancel_s] = np.nan
        timeline = Timeline(
            arrival_s=self.arrival_s,
            scheduled_s=self.scheduled_s,
            first_token_s=self.first_s,
            finish_s=self.finish_s,
            input_tokens=self.requests.input_tokens,
            output_tokens=self.requests.output_tokens,
            preemptions=self.preemptions,
            gap_histogram=self.gaps,
            replicas=self.replicas,
            steps=int(state[:, kernel.STEPS].sum()),
            busy_s=float(moments[:, kernel.BUSY].sum()),
            decode_time_s=float(moments[:, kernel.DECODE_TIME].sum()),
            kv_time_s=float(moments[:, kernel.KV_TIME].sum()),
            kv_peak_share=peak / self.kv_blocks,
            kv_capacity_tokens=self.kv_blocks * self.engine.block_size,
            max_num_seqs=self.engine.max_num_seqs,
            cancel_s=self.requests.cancel_s,
        )
        return self.front.told(timeline) if self.front else timeline


class EngineArrays:
    """The state of each of several engines, as the kernel keeps it."""

    def __init__(self, engine: EngineSettings, replicas: int) -> None:
        width = 5 * engine.max_num_seqs + 64
        self.state = np.zeros((replicas, kernel.STATE), dtype=np.int64)
        self.state[:, [kernel.HEAD, kernel.UNISSUED, kernel.PARTIAL]] = -1
        self.moments = np.zeros((replicas, kernel.CLOCKS))
        self.rows = np.zeros((replicas, kernel.ROWS, width), dtype=np.int64)
        self.last_s = np.zeros((replicas, kernel.LAST_ROWS, width))
        self.phases = np.zeros((replicas, engine.block_size), dtype=np.int64)


class _Front:
    """What stands before the replicas: balancer, cancellations and the autoscaler."""

    def __init__(
        self,
        requests: Requests,
        *,
        engine: EngineSettings,
        kv_blocks: int,
        replicas: int,
        ready: int,
        balancing: Balancing,
        scaling: Scaling | None,
    ) -> None:
        count = len(requests)
        self.scaling = scaling
        slots = prefix_slots(engine, kv_blocks, requests)
        self.settings = np.zeros(dispatch.FLEET_SETTINGS, dtype=np.int64)
        self.settings[dispatch.POLICY] = POLICIES[balancing]
        self.settings[dispatch.PREFIX_SLOTS] = slots
        self.rates = np.zeros(dispatch.FLEET_RATES)
        ticks = 1
        if scaling is not None:
            self.settings[dispatch.LEAST_REPLICAS] = scaling.min_replicas
            self.settings[dispatch.MOST_REPLICAS] = scaling.max_replicas
            self.settings[dispatch.TARGET] = scaling.target_in_flight
            self.settings[dispatch.DOWN_TICKS] = math.ceil(
                scaling.scale_down_delay_s / scaling.interval_s
            )
            self.rates[dispatch.INTERVAL] = scaling.interval_s
            self.rates[dispatch.COLD_START] = scaling.cold_start_s
            ticks += int(requests.arrival_s[-1] / scaling.interval_s)
        self.groups = np.full(count, -1, dtype=np.int64)
        if requests.prefix_group is not None and slots > 0:
            self.groups = np.ascontiguousarray(requests.prefix_group, dtype=np.int64)
        self.cancel_s, self.cancel_order = np.empty(0), np.empty(0, dtype=np.int64)
        if requests.cancel_s is not None:
            order = np.argsort(requests.cancel_s, kind="stable")
            times = requests.cancel_s[order]
            self.cancel_order, self.cancel_s = order[times < np.inf], times[times < np.inf]
        self.replica_of = np.zeros(count, dtype=np.int64)
        self.status = np.full(replicas, dispatch.OFF, dtype=np.int64)
        self.status[:ready] = dispatch.READY
        self.ready_s, self.launched_s = np.zeros(replicas), np.zeros(replicas)
        self.rented_s = np.zeros(replicas)
        self.residents = np.full((replicas, max(slots, 1)), -1, dtype=np.int64)
        self.history = np.zeros((ticks, 3), dtype=np.int64)

    def told(self, timeline: Timeline) -> Timeline:
        """The timeline with what only the front knows."""
        fleet = None
        if self.scaling is not None:
            ready, starting, inside = self.history.T.tolist()
            times = self.scaling.interval_s * np.arange(1, len(ready) + 1)
            fleet = FleetSize(
                time_s=tuple(times.tolist()),
                ready=tuple(ready),
                starting=tuple(starting),
                inside=tuple(inside),
            )
        return replace(
            timeline,
            replica=self.replica_of,
            replica_seconds=float(self.rented_s.sum()),
            fleet=fleet,
        )


def engine_arrays(
    step: StepCost, engine: EngineSettings, kv_blocks: int, requests: Requests
) -> tuple[IntArray, FloatArray]:
    """The kernel's settings; the pool is what shared prompt beginnings leave of the blocks."""
    settings = np.zeros(kernel.SETTINGS, dtype=np.int64)
    settings[kernel.MAX_SEQS] = engine.max_num_seqs
    settings[kernel.BUDGET] = engine.max_num_batched_tokens
    settings[kernel.BLOCK] = engine.block_size
    settings[kernel.CHUNKED] = engine.enable_chunked_prefill
    settings[kernel.ASYNC] = engine.async_scheduling
    settings[kernel.WHOLE_PROMPT_FITS] = engine.scheduler_reserve_full_isl
    settings[kernel.POOL] = kv_blocks - _shared_blocks(engine, kv_blocks, requests)
    settings[kernel.WINDOW] = step.window
    settings[kernel.CACHING] = engine.enable_prefix_caching
    settings[kernel.CLOSED] = requests.closed_loop is not None
    settings[kernel.MORTAL] = requests.cancel_s is not None
    rates = np.zeros(kernel.RATES)
    rates[kernel.KV], rates[kernel.PREFILL] = step.kv_s, step.prefill_s
    rates[kernel.MIXED] = step.mixed_s
    rates[kernel.WINDOW_KV] = step.window_kv_s
    rates[kernel.WINDOW_PREFILL] = step.window_prefill_s
    rates[kernel.THINK] = requests.closed_loop.think_s if requests.closed_loop else 0.0
    return settings, rates


def prefix_slots(engine: EngineSettings, kv_blocks: int, requests: Requests) -> int:
    """Prompt beginnings that a replica can keep; 0 where requests share none by group."""
    if requests.prefix_group is None or not engine.enable_prefix_caching:
        return 0
    blocks = int(requests.cached_tokens.max()) // engine.block_size
    groups = int(requests.prefix_group.max()) + 1
    if blocks == 0 or groups == 0:
        return 0
    return min(int(PREFIX_CACHE_SHARE * kv_blocks) // blocks, groups)


def _shared_blocks(engine: EngineSettings, kv_blocks: int, requests: Requests) -> int:
    """Blocks of shared prompt beginnings, held once and for good."""
    if not engine.enable_prefix_caching:
        return 0
    blocks = int(requests.cached_tokens.max()) // engine.block_size
    if requests.prefix_group is None:
        return blocks
    return blocks * prefix_slots(engine, kv_blocks, requests)


def _within_model_length(requests: Requests, max_model_len: int) -> Requests:
    """Answers end where the model's length does, as vLLM ends them."""
    longest = int(requests.input_tokens.max())
    if longest >= max_model_len:
        raise InputError(
            f"a prompt of {longest} tokens leaves no room for an answer within "
            f"max_model_len = {max_model_len}"
        )
    room = max_model_len - requests.input_tokens
    return replace(requests, output_tokens=np.minimum(requests.output_tokens, room))


def check(step: StepCost, engine: EngineSettings, kv_blocks: int, requests: Requests) -> None:
    """Refuse what no engine could serve.

    Raises:
        DoesNotFitError, InputError: as `simulate_engine`.
    """
    if len(step.token_s) <= engine.max_num_batched_tokens:
        raise InputError(
            f"the step cost is tabulated to {len(step.token_s) - 1} tokens; "
            f"max_num_batched_tokens is {engine.max_num_batched_tokens}"
        )
    if len(step.sample_s) <= engine.max_num_seqs:
        raise InputError(
            f"the step cost is tabulated to {len(step.sample_s) - 1} sequences; "
            f"max_num_seqs is {engine.max_num_seqs}"
        )
    rates = (step.kv_s, step.prefill_s, step.window_kv_s, step.window_prefill_s, step.mixed_s)
    if min(rates) < 0 or not all(map(math.isfinite, rates)):
        raise InputError("the rates of a step cost must be finite and at least 0")
    if np.any(requests.cached_tokens % engine.block_size):
        raise InputError(f"cached tokens come in whole blocks of {engine.block_size}")
    # The last token is sampled, never stored.
    longest = int((requests.input_tokens + requests.output_tokens).max()) - 1
    if not engine.enable_chunked_prefill and longest > engine.max_num_batched_tokens:
        raise InputError(
            f"without chunked prefill a request of {longest + 1} tokens needs "
            f"max_num_batched_tokens of at least {longest}, not {engine.max_num_batched_tokens}"
        )
    need = -(-longest // engine.block_size)
    if need > kv_blocks - _shared_blocks(engine, kv_blocks, requests):
        raise DoesNotFitError(
            f"a request of {longest + 1} tokens needs {need} KV blocks of {engine.block_size}; "
            f"the deployment has {kv_blocks}"
        )


def compile_kernel() -> None:
    """Load the compiled kernel, or compile it, by serving one request of one token."""
    step = StepCost(token_s=np.ones(3), sample_s=np.ones(2), kv_s=0.0, prefill_s=0.0)
    engine = EngineSettings(max_num_seqs=1, max_num_batched_tokens=2)
    ones = np.ones(1, dtype=np.int64)
    simulate_engine(
        step,
        engine,
        kv_blocks=1,
        requests=Requests(np.zeros(1), ones, ones, np.zeros(1, dtype=np.int64)),
    )


__all__ = [
    "Balancing",
    "FleetSize",
    "Scaling",
    "StopSignal",
    "Stopped",
    "Timeline",
    "cold_start",
    "compile_kernel",
    "simulate_engine",
    "simulate_fleet",
]
