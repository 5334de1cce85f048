"""What a run leaves of its own deployment in the fits: steps beyond the law, and served ones."""

import numpy as np
import pytest
from bench_points import FACTS, GRID, LAW, point

from advisor.calibrate.bench.law import updated
from advisor.calibrate.bench.outputs import own_steps
from advisor.calibrate.bench.points import Point, Shape
from advisor.calibrate.bench.prior import prior_belief
from advisor.catalog.fits import OwnSteps, load_fits
from advisor.documents import validate
from advisor.errors import InputError
from advisor.physics.own_steps import extra_s, in_unrest, own_cost
from advisor.physics.step_time import step_cost

POINTS = [point(one, factor=1.3 if one.batch == 4 else 1.0) for one in GRID]
BELIEF = updated(prior_belief(LAW, load_fits()), POINTS)
LAW_ALONE = step_cost(
    LAW.deployment, BELIEF.coefficients, max_tokens=2048, max_seqs=32, generation=LAW.generation
)


def overhead(repeat: int, factor: float, e2e_s: float) -> Point:
    return Point(
        shape=Shape(kind="overhead", prompt_tokens=16, repeat=repeat),
        facts=FACTS,
        at="2026-11-22T00:00:00+00:00",
        value_s=0.004,
        results={
            "served_factor": factor,
            "served_step_ms": 0.5,
            "served_sequence_ms": 0.1,
            "served_newcomer_ms": 2.0,
            "loop_1_ttft_ms": 20.0,
        },
        series={"loop_1_e2e_s": [e2e_s, e2e_s]},
    )


def test_the_fits_give_back_the_steps_that_were_fitted() -> None:
    own = own_steps(BELIEF, POINTS)
    whole = BELIEF.step_cost(max_tokens=2048, max_seqs=32)
    again = own_cost(LAW_ALONE, own, in_process=True)

    assert own.points == len(POINTS)
    assert own.served is None
    for tokens in (1, 3, 4, 17, 64, 1024, 2048):
        assert again.token_s[tokens] == pytest.approx(whole.token_s[tokens], rel=1e-3)
    assert np.abs(own.extra_s).max() > 1e-4, "the law alone does not follow the fourth token"


def test_what_the_last_round_of_closed_loops_taught_is_kept() -> None:
    rounds = [overhead(0, 1.2, 0.1), overhead(1, 1.5, 0.1 * np.exp(0.2))]
    own = own_steps(BELIEF, [*POINTS, *rounds])
    assert own.served is not None
    assert own.served.factor == 1.5
    assert own.served.request_s == 0.004
    assert own.served.unrest_log_sd == pytest.approx(0.2 / np.sqrt(2))
    assert own.log_sd > own_steps(BELIEF, POINTS).log_sd

    alone, served = (own_cost(LAW_ALONE, own, in_process=one) for one in (True, False))
    assert served.kv_s == pytest.approx(1.5 * alone.kv_s)
    assert served.token_s[8] == pytest.approx(1.5 * alone.token_s[8] + 0.5e-3)
    assert served.sample_s[8] == pytest.approx(1.5 * alone.sample_s[8] + 8 * 0.1e-3)
    assert served.mixed_s == pytest.approx(1.5 * alone.mixed_s + 2e-3)


def test_steps_larger_than_those_written_down_take_the_last_surplus() -> None:
    own = own_steps(BELIEF, POINTS)
    assert extra_s(own, np.array([5000.0])) == pytest.approx([own.extra_s[-1]])


def test_unrest_widens_percentiles_and_leaves_the_middle() -> None:
    spread = in_unrest(np.full(10, 2.0), 0.2)
    assert np.median(spread) == pytest.approx(2.0, rel=0.02)
    assert np.quantile(spread, 0.95) == pytest.approx(2 * np.exp(0.2 * 1.645), rel=0.05)
    assert in_unrest(np.array([1.0]), 0.0) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("tokens", "extra", "said"),
    [([1, 2], [0.1], "2 tokens, but 1 extra_s"), ([2, 1], [0.1, 0.2], "each larger")],
)
def test_a_file_whose_line_is_none_is_refused(
    tokens: list[int], extra: list[float], said: str
) -> None:
    stated = {"points": 1, "log_sd": 0.1, "tokens": tokens, "extra_s": extra}
    with pytest.raises(InputError, match=said):
        validate(OwnSteps, stated, what="fits")
