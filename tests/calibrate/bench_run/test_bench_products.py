"""Products that are timed alone tell of batches that no step was timed at."""

import numpy as np
import pytest
from bench_points import LAW, point, shape
from stand_in_engine import products_s

from advisor.calibrate.bench.law import Steps, updated
from advisor.calibrate.bench.points import Point, Shape
from advisor.calibrate.bench.prior import prior_belief, with_products
from advisor.calibrate.bench.products import BASE_ROWS, Bends, timed_products
from advisor.catalog.fits import load_fits

PLAIN = prior_belief(LAW, load_fits())

ROWS = (*range(1, 17), 24, 32, 64)


def tile(rows: float) -> float:
    """One and two rows take 1.6 times as long, each block of six beyond the first a fifth more."""
    return 1.6 if rows <= 2 else 1.0 + 0.2 * (rows > 6) + 0.2 * (rows > 12)


def alone_s(rows: int) -> float:
    return 4 * products_s(rows) * tile(rows)


def product(rows: int, *, slow: float = 1.0, repeat: int = 0) -> Point:
    """Timed while everything took `slow` times as long, those beside it too."""
    return point(shape("decode", 1, 64)).model_copy(
        update={
            "shape": Shape(kind="products", batch=rows, repeat=repeat),
            "value_s": slow * alone_s(rows),
            "results": {"over_base": alone_s(rows) / alone_s(BASE_ROWS)},
        }
    )


def tiled(one: Shape) -> Point:
    """The stand-in's step with four times its products, in tiles."""
    whole, rows = point(one), one.batch + one.prompt_tokens
    seconds = whole.value_s + products_s(rows) * (4 * tile(rows) - 1)
    return whole.model_copy(update={"value_s": seconds})


def step(batch: int, context: int) -> Point:
    return tiled(shape("decode", batch, context))


POINTS = [
    *(step(batch, context) for batch in (1, 2, 4, 8) for context in (64, 512)),
    *(tiled(shape("prefill", prompt=tokens)) for tokens in (32, 256, 1024)),
]
KNOWN = with_products(PLAIN, [product(rows) for rows in ROWS])


def errors(prior: object, batches: tuple[int, ...]) -> np.ndarray:
    fitted = updated(prior, POINTS)  # type: ignore[arg-type]
    held_out = [step(batch, 256) for batch in batches]
    measured = np.array([one.value_s for one in held_out])
    return np.abs(fitted.seconds(Steps.of_points(held_out)) / measured - 1)


def test_batches_between_those_timed_follow_their_own_products() -> None:
    between = (3, 5, 6, 7)
    assert errors(KNOWN, between).max() < 0.04
    assert errors(PLAIN, between).max() > 0.1, "steps at 2 and 4 tell nothing of 3"


def test_four_times_the_largest_batch() -> None:
    assert errors(KNOWN, (32,))[0] < 0.15


def test_the_law_with_its_bends_is_what_was_timed() -> None:
    rows = np.array([1.0, 2, 3, 6, 7, 13])
    law = KNOWN.law.products_s(KNOWN.logs, rows, rows) * KNOWN.law.bends.at(rows)
    assert law == pytest.approx([alone_s(int(one)) for one in rows], rel=1e-6)


def test_a_neighbour_beside_some_products_does_not_bend_the_others() -> None:
    """Seconds are ratios to products timed just before, and the middle of the visits counts."""
    timed = [
        product(rows, slow=1.5 if rows > 6 and repeat == 0 else 1.0, repeat=repeat)
        for rows in ROWS
        for repeat in range(3)
    ]
    odd = timed[0].model_copy(update={"results": {"over_base": 9.0}})
    rows, seconds, log_sd = timed_products([odd, *timed[1:]])
    assert seconds == pytest.approx([alone_s(int(one)) for one in rows])
    assert log_sd[0] > 10 * log_sd[1]
    assert not len(timed_products([one for one in timed if one.shape.batch != BASE_ROWS])[0])


def test_the_simulator_s_tables_are_the_same_law() -> None:
    cost = KNOWN.step_cost(max_tokens=2048, max_seqs=32)
    for batch in (1, 3, 7, 20):
        steps = Steps(np.array([float(batch)]), np.array([300.0]), np.zeros(1))
        table = cost.token_s[batch] + cost.sample_s[batch] + cost.kv_s * 300 * batch
        assert table == pytest.approx(KNOWN.seconds(steps)[0], rel=1e-9)


def test_nothing_timed_changes_nothing() -> None:
    assert with_products(PLAIN, [point(shape("decode", 1, 64))]) is PLAIN


def test_beyond_the_rows_that_were_timed_the_last_ratio_holds() -> None:
    bends = Bends((1.0, 2.0, 4.0), (1.0, 1.5, 1.1))
    assert bends.at(np.array([1.5, 4.0, 900.0])) == pytest.approx([1.25, 1.1, 1.1])
