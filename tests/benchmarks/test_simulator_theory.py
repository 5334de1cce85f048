"""The simulator against queueing theory and against conservation laws, at length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr

from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.lengths import Lognormal
from advisor.serving.simulate import simulate_engine
from advisor.serving.streaming import simulate_stream
from advisor.serving.workload import Fixed, Poisson, Workload

pytestmark = pytest.mark.benchmark


@dataclass(frozen=True)
class Geometric:
    """Counts from 1 on with a given mean: the memoryless length."""

    mean: float

    def from_normal(self, normal: NDArray[np.float64]) -> NDArray[np.int64]:
        survival = np.maximum(ndtr(-normal), 1e-300)
        drawn = np.ceil(np.log(survival) / math.log1p(-1 / self.mean))
        return np.maximum(drawn, 1).astype(np.int64)


def constant_steps(seconds: float, seats: int) -> StepCost:
    return StepCost(
        token_s=np.full(2 * seats + 2, seconds),
        sample_s=np.zeros(seats + 1),
        kv_s=0.0,
        prefill_s=0.0,
    )


def slots(seats: int) -> EngineSettings:
    return EngineSettings(
        max_num_seqs=seats, max_num_batched_tokens=2 * seats + 1, async_scheduling=False
    )


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival to M/M/k waits, for `offered` Erlangs."""
    terms = [offered**i / math.factorial(i) for i in range(servers + 1)]
    last = terms[-1] * servers / (servers - offered)
    return last / (sum(terms[:-1]) + last)


@pytest.mark.parametrize("load", [0.5, 0.7, 0.85])
def test_one_slot_and_single_tokens_are_m_d_1(
    load: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mean wait ρ·D/(2(1 − ρ)) for service D (Pollaczek–Khinchine), within 1 %."""
    seconds = 0.25
    told = simulate_stream(
        constant_steps(seconds, 1),
        slots(1),
        kv_blocks=4,
        workload=Workload(Poisson(load / seconds), Fixed(1), Fixed(1)),
        count=6_000_000,
        seed=1,
    )
    theory = load * seconds / (2 * (1 - load))
    with capsys.disabled():
        print(f"\nM/D/1 at {load:.0%}: simulated/theory = {told.queue.mean / theory:.4f}")
    assert told.queue.mean == pytest.approx(theory, rel=0.01)


@pytest.mark.parametrize(("seats", "load"), [(1, 0.6), (4, 0.7), (8, 0.7)])
def test_slots_with_geometric_lengths_are_m_m_k(
    seats: int, load: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mean wait C(k, a)/(k·µ − λ) (Erlang C), within 1 %.

    Lengths of 4,000 steps on average make a step, up to which arrivals wait, short beside the
    service; half a step is taken off all the same. 12 million requests tell the mean wait of these
    systems within 0.2–0.5 % (one standard deviation).
    """
    mean_steps, service_s = 4000, 1.0
    step_s = service_s / mean_steps
    rate = load * seats / service_s
    told = simulate_stream(
        constant_steps(step_s, seats),
        slots(seats),
        kv_blocks=10_000_000,
        workload=Workload(Poisson(rate), Fixed(1), Geometric(mean_steps)),
        count=12_000_000,
        seed=2,
    )
    theory = erlang_c(seats, load * seats) / (seats / service_s - rate)
    idle = (1 - load) if seats == 1 else 0.0
    simulated = told.queue.mean - (1 - idle) * step_s / 2
    with capsys.disabled():
        print(f"\nM/M/{seats} at {load:.0%}: simulated/theory = {simulated / theory:.4f}")
    assert simulated == pytest.approx(theory, rel=0.01)


def test_littles_law_and_conservation(capsys: pytest.CaptureFixture[str]) -> None:
    """L = λ·W for decoding, L from the engine's own integral, W from the requests' times.

    And every request and token is accounted for.
    """
    step = StepCost(
        token_s=np.maximum(5.5e-3, 2.4e-5 * np.arange(8193)) + 8e-4,
        sample_s=1e-5 * np.arange(1025),
        kv_s=3.5e-8,
        prefill_s=2e-9,
    )
    engine = EngineSettings(max_num_seqs=1024, max_num_batched_tokens=8192)
    requests = Workload(Poisson(14.0), Lognormal(1024, 2500), Lognormal(256, 700)).draw(
        count=500_000, seed=3
    )
    timeline = simulate_engine(step, engine, kv_blocks=30_000, requests=requests)
    span = float(timeline.finish_s.max() - timeline.arrival_s[0])
    mean_decoding = timeline.decode_time_s / span
    rate = len(requests) / span
    stay = float((timeline.finish_s - timeline.first_token_s).mean())
    with capsys.disabled():
        print(f"\nLittle's law, L/(λ·W) = {mean_decoding / (rate * stay):.9f}")
    assert mean_decoding == pytest.approx(rate * stay, rel=1e-3)
    assert not np.isnan(timeline.finish_s).any()
    assert timeline.gap_histogram.sum() == (requests.output_tokens - 1).sum()
    # Every decode step of a request sees one token more: contexts i + 1 … i + o − 1.
    inputs, outputs = (
        x.astype(np.float64) for x in (requests.input_tokens, requests.output_tokens)
    )
    contexts = float(((outputs - 1) * inputs + (outputs - 1) * outputs / 2).sum())
    mean_step = timeline.kv_time_s / contexts
    assert 0 < mean_step < timeline.busy_s / timeline.steps * 3
