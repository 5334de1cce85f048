"""Forecasts: intervals that widen where they must, and levels that follow one's own rows."""

import math

import numpy as np
import pytest
from calibrate_rows import CATALOG, LOOP, OPEN, STATIC, condition, measurement
from hypothesis import given
from hypothesis import strategies as st

from advisor.calibrate.forecast import Forecaster, deployment_identity
from advisor.calibrate.levels import learn_levels
from advisor.calibrate.uncertainty import Level, covariance_for
from advisor.catalog.fits import calibration_of, load_fits

FIT = load_fits()


def forecast(row: dict[str, str], **changes: str) -> dict[str, tuple[float, float, float]]:
    (found,) = Forecaster(FIT).forecast([condition(row, **changes)])
    assert not found.error
    return {name: (one.low, one.value, one.high) for name, one in found.latency_s.items()}


@pytest.mark.parametrize("row", [STATIC, LOOP, OPEN], ids=lambda row: row["load"])
def test_intervals_hold_their_value_and_percentiles_are_ordered(row: dict[str, str]) -> None:
    found = forecast(row)
    for low, value, high in found.values():
        assert 0 < low < value < high
    for quantity in ("ttft", "tpot", "itl", "e2e"):
        ordered = [found[f"{quantity}_{level}"][1] for level in ("p50", "p95", "p99")]
        assert ordered == sorted(ordered)


def test_a_known_overhead_is_added_and_narrows_the_first_token() -> None:
    low, value, high = forecast(LOOP)["ttft_mean"]
    known_low, known, known_high = forecast(LOOP, request_overhead_ms="0")["ttft_mean"]
    assert known < value
    assert known_high / known_low < high / low


def test_near_saturation_the_interval_widens_instead() -> None:
    calm = forecast(OPEN, request_rate_per_s="4")["ttft_p95"]
    busy = forecast(OPEN, request_rate_per_s="60", requests="3000")["ttft_p95"]
    assert busy[2] / busy[0] > 3 * calm[2] / calm[0]


def test_other_vendors_get_wider_intervals() -> None:
    known = forecast(STATIC)["tpot_mean"]
    unknown = forecast(STATIC, accelerator="MI300X")["tpot_mean"]
    assert unknown[2] / unknown[0] > known[2] / known[0]


def test_steady_decoding_has_one_value_for_every_statistic() -> None:
    found = forecast(STATIC, load="steady_batch")
    assert found["tpot_mean"][1] == found["tpot_p99"][1] == found["itl_p50"][1]


def test_a_model_that_does_not_fit_says_so() -> None:
    item = condition(STATIC, model="meta-llama/Llama-3.1-70B")
    (found,) = Forecaster(FIT).forecast([item])
    assert "GB short" in found.error
    assert not found.latency_s
    assert math.isnan(found.output_tokens_per_s)


def test_throughput_is_of_the_whole_deployment() -> None:
    one, two = Forecaster(FIT).forecast(
        [condition(LOOP), condition(LOOP, replicas="2", concurrency="32")]
    )
    assert two.output_tokens_per_s == pytest.approx(2 * one.output_tokens_per_s, rel=0.05)


def test_a_pipeline_trades_latency_for_room_where_tensor_parallelism_gains_both() -> None:
    """Llama-70B in FP8 on four H100: stages pass a token on one after the other."""
    row = {**LOOP, "model": "meta-llama/Llama-3.1-70B", "weights_dtype": "fp8"}
    staged, split = Forecaster(FIT).forecast(
        [
            condition(row, pipeline_parallel="4", tensor_parallel="1", concurrency="8"),
            condition(row, tensor_parallel="4", concurrency="8"),
        ]
    )
    tpot = staged.latency_s["tpot_mean"].value
    read_s = 68.5e9 / 3350e9  # each pass reads all weights once, whoever holds them
    assert read_s < tpot < 2 * read_s
    assert 2 < tpot / split.latency_s["tpot_mean"].value < 4
    (lone,) = Forecaster(FIT).forecast(
        [condition(row, pipeline_parallel="4", tensor_parallel="1", concurrency="1")]
    )
    assert staged.output_tokens_per_s > 6 * lone.output_tokens_per_s


def test_ten_own_rows_move_the_forecast_to_their_level() -> None:
    """A user whose steps take 1.3 times as long sees 1.3 times the forecast, and a narrower one."""
    plain = forecast(STATIC)["tpot_mean"]
    own = [
        measurement(
            STATIC,
            row_id=str(batch),
            batch_size=str(batch),
            tpot_mean_ms=str(1300 * forecast(STATIC, batch_size=str(batch))["tpot_mean"][1]),
        )
        for batch in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
    ]
    forecaster = Forecaster(FIT)
    learn_levels(forecaster, own, CATALOG)
    mine, other = forecaster.forecast(
        [condition(STATIC), condition(STATIC, accelerator="H200-SXM")]
    )
    level = mine.latency_s["tpot_mean"]
    assert level.value == pytest.approx(1.3 * plain[1], rel=0.03)
    assert level.high / level.low < plain[2] / plain[0]
    assert mine.label == "measured"
    assert other.label == "calibrated"


@pytest.mark.parametrize("rate", ["5", "32"])
def test_a_row_of_an_open_load_tells_the_step_and_not_its_echo(rate: str) -> None:
    """Steps of 1.15 times as long let requests pile up, so that TPOT grows by more than 1.15; the
    level learnt from it is that of the steps, as a calm load would have told."""
    true = Forecaster(FIT)
    identity = deployment_identity(condition(OPEN))
    true.decode_levels[identity] = Level(math.log(1.15), 0.0, rows=1)
    (seen,) = true.forecast([condition(OPEN, request_rate_per_s=rate)])
    tpot_ms = 1000 * seen.latency_s["tpot_mean"].value
    own = measurement(OPEN, request_rate_per_s=rate, tpot_mean_ms=str(tpot_ms))
    forecaster = Forecaster(FIT)
    learn_levels(forecaster, [own], CATALOG)
    found = forecaster.decode_levels[identity]
    calibration = calibration_of(FIT, CATALOG.accelerator("H100-SXM"))
    prior = calibration.decode_log_sd(CATALOG.model(OPEN["model"]))
    weight = 1 / (1 + (calibration.spread.shape_typical / prior) ** 2)
    assert found.mean == pytest.approx(weight * math.log(1.15), abs=0.02)


def test_a_first_tokens_level_is_of_its_time_in_the_engine() -> None:
    """Behind 200 ms of HTTP a prompt takes 1.3 times as long: without the HTTP it still does."""
    behind = condition(LOOP, request_overhead_ms="200")
    bare = condition(LOOP, request_overhead_ms="0")
    plain = [one.latency_s["ttft_mean"].value for one in Forecaster(FIT).forecast([behind, bare])]
    measured_s = 0.2 + 1.3 * (plain[0] - 0.2)
    row = measurement(LOOP, request_overhead_ms="200", ttft_mean_ms=str(1000 * measured_s))
    forecaster = Forecaster(FIT)
    learn_levels(forecaster, [row], CATALOG)
    moved = [one.latency_s["ttft_mean"].value for one in forecaster.forecast([behind, bare])]
    factor = (moved[0] - 0.2) / (plain[0] - 0.2)
    assert 1.1 < factor < 1.3  # part of the surprise is the load's, not the deployment's
    assert moved[1] / plain[1] == pytest.approx(factor)


def test_the_wait_of_a_queue_says_nothing_of_the_prompts() -> None:
    """A saturated row teaches the steps, not the first token; a calm one teaches both."""
    calm = measurement(LOOP, tpot_mean_ms="12", ttft_mean_ms="100")
    busy = measurement(
        OPEN, request_rate_per_s="300", tpot_mean_ms="25", ttft_mean_ms="9000", requests_per_s="60"
    )
    for row, levels in ((calm, 1), (busy, 0)):
        forecaster = Forecaster(FIT)
        learn_levels(forecaster, [row], CATALOG)
        assert len(forecaster.decode_levels) == 1
        assert len(forecaster.first_token_levels) == levels


def test_a_short_answer_is_as_doubtful_as_its_first_token() -> None:
    """The E2E of two tokens is nearly all prompt, whose spread is wider than that of steps."""
    short = forecast(OPEN, output_tokens="2", request_overhead_ms="0")
    long = forecast(OPEN, output_tokens="512", request_overhead_ms="0")

    def width(found: dict[str, tuple[float, float, float]], metric: str) -> float:
        return math.log(found[metric][2] / found[metric][0])

    assert width(short, "e2e_mean") > 1.5 * width(long, "e2e_mean")
    assert width(short, "e2e_mean") > 0.6 * width(short, "ttft_mean")


@given(
    errors=st.lists(st.floats(-1, 1), min_size=1, max_size=20),
    sd=st.floats(0.05, 0.5),
    tau=st.floats(0.02, 0.2),
)
def test_a_level_lies_between_prior_and_data(errors: list[float], sd: float, tau: float) -> None:
    level = Level(0.0, sd).updated(np.array(errors), tau, tau)
    median = float(np.median(errors))
    assert min(0.0, median) - 1e-12 <= level.mean <= max(0.0, median) + 1e-12
    assert tau <= level.sd <= math.hypot(sd, tau) + 1e-12


def test_a_level_by_hand() -> None:
    """Prior 0 ± 0.2, one row at +0.3 with spread 0.1: 0.3·100/(25 + 100) = 0.24."""
    level = Level(0.0, 0.2).updated(np.array([0.3]), 0.1, 0.1)
    assert level.mean == pytest.approx(0.24)
    assert level.sd == pytest.approx(math.sqrt(1 / 125 + 0.01))


def test_tails_widen_the_interval_and_leave_the_level() -> None:
    """Typically rows spread by 0.05, but their tails by 0.1: w = 400/(25 + 400), and a row has
    variance ((1 − w)·0.2)² + (w·0.1)² + 0.1²."""
    level = Level(0.0, 0.2).updated(np.array([0.3]), 0.1, 0.05)
    weight = 400 / 425
    assert level.mean == pytest.approx(0.3 * weight)
    assert level.sd == pytest.approx(
        math.sqrt(((1 - weight) * 0.2) ** 2 + (0.1 * weight) ** 2 + 0.01)
    )


def test_a_model_with_rows_is_surer_than_one_without() -> None:
    """Of the same accelerator; both are calibrated."""
    found = calibration_of(FIT, CATALOG.accelerator("H100-SXM"))
    known = CATALOG.model("meta-llama/Llama-2-7b-hf")
    new = known.model_copy(update={"id": "nobody/nothing"})
    assert (found.label, found.spread_of(known)) == ("calibrated", FIT.calibrated_known)
    assert found.spread_of(new) == FIT.calibrated
    assert found.decode_log_sd(known) < found.decode_log_sd(new)


def test_the_request_overhead_is_a_fixed_part_and_the_frontend() -> None:
    found = calibration_of(FIT, CATALOG.accelerator("H100-SXM"))
    c = found.coefficients
    assert found.frontend_s(1000) == pytest.approx(c.frontend_request_s + 1000 * c.frontend_token_s)
    assert found.request_overhead_s(0) == pytest.approx(c.request_overhead_s + found.frontend_s(0))


def test_accelerators_without_rows_doubt_their_coefficients_more() -> None:
    known, unknown = covariance_for(FIT, "calibrated"), covariance_for(FIT, "transferred")
    assert np.all(np.diag(unknown) >= np.diag(known))
    assert np.allclose(known, known.T, atol=1e-4)
