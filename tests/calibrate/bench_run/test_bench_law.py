"""The law fitted to points of an engine whose times are known."""

import numpy as np
import pytest
from bench_points import GRID, LAW, point, shape
from stand_in_engine import step_s

from advisor.calibrate.bench.law import Steps, updated
from advisor.calibrate.bench.points import Point, Shape
from advisor.calibrate.bench.prior import prior_belief
from advisor.catalog import load_catalog
from advisor.catalog.coefficients import COEFFICIENT_NAMES
from advisor.catalog.fits import load_fits
from advisor.physics.deployment import Deployment
from advisor.physics.step_time import decode_step_s, prefill_s

PRIOR = prior_belief(LAW, load_fits())
FITTED = updated(PRIOR, [point(one) for one in GRID])


def relative_errors(shapes: list) -> np.ndarray:
    wanted = [point(one).value_s for one in shapes]
    return np.abs(FITTED.seconds(Steps.of_points([point(one) for one in shapes])) / wanted - 1)


def test_the_law_s_columns_are_the_closed_forms_of_physics() -> None:
    c = PRIOR.coefficients
    steps = Steps(np.array([8.0, 0.0]), np.array([500.0, 0.0]), np.array([0.0, 700.0]))
    decode = decode_step_s(LAW.deployment, c, batch=8, context_tokens=500)
    prefill = prefill_s(LAW.deployment, c, prompt_tokens=700)

    assert PRIOR.seconds(steps) == pytest.approx([decode, prefill], rel=1e-9)


def test_a_prompt_beyond_the_budget_takes_several_steps() -> None:
    c = PRIOR.coefficients
    whole = PRIOR.seconds(Steps(np.zeros(1), np.zeros(1), np.array([3000.0])))[0]
    one_step = prefill_s(LAW.deployment, c, prompt_tokens=3000)
    floor = prefill_s(LAW.deployment, c, prompt_tokens=1)

    assert whole > one_step, "the weights are read twice"
    assert whole < one_step + 2 * floor


def test_fitted_points_are_met() -> None:
    assert FITTED.median_error < 0.02
    assert FITTED.scatter == 1.0


def test_batches_and_contexts_between_the_points_are_within_5_percent() -> None:
    between = [shape("decode", batch, context) for batch in (2, 8, 12) for context in (128, 512)]

    assert relative_errors(between).max() < 0.05


def test_four_times_the_largest_batch_is_within_15_percent() -> None:
    assert relative_errors([shape("decode", 64, 64), shape("decode", 32, 256)]).max() < 0.15


def test_products_that_change_their_path_with_the_batch_are_followed() -> None:
    """One and two rows take 40 % longer than the law between them and four: it is met at the
    points and between them, and far from them the law is left alone."""

    def slow(one: Shape) -> Point:
        return point(one, factor=1.4 if 0 < one.batch <= 2 else 1.0)

    batches = (1, 2, 4, 8)
    some = [shape("decode", batch, context) for batch in batches for context in (64, 512)]
    some += [shape("prefill", prompt=tokens) for tokens in (32, 256, 1024)]
    fitted = updated(PRIOR, [slow(one) for one in some])
    held_out = [slow(shape("decode", batch, 256)) for batch in (1, 2, 6)]
    errors = fitted.seconds(Steps.of_points(held_out)) / [one.value_s for one in held_out] - 1
    assert np.abs(errors).max() < 0.05
    far = [slow(shape("decode", 32, 64))]
    assert abs(fitted.seconds(Steps.of_points(far))[0] / far[0].value_s - 1) < 0.15


def test_the_simulator_s_tables_follow_too() -> None:
    logs = PRIOR.logs.copy()
    logs[len(COEFFICIENT_NAMES) + 2] = 0.3  # four tokens
    cost = PRIOR.cost_at(logs, max_tokens=2048, max_seqs=32)
    for batch in (1, 4, 6, 16):
        steps = Steps(np.array([float(batch)]), np.array([300.0]), np.zeros(1))
        table = cost.token_s[batch] + cost.sample_s[batch] + cost.kv_s * 300 * batch
        assert table == pytest.approx(np.exp(LAW.log_seconds(logs, steps))[0], rel=1e-9)


def test_points_narrow_what_is_believed() -> None:
    steps = Steps.of_shapes([shape("decode", 8, 128)])
    few = updated(PRIOR, [point(one) for one in GRID[:2]])
    before, some, after = (one.log_sd(steps)[0] for one in (PRIOR, few, FITTED))

    assert before > 2 * some > 4 * after
    low, high = FITTED.interval_s(steps)
    assert low[0] < step_s(8, 136, 0) < high[0]


def test_one_spoilt_point_does_not_bend_the_law() -> None:
    spoilt = [point(one, factor=3.0 if one == GRID[2] else 1.0) for one in GRID]
    fitted = updated(PRIOR, spoilt)
    honest = [point(one) for one in GRID if one != GRID[2]]
    errors = fitted.seconds(Steps.of_points(honest)) / [one.value_s for one in honest] - 1

    assert np.abs(errors).max() < 0.06
    assert np.expm1(fitted.residuals[2]) == pytest.approx(2.0, rel=0.15), "it is not explained away"


def test_only_coefficients_of_a_dense_16_bit_model_are_asked_about() -> None:
    count = len(COEFFICIENT_NAMES)
    names = {COEFFICIENT_NAMES[index] for index in PRIOR.active if index < count}

    assert {"linear_bandwidth", "kv_bandwidth", "prefill_attention", "layer_s"} <= names
    assert not any("expert" in name or "fp4" in name or "v0" in name for name in names)


def test_a_known_accelerator_starts_from_its_own_calibration() -> None:
    catalog = load_catalog()
    deployment = Deployment(
        model=catalog.model("meta-llama/Llama-3.1-8B"),
        accelerator=catalog.accelerator("H100-SXM"),
        weights_dtype="bf16",
    )
    known = prior_belief(type(LAW)(deployment, "v1_latest", 8192), load_fits())
    steps = Steps.of_shapes([shape("decode", 16, 512)])

    assert known.log_sd(steps)[0] < 0.5 * PRIOR.log_sd(steps)[0]
    assert known.median_error == 0.0
