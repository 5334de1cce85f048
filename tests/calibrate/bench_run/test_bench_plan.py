"""Which point next: brute force beside the closed form, and what a run may choose."""

import numpy as np
import pytest
from bench_points import FACTS, GRID, LAW, point, shape
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.calibrate.bench.law import SHAPE_LOG_SD, Steps, updated
from advisor.calibrate.bench.plan import (
    EXPECTED_NOISE,
    MOST_TIMES,
    batches,
    candidates,
    cost_s,
    first_shapes,
    next_point,
)
from advisor.calibrate.bench.prior import prior_belief
from advisor.catalog.fits import load_fits

PRIOR = prior_belief(LAW, load_fits())
BELIEF = updated(PRIOR, [point(one) for one in GRID[:4]])
SHAPES = candidates(FACTS)


def gradient_of(one: str, batch: int = 0, context: int = 0, prompt: int = 0) -> np.ndarray:
    """A target that is itself one step."""
    steps = Steps.of_shapes([shape(one, batch, context, prompt)])
    return BELIEF.law.slopes(BELIEF.logs, steps, BELIEF.active)[0]


def test_the_gain_is_what_a_full_bayesian_update_gives() -> None:
    gradient = gradient_of("decode", 16, 1024)
    choice = next_point(BELIEF, gradient, SHAPES, done=[], remaining_s=100)
    assert choice is not None
    noise = BELIEF.scatter * np.hypot(EXPECTED_NOISE, SHAPE_LOG_SD)
    h = BELIEF.law.slopes(BELIEF.logs, Steps.of_shapes([choice.shape]), BELIEF.active)
    after = np.linalg.inv(np.linalg.inv(BELIEF.covariance) + h.T @ h / noise**2)
    before = gradient @ BELIEF.covariance @ gradient

    assert np.isclose(choice.gain, 1 - gradient @ after @ gradient / before, rtol=1e-6)


def test_the_choice_is_the_best_gain_per_second_of_all() -> None:
    gradient = gradient_of("prefill", prompt=2048)
    best = next_point(BELIEF, gradient, SHAPES, done=[], remaining_s=100)
    each = [next_point(BELIEF, gradient, [one], done=[], remaining_s=100) for one in SHAPES]

    assert best is not None
    rates = [one.gain / one.expected_s for one in each if one is not None]
    assert best.gain / best.expected_s == pytest.approx(max(rates))
    assert best.shape.kind == "prefill"


def test_what_does_not_fit_the_time_is_not_begun() -> None:
    gradient = gradient_of("decode", 16, 1024)
    dearest = max(cost_s(BELIEF, one) for one in SHAPES)
    choice = next_point(BELIEF, gradient, SHAPES, done=[], remaining_s=dearest / 20)

    assert choice is not None
    assert choice.expected_s <= dearest / 20
    assert next_point(BELIEF, gradient, SHAPES, done=[], remaining_s=0.0) is None


def test_a_shape_is_measured_so_often_and_no_more() -> None:
    gradient = gradient_of("decode", 1, 64)
    one = shape("decode", 1, 64)
    done = []
    for repeat in range(MOST_TIMES):
        choice = next_point(BELIEF, gradient, [one], done=done, remaining_s=100)
        assert choice is not None
        assert choice.shape.repeat == repeat
        done.append(choice.shape)

    assert next_point(BELIEF, gradient, [one], done=done, remaining_s=100) is None


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(80, 40_000),
    seqs=st.integers(1, 1024),
    budget=st.integers(1024, 16_384),
    tokens=st.integers(0, 2_000_000),
    most=st.one_of(st.none(), st.integers(1, 300)),
)
def test_every_candidate_fits_the_engine(
    length: int, seqs: int, budget: int, tokens: int, most: int | None
) -> None:
    facts = FACTS.model_copy(
        update={
            "max_model_len": length,
            "max_num_seqs": seqs,
            "max_num_batched_tokens": budget,
            "kv_tokens": tokens,
        }
    )
    for one in (*candidates(facts, max_batch=most), *first_shapes(facts)):
        assert one.context_tokens + one.prompt_tokens <= 2 * length
        assert max(one.context_tokens, one.prompt_tokens) < length
        assert one.batch <= min(seqs, budget)
    for one in candidates(facts, max_batch=most):
        assert one.batch <= (most or 256)
        assert tokens == 0 or one.batch * one.context_tokens <= tokens
    assert batches(facts, max_batch=most)[0] == 1
