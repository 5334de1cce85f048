"""What HTTP changes is told apart by closed loops."""

from collections.abc import Mapping

import numpy as np
import pytest

from advisor.calibrate.bench.behind import (
    LEAST_REQUEST_S,
    Loop,
    Round,
    behind_http,
    loops_of,
    pace_of,
    pooled,
    simulate_loops,
    unrest_of,
)
from advisor.errors import InputError
from advisor.physics.own_steps import IN_PROCESS, Behind, in_unrest
from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.workload import Requests

SETTINGS = EngineSettings(max_num_seqs=32, max_num_batched_tokens=2048)
BLOCKS = 4000
COST = StepCost(
    token_s=4e-3 + 1e-4 * np.arange(2049.0), sample_s=1e-5 * np.arange(33.0), kv_s=0, prefill_s=0
)
"""4 ms a step and 0.1 ms a token."""


def requests_of(prompt: int, answer: int, count: int = 40) -> Requests:
    return Requests(
        arrival_s=np.arange(float(count)),
        input_tokens=np.full(count, prompt),
        output_tokens=np.full(count, answer),
        cached_tokens=np.zeros(count, dtype=np.int64),
    )


LOOPS = loops_of(requests_of(256, 64), in_flight=6.0, max_model_len=2048)


def figures_of(behind: Behind) -> Mapping[str, float]:
    return simulate_loops(LOOPS, behind.served(COST), SETTINGS, BLOCKS, behind.request_s)


def test_a_step_s_cost_behind_http_by_hand() -> None:
    served = Behind(factor=1.5, step_s=1e-3, sequence_s=1e-4, newcomer_s=5e-3).served(COST)

    assert served.token_s[1:] == pytest.approx(1.5 * COST.token_s[1:] + 1e-3)
    assert served.sample_s[10] == pytest.approx(1.5 * COST.sample_s[10] + 1e-3)
    assert served.mixed_s == pytest.approx(5e-3)
    assert IN_PROCESS.served(COST).token_s == pytest.approx(COST.token_s)


def test_loops_hold_the_target_s_own_requests_and_more_users_than_will_come() -> None:
    assert [(one.name, one.users, one.prompt_tokens) for one in LOOPS] == [
        ("lone_16", 1, 16),
        ("loop_1", 1, 256),
        ("loop_3", 3, 256),
        ("loop_9", 9, 256),
    ]
    assert set(LOOPS[-1].output_tokens) == {32, 24, 40}, "or all would march in step"
    many = loops_of(requests_of(256, 64), in_flight=40.0, max_model_len=2048)
    assert [one.users for one in many] == [1, 1, 3, 9, 27, 81]
    assert loops_of(requests_of(256, 64), in_flight=1e9, max_model_len=2048)[-1].users == 243
    small = loops_of(requests_of(5000, 900), in_flight=1.0, max_model_len=256)
    assert all(one.prompt_tokens + max(one.output_tokens) < 256 for one in small)


def test_one_user_s_loop_by_hand() -> None:
    """TTFT is prefill and request; TPOT a step of one token."""
    loop = Loop(1, 256, (3, 3, 3))
    found = simulate_loops([loop], COST, SETTINGS, BLOCKS, 7e-3)

    prefill = 4e-3 + 256e-4 + 1e-5
    assert found["loop_1_ttft"] == pytest.approx(prefill + 7e-3)
    assert found["loop_1_tpot"] == pytest.approx(4e-3 + 1e-4 + 1e-5)


@pytest.mark.parametrize(
    "truth",
    [
        Behind(factor=1.0, step_s=2e-3, sequence_s=3e-4, newcomer_s=6e-3, request_s=9e-3),
        Behind(factor=1.6, step_s=5e-4, sequence_s=1e-4, newcomer_s=2e-3, request_s=20e-3),
        Behind(factor=1.3, request_s=5e-3),
    ],
)
def test_other_loads_are_served_as_what_was_found_says(truth: Behind) -> None:
    """Its parts stand in for each other; what they come to in a load that was not fitted is right,
    and the law alone is far off."""
    found = behind_http(figures_of(truth), LOOPS, COST, SETTINGS, BLOCKS, usual=1.2)
    other = [Loop(5, 256, (40, 50, 60) * 10)]

    expected = simulate_loops(other, truth.served(COST), SETTINGS, BLOCKS, truth.request_s)
    got = simulate_loops(other, found.served(COST), SETTINGS, BLOCKS, found.request_s)
    alone = simulate_loops(other, COST, SETTINGS, BLOCKS, 0.0)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=0.03)
        assert alone[name] < 0.85 * value


def test_nothing_is_below_zero_and_few_figures_leave_the_usual_pace() -> None:
    quick = {name: 0.8 * value for name, value in figures_of(IN_PROCESS).items()}
    found = behind_http(quick, LOOPS, COST, SETTINGS, BLOCKS)
    assert found.factor == pytest.approx(0.8, rel=0.05)
    assert min(found.step_s, found.sequence_s, found.newcomer_s) >= 0
    assert found.request_s >= LEAST_REQUEST_S

    one = {"loop_1_tpot": 1.3 * (4e-3 + 1e-4 + 1e-5)}
    open_ = behind_http(one, LOOPS[1:2], COST, SETTINGS, BLOCKS, usual=1.3)
    assert open_.factor == pytest.approx(1.3, rel=0.02)

    with pytest.raises(InputError, match="answered none"):
        behind_http({}, LOOPS, COST, SETTINGS, BLOCKS)


def test_rounds_are_pooled_by_medians_and_a_pace_is_their_mean_ratio() -> None:
    rounds = [
        Round({"a": 1.0, "b": 10.0}, {}),
        Round({"a": 2.0, "b": 30.0}, {}),
        Round({"a": 9}, {}),
    ]
    assert pooled(rounds) == {"a": 2.0, "b": 20.0}
    assert pace_of({"a": 4.0, "b": 10.0, "c": 1.0}, pooled(rounds)) == pytest.approx(1.0)
    assert pace_of({}, {}) == 1.0


def test_unrest_is_what_one_request_differs_by_between_rounds() -> None:
    """Of two requests, one takes 1 and e² s and the other always 5 s: √((2 + 0)/2) = 1."""
    rounds = [Round({}, {"loop_1": [1.0, 5.0]}), Round({}, {"loop_1": [np.exp(2.0), 5.0]})]
    assert unrest_of(rounds) == pytest.approx(1.0)
    assert unrest_of(rounds[:1]) == 0.0
    assert unrest_of([*rounds[:1], Round({}, {"loop_1": [1.0]})]) == 0.0, "one request is missing"


def test_in_unrest_quantiles_spread_and_the_median_stays() -> None:
    calm = np.full(50, 2.0)
    spread = in_unrest(calm, 0.2)

    assert np.median(spread) == pytest.approx(2.0, rel=0.02)
    assert np.quantile(spread, 0.95) == pytest.approx(2 * np.exp(1.645 * 0.2), rel=0.03)
    assert in_unrest(calm, 0.0) is calm
