"""Requests in, a timeline out: one engine, or a fleet of replicas."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np

from advisor.errors import InputError
from advisor.physics.step_cost import StepCost
from advisor.serving import dispatch, kernel, layout
from advisor.serving.engine import EngineSettings
from advisor.serving.heaps import GAP_BINS
from advisor.serving.layout import EngineArrays, Load
from advisor.serving.preparation import check, costs_of, within_model_length
from advisor.serving.scaling import Balancing, FleetFront, Scaling, cold_start
from advisor.serving.tally import empty_tallies, tally
from advisor.serving.timeline import FleetSize, Timeline
from advisor.serving.workload import Requests

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

IN_BACKGROUND_FROM = 100_000
"""Requests from which a run leaves the main thread, so that Ctrl-C is obeyed while it lasts."""


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
        requests = within_model_length(requests, engine.max_model_len)
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
        self.costs = costs_of(step, engine, kv_blocks, requests)
        self.load = _load_of(requests, caching=engine.enable_prefix_caching)
        self.load.link[:] = np.arange(replicas, count + replicas)
        self.engines = EngineArrays(
            max_num_seqs=engine.max_num_seqs, block_size=engine.block_size, replicas=replicas
        )
        self.gaps = np.zeros(GAP_BINS, dtype=np.int64)
        self.front: FleetFront | None = None

    def deal_and_serve(self) -> None:
        """Deal requests out in turn and serve each replica's to the end."""
        for replica in range(self.replicas):
            self._deal(replica)
            one = self.engines.engine(replica, self.gaps)
            kernel.advance(math.inf, False, self.stop.flag, self.costs, self.load, one)

    def _deal(self, replica: int) -> None:
        """Queue every `replicas`-th request at one replica, or the first of a closed loop."""
        count, loop = len(self.requests), self.requests.closed_loop
        known = count if loop is None else min(loop.concurrency, count)
        if replica >= known:
            return
        last = replica + (known - 1 - replica) // self.replicas * self.replicas
        self.load.link[last] = -1
        state = self.engines.state[replica]
        state[layout.HEAD], state[layout.TAIL] = replica, last
        state[layout.UNISSUED] = known if known < count else -1

    def prepare_fleet(self, ready: int, balancing: Balancing, scaling: Scaling | None) -> None:
        self.front = FleetFront(
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
        assert self.front is not None
        fleet = self.engines.fleet(self.gaps)
        dispatch.dispatch(self.stop.flag, self.front.arrays, self.costs, self.load, fleet)

    def timeline(self) -> Timeline:
        state, moments, load = self.engines.state, self.engines.moments, self.load
        shared = self.kv_blocks - int(self.costs.settings[layout.POOL])
        peak = int(state[:, layout.PEAK_BLOCKS].max()) + shared
        if self.requests.cancel_s is not None:
            # What came after a client had gone nobody saw.
            for times in (load.first_s, load.finish_s):
                times[times > self.requests.cancel_s] = np.nan
        timeline = Timeline(
            arrival_s=load.arrival_s,
            scheduled_s=load.scheduled_s,
            first_token_s=load.first_s,
            finish_s=load.finish_s,
            input_tokens=load.inputs,
            output_tokens=load.outputs,
            preemptions=load.preemptions,
            gap_histogram=self.gaps,
            replicas=self.replicas,
            steps=int(state[:, layout.STEPS].sum()),
            busy_s=float(moments[:, layout.BUSY].sum()),
            decode_time_s=float(moments[:, layout.DECODE_TIME].sum()),
            kv_time_s=float(moments[:, layout.KV_TIME].sum()),
            kv_peak_share=peak / self.kv_blocks,
            kv_capacity_tokens=self.kv_blocks * self.engine.block_size,
            max_num_seqs=self.engine.max_num_seqs,
            cancel_s=self.requests.cancel_s,
        )
        return self.front.told(timeline) if self.front else timeline


def _load_of(requests: Requests, *, caching: bool) -> Load:
    """Requests and empty results; what a run may change is copied."""
    count = len(requests)
    closed, grouped = requests.closed_loop is not None, requests.prefix_group is not None
    cached = requests.cached_tokens.copy() if grouped else requests.cached_tokens
    return Load(
        arrival_s=requests.arrival_s.copy() if closed else requests.arrival_s,
        inputs=requests.input_tokens,
        outputs=requests.output_tokens,
        cached=cached if caching else np.zeros(count, dtype=np.int64),
        link=np.empty(count, dtype=np.int64),
        cancelled=np.zeros(1 if requests.cancel_s is None else count, dtype=np.int64),
        scheduled_s=np.full(count, np.nan),
        first_s=np.full(count, np.nan),
        finish_s=np.full(count, np.nan),
        preemptions=np.zeros(count, dtype=np.int64),
    )


def compile_kernel(*, everything: bool = False) -> None:
    """Load the compiled kernel, or compile it, by serving one request of one token.

    `everything` also prepares fleets behind a balancer and streamed loads.
    """
    step = StepCost(token_s=np.ones(3), sample_s=np.ones(2), kv_s=0.0, prefill_s=0.0)
    engine = EngineSettings(max_num_seqs=1, max_num_batched_tokens=2)
    ones = np.ones(1, dtype=np.int64)
    one = Requests(np.zeros(1), ones, ones, np.zeros(1, dtype=np.int64))
    simulate_engine(step, engine, kv_blocks=1, requests=one)
    if everything:
        simulate_engine(step, engine, kv_blocks=1, requests=one.with_timeout(9.0))
        arrival, scheduled, first, finish = np.ones((4, 1))
        tally(0, 0, 1, arrival, scheduled, first, finish, ones, *empty_tallies())
