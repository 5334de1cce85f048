"""Several replicas on one clock: balancing, clients that give up, replicas that come and go."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from serving_cases import Case, random_cases

from advisor.errors import InputError
from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.reference import ReferenceEngine
from advisor.serving.simulate import Scaling, Timeline, cold_start, simulate_fleet
from advisor.serving.workload import Fixed, Poisson, Requests, Uniform, draw_requests

SECOND = StepCost(token_s=np.ones(65), sample_s=np.zeros(17), kv_s=0.0, prefill_s=0.0)
"""Every step takes one second."""

ONE_AT_A_TIME = EngineSettings(
    max_num_seqs=1, max_num_batched_tokens=64, block_size=4, async_scheduling=False
)


def requests_at(
    arrival_s: list[float], *, outputs: list[int], cancel_s: list[float] | None = None
) -> Requests:
    count = len(arrival_s)
    return Requests(
        arrival_s=np.array(arrival_s),
        input_tokens=np.full(count, 4),
        output_tokens=np.array(outputs),
        cached_tokens=np.zeros(count, dtype=np.int64),
        cancel_s=None if cancel_s is None else np.array(cancel_s),
    )


def slow_least_loaded(case: Case, replicas: int) -> tuple[np.ndarray, np.ndarray]:
    """Finish times and replicas by the reference engine and a balancer that asks everyone."""
    requests = case.requests
    engines = [
        ReferenceEngine(case.step, case.engine, kv_blocks=case.kv_blocks, requests=requests)
        for _ in range(replicas)
    ]
    for engine in engines:
        engine.upcoming.clear()
    sent: list[list[int]] = [[] for _ in engines]
    turn, chosen_of = 0, np.zeros(len(requests), dtype=np.int64)
    for index, moment in enumerate(requests.arrival_s):
        loads = []
        for engine, own in zip(engines, sent, strict=True):
            engine.advance(float(moment))
            finish = engine.result.finish_s[own]
            loads.append(int(np.sum(np.isnan(finish) | (finish > moment))))
        order = [(turn + step) % replicas for step in range(replicas)]
        chosen = min(order, key=lambda replica: loads[replica])
        turn = chosen + 1
        engines[chosen].upcoming.append(index)
        sent[chosen].append(index)
        chosen_of[index] = chosen
    finish_s = np.full(len(requests), np.nan)
    for engine, own in zip(engines, sent, strict=True):
        finish_s[own] = engine.run().finish_s[own]
    return finish_s, chosen_of


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_least_loaded_fleet_matches_the_reference(replicas: int) -> None:
    compared = 0
    for case in random_cases(seed=11, count=300, dyadic=True):
        if case.requests.closed_loop is not None:
            continue
        case = dataclasses.replace(case, requests=dataclasses.replace(case.requests, cancel_s=None))
        fast = simulate_fleet(
            case.step,
            case.engine,
            kv_blocks=case.kv_blocks,
            requests=case.requests,
            replicas=replicas,
            balancing="least_loaded",
        )
        finish_s, chosen_of = slow_least_loaded(case, replicas)
        np.testing.assert_array_equal(fast.finish_s, finish_s)
        if replicas > 1:
            np.testing.assert_array_equal(fast.replica, chosen_of)
        compared += 1
    assert compared > 150


def fleet(requests: Requests, replicas: int, **settings: object) -> Timeline:
    return simulate_fleet(
        SECOND,
        ONE_AT_A_TIME,
        kv_blocks=100,
        requests=requests,
        replicas=replicas,
        **settings,  # type: ignore[arg-type]
    )


def test_round_robin_ignores_who_is_busy() -> None:
    """Long, short, short, short on two replicas: the third waits behind the long one."""
    requests = requests_at([0.0, 0.0, 0.0, 0.0], outputs=[10, 1, 1, 1])
    assert fleet(requests, 2).finish_s.tolist() == [10, 1, 11, 2]


def test_least_loaded_avoids_who_is_busy() -> None:
    requests = requests_at([0.0, 0.0, 1.0, 2.0], outputs=[10, 1, 1, 1])
    timeline = fleet(requests, 2, balancing="least_loaded")
    assert timeline.replica is not None
    assert timeline.replica.tolist() == [0, 1, 1, 1]
    assert timeline.finish_s.tolist() == [10, 1, 2, 3]


def test_round_robin_through_the_balancer_equals_dealing_out() -> None:
    """Two ways to the same fleet: one replica after the other, and all on one clock."""
    requests = draw_requests(
        Poisson(3.0), Uniform(1, 30), Uniform(1, 6), count=200, seed=3, block_size=4
    )
    never = dataclasses.replace(requests, cancel_s=np.full(200, np.inf))
    dealt, balanced = fleet(requests, 3), fleet(never, 3)
    np.testing.assert_array_equal(dealt.finish_s, balanced.finish_s)
    assert dealt.steps == balanced.steps


def test_a_client_that_gives_up_frees_the_seat() -> None:
    """The first would run until 10; its client leaves at 3.5, and the second runs from 4 on."""
    requests = requests_at([0.0, 0.0], outputs=[10, 2], cancel_s=[3.5, math.inf])
    timeline = fleet(requests, 1)
    assert timeline.first_token_s.tolist() == [1, 5]
    assert math.isnan(timeline.finish_s[0])
    assert timeline.finish_s[1] == 6


def test_a_client_that_gives_up_while_waiting_is_never_served() -> None:
    requests = requests_at([0.0, 0.0, 0.0], outputs=[5, 5, 1], cancel_s=[math.inf, 2.0, math.inf])
    timeline = fleet(requests, 1)
    assert math.isnan(timeline.scheduled_s[1])
    assert timeline.finish_s[2] == 6


def test_timeouts_bound_the_stay() -> None:
    requests = draw_requests(
        Poisson(0.5), Fixed(8), Uniform(1, 6), count=300, seed=1, block_size=4
    ).with_timeout(8.0)
    timeline = fleet(requests, 1)
    stay = timeline.finish_s - timeline.arrival_s
    assert np.isnan(stay).any()
    assert np.nanmax(stay) <= 8.0


def test_prefix_aware_balancing_keeps_a_beginning_where_it_is_cached() -> None:
    """Two prompts families on two replicas: each replica ends up with one of them."""
    count = 40
    requests = dataclasses.replace(
        requests_at([4.0 * i for i in range(count)], outputs=[1] * count),
        input_tokens=np.full(count, 40),
        cached_tokens=np.full(count, 32),
        prefix_group=np.arange(count) // 3 % 2,
    )
    cost = StepCost(token_s=np.arange(65) / 64.0, sample_s=np.zeros(17), kv_s=0.0, prefill_s=0.0)

    def served(balancing: str) -> Timeline:
        return simulate_fleet(
            cost,
            ONE_AT_A_TIME,
            kv_blocks=50,
            requests=requests,
            replicas=2,
            balancing=balancing,  # type: ignore[arg-type]
        )

    aware, turns = served("prefix_aware"), served("round_robin")
    assert aware.replica is not None
    first = {
        group: aware.replica[np.flatnonzero(requests.prefix_group == group)[0]] for group in (0, 1)
    }
    assert all(aware.replica[i] == first[int(requests.prefix_group[i])] for i in range(count))
    # A miss computes 40 tokens, a hit 8: each family misses once, or once on each replica.
    stay = aware.finish_s - aware.arrival_s
    assert sorted(set(stay.tolist())) == [8 / 64, 40 / 64]
    assert np.sum(stay == 40 / 64) == 2
    assert np.sum(turns.finish_s - turns.arrival_s == 40 / 64) == 4


def test_a_fleet_grows_after_the_cold_start_and_shrinks_after_the_delay() -> None:
    """Five requests a second for 100 s, each 1 s of work alone on a replica; then silence."""
    busy = np.arange(0, 100, 0.2)
    requests = requests_at([*busy.tolist(), 400.0], outputs=[1] * (len(busy) + 1))
    scaling = Scaling(
        min_replicas=1,
        max_replicas=8,
        target_in_flight=2,
        interval_s=10,
        cold_start_s=25,
        scale_down_delay_s=60,
    )
    timeline = fleet(requests, 1, balancing="least_loaded", scaling=scaling)
    sizes = timeline.fleet
    assert sizes is not None
    ready = dict(zip(sizes.time_s, sizes.ready, strict=True))
    starting = dict(zip(sizes.time_s, sizes.starting, strict=True))
    assert ready[10] == 1 and starting[10] == 0  # decided at 10 …
    assert starting[20] == 7  # … on 40 requests inside, of which 2 each are wanted
    assert ready[30] == 1 and ready[40] == 8  # ready at 10 + 25 s
    assert ready[390] == 1
    assert max(sizes.ready) == 8
    assert timeline.replica_seconds is not None
    assert 400 < timeline.replica_seconds < 8 * 400
    assert timeline.replica_seconds >= timeline.busy_s


def test_a_slow_start_costs_tail_latency() -> None:
    """The same surge with replicas that are there at once, and with ones that take a minute."""
    surge = np.concatenate([np.arange(0, 60, 1.0), np.arange(60, 180, 0.25)])
    requests = requests_at(surge.tolist(), outputs=[2] * len(surge))

    def p99(cold_start_s: float) -> float:
        scaling = Scaling(
            min_replicas=2, max_replicas=12, target_in_flight=2, cold_start_s=cold_start_s
        )
        timeline = fleet(requests, 2, balancing="least_loaded", scaling=scaling)
        return float(np.quantile(timeline.finish_s - timeline.arrival_s, 0.99))

    assert p99(0.0) < p99(60.0) / 2


def test_cold_start_is_weights_over_bandwidth_and_the_engine() -> None:
    assert cold_start(weight_bytes=16e9, load_bytes_per_s=2e9, engine_start_s=40) == 48


def test_impossible_fleets_are_refused() -> None:
    requests = requests_at([0.0], outputs=[1])
    with pytest.raises(InputError, match="replicas = 0"):
        fleet(requests, 0)
    scaling = Scaling(max_replicas=2, target_in_flight=1, cold_start_s=1)
    with pytest.raises(InputError, match="from 1 to 2"):
        fleet(requests, 3, scaling=scaling)
    with pytest.raises(ValueError, match="max_replicas must be at least"):
        Scaling(min_replicas=3, max_replicas=2, target_in_flight=1, cold_start_s=1)
