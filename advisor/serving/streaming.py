"""Loads of any length in constant memory: requests are drawn, served, counted and forgotten.

Percentiles come from histograms with 512 bins an octave, so they are within 0.1 % of those over all
requests; means are exact. Each section of the run has its own, for the confidence intervals.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError
from advisor.physics.step_cost import StepCost
from advisor.serving import kernel, layout
from advisor.serving.arrivals import Constant, Gamma, Poisson
from advisor.serving.engine import EngineSettings
from advisor.serving.heaps import GAP_BINS
from advisor.serving.layout import Costs, EngineArrays, Load
from advisor.serving.metrics import DRIFT_GROWTH, LoadReport
from advisor.serving.percentiles import (
    LEVELS,
    NOTHING,
    SECTIONS,
    Interval,
    Percentiles,
    histogram_percentiles,
    interval_of,
)
from advisor.serving.preparation import check, costs_of
from advisor.serving.simulate import Stopped, StopSignal
from advisor.serving.tally import E2E, QUEUE, TPOT, TTFT, bin_middle, empty_tallies, tally
from advisor.serving.workload import Requests, Workload, cached_prefix

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CHUNK = 1 << 18
"""Requests drawn at a time; twice as many are in memory."""


def simulate_stream(
    step: StepCost,
    engine: EngineSettings,
    *,
    kv_blocks: int,
    workload: Workload,
    count: int,
    seed: int,
    warmup_share: float = 0.1,
    request_overhead_s: float = 0.0,
    chunk: int = CHUNK,
    stop: StopSignal | None = None,
) -> LoadReport:
    """Serve `count` requests with one engine, in the memory that two chunks of them take.

    The same requests as `workload.draw` would give, served in the same way. Where the queue grows
    past a chunk the run ends and the report, on what was served by then, says that it is unstable.

    Raises:
        DoesNotFitError, InputError, Stopped: as `simulate_engine`; arrivals must have one rate
            (Poisson, gamma or constant), and requests no repeats and one shared beginning.
    """
    if not isinstance(workload.arrivals, Poisson | Gamma | Constant) or (
        workload.repeat_share or workload.prefix_groups > 1
    ):
        raise InputError(
            "a streamed load has Poisson, gamma or constant arrivals, no repeats and one beginning"
        )
    run = _Stream(
        step, engine, kv_blocks, workload, count=count, seed=seed, chunk=min(chunk, count)
    )
    run.signal = stop or run.signal
    stable = run.serve(int(warmup_share * count))
    if run.signal.stopped:
        raise Stopped("the simulation was stopped")
    return run.report(stable, request_overhead_s)


class _Stream:
    """A ring of two chunks of requests, and one engine that works its way around it."""

    def __init__(
        self,
        step: StepCost,
        engine: EngineSettings,
        kv_blocks: int,
        workload: Workload,
        *,
        count: int,
        seed: int,
        chunk: int,
    ) -> None:
        self.step, self.engine, self.kv_blocks = step, engine, kv_blocks
        self.workload, self.count, self.chunk = workload, count, chunk
        self.signal = StopSignal()
        when, sizes, *_ = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)
        )
        self.when, self.sizes = when, sizes
        self.drawn, self.last_arrival_s = 0, 0.0
        size = 2 * chunk
        whole = np.zeros((5, size), dtype=np.int64)
        times = np.full((4, size), np.nan)
        self.load = Load(
            arrival_s=times[0],
            inputs=whole[0],
            outputs=whole[1],
            cached=whole[2],
            link=whole[3],
            cancelled=np.zeros(1, dtype=np.int64),
            scheduled_s=times[1],
            first_s=times[2],
            finish_s=times[3],
            preemptions=whole[4],
        )
        self.costs: Costs | None = None
        self.engines = EngineArrays(
            max_num_seqs=engine.max_num_seqs, block_size=engine.block_size, replicas=1
        )
        self.gaps = np.zeros(GAP_BINS, dtype=np.int64)
        self.counts, self.sums_s = empty_tallies(SECTIONS)
        self.preempted = self.tokens = self.spans_tokens = 0
        self.spans_s = 0.0

    def serve(self, warmup: int) -> bool:
        """Serve everything; False where the queue outgrew the ring."""
        chunks = -(-self.count // self.chunk)
        for number in range(chunks):
            if number >= 2 and not self._harvest(number - 2, warmup):
                return False
            self._draw(number)
            self._advance(self.last_arrival_s if number + 1 < chunks else math.inf)
            if self.signal.stopped:
                return False
        for number in range(max(chunks - 2, 0), chunks):
            self._harvest(number, warmup)
        return True

    def _slots(self, number: int) -> slice:
        """The half of the ring that a chunk lies in; the last chunk may be shorter."""
        begin = number % 2 * self.chunk
        return slice(begin, begin + min(self.chunk, self.count - number * self.chunk))

    def _draw(self, number: int) -> None:
        """Draw a chunk and queue it."""
        slots = self._slots(number)
        size = slots.stop - slots.start
        # One call a stream and chunk, so that the numbers are those of one call for all.
        arrival_s = self.last_arrival_s + self.workload.arrivals.draw(self.when, size)
        requests = self._requests(arrival_s, size, first=number == 0)
        check(self.step, self.engine, self.kv_blocks, requests)
        if number == 0:
            self.costs = costs_of(self.step, self.engine, self.kv_blocks, requests)
        load = self.load
        load.arrival_s[slots], load.inputs[slots] = requests.arrival_s, requests.input_tokens
        load.outputs[slots], load.cached[slots] = requests.output_tokens, requests.cached_tokens
        for times in (load.scheduled_s, load.first_s, load.finish_s):
            times[slots] = np.nan
        load.preemptions[slots] = 0
        load.link[slots] = np.arange(slots.start + 1, slots.stop + 1)
        load.link[slots.stop - 1] = -1
        state = self.engines.state[0]
        if state[layout.HEAD] < 0:
            state[layout.HEAD] = slots.start
        else:
            load.link[state[layout.TAIL]] = slots.start
        state[layout.TAIL] = slots.stop - 1
        self.last_arrival_s = float(arrival_s[-1])

    def _requests(self, arrival_s: FloatArray, size: int, *, first: bool) -> Requests:
        normal_in, normal_out = self.sizes.standard_normal((size, 2)).T
        rho = self.workload.correlation
        normal_out = rho * normal_in + math.sqrt(1 - rho**2) * normal_out
        shared = self.workload.shared_prefix_tokens
        inputs = np.maximum(self.workload.input_lengths.from_normal(normal_in), shared + 1)
        cached = cached_prefix(
            inputs,
            shared if self.engine.enable_prefix_caching else 0,
            block_size=self.engine.block_size,
            first_misses=first,
        )
        outputs = self.workload.output_lengths.from_normal(normal_out)
        if self.engine.max_model_len is not None:
            inputs = np.minimum(inputs, self.engine.max_model_len - 1)
            outputs = np.minimum(outputs, self.engine.max_model_len - inputs)
        return Requests(arrival_s, inputs, outputs, cached)

    def _advance(self, limit_s: float) -> None:
        assert self.costs is not None
        one = self.engines.engine(0, self.gaps)
        kernel.advance(limit_s, False, self.signal.flag, self.costs, self.load, one)

    def _harvest(self, number: int, warmup: int) -> bool:
        """Count a chunk's requests; False where some have not ended."""
        slots, load = self._slots(number), self.load
        outputs = load.outputs[slots]
        unfinished = tally(
            number * self.chunk,
            warmup,
            self.count,
            load.arrival_s[slots],
            load.scheduled_s[slots],
            load.first_s[slots],
            load.finish_s[slots],
            outputs,
            self.counts,
            self.sums_s,
        )
        self.preempted += int(load.preemptions[slots].sum())
        self.tokens += int(outputs.sum())
        self.spans_tokens += int((outputs - 1).sum())
        self.spans_s += float(np.nansum(load.finish_s[slots] - load.first_s[slots]))
        return bool(unfinished == 0)

    def report(self, stable: bool, request_overhead_s: float) -> LoadReport:
        assert self.costs is not None
        state, moments = self.engines.state[0], self.engines.moments[0]
        span = float(moments[layout.NOW])
        served = int(state[layout.FINISHED])
        shared = self.kv_blocks - int(self.costs.settings[layout.POOL])
        offered = getattr(self.workload.arrivals, "rate_per_s", math.inf)
        return LoadReport(
            requests=int(self.counts[E2E].sum()),
            stable=stable and not self._drifts(),
            offered_rate_per_s=float(offered),
            throughput_per_s=served / span,
            output_tokens_per_s=self.tokens / span,
            ttft=self._percentiles(TTFT, request_overhead_s),
            tpot=self._percentiles(TPOT),
            itl=histogram_percentiles(
                self.gaps, mean=self.spans_s / self.spans_tokens if self.spans_tokens else 0.0
            ),
            e2e=self._percentiles(E2E, request_overhead_s),
            queue=self._percentiles(QUEUE),
            busy_share=float(moments[layout.BUSY]) / span,
            mean_running=float(moments[layout.DECODE_TIME]) / span,
            kv_mean_share=float(moments[layout.KV_TIME])
            / span
            / (self.kv_blocks * self.engine.block_size),
            kv_peak_share=(int(state[layout.PEAK_BLOCKS]) + shared) / self.kv_blocks,
            preemptions=self.preempted,
        )

    def _percentiles(self, duration: int, added_s: float = 0.0) -> Percentiles:
        """Percentiles with intervals, `added_s` longer than what was counted."""
        counts, sums_s = self.counts[duration], self.sums_s[duration]
        total = int(counts.sum())
        if total == 0:
            return NOTHING
        whole, sections = np.cumsum(counts.sum(axis=0)), np.cumsum(counts, axis=1)
        figures = {"mean": float(sums_s.sum()) / total}
        by_section = {"mean": sums_s / np.maximum(sections[:, -1], 1)}
        for name, level in LEVELS.items():
            figures[name] = _value_at(whole, level)
            by_section[name] = np.array([_value_at(section, level) for section in sections])
        found: dict[str, Interval] = {}
        if sections[:, -1].all():
            found = {
                name: interval_of(figure + added_s, by_section[name] + added_s)
                for name, figure in figures.items()
            }
        return Percentiles(
            **{name: figure + added_s for name, figure in figures.items()}, intervals=found
        )

    def _drifts(self) -> bool:
        """Whether the mean stay rises from section to section, by over half of it in all."""
        sizes = self.counts[E2E].sum(axis=1)
        if not sizes.all():
            return False
        means = self.sums_s[E2E] / sizes
        rises = bool(np.all(np.diff(means) > 0))
        return rises and float(means[-1] - means[0]) > DRIFT_GROWTH * float(means.mean())


def _value_at(cumulated: IntArray, level: float) -> float:
    """Middle of the bin that holds a quantile."""
    return bin_middle(int(np.searchsorted(cumulated, level * cumulated[-1])))
