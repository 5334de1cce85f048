"""Scores: hand-computed errors, coverage and groups."""

import pytest
from calibrate_rows import CATALOG, LOOP, STATIC, measurement

from advisor.calibrate.baselines import affine_latency_s, naive_latency_s
from advisor.calibrate.forecast import Figure, Forecast
from advisor.calibrate.score import describe, headline, pairs_of, summarize

from calibrate_rows import condition  # isort: skip


def forecast(**seconds: float) -> Forecast:
    figures = {
        name: Figure(value=value, low=0.8 * value, high=1.2 * value)
        for name, value in seconds.items()
    }
    return Forecast(figures, 100.0, "calibrated", "")


ROWS = [
    measurement(STATIC, tpot_mean_ms="10", e2e_mean_ms="2000"),
    measurement(LOOP, tpot_mean_ms="10", ttft_mean_ms="100"),
    measurement(LOOP, tpot_mean_ms="10", model="Qwen/Qwen3-8B"),
]
PAIRS = pairs_of(
    ROWS,
    [
        forecast(tpot_mean=0.011, e2e_mean=1.0),
        forecast(tpot_mean=0.009, ttft_mean=0.15),
        forecast(tpot_mean=0.014),
    ],
    CATALOG,
)


def test_errors_by_hand() -> None:
    """TPOT is off by +10, −10 and +40 %: median 10, mean 20; the last is outside its interval."""
    table = summarize(PAIRS).set_index("metric")
    assert table.loc["tpot_mean", "median_error"] == pytest.approx(0.1)
    assert table.loc["tpot_mean", "mean_error"] == pytest.approx(0.2)
    assert table.loc["tpot_mean", "bias"] == pytest.approx(0.1)
    assert table.loc["tpot_mean", "coverage"] == pytest.approx(2 / 3)
    assert table.loc["e2e_mean", "bias"] == pytest.approx(-0.5)
    assert table.loc["ttft_mean", "coverage"] == 0


def test_groups_split_by_load_and_model() -> None:
    table = summarize(PAIRS, ("load", "metric")).set_index(["load", "metric"])
    assert table.loc[("closed_loop", "tpot_mean"), "figures"] == 2
    models = summarize(PAIRS, ("model",))
    assert set(models["model"]) == {"meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B"}
    with pytest.raises(ValueError, match="colour"):
        summarize(PAIRS, ("colour",))


def test_the_headline_takes_each_figure_from_the_load_it_is_of() -> None:
    counts = {kind: len(chosen) for kind, chosen in headline(PAIRS).items()}
    assert counts == {"TPOT": 3, "Static-batch E2E": 1, "TTFT, uncongested": 1}
    assert describe(headline(PAIRS)["TPOT"]).startswith("10.0/20.0/34.0 %")
    assert describe([]) == "no figures"


def test_baselines_bound_and_bend() -> None:
    """The bound of Llama-3.1-8B at batch 8 is a little over 4.49 ms; the line 5 ms + 1.55 × it."""
    one = condition(STATIC)
    bound = naive_latency_s(one, "tpot")
    assert 4.49e-3 < bound < 4.9e-3
    assert affine_latency_s(one, "tpot") == pytest.approx(5e-3 + 1.55 * bound)
    assert naive_latency_s(one, "e2e") == pytest.approx(naive_latency_s(one, "ttft") + 127 * bound)
