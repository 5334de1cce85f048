"""The kernel jumps from event to event, the reference makes every step; they must agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from serving_cases import Case, random_case, random_cases

from advisor.serving.heaps import gap_bin
from advisor.serving.reference import ReferenceEngine, ReferenceResult
from advisor.serving.simulate import Timeline

TIMES = ("arrival_s", "scheduled_s", "first_token_s", "finish_s")


def reference_of(case: Case) -> ReferenceResult:
    return ReferenceEngine(
        case.step, case.engine, kv_blocks=case.kv_blocks, requests=case.requests
    ).run()


def assert_same_counts(case: Case, fast: Timeline, slow: ReferenceResult) -> None:
    np.testing.assert_array_equal(fast.preemptions, slow.preemptions)
    assert fast.steps == slow.steps
    assert round(fast.kv_peak_share * case.kv_blocks) == slow.kv_peak_blocks
    assert fast.gap_histogram.sum() == len(slow.gaps_s)
    assert fast.busy_s == pytest.approx(slow.busy_s, rel=1e-9)


def assert_same_times_exactly(case: Case) -> None:
    fast, slow = case.simulate(), reference_of(case)
    for name in TIMES:
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)
    assert_same_counts(case, fast, slow)
    bins = [gap_bin(gap) for gap in slow.gaps_s]
    counts = np.bincount(np.array(bins, dtype=np.int64), minlength=len(fast.gap_histogram))
    np.testing.assert_array_equal(fast.gap_histogram, counts)


def assert_same_times_nearly(case: Case) -> None:
    fast, slow = case.simulate(), reference_of(case)
    for name in TIMES:
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=1e-9, atol=0)
    assert_same_counts(case, fast, slow)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_time_is_exact_where_step_times_are_dyadic(seed: int) -> None:
    """Ties included: an arrival on a step boundary, two requests that end together."""
    case = random_case(np.random.default_rng(seed), dyadic=True)
    assume(case is not None)
    assert case is not None
    assert_same_times_exactly(case)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_time_agrees_to_rounding(seed: int) -> None:
    case = random_case(np.random.default_rng(seed), dyadic=False)
    assume(case is not None)
    assert case is not None
    assert_same_times_nearly(case)


def test_the_random_cases_reach_every_rule() -> None:
    """What the comparison above covers, lest it pass for want of hard cases."""
    cases = random_cases(seed=5, count=600, dyadic=True)
    timelines = [case.simulate() for case in cases]
    share = {
        "preemption": np.mean([timeline.preemptions.any() for timeline in timelines]),
        "preempted twice": np.mean([(timeline.preemptions > 1).any() for timeline in timelines]),
        "asynchronous": np.mean([case.engine.async_scheduling for case in cases]),
        "chunked prompt": np.mean(
            [
                case.requests.input_tokens.max() > case.engine.max_num_batched_tokens
                for case in cases
            ]
        ),
        "window": np.mean([case.step.window > 0 for case in cases]),
        "prefix hit": np.mean(
            [
                case.engine.enable_prefix_caching and case.requests.cached_tokens.any()
                for case in cases
            ]
        ),
        "closed loop": np.mean([case.requests.closed_loop is not None for case in cases]),
        "queueing": np.mean(
            [(timeline.scheduled_s > timeline.arrival_s).any() for timeline in timelines]
        ),
        "cancelled": np.mean([np.isnan(timeline.finish_s).any() for timeline in timelines]),
        "cancelled while decoding": np.mean(
            [
                (np.isnan(timeline.finish_s) & ~np.isnan(timeline.first_token_s)).any()
                for timeline in timelines
            ]
        ),
        "single token": np.mean([(case.requests.output_tokens == 1).any() for case in cases]),
    }
    assert all(part > 0.02 for part in share.values()), share


@pytest.mark.parametrize("seed", range(4))
def test_tokens_and_requests_are_conserved(seed: int) -> None:
    """Every request ends after its first token, and every token but the first leaves one gap."""
    for case in random_cases(seed, 60, dyadic=False):
        if case.requests.cancel_s is not None:
            continue
        timeline = case.simulate()
        assert not np.isnan(timeline.finish_s).any()
        assert (timeline.scheduled_s >= timeline.arrival_s).all()
        assert (timeline.first_token_s > timeline.scheduled_s).all()
        assert (timeline.finish_s >= timeline.first_token_s).all()
        assert timeline.gap_histogram.sum() == (timeline.output_tokens - 1).sum()
        assert 0 < timeline.kv_peak_share <= 1
