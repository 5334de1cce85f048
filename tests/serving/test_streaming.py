"""A load in chunks is the same load."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from deployments import ENGINE, KV_BLOCKS, LOAD, STEP, load_at

from advisor.errors import InputError
from advisor.serving.metrics import report
from advisor.serving.simulate import Stopped, StopSignal, simulate_engine
from advisor.serving.streaming import simulate_stream
from advisor.serving.workload import Burst, Constant, Fixed, Gamma, Workload


@pytest.mark.parametrize(
    "load",
    [
        LOAD,
        dataclasses.replace(LOAD, arrivals=Gamma(8.0, 0.3), correlation=0.6),
        Workload(Constant(9.0), Fixed(900), Fixed(120), shared_prefix_tokens=300),
    ],
)
@pytest.mark.parametrize("chunk", [700, 5000])
def test_a_stream_gives_the_report_of_the_whole(load: Workload, chunk: int) -> None:
    """Percentiles within a bin (0.2 %), means to rounding, counts exactly."""
    count = 5000
    streamed = simulate_stream(
        STEP, ENGINE, kv_blocks=KV_BLOCKS, workload=load, count=count, seed=3, chunk=chunk
    )
    timeline = simulate_engine(
        STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=load.draw(count=count, seed=3)
    )
    kept = slice(count // 10, None)
    e2e = (timeline.finish_s - timeline.arrival_s)[kept]
    ttft = (timeline.first_token_s - timeline.arrival_s)[kept]
    assert streamed.requests == len(e2e)
    assert streamed.e2e.mean == pytest.approx(e2e.mean(), rel=1e-9)
    assert streamed.ttft.mean == pytest.approx(ttft.mean(), rel=1e-9)
    for level, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        exact = np.quantile(e2e, level, method="inverted_cdf")
        assert getattr(streamed.e2e, name) == pytest.approx(exact, rel=2e-3)
    whole = report(timeline)
    assert streamed.itl.p95 == whole.itl.p95
    assert streamed.itl.mean == pytest.approx(whole.itl.mean, rel=1e-9)
    assert streamed.kv_peak_share == whole.kv_peak_share
    assert streamed.stable
    interval = streamed.e2e.intervals["p95"]
    assert interval.low <= streamed.e2e.p95 <= interval.high


def test_a_stream_that_cannot_be_served_ends_and_says_so() -> None:
    load = load_at(3.0)
    streamed = simulate_stream(
        STEP, ENGINE, kv_blocks=KV_BLOCKS, workload=load, count=200_000, seed=0, chunk=2000
    )
    assert not streamed.stable
    assert streamed.requests < 20_000


def test_what_cannot_be_streamed_is_refused() -> None:
    for load in (
        dataclasses.replace(LOAD, arrivals=Burst()),
        dataclasses.replace(LOAD, repeat_share=0.1),
    ):
        with pytest.raises(InputError, match="a streamed load"):
            simulate_stream(STEP, ENGINE, kv_blocks=KV_BLOCKS, workload=load, count=10, seed=0)


def test_a_stream_can_be_stopped() -> None:
    signal = StopSignal()
    threading.Timer(0.05, signal.stop).start()
    with pytest.raises(Stopped):
        simulate_stream(
            STEP,
            ENGINE,
            kv_blocks=KV_BLOCKS,
            workload=LOAD,
            count=50_000_000,
            seed=0,
            chunk=20_000,
            stop=signal,
        )
