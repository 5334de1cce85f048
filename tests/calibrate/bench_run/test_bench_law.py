"""The law fitted to points of an engine whose times are known."""

import numpy as np
import pytest
from bench_points import GRID, LAW, point, shape
from stand_in_engine import step_s

from advisor.calibrate.bench.law import Steps, prior_belief, updated
from advisor.catalog import load_catalog
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
    assert fitted.scatter > 1.0, "and the doubt grows"


def test_only_coefficients_of_a_dense_16_bit_model_are_asked_about() -> None:
    from advisor.catalog.coefficients import COEFFICIENT_NAMES

    names = {COEFFICIENT_NAMES[index] for index in PRIOR.active}

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
