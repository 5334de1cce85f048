"""The fit finds coefficients that made the data, and says what it does not know."""

from collections.abc import Sequence

import numpy as np
import pytest
from calibrate_rows import CATALOG, STATIC, measurement

from advisor.calibrate.ablation import ablations
from advisor.calibrate.conditions import condition_of
from advisor.calibrate.expectation import columns_of, expected
from advisor.calibrate.fit import fit_coefficients, sample_of
from advisor.calibrate.fitted import fit_file, write_fit
from advisor.calibrate.measurements import Measurement
from advisor.calibrate.problem import WIDE_PRIORS, build_problem, log_coefficients, start_of
from advisor.calibrate.solver import solve
from advisor.catalog.coefficients import COEFFICIENT_NAMES, Coefficients
from advisor.catalog.fits import calibration_for

TRUTH = Coefficients(
    linear_bandwidth=0.7,
    linear_compute_16bit=0.5,
    kv_bandwidth=0.6,
    layer_s=70e-6,
    host_sequence_v1_s=20e-6,
)


def synthetic(
    truth: Coefficients, *, noise: float = 0.0, accelerators: Sequence[str] = ("H100-SXM",)
) -> list[Measurement]:
    """Static batches of three models as the law would have them."""
    rng = np.random.default_rng(7)
    setups = [
        {
            "row_id": f"{model}-{accelerator}-{batch}-{tokens}",
            "model": model,
            "accelerator": accelerator,
            "batch_size": str(batch),
            "input_tokens": str(tokens),
            "output_tokens": str(tokens),
            "max_num_batched_tokens": "8192",
        }
        for model in ("Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-14B")
        for accelerator in accelerators
        for batch in (1, 4, 16, 64)
        for tokens in (128, 512, 2048)
    ]
    blank = [measurement(STATIC, **setup) for setup in setups]
    conditions = [condition_of(row.setup, CATALOG) for row in blank]
    means = expected(columns_of(conditions), truth)
    rows = []
    for index, row in enumerate(blank):
        errors = np.exp(noise * rng.standard_normal(2))
        figures = {
            "ttft_mean_ms": 1000 * means.ttft_s[index] * errors[0],
            "tpot_mean_ms": 1000 * means.tpot_s[index] * errors[1],
        }
        rows.append(row.model_copy(update={"measured": figures}))
    return rows


def test_coefficients_that_made_the_data_are_found() -> None:
    """Within 8 % of the truth for the accelerator, from priors that are off by up to 60 %: shared
    value, family and accelerator together, for one accelerator cannot tell them apart."""
    fit = fit_coefficients(synthetic(TRUTH), CATALOG, rounds=1)
    logs = log_coefficients(fit.problem, fit.solution.theta)[0]
    found = dict(zip(COEFFICIENT_NAMES, np.exp(logs), strict=True))
    for name in ("linear_bandwidth", "linear_compute_16bit", "kv_bandwidth", "layer_s"):
        assert found[name] == pytest.approx(getattr(TRUTH, name), rel=0.08), name


def test_one_wild_row_in_twenty_changes_little() -> None:
    rows = synthetic(TRUTH, noise=0.03)
    wild = [
        row.model_copy(update={"measured": {k: 5 * v for k, v in row.measured.items()}})
        if index % 20 == 3
        else row
        for index, row in enumerate(rows)
    ]
    clean = fit_coefficients(rows, CATALOG, rounds=1).solution.theta
    spoiled = fit_coefficients(wild, CATALOG, rounds=1).solution.theta
    column = COEFFICIENT_NAMES.index("linear_bandwidth")
    assert spoiled[column] == pytest.approx(clean[column], abs=0.06)


def test_without_data_the_priors_stay() -> None:
    rows = synthetic(TRUTH)
    problem = build_problem(rows, [condition_of(row.setup, CATALOG) for row in rows])
    solution = solve(problem, use=np.zeros(len(rows), dtype=bool))
    assert solution.theta == pytest.approx(start_of(problem))


def test_what_the_data_do_not_touch_keeps_its_prior_and_its_doubt() -> None:
    """Dense models on one accelerator say nothing about experts or collectives."""
    fit = fit_coefficients(synthetic(TRUTH, noise=0.02), CATALOG, rounds=1)
    sd = np.sqrt(np.diag(fit.solution.covariance))
    names = COEFFICIENT_NAMES
    assert fit.solution.theta[names.index("reduce_s")] == pytest.approx(
        np.log(Coefficients().reduce_s), abs=1e-6
    )
    assert sd[names.index("reduce_s")] == pytest.approx(0.3, rel=0.01)
    assert sd[names.index("linear_bandwidth")] < 0.1 < WIDE_PRIORS["routing_evenness"]
    assert sd[names.index("routing_evenness")] == pytest.approx(WIDE_PRIORS["routing_evenness"])


def test_an_accelerator_deviates_only_as_far_as_its_rows_insist() -> None:
    """Rows of a second accelerator, made with slower memory, pull its own deviation down and the
    fit says so per accelerator."""
    slow = TRUTH.model_copy(update={"kv_bandwidth": 0.5, "linear_bandwidth": 0.6})
    rows = [*synthetic(TRUTH), *synthetic(slow, accelerators=("H200-SXM",))]
    fit = fit_coefficients(rows, CATALOG, rounds=1)
    logs = log_coefficients(fit.problem, fit.solution.theta)
    column = COEFFICIENT_NAMES.index("linear_bandwidth")
    ids = [one.deployment.accelerator.id for one in fit.sample.conditions]
    assert logs[ids.index("H200-SXM"), column] < logs[ids.index("H100-SXM"), column] - 0.05


def test_rows_that_cannot_be_used_are_counted_with_their_reason() -> None:
    rows = [
        measurement(STATIC, tpot_mean_ms="5"),
        measurement(STATIC, tpot_mean_ms="5", model="nobody/nothing"),
    ]
    sample = sample_of(rows, CATALOG)
    assert len(sample.rows) == 1
    assert [count for reason, count in sample.left_out.items() if "catalogue" in reason] == [1]


def test_a_written_fit_is_read_back_and_labels_what_it_knows(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "mine.json"
    fit = fit_coefficients(synthetic(TRUTH, noise=0.02), CATALOG, rounds=1)
    write_fit(fit_file(fit, as_of="2026-01-02"), path)
    labels = {
        name: calibration_for(CATALOG.accelerator(name), fits=path)
        for name in ("H100-SXM", "H200-SXM", "L4", "MI300X")
    }
    assert [one.label for one in labels.values()] == [
        "calibrated",
        "transferred",
        "transferred",
        "assumed",
    ]
    assert "36 rows of H100-SXM from 1 source" in labels["H100-SXM"].basis
    assert labels["H100-SXM"].as_of == "2026-01-02"
    assert labels["H100-SXM"].log_sd <= labels["L4"].log_sd < labels["MI300X"].log_sd


def test_a_term_is_worth_what_the_fit_without_it_misses() -> None:
    """Batches made by the law: without cache reads it cannot follow them, without experts, which
    dense models do not have, it is the same."""
    fit = fit_coefficients(synthetic(TRUTH), CATALOG, rounds=1)
    terms = ("full law", "cache reads", "expert reads")
    found = {one.term: one.in_sample["tpot"] for one in ablations(fit, terms=terms)}
    assert tuple(found) == terms
    assert found["cache reads"] > 2 * found["full law"]
    assert found["expert reads"] == pytest.approx(found["full law"], abs=1e-3)
