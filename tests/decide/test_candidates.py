"""Fleets and mixtures, against curves simple enough to reason about."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.decide.assessment import rate_shown
from advisor.decide.candidates import outlook
from advisor.decide.curves import QUANTILES, TierCurve
from advisor.decide.sizing import (
    ESCALATION_MARGIN,
    Mixture,
    Sizing,
    replicas_for,
    weighted_quantile,
)


def curve(*, e2e_s: tuple[float, ...], log_sd: float = 0.0, overhead_s: float = 0.0) -> TierCurve:
    """All requests alike: `e2e_s` seconds at 1, 2, 3 … requests per second."""
    levels = len(e2e_s)
    e2e = np.repeat(np.asarray(e2e_s)[:, None], len(QUANTILES), axis=1)
    return TierCurve(
        rates_per_s=np.arange(1.0, levels + 1),
        ttft_s=e2e / 2,
        e2e_s=e2e,
        tpot_s=e2e / 10,
        saturation_per_s=levels + 1.0,
        overhead_s=overhead_s,
        log_sd=log_sd,
    )


def sizing(**bounds_s: float) -> Sizing:
    return Sizing(
        bounds_s=bounds_s,
        rate_per_s=12.0,
        reserve=0.0,
        minimum=1,
        most_accelerators=None,
        validation_s=0.25,
    )


def test_the_bound_decides_the_rate_of_a_replica() -> None:
    tier = curve(e2e_s=(1.0, 2.0, 4.0))
    assert tier.usable_rate({"e2e": 2.0}) == pytest.approx(2.0)
    assert tier.usable_rate({"e2e": 3.0}) == pytest.approx(2.5)
    assert tier.usable_rate({"e2e": 0.5}) == 0.0
    assert replicas_for(tier, sizing(e2e=2.0), ranks=1, rate_per_s=12.0) == 6


def test_twice_the_step_time_halves_rates_and_doubles_latencies() -> None:
    tier = curve(e2e_s=(1.0, 2.0, 4.0))
    assert tier.at_rate("e2e", 1.0, factor=2.0) == pytest.approx(2 * 2.0)
    assert tier.usable_rate({"e2e": 4.0}, factor=2.0) == pytest.approx(1.0)
    assert tier.at_rate("e2e", 2.0, factor=2.0) is None


def test_an_uncertain_tier_gets_more_replicas() -> None:
    sure, unsure = curve(e2e_s=(1.0, 2.0, 4.0)), curve(e2e_s=(1.0, 2.0, 4.0), log_sd=0.2)
    few = replicas_for(sure, sizing(e2e=3.0), ranks=1, rate_per_s=12.0)
    many = replicas_for(unsure, sizing(e2e=3.0), ranks=1, rate_per_s=12.0)
    assert many > few


def test_a_limit_on_accelerators_costs_certainty_before_feasibility() -> None:
    tier = curve(e2e_s=(1.0, 2.0, 4.0), log_sd=0.2)
    free = replicas_for(tier, sizing(e2e=3.0), ranks=1, rate_per_s=12.0)
    tight = Sizing(
        bounds_s={"e2e": 3.0},
        rate_per_s=12.0,
        reserve=0.0,
        minimum=1,
        most_accelerators=free - 1,
        validation_s=0.0,
    )
    assert replicas_for(tier, tight, ranks=1, rate_per_s=12.0) < free


def test_accepted_answers_wait_for_the_check_and_escalated_ones_for_both_models() -> None:
    small, large = curve(e2e_s=(1.0, 1.0)), curve(e2e_s=(4.0, 4.0), overhead_s=0.5)

    def p95(metric: str, share: float, direct: float = 0.0) -> float | None:
        mixture = Mixture(small, large, share, direct, validation_s=0.25)
        return mixture.p95_s(metric, small_rate=1.0, large_rate=1.0)

    few, many = 0.04, 0.2
    assert few * ESCALATION_MARGIN < 0.05 < many
    assert p95("e2e", few) == pytest.approx(1.25)
    assert p95("ttft", few) == pytest.approx(1.25)
    assert p95("e2e", many) == pytest.approx(1.25 + 4.5)
    # The large model's first token comes after half of its 4 s.
    assert p95("ttft", many) == pytest.approx(1.25 + 2.5)
    # Of answers that stream, however few: the others have no time per token.
    assert p95("tpot", few) == p95("tpot", many) == pytest.approx(0.4)
    # Straight to the large model there is no small answer to wait for.
    assert p95("e2e", many, direct=many) == pytest.approx(4.5)


def varied(scale_s: float, seed: int) -> TierCurve:
    """Requests of different lengths, at one and two requests per second."""
    one = scale_s * np.sort(np.random.default_rng(seed).gamma(2.0, size=len(QUANTILES)))
    e2e = np.stack([one, 1.5 * one])
    return TierCurve(np.array([1.0, 2.0]), e2e / 2, e2e, e2e / 10, 3.0, 0.1, 0.0)


@given(
    st.sampled_from(("ttft", "e2e", "tpot")),
    st.floats(0.01, 20.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_a_bound_is_kept_where_the_p95_is_within_it(
    metric: str, bound_s: float, share: float, direct: float
) -> None:
    mixture = Mixture(varied(1.0, 1), varied(3.0, 2), share, direct * share, validation_s=0.25)
    p95 = mixture.p95_s(metric, small_rate=1.2, large_rate=1.9)
    assert p95 is not None
    for bound in (bound_s, p95, math.nextafter(p95, 0.0)):
        kept = mixture.keeps({metric: bound}, small_rate=1.2, large_rate=1.9)
        assert kept == (p95 <= bound)
    assert not mixture.keeps({metric: 1e9}, small_rate=1.2, large_rate=2.5)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
)
def test_weighted_quantile_is_that_of_the_repeated_values(
    pairs: list[tuple[float, int]], q: float
) -> None:
    values = np.array([value for value, _ in pairs])
    weights = np.array([float(weight) for _, weight in pairs])
    repeated = np.sort(np.repeat(values, weights.astype(int)))
    position = math.ceil(q * len(repeated) * (1 - 1e-12)) - 1
    assert weighted_quantile(values, weights, q) == repeated[max(position, 0)]


def test_an_outlook_is_the_chance_that_the_bound_holds() -> None:
    def latency(z: float) -> float:
        return math.exp(0.2 * z)

    at_median = outlook(latency, 1.0)
    assert at_median.probability == pytest.approx(0.5, abs=0.002)
    assert at_median.low_s == pytest.approx(math.exp(-0.2 * 1.645), rel=1e-3)
    generous = outlook(latency, math.exp(0.2 * 1.645))
    assert generous.probability == pytest.approx(0.95, abs=0.002)


def test_overload_has_no_upper_end_and_no_number() -> None:
    seen = outlook(lambda z: 1.0 if z < 1 else None, 2.0)
    assert seen.value_s == 1.0 and seen.high_s is None
    assert seen.probability == pytest.approx(0.8413, abs=0.002)
    assert outlook(lambda z: None, 2.0).probability == 0.0


@pytest.mark.parametrize(
    ("rate_per_s", "shown"),
    [
        (1234.0, "1,234 requests/s"),
        (2.54, "2.5 requests/s"),
        (0.5, "30 requests/min"),
        (0.02, "1.2 requests/min"),
        (0.001, "3.6 requests/h"),
        (1e-5, "0.036 requests/h"),
    ],
)
def test_a_rate_is_shown_in_the_unit_that_people_would_count_in(
    rate_per_s: float, shown: str
) -> None:
    assert rate_shown(rate_per_s) == shown
