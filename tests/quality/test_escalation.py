"""Hybrid projections against hand-computed cases, published tables and a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from advisor.quality.escalation import (
    ConfidencePrior,
    Range,
    hybrid_curve,
    least_escalation,
    least_escalation_bound,
    llm_right_given,
    project_hybrid,
)
from advisor.quality.estimate import QualityEstimate


def exactly(quality: float, sd: float = 0.0, shared: float = 0.0) -> QualityEstimate:
    return QualityEstimate.from_logit(
        mean=float(special.logit(quality)), sd=sd, shared_sd=shared, basis="prior"
    )


def known(auroc: float, odds_ratio: float) -> ConfidencePrior:
    return ConfidencePrior(
        auroc=Range(value=auroc, low=auroc, high=auroc),
        error_dependence=Range(value=odds_ratio, low=odds_ratio, high=odds_ratio),
    )


def test_independent_errors_leave_the_large_model_its_average() -> None:
    assert llm_right_given(0.8, 0.9, 1.0) == pytest.approx((0.9, 0.9))


def test_published_tables_come_back_from_their_margins_and_odds_ratio() -> None:
    """GSM8K: small .6373, large .8577, P(L right | S wrong) = .806, hence .887 where S is right."""
    right = (0.8577 - 0.3627 * 0.806) / 0.6373
    ratio = right / (1 - right) / (0.806 / 0.194)
    assert ratio == pytest.approx(1.9, abs=0.05)
    assert llm_right_given(0.6373, 0.8577, ratio) == pytest.approx((right, 0.806), abs=1e-6)


@given(slm=st.floats(0.02, 0.98), llm=st.floats(0.02, 0.98), odds_ratio=st.floats(1.0, 60.0))
def test_the_joint_table_keeps_margins_and_odds_ratio(
    slm: float, llm: float, odds_ratio: float
) -> None:
    right, wrong = llm_right_given(slm, llm, odds_ratio)
    assert slm * right + (1 - slm) * wrong == pytest.approx(llm, abs=1e-9)
    assert right * (1 - wrong) == pytest.approx(odds_ratio * wrong * (1 - right), abs=1e-6)
    assert wrong <= llm + 1e-9


def test_the_ends_are_the_two_models() -> None:
    curve = hybrid_curve(
        exactly(0.85), exactly(0.93), escalation_rates=[0, 1], confidence=known(0.8, 5)
    )
    assert curve.quality == pytest.approx([0.85, 0.93], abs=1e-6)


def test_a_perfect_confidence_hands_up_exactly_the_errors() -> None:
    """Small model right in 90 %: 10 % escalation leaves .9 + .1 · P(L right | S wrong)."""
    hybrid = project_hybrid(
        exactly(0.9), exactly(0.95), escalation_rate=0.1, confidence=known(1 - 1e-6, 1.0)
    )
    assert hybrid.quality.median == pytest.approx(0.9 + 0.1 * 0.95, abs=2e-3)
    assert hybrid.accepted_quality == pytest.approx(1.0, abs=2e-3)


def test_no_confidence_at_all_is_the_straight_line_between_the_models() -> None:
    rates = np.linspace(0, 1, 11)
    curve = hybrid_curve(
        exactly(0.7), exactly(0.9), escalation_rates=rates, confidence=known(0.5, 8)
    )
    assert curve.quality == pytest.approx(0.7 + 0.2 * rates, abs=1e-6)


def test_it_agrees_with_a_simulation() -> None:
    """400,000 requests with binormal confidence, dependent errors, gate failures, high risk."""
    slm, llm, auroc, ratio, gated, high_risk, rate = 0.82, 0.9, 0.8, 6.0, 0.04, 0.1, 0.35
    rng = np.random.default_rng(3)
    n = 400_000
    right_given, wrong_given = llm_right_given(slm, llm, ratio)
    s = rng.random(n) < slm
    large = rng.random(n) < np.where(s, right_given, wrong_given)
    score = rng.normal(size=n) + np.sqrt(2) * special.ndtri(auroc) * s
    failed = ~s & (rng.random(n) < gated / (1 - slm))
    risky = rng.random(n) < high_risk
    open_scores = np.where(failed, -np.inf, score)[~risky]
    cut = np.quantile(open_scores, (rate - high_risk) / (1 - high_risk))
    escalated = risky | failed | (score < cut)
    projection = project_hybrid(
        exactly(slm),
        exactly(llm),
        escalation_rate=rate,
        confidence=known(auroc, ratio),
        gate_failure_rate=gated,
        high_risk_share=high_risk,
    )
    assert projection.escalation_rate == pytest.approx(rate, abs=1e-6)
    assert projection.quality.median == pytest.approx(
        np.mean(np.where(escalated, large, s)), abs=2e-3
    )
    assert projection.accepted_quality == pytest.approx(np.mean(s[~escalated]), abs=2e-3)
    near = np.abs(score - cut) < 0.03
    calibrated = np.mean(s[near & ~failed & ~risky])
    assert projection.threshold == pytest.approx(calibrated, abs=0.02)


def test_gate_failures_and_high_risk_requests_are_a_floor() -> None:
    floor = project_hybrid(
        exactly(0.9),
        exactly(0.95),
        escalation_rate=0.0,
        confidence=known(0.8, 5),
        gate_failure_rate=0.05,
        high_risk_share=0.2,
    )
    assert floor.escalation_rate == pytest.approx(0.2 + 0.8 * 0.05, abs=1e-6)


@given(
    slm=st.floats(0.5, 0.97),
    llm=st.floats(0.5, 0.97),
    auroc=st.floats(0.55, 0.97),
    ratio=st.floats(1.0, 30.0),
)
def test_a_hybrid_never_beats_an_oracle_and_a_better_confidence_never_hurts(
    slm: float, llm: float, auroc: float, ratio: float
) -> None:
    rates = np.linspace(0, 1, 9)

    def qualities(value: float) -> np.ndarray:
        return hybrid_curve(
            exactly(slm), exactly(llm), escalation_rates=rates, confidence=known(value, ratio)
        ).quality

    _, rescued = llm_right_given(slm, llm, ratio)
    right, _ = llm_right_given(slm, llm, ratio)
    assert (qualities(auroc) <= slm + (1 - slm) * rescued + 1e-9).all()
    if rescued >= right - 1 + 1e-12:
        assert (qualities(min(0.99, auroc + 0.02)) >= qualities(auroc) - 1e-7).all()


def test_the_least_escalation_respects_its_bound() -> None:
    """Error 10 %, target 95 %, P(L right | S wrong) = .5: at least 10 % must go up."""
    assert least_escalation_bound(0.90, 0.95, target=0.95, odds_ratio=1.0) == pytest.approx(
        0.05 / 0.95
    )
    slm, llm, confidence = exactly(0.9), exactly(0.96), known(0.85, 5)
    found = least_escalation(slm, llm, target=0.95, confidence=confidence)
    assert found is not None
    assert found > least_escalation_bound(0.9, 0.96, target=0.95, odds_ratio=5)
    at, before = (
        project_hybrid(slm, llm, escalation_rate=rate, confidence=confidence).quality.median
        for rate in (found, found - 0.002)
    )
    assert before < 0.95 <= at


def test_no_escalation_where_the_small_model_suffices_or_none_can() -> None:
    confidence = known(0.85, 5)
    assert least_escalation(
        exactly(0.96), exactly(0.9), target=0.95, confidence=confidence
    ) == pytest.approx(0.0, abs=1e-6)
    assert least_escalation(exactly(0.6), exactly(0.7), target=0.95, confidence=confidence) is None


def test_the_interval_is_the_spread_of_a_simulated_one() -> None:
    """Delta method against 4,000 draws of both models' log-odds with a common part."""
    rng = np.random.default_rng(8)
    common = rng.normal(0, 0.4, 4000)
    own = rng.normal(0, 0.3, (2, 4000))
    confidence = known(0.82, 6)
    qualities = [
        hybrid_curve(
            exactly(float(special.expit(2.2 + c + a))),
            exactly(float(special.expit(2.6 + c + b))),
            escalation_rates=0.2,
            confidence=confidence,
        ).logit_mean[0]
        for c, a, b in zip(common[:800], own[0], own[1], strict=False)
    ]
    projected = project_hybrid(
        exactly(float(special.expit(2.2)), 0.5, 0.4),
        exactly(float(special.expit(2.6)), 0.5, 0.4),
        escalation_rate=0.2,
        confidence=confidence,
    ).quality
    assert projected.logit_sd == pytest.approx(np.std(qualities), rel=0.12)


def test_what_is_assumed_says_so_and_closed_answers_are_surer() -> None:
    closed, free = (
        ConfidencePrior.for_task("classification"),
        ConfidencePrior.for_task("generation"),
    )
    assert closed.basis == free.basis == "assumed"
    assert closed.auroc.value > free.auroc.value
    assert closed.error_dependence.low > 1
