"""Simulations of deployments and architectures: what must hold whatever the figures are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor import TaskProfile, simulate
from advisor.catalog import load_catalog
from advisor.catalog.locations import PROFILES
from advisor.decide.recommendation import Chosen
from advisor.errors import DoesNotFitError, InputError
from advisor.serving.percentiles import Interval, Percentiles
from advisor.serving.workload import workload_of
from advisor.simulation import SimulationResult
from advisor.simulation.escalation import escalation_rate_at
from advisor.simulation.results import ranges_of

INTENT = TaskProfile.load(PROFILES / "tasks" / "intent-classification.yaml")
CATALOG = load_catalog()
ONE = {"model": "Qwen3-8B", "accelerator": "H100-SXM"}

ENGINE = {
    "max_num_seqs": 256,
    "max_num_batched_tokens": 8192,
    "gpu_memory_utilization": 0.9,
    "max_model_len": 1024,
}
SMALL = {
    "kind": "self_hosted",
    "model": "Qwen/Qwen3-1.7B",
    "weights_dtype": "bf16",
    "kv_dtype": "bf16",
    "adaptation": "lora",
    "accelerator": "L40S",
    "tensor_parallel": 1,
    "replicas": 3,
    "engine": ENGINE,
    "provider": "runpod",
    "usd_per_accelerator_hour": 1.0,
    "calibration": "transferred",
}
LARGE = SMALL | {"model": "Qwen/Qwen3-32B", "accelerator": "H100-SXM", "replicas": 2}


def hosted() -> dict[str, Any]:
    model = next(model for model in CATALOG.hosted if model.role == "llm")
    return {
        "kind": "hosted",
        "hosted": {"provider": model.provider, "model": model.id},
        "adaptation": "zero_shot",
    }


def architecture(**tiers: dict[str, Any]) -> Chosen:
    policy = "cascade" if len(tiers) == 2 else f"{next(iter(tiers))}_only"
    threshold = 0.8 if len(tiers) == 2 else None
    return Chosen.model_validate({"tiers": tiers, "policy": policy, "threshold": threshold})


def hybrid(task: TaskProfile = INTENT, **options: Any) -> SimulationResult:
    options = {"escalation_rate": 0.2, "requests": 5000} | options
    return simulate(task, architecture=architecture(slm=SMALL, llm=LARGE), **options)


def test_models_and_accelerators_that_are_not_recommended_can_be_simulated() -> None:
    result = simulate(INTENT, model="huggyllama/llama-13b", accelerator="H20-SXM", replicas=8)
    assert "llama-13b" in result.deployment
    assert result.stable


def test_replicas_multiply_what_can_be_sustained() -> None:
    one, four = (simulate(INTENT, **ONE, replicas=n, requests=2000) for n in (1, 4))

    assert one.sustainable_rate_per_s is not None
    assert four.sustainable_rate_per_s == pytest.approx(4 * one.sustainable_rate_per_s)
    assert four.e2e_ms.p95 is not None


@pytest.mark.parametrize(("load", "stable"), [(0.85, True), (1.25, False)])
def test_the_sustainable_rate_is_where_overload_begins(load: float, stable: bool) -> None:
    limit = simulate(INTENT, **ONE, requests=3000).sustainable_rate_per_s
    assert limit is not None
    at_peak = {"traffic.requests_per_day": limit * load * 86_400, "traffic.peak_to_mean": 1}
    found = simulate(INTENT.with_values(at_peak), **ONE, requests=20_000)

    assert found.stable is stable
    assert (found.e2e_ms.p95 is None) is not stable
    assert (found.intervals_ms == {}) is not stable


def test_an_upper_end_that_is_overload_has_no_figure() -> None:
    limit = simulate(INTENT, **ONE, requests=3000).sustainable_rate_per_s
    assert limit is not None
    at_peak = {"traffic.requests_per_day": limit * 0.9 * 86_400, "traffic.peak_to_mean": 1}
    found = simulate(INTENT.with_values(at_peak), **ONE, requests=20_000)

    assert found.stable
    assert found.intervals_ms["e2e_ms"]["p95"].high is None
    assert found.intervals_ms["e2e_ms"]["p95"].low > 0


def test_what_is_known_and_chance_widen_an_interval_in_quadrature() -> None:
    def all_at(value: float, **intervals: Interval) -> Percentiles:
        names = ("mean", "p50", "p90", "p95", "p99")
        return Percentiles(**dict.fromkeys(names, value), intervals=intervals)

    figures = all_at(0.010, p95=Interval(low=0.006425, high=0.013575))
    found = ranges_of(figures, quick=all_at(0.006), slow=all_at(0.014))

    # 4 ms from the latency model; chance: 3.575 ms at 95 % is 3.0 ms at 90 %. √(4² + 3²) = 5.
    assert found["p95"].low == pytest.approx(5.0, abs=0.01)
    assert found["p95"].high == pytest.approx(15.0, abs=0.01)
    assert (found["mean"].low, found["mean"].high) == (pytest.approx(6.0), pytest.approx(14.0))
    assert ranges_of(figures, quick=all_at(0.006), slow=None)["p95"].high is None


def test_a_hybrid_shows_nothing_before_it_is_checked() -> None:
    found = hybrid()
    assert found.by_route is not None
    small, escalated = found.by_route["small"], found.by_route["escalated"]

    assert set(found.by_route) == {"small", "escalated"}
    assert small.share + escalated.share == pytest.approx(1)
    assert small.ttft_ms == small.e2e_ms
    assert small.tpot_ms.p95 == 0
    # Wasted small work and a second queue come before an escalated answer's first token.
    assert (escalated.ttft_ms.p50 or 0) > (small.e2e_ms.p50 or 0)
    assert found.escalation_rate == pytest.approx(0.2, abs=0.02)


def test_the_mixture_lies_between_its_routes_and_is_not_their_mean() -> None:
    found = hybrid()
    assert found.by_route is not None
    small, escalated = (found.by_route[route].e2e_ms.p95 or 0 for route in ("small", "escalated"))
    mixture = found.e2e_ms.p95 or 0

    assert small < mixture <= escalated
    # A fifth is escalated, so the mixture's p95 is near the escalated ones' p75.
    assert mixture > 0.8 * small + 0.2 * escalated


def test_high_risk_requests_skip_the_small_model() -> None:
    risky = INTENT.with_values({"constraints.high_risk_share": 0.1})
    found = hybrid(risky)
    assert found.by_route is not None

    assert found.by_route["direct"].share == pytest.approx(0.1, abs=0.015)
    assert found.escalation_rate == pytest.approx(0.2, abs=0.02)
    assert found.by_route["escalated"].share == pytest.approx(0.1, abs=0.015)


def test_repeats_are_answered_from_the_cache() -> None:
    repeating = INTENT.with_values({"traffic.repeat_share": 0.3})
    found = hybrid(repeating)
    assert found.by_route is not None

    assert 0.2 < found.by_route["cache"].share < 0.31
    assert found.by_route["cache"].e2e_ms.p99 == 0
    assert found.escalation_rate == pytest.approx(0.2, abs=0.025)


def test_the_first_tier_that_fills_up_limits_a_hybrid() -> None:
    found = hybrid()
    small, large = found.tiers["slm"], found.tiers["llm"]
    assert small.sustainable_rate_per_s is not None
    assert large.sustainable_rate_per_s is not None
    expected = min(small.sustainable_rate_per_s, large.sustainable_rate_per_s / 0.2)

    assert found.sustainable_rate_per_s == pytest.approx(expected, rel=0.1)


def test_a_hosted_model_alone_streams_its_answer() -> None:
    found = simulate(INTENT, architecture=architecture(llm=hosted()), requests=3000)
    tier = found.tiers["llm"]

    assert found.escalation_rate is None
    assert (tier.calibration, tier.accelerator, tier.replicas) == ("assumed", None, None)
    assert (found.ttft_ms.p95 or 0) < (found.e2e_ms.p95 or 0)
    assert found.intervals_ms["e2e_ms"]["p95"].low < (found.e2e_ms.p95 or 0)
    assert found.sustainable_rate_per_s is None


def test_a_stated_rate_limit_of_a_hosted_model_binds() -> None:
    limited = INTENT.with_values({"assumptions.hosted_rate_limit_per_s": 100})
    found = simulate(limited, architecture=architecture(llm=hosted()), requests=3000)

    assert found.offered_rate_per_s > 200
    assert found.sustainable_rate_per_s == pytest.approx(100)
    assert not found.stable


@settings(deadline=None, max_examples=30)
@given(st.floats(0.05, 0.98), st.floats(0.05, 0.98))
def test_a_higher_threshold_never_escalates_less(first: float, second: float) -> None:
    chosen = architecture(slm=SMALL, llm=LARGE)
    rates = [
        escalation_rate_at(chosen.model_copy(update={"threshold": level}), INTENT, CATALOG)
        for level in sorted((first, second))
    ]

    assert 0 <= rates[0] <= rates[1] <= 1


def test_a_chosen_object_alone_tells_its_escalation_rate() -> None:
    chosen = architecture(slm=SMALL, llm=LARGE)
    found = simulate(INTENT, architecture=chosen, requests=5000)
    projected = escalation_rate_at(chosen, INTENT, CATALOG)

    assert found.escalation_rate == pytest.approx(projected, abs=0.02)


def test_an_architecture_is_read_from_its_file(tmp_path: Path) -> None:
    chosen = architecture(slm=SMALL)
    path = tmp_path / "chosen.json"
    path.write_text(chosen.model_dump_json(), encoding="utf-8")
    from_file, direct = (
        simulate(INTENT, architecture=given, requests=500).model_copy(update={"wall_s": 0.0})
        for given in (path, chosen)
    )

    assert from_file == direct


def test_the_tail_of_a_distribution_is_cut_and_said() -> None:
    drawn = workload_of(INTENT).draw(count=5000, seed=0)
    total = np.sort(drawn.input_tokens + drawn.output_tokens)
    allowed = int(total[int(0.995 * len(total))])
    found = simulate(INTENT, **ONE, requests=5000, engine_args={"max_model_len": allowed})

    [note] = found.notes
    assert f"are cut to a context of {allowed:,} tokens" in note
    with pytest.raises(DoesNotFitError, match=r"of the requests are longer than a context of 300"):
        simulate(INTENT, **ONE, requests=5000, engine_args={"max_model_len": 300})


def test_a_trace_is_replayed_as_recorded(tmp_path: Path) -> None:
    rows = ["arrival_s,input_tokens,output_tokens", *(f"{i * 0.5},400,20" for i in range(101))]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(rows), encoding="utf-8")
    found = simulate(INTENT, **ONE, trace=path)

    assert found.requests == 101
    assert found.offered_rate_per_s == pytest.approx(2.0)
    assert simulate(INTENT, **ONE, trace=path, requests=50).requests == 50


def test_series_cover_the_run_tier_by_tier() -> None:
    found = hybrid(series_every_s=1.0)
    lengths = {
        len(values) for part in found.series.values() for values in part.model_dump().values()
    }

    assert set(found.series) == {"slm", "llm"}
    assert all(20 <= length <= 24 for length in lengths)
    arrivals = found.series["slm"].arrivals_per_s
    assert sum(arrivals) == pytest.approx(5000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a model and an accelerator, or an architecture"),
        ({"model": "Qwen3-8B"}, "a model and an accelerator"),
        (ONE | {"architecture": architecture(slm=SMALL)}, "not both"),
        (ONE | {"requests": 0}, "requests = 0"),
        (ONE | {"series_every_s": -1.0}, "resolution = -1"),
        ({"architecture": architecture(slm=SMALL, llm=LARGE), "escalation_rate": 2.0}, "0 to 1"),
        (
            {
                "architecture": architecture(
                    llm=hosted() | {"hosted": {"provider": "a", "model": "b"}}
                )
            },
            "hosted model a/b is not in the catalogue",
        ),
    ],
)
def test_what_cannot_be_simulated_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(INTENT, **options)
