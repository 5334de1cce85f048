"""Percentiles, their intervals, goodput, and the verdict on stability."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from deployments import ENGINE, KV_BLOCKS, LOAD, STEP, load_at
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.heaps import GAP_BINS, add_gaps, gap_bin, gap_edge
from advisor.serving.metrics import goodput, is_drifting, report
from advisor.serving.percentiles import (
    SECTIONS,
    gap_bin_middles,
    interval_of,
    percentiles,
    quantile,
    quantiles,
)
from advisor.serving.simulate import simulate_engine
from advisor.serving.workload import Burst, Fixed, Requests

durations = st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=60)


@given(values=durations, level=st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], level: float) -> None:
    array = np.array(values)
    expected = float(np.quantile(array, level))
    assert quantile(array, level) == pytest.approx(expected)
    assert quantiles(array, [level])[0] == pytest.approx(expected)


def test_an_interval_by_hand() -> None:
    """Sections 9 and 11, four of each, alternating, around 10.

    Neighbours deviate oppositely, so nothing is added for correlation: the variance of the mean is
    8·1/7/8 = 1/7, and t(7) = 2.3646.
    """
    interval = interval_of(10.0, np.array([9.0, 11.0] * 4))
    half = 2.3646242515927844 * math.sqrt(1 / 7)
    assert (interval.low, interval.high) == pytest.approx((10 - half, 10 + half))


def test_neighbouring_sections_that_agree_widen_the_interval() -> None:
    """The same values in two runs of four: ρ = 5/8 + 1/8, so the variance is 7 times as large."""
    alternating = interval_of(10.0, np.array([9.0, 11.0] * 4))
    in_runs = interval_of(10.0, np.array([9.0] * 4 + [11.0] * 4))
    assert (in_runs.high - 10) / (alternating.high - 10) == pytest.approx(math.sqrt(7))


def test_intervals_are_given_where_the_run_is_long_enough() -> None:
    """p99 needs 5 values beyond it in each of 8 sections, p95 a fifth of that; the mean little."""
    values = np.random.default_rng(1).exponential(size=4001)
    assert set(percentiles(values).intervals) == {"mean", "p50", "p90", "p95", "p99"}
    assert set(percentiles(values[:1000]).intervals) == {"mean", "p50", "p90", "p95"}
    assert percentiles(values[:50]).intervals == {}
    assert percentiles(values, intervals=False).intervals == {}
    assert percentiles(np.empty(0)).p95 == 0


def test_intervals_of_independent_values_cover_as_often_as_they_say() -> None:
    """4 standard errors of 1,000 trials around 95 %."""
    rng = np.random.default_rng(3)
    truth = {"mean": 1.0, "p95": -math.log(0.05)}
    hits = dict.fromkeys(truth, 0)
    for _ in range(1000):
        found = percentiles(rng.exponential(size=2000)).intervals
        for name, value in truth.items():
            hits[name] += found[name].low <= value <= found[name].high
    for name, count in hits.items():
        assert 0.93 < count / 1000 < 0.99, name


@given(seconds=st.floats(1e-6, 1e4))
@settings(deadline=None)  # the first call loads compiled code
def test_gap_bins_are_fine_and_contain_their_values(seconds: float) -> None:
    index = gap_bin(seconds)
    low, high = gap_edge(index), gap_edge(index + 1)
    assert low <= seconds < high
    assert (high - low) / low <= 1 / 128
    assert low < gap_bin_middles()[index] < high


@given(
    first=st.floats(1e-4, 1.0),
    slope=st.floats(0, 0.05),
    steps=st.integers(1, 200),
    weight=st.integers(1, 9),
)
@settings(deadline=None)
def test_a_run_of_gaps_is_counted_like_its_single_gaps(
    first: float, slope: float, steps: int, weight: int
) -> None:
    """The bins of an arithmetic series, found by division, against one by one."""
    fast = np.zeros(GAP_BINS, dtype=np.int64)
    add_gaps(fast, first, slope, steps, weight)
    slow = np.zeros(GAP_BINS, dtype=np.int64)
    for step in range(steps):
        slow[gap_bin(first + slope * step)] += weight
    assert fast.sum() == slow.sum()
    # Rounding may move a gap that lies on an edge by one bin.
    assert np.abs(np.cumsum(fast) - np.cumsum(slow)).max() <= weight


def test_a_report_by_hand() -> None:
    """Two requests at once, steps of 1 s: first tokens at 1 s, ends at 3 s and at 5 s."""
    step = StepCost(token_s=np.ones(65), sample_s=np.zeros(5), kv_s=0.0, prefill_s=0.0)
    engine = EngineSettings(max_num_seqs=4, max_num_batched_tokens=64)
    requests = Requests(
        np.zeros(2), np.array([16, 16]), np.array([3, 5]), np.zeros(2, dtype=np.int64)
    )
    load = report(
        simulate_engine(step, engine, kv_blocks=10, requests=requests),
        warmup_share=0.0,
        request_overhead_s=0.25,
    )
    assert load.ttft.mean == 1.25
    assert load.e2e.mean == 4.25
    assert load.e2e.p50 == 4.25
    assert load.tpot.p99 == 1.0
    assert load.itl.mean == 1.0
    assert load.queue.mean == 0.0
    assert load.busy_share == 1.0
    # Decoding: two requests for 2 s, one for 2 s more, over 5 s.
    assert load.mean_running == (2 * 2 + 1 * 2) / 5
    # 16 + 1 … 16 + 2 tokens for each of the two, 16 + 3 and 16 + 4 for the second alone.
    assert load.kv_mean_share == pytest.approx((2 * (17 + 18) + 19 + 20) / 5 / 160)
    assert load.kv_peak_share == 0.4
    assert load.output_tokens_per_s == 8 / 5


def test_goodput_counts_requests_that_meet_every_bound() -> None:
    step = StepCost(token_s=np.ones(65), sample_s=np.zeros(5), kv_s=0.0, prefill_s=0.0)
    engine = EngineSettings(max_num_seqs=2, max_num_batched_tokens=64, async_scheduling=False)
    requests = Requests(
        np.zeros(4), np.full(4, 8), np.array([1, 3, 3, 5]), np.zeros(4, dtype=np.int64)
    )
    timeline = simulate_engine(step, engine, kv_blocks=10, requests=requests)
    # Ends at 1, 3, 4 (from 1 on) and 8 (from 3 on).
    assert timeline.finish_s.tolist() == [1, 3, 4, 8]
    assert goodput(timeline, e2e_s=4).share == 0.75
    assert goodput(timeline, e2e_s=4).rate_per_s == 3 / 8
    assert goodput(timeline, e2e_s=4, request_overhead_s=0.5).share == 0.5
    assert goodput(timeline, ttft_s=2, e2e_s=9).share == 0.75
    assert goodput(timeline, tpot_s=0.5).share == 0.25  # the one without a second token
    assert goodput(timeline).share == 1


def test_cancelled_requests_are_counted_and_left_out() -> None:
    requests = LOAD.at_rate(12).draw(count=600, seed=1).with_timeout(2.0)
    timeline = simulate_engine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=requests)
    load = report(timeline, warmup_share=0.0)
    gone = int(np.isnan(timeline.finish_s).sum())
    assert gone > 50
    assert load.cancelled == gone
    assert load.requests == 600 - gone
    assert load.e2e.p99 <= 2.0
    assert goodput(timeline).share == (600 - gone) / 600


@pytest.mark.parametrize("utilization", [0.3, 0.7, 0.9])
def test_a_load_that_can_be_served_is_stable(utilization: float) -> None:
    for seed in range(5):
        requests = load_at(utilization).draw(count=4000, seed=seed)
        timeline = simulate_engine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=requests)
        assert report(timeline, intervals=False).stable


@pytest.mark.parametrize("utilization", [1.2, 2.0, 10.0])
def test_overload_is_reported_as_overload(utilization: float) -> None:
    """By the growing stay alone, without knowing what could be sustained."""
    for seed in range(5):
        requests = load_at(utilization).draw(count=8000, seed=seed)
        timeline = simulate_engine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=requests)
        assert not report(timeline, intervals=False).stable


def test_a_known_limit_decides_whatever_the_run_looks_like() -> None:
    requests = LOAD.at_rate(5).draw(count=500, seed=0)
    timeline = simulate_engine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=requests)
    assert report(timeline, sustainable_rate_per_s=20).stable
    load = report(timeline, sustainable_rate_per_s=4)
    assert not load.stable
    assert load.utilization == pytest.approx(load.offered_rate_per_s / 4)


def test_a_burst_is_not_overload() -> None:
    burst = dataclasses.replace(LOAD, arrivals=Burst(), output_lengths=Fixed(64))
    timeline = simulate_engine(
        STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=burst.draw(count=64, seed=0)
    )
    load = report(timeline, warmup_share=0.0, sustainable_rate_per_s=1.0)
    assert load.stable
    assert math.isinf(load.offered_rate_per_s)
    assert load.throughput_per_s == pytest.approx(64 / timeline.finish_s.max())


def test_drift_is_a_rising_trend_and_not_noise() -> None:
    rng = np.random.default_rng(0)
    level = 5 + rng.normal(size=800)
    assert not is_drifting(level)
    assert is_drifting(level + np.linspace(0, 20, 800))
    assert not is_drifting(level + np.linspace(0, 1, 800))
    assert not is_drifting(np.arange(SECTIONS, dtype=np.float64))
