"""Arrivals and lengths have the rates, means and shapes that they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog.locations import PROFILES
from advisor.catalog.workloads import WorkloadShape
from advisor.errors import InputError
from advisor.serving.lengths import MAX_P95_TO_MEAN
from advisor.serving.workload import (
    Batches,
    Burst,
    ClosedLoop,
    Constant,
    DayProfile,
    Empirical,
    Fixed,
    Gamma,
    Lengths,
    Lognormal,
    Poisson,
    Requests,
    Stepped,
    Tabulated,
    Trace,
    Uniform,
    Workload,
    cached_prefix,
    day_of,
    draw_requests,
    example_tokens,
    with_examples,
    workload_of,
    workload_of_shape,
)
from advisor.task import TaskProfile

RNG_SEED = 7
MANY = 200_000


def gaps_of(arrivals: Poisson | Gamma | Constant | DayProfile) -> np.ndarray:
    return np.diff(arrivals.draw(np.random.default_rng(RNG_SEED), MANY), prepend=0.0)


@pytest.mark.parametrize(
    ("arrivals", "variation"),
    [(Poisson(4.0), 1.0), (Gamma(4.0, 0.25), 2.0), (Gamma(4.0, 4.0), 0.5), (Constant(4.0), 0.0)],
)
def test_gaps_have_the_mean_and_spread_asked_for(
    arrivals: Poisson | Gamma | Constant, variation: float
) -> None:
    """Mean 1/rate; coefficient of variation 1/sqrt(burstiness)."""
    gaps = gaps_of(arrivals)
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.02, abs=1e-6)


def test_a_day_profile_puts_requests_where_the_rate_is() -> None:
    """Hour 5 has three times the rate of the others; nothing arrives in hour 0."""
    day = DayProfile((0.0, *[1.0] * 4, 3.0, *[1.0] * 18))
    times = day.draw(np.random.default_rng(RNG_SEED), MANY)
    whole_days = times[times < 2 * 86_400]
    hours = (whole_days // 3600).astype(int) % 24
    counts = np.bincount(hours, minlength=24)
    assert counts[0] == 0
    assert counts[5] / counts[[1, 2, 3, 4]].mean() == pytest.approx(3, rel=0.05)
    assert MANY / times[-1] == pytest.approx(day.rate_per_s, rel=0.05)
    assert day.at_rate(10.0).rate_per_s == pytest.approx(10)


def test_a_trace_repeats_and_scales() -> None:
    trace = Trace(np.array([100.0, 101.0, 104.0]))
    times = trace.draw(np.random.default_rng(0), 7)
    assert times.tolist() == [0, 1, 4, 6, 7, 10, 12]
    assert trace.rate_per_s == 0.5
    assert trace.at_rate(1.0).arrival_s.tolist() == [0, 0.5, 2]


def test_bursts_and_closed_loops_begin_at_zero() -> None:
    rng = np.random.default_rng(0)
    assert Burst().draw(rng, 3).tolist() == [0, 0, 0]
    times = ClosedLoop(2).draw(rng, 4)
    assert times[:2].tolist() == [0, 0]
    assert np.isnan(times[2:]).all()


@given(mean=st.floats(5, 5000), ratio=st.floats(1.01, 3.8))
@settings(max_examples=30, deadline=None)
def test_lognormal_lengths_have_their_mean_and_p95(mean: float, ratio: float) -> None:
    lengths = Lognormal(mean, mean * ratio)
    # The two equations that define µ and σ.
    assert math.exp(lengths.mu + lengths.sigma**2 / 2) == pytest.approx(mean)
    assert math.exp(lengths.mu + 1.6448536269514722 * lengths.sigma) == pytest.approx(mean * ratio)


def test_lognormal_lengths_come_out_as_drawn() -> None:
    drawn = Lognormal(300, 700).from_normal(np.random.default_rng(1).standard_normal(MANY))
    assert drawn.mean() == pytest.approx(300, rel=0.02)
    assert np.quantile(drawn, 0.95) == pytest.approx(700, rel=0.02)
    above = Lognormal(350, 420, floor=280).from_normal(
        np.random.default_rng(1).standard_normal(MANY)
    )
    assert above.min() > 280
    assert above.mean() == pytest.approx(350, rel=0.02)


def test_no_lognormal_has_a_p95_of_four_times_its_mean() -> None:
    assert pytest.approx(3.868, abs=1e-3) == MAX_P95_TO_MEAN
    with pytest.raises(InputError, match=r"at most 3\.87 times the mean; give samples"):
        Lognormal(100, 400)


@pytest.mark.parametrize(
    ("lengths", "low", "high"),
    [(Fixed(9), 9, 9), (Uniform(3, 5), 3, 5), (Empirical(np.array([7, 2, 2, 30])), 2, 30)],
)
def test_other_lengths_stay_in_range_and_keep_their_mean(
    lengths: Lengths, low: int, high: int
) -> None:
    drawn = lengths.from_normal(np.random.default_rng(2).standard_normal(MANY))
    assert drawn.min() == low and drawn.max() == high
    assert drawn.mean() == pytest.approx(lengths.mean, rel=0.02)


def test_input_and_output_lengths_can_be_correlated() -> None:
    def correlation(rho: float) -> float:
        requests = draw_requests(
            Poisson(1),
            Lognormal(500, 900),
            Lognormal(90, 200),
            count=50_000,
            seed=3,
            correlation=rho,
        )
        logs = np.log([requests.input_tokens, requests.output_tokens])
        return float(np.corrcoef(logs)[0, 1])

    assert correlation(0.0) == pytest.approx(0, abs=0.02)
    assert correlation(0.7) == pytest.approx(0.7, abs=0.02)
    assert correlation(-1.0) == pytest.approx(-1, abs=0.02)


def test_the_same_seed_gives_the_same_requests_and_another_rate_the_same_lengths() -> None:
    load = Workload(Poisson(2.0), Uniform(1, 100), Uniform(1, 50))
    one, same, other = (load.draw(count=100, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.arrival_s, same.arrival_s)
    assert (one.arrival_s != other.arrival_s).any()
    faster = load.at_rate(4.0).draw(count=100, seed=1)
    np.testing.assert_array_equal(faster.input_tokens, one.input_tokens)
    np.testing.assert_allclose(faster.arrival_s * 2, one.arrival_s)


def test_a_shared_beginning_hits_in_whole_blocks_but_never_whole_prompts() -> None:
    """40 shared tokens are 2 blocks of 16; a prompt of 33 hits both, one of 32 only the first."""
    cached = cached_prefix(np.array([90, 90, 33, 32]), 40, block_size=16)
    assert cached.tolist() == [0, 32, 32, 16]


def test_repeats_have_the_share_and_copy_the_whole_request() -> None:
    requests = draw_requests(
        Poisson(1), Uniform(1, 999), Uniform(1, 999), count=20_000, seed=5, repeat_share=0.3
    )
    keys = requests.prompt_key
    assert keys is not None
    repeats = keys != np.arange(len(keys))
    assert repeats.mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(requests.input_tokens, requests.input_tokens[keys])
    assert (keys[keys] == keys).all()


PROFILE = """
name: x
task: {type: classification, output: label}
quality: {metric: accuracy, threshold: 0.9}
traffic:
  requests_per_day: 864000
  peak_to_mean: 3
  burstiness: 0.5
  input_tokens: {mean: 350, p95: 420}
  output_tokens: 6
  shared_prefix_tokens: 280
"""


def test_a_task_at_its_peak_hour() -> None:
    load = workload_of(TaskProfile.from_yaml(PROFILE))
    assert load.arrivals == Gamma(30.0, 0.5)
    assert load.input_lengths == Lognormal(350, 420, floor=280)
    assert load.output_lengths == Fixed(6)
    requests = load.draw(count=1000, seed=0)
    assert requests.input_tokens.min() > 280
    assert requests.cached_tokens[1:].tolist() == [272] * 999
    assert workload_of(TaskProfile.from_yaml(PROFILE), rate_per_s=5).arrivals == Gamma(5, 0.5)


def test_a_measured_shape_is_drawn_from_its_quantiles() -> None:
    """A shape of five levels: half the counts below 100, none above 400; correlated lengths."""
    lengths = Tabulated((0.0, 0.5, 1.0), (0.0, 100.0, 400.0))
    drawn = lengths.from_normal(np.random.default_rng(2).standard_normal(MANY))
    assert drawn.min() == 1 and drawn.max() == 400
    assert np.median(drawn) == pytest.approx(100, abs=2)
    assert drawn.mean() == pytest.approx(lengths.mean, rel=0.01)
    assert lengths.mean == (50 + 250) / 2
    with pytest.raises(InputError, match="ascending levels"):
        Tabulated((0.0, 0.5), (1.0, 2.0))


def test_shapes_of_the_shipped_traces_become_loads() -> None:
    for path in sorted((PROFILES / "workloads").glob("*.yaml")):
        shape = WorkloadShape.model_validate(yaml.safe_load(path.read_text()))
        if shape.arrivals is None:
            with pytest.raises(InputError, match="give a rate"):
                workload_of_shape(shape)
        load = workload_of_shape(shape, rate_per_s=5.0)
        requests = load.draw(count=50_000, seed=1)
        assert requests.offered_rate_per_s == pytest.approx(5, rel=0.1)
        assert requests.input_tokens.mean() == pytest.approx(shape.input.mean, rel=0.1)
        assert requests.output_tokens.mean() == pytest.approx(shape.output.mean, rel=0.1)


def test_groups_of_beginnings_are_equally_frequent() -> None:
    requests = draw_requests(
        Poisson(1),
        Fixed(100),
        Fixed(1),
        count=9000,
        seed=1,
        shared_prefix_tokens=64,
        prefix_groups=3,
    )
    assert requests.prefix_group is not None
    assert np.bincount(requests.prefix_group) == pytest.approx([3000] * 3, rel=0.1)
    assert set(requests.cached_tokens.tolist()) == {64}


def test_a_task_over_its_day() -> None:
    text = PROFILE.replace("peak_to_mean: 3", f"hourly_rates: {[1] * 23 + [25]}")
    task = TaskProfile.from_yaml(text)
    day = day_of(task).arrivals
    assert isinstance(day, DayProfile)
    assert day.rate_per_s == pytest.approx(10)
    assert max(day.hourly_rates_per_s) == pytest.approx(task.traffic.peak_rate_per_s)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(0.0), "rate = 0"),
        (lambda: Gamma(1.0, -1.0), "burstiness = -1"),
        (lambda: ClosedLoop(0), "concurrency = 0"),
        (lambda: ClosedLoop(1, -1.0), "think_s = -1"),
        (lambda: Trace(np.array([2.0, 1.0])), "must not decrease"),
        (lambda: DayProfile((1.0,) * 23), "24 rates"),
        (lambda: Fixed(0), "tokens = 0"),
        (lambda: Uniform(5, 4), "low ≤ high"),
        (lambda: Empirical(np.array([0])), "at least 1"),
        (
            lambda: Requests(np.array([1.0, 0.0]), *np.ones((2, 2), int), np.zeros(2, int)),
            "ascending",
        ),
        (lambda: Requests(np.zeros(1), *np.ones((3, 1), int)), "cached tokens"),
        (lambda: draw_requests(Burst(), Fixed(1), Fixed(1), count=0, seed=0), "requests = 0"),
    ],
)
def test_impossible_loads_are_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


INTENT = TaskProfile.load(PROFILES / "tasks" / "intent-classification.yaml")


def test_worked_examples_lengthen_every_prompt_and_are_shared() -> None:
    # Each example is a message (350 − 280 tokens) with its answer (6): 5·76 = 380 tokens, and the
    # shared beginning has 280 + 380 = 660 tokens, 41 whole blocks of 16.
    lengths = np.array([350, 300, 290])
    requests = Requests(np.arange(3.0), lengths, np.full(3, 6), np.array([0, 272, 272]))
    tokens = example_tokens(INTENT, 5)
    assert tokens == 380
    longer = with_examples(requests, INTENT, tokens=tokens)
    assert list(longer.input_tokens) == [730, 680, 670]
    assert list(longer.cached_tokens) == [0, 656, 656]


def test_prompts_with_worked_examples_can_be_cut_to_a_context() -> None:
    lengths = np.array([350, 300, 290])
    requests = Requests(np.arange(3.0), lengths, np.full(3, 6), np.array([0, 272, 272]))
    cut = with_examples(requests, INTENT, tokens=380, longest_tokens=646)
    # 646 − 6 = 640 tokens of prompt; of their 40 blocks the last is always computed.
    assert list(cut.input_tokens) == [640, 640, 640]
    assert list(cut.cached_tokens) == [0, 624, 624]


def test_batches_arrive_at_the_same_moment_at_the_rate_asked_for() -> None:
    times = Batches(rate_per_s=20.0, size=4).draw(np.random.default_rng(RNG_SEED), MANY)
    assert np.all(np.diff(times.reshape(-1, 4), axis=1) == 0)
    moments = times[::4]
    assert np.all(np.diff(moments) > 0)
    # Five batches of four a second, at Poisson moments: gaps of mean 0.2 s and the same spread.
    gaps = np.diff(moments)
    assert gaps.mean() == pytest.approx(0.2, rel=0.02)
    assert gaps.std() == pytest.approx(0.2, rel=0.03)
    assert len(Batches(rate_per_s=20.0, size=4).draw(np.random.default_rng(0), 6)) == 6


def test_stepped_rates_hold_in_every_step() -> None:
    stepped = Stepped((2.0, 0.0, 10.0), step_s=100.0)
    assert stepped.rate_per_s == 4
    times = stepped.draw(np.random.default_rng(RNG_SEED), MANY)
    rounds = times[-1] // 300
    whole = times[times < 300 * rounds]
    counts = np.histogram(whole % 300, bins=[0, 100, 200, 300])[0] / (100 * rounds)
    assert counts == pytest.approx([2, 0, 10], rel=0.03)
    assert stepped.at_rate(8.0).rates_per_s == (4.0, 0.0, 20.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Batches(0.0, 2),
        lambda: Batches(1.0, 0),
        lambda: Stepped((), 1.0),
        lambda: Stepped((0.0, 0.0), 1.0),
        lambda: Stepped((1.0,), 0.0),
        lambda: Stepped((1.0,), 1.0, burstiness=0.0),
    ],
)
def test_arrivals_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        make()
