"""Closed forms against step-by-step sums and against the simulator."""

import numpy as np
import pytest
from calibrate_rows import LOOP, STATIC, condition
from hypothesis import given
from hypothesis import strategies as st

from advisor.calibrate.conditions import Condition
from advisor.calibrate.expectation import capped_pairs, columns_of, expected, mean_capped
from advisor.calibrate.served import behind_frontend, cost_of, draw, serve
from advisor.catalog.coefficients import Coefficients
from advisor.physics.attention import attended_pairs
from advisor.physics.step_time import decode_step_s, prefill_s

C = Coefficients()


def one_by_one(item: Condition) -> tuple[float, float]:
    """A batch of one: the prompt, then each step at its own context."""
    prompt = prefill_s(
        item.deployment, C, prompt_tokens=int(item.input_tokens), generation=item.generation
    )
    steps = [
        decode_step_s(
            item.deployment,
            C,
            batch=1,
            context_tokens=item.input_tokens + j,
            generation=item.generation,
        )
        for j in range(1, int(item.output_tokens))
    ]
    return prompt, sum(steps)


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "openai/gpt-oss-20b"])
def test_a_batch_of_one_is_the_sum_of_its_steps(model: str) -> None:
    item = condition(STATIC, batch_size="1", model=model, weights_dtype="")
    prompt, steps = one_by_one(item)
    found = expected(columns_of([item]), C)
    assert found.ttft_s[0] == pytest.approx(prompt, rel=1e-6)
    assert found.e2e_s[0] == pytest.approx(prompt + steps, rel=1e-4)
    assert found.tpot_s[0] == pytest.approx(steps / 127, rel=1e-4)


def test_a_batch_agrees_with_the_simulator() -> None:
    item = condition(STATIC)
    served = serve(item, cost_of(item, C))
    found = expected(columns_of([item]), C)
    assert found.e2e_s[0] == pytest.approx(served.e2e_s.max(), rel=0.02)
    assert found.tpot_s[0] == pytest.approx(served.tpot_s.mean(), rel=0.02)


def test_a_closed_loop_is_close_to_the_simulator() -> None:
    for users in ("4", "64"):
        item = condition(LOOP, concurrency=users)
        served = serve(item, cost_of(item, C))
        found = expected(columns_of([item]), C)
        assert found.tpot_s[0] == pytest.approx(served.tpot_s.mean(), rel=0.08)


def test_columns_equal_one_at_a_time() -> None:
    items = [condition(STATIC), condition(LOOP), condition(LOOP, concurrency="200")]
    together = expected(columns_of(items), C)
    for index, item in enumerate(items):
        alone = expected(columns_of([item]), C)
        assert together.tpot_s[index] == pytest.approx(alone.tpot_s[0], rel=1e-12)
        assert together.ttft_s[index] == pytest.approx(alone.ttft_s[0], rel=1e-12)


@given(low=st.floats(0, 1e4), span=st.floats(0.01, 1e4), cap=st.floats(1, 1e4))
def test_mean_capped_is_the_mean(low: float, span: float, cap: float) -> None:
    found = mean_capped(np.array([low]), np.array([low + span]), np.array([cap]))[0]
    middles = low + span * (np.arange(4000) + 0.5) / 4000
    assert found == pytest.approx(np.minimum(middles, cap).mean(), rel=1e-3, abs=1e-3)


@given(tokens=st.integers(1, 3000), past=st.integers(0, 3000))
def test_pairs_without_a_cap_are_exact(tokens: int, past: int) -> None:
    found = capped_pairs(np.array([float(tokens)]), np.array([float(past)]), np.array([np.inf]))
    assert found[0] == pytest.approx(attended_pairs(tokens, past))


def test_a_loop_of_fixed_lengths_does_not_march_in_step() -> None:
    """Outputs of 128 and of 1,024 tokens meet the same prompts by chance, so that their TTFT is
    about the same; and the E2E is that of the length asked for."""
    first_token_s = {}
    for output in ("128", "1024"):
        one = condition(LOOP, length_spread="fixed", output_tokens=output, concurrency="8")
        served = serve(one, cost_of(one, C))
        first_token_s[output] = served.ttft_s.mean()
        lengths = 1 + (served.e2e_s - served.ttft_s) / served.tpot_s
        assert lengths == pytest.approx(float(output))
    assert first_token_s["128"] < 1.3 * first_token_s["1024"]


def test_a_burst_reaches_the_engine_one_by_one() -> None:
    """Four users at second 0 behind a frontend of 10 ms: 0, 10, 20 and 30 ms of waiting."""
    item = condition(LOOP, concurrency="4", requests="8")
    requests, waits = behind_frontend(draw(item, seed=0), 0.01)
    assert waits == pytest.approx([0, 0.01, 0.02, 0.03, 0, 0, 0, 0])
    assert requests.arrival_s[:4] == pytest.approx([0, 0.01, 0.02, 0.03])
