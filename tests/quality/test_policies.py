"""Routing policies: the random line, hand-computed curves, and honest verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.errors import InputError
from advisor.quality.policies import (
    SHARES,
    RoutedRows,
    average_gap_recovered,
    call_performance_threshold,
    compare_policies,
    performance_gap_recovered,
    quality_curve,
)
from advisor.quality.prerouter import PreRouter


def test_random_mixing_recovers_its_share() -> None:
    """PGR at half the calls .5, APGR .5, CPT(20/50/80 %) = 20/50/80 %."""
    recovered = performance_gap_recovered(0.6 + 0.3 * SHARES, slm=0.6, llm=0.9)
    assert recovered[50] == pytest.approx(0.5)
    assert average_gap_recovered(SHARES, recovered) == pytest.approx(0.5)
    for level in (0.2, 0.5, 0.8):
        assert call_performance_threshold(SHARES, recovered, level=level) == pytest.approx(level)


def test_a_hand_computed_table() -> None:
    """Shares 0, ½, 1 with qualities .6, .8, .9 between models at .6 and .9.

    PGR 0, 2/3, 1; APGR = ½·½·(0 + 2/3) + ½·½·(2/3 + 1) = 7/12; CPT(50 %) = ½·(.5/(2/3)) = .375.
    """
    recovered = performance_gap_recovered([0.6, 0.8, 0.9], slm=0.6, llm=0.9)
    assert recovered == pytest.approx([0, 2 / 3, 1])
    assert average_gap_recovered([0, 0.5, 1], recovered) == pytest.approx(7 / 12)
    assert call_performance_threshold([0, 0.5, 1], recovered, level=0.5) == pytest.approx(0.375)
    assert call_performance_threshold([0, 0.5, 1], recovered, level=1.1) is None
    assert call_performance_threshold([0, 0.5], [0.4, 0.6], level=0.2) == 0
    with pytest.raises(InputError, match="not better"):
        performance_gap_recovered([0.5], slm=0.9, llm=0.9)


def test_a_hand_computed_curve() -> None:
    """Ten rows, the two wrong ones are the least sure: 20 % of the calls repair everything."""
    slm = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 1.0])
    curve = quality_curve(np.arange(10.0), slm, np.ones(10))
    assert curve[[0, 10, 20, 100]] == pytest.approx([0.8, 0.9, 1.0, 1.0])
    assert quality_curve(np.zeros(10), slm, np.ones(10)) == pytest.approx(0.8 + 0.2 * SHARES)


def rows(
    n: int = 1500, *, informative: bool = True, seed: int = 0, llm: float = 0.95
) -> RoutedRows:
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.35
    s = (rng.random(n) < np.where(hard, 0.5, 0.97)).astype(float)
    large = (rng.random(n) < llm).astype(float)
    if informative:
        confidence = rng.normal(size=n) + 2.0 * s
        texts = [
            f"{'reconcile disputed ledger' if h else 'simple'} request {rng.integers(50)}"
            for h in hard
        ]
    else:
        confidence = rng.random(n)
        texts = [f"request {rng.integers(50)}" for _ in range(n)]
    return RoutedRows(
        slm_correct=s,
        llm_correct=large,
        confidence=confidence,
        texts=texts,
        slm_cost=0.001,
        llm_cost=0.02,
    )


def test_policies_that_know_something_beat_the_line() -> None:
    found = compare_policies(rows())
    by_name = {policy.name: policy for policy in found.policies}
    assert list(by_name) == ["random mix", "cascade", "pre-router", "pre-router and cascade"]
    assert by_name["random mix"].apgr == pytest.approx(0.5)
    for name in ("cascade", "pre-router", "pre-router and cascade"):
        policy = by_name[name]
        assert policy.apgr is not None and policy.apgr_low is not None
        assert policy.apgr_low > 0.5, name
        assert policy.apgr_low <= policy.apgr <= (policy.apgr_high or 2)
        assert policy.quality[0] == pytest.approx(found.slm_quality)
        assert policy.quality[-1] == pytest.approx(found.llm_quality)
        assert max(policy.quality) <= found.oracle_quality + 1e-9
    assert found.pays


def test_what_a_policy_costs() -> None:
    """A cascade always pays the small model, a router pays one of the two."""
    by_name = {policy.name: policy for policy in compare_policies(rows()).policies}
    cascade, router = by_name["cascade"].cost, by_name["pre-router"].cost
    assert cascade is not None and router is not None
    assert cascade[0] == router[0] == pytest.approx(0.001)
    assert cascade[-1] == pytest.approx(0.021)
    assert router[-1] == pytest.approx(0.02)
    both = by_name["pre-router and cascade"].cost
    assert both is not None
    assert router[40] < both[40] < cascade[40]


def test_where_routing_does_not_pay_it_says_so() -> None:
    blind = [compare_policies(rows(400, informative=False, seed=k)) for k in range(12)]
    assert sum(found.pays for found in blind) <= 2
    assert "no policy beats a random mix" in blind[1].verdict
    weak = compare_policies(rows(informative=False, llm=0.6))
    assert not weak.pays
    assert "always the small model" in weak.verdict
    assert all(policy.apgr is None for policy in weak.policies)
    bare = RoutedRows(np.array([0, 1.0]), np.array([1.0, 1]))
    assert "nothing to route by" in compare_policies(bare).verdict


def test_a_large_log_is_judged_by_batches() -> None:
    """60,000 rows: the interval is narrow, and noise is still not worth having."""
    rng = np.random.default_rng(4)
    n = 60_000
    s, large = rng.random(n) < 0.8, rng.random(n) < 0.95
    noise = compare_policies(RoutedRows(s * 1.0, large * 1.0, confidence=rng.random(n)))
    cascade = noise.policies[1]
    assert cascade.apgr_low is not None and cascade.apgr_high is not None
    assert cascade.apgr_high - cascade.apgr_low < 0.05
    assert not noise.pays
    informed = compare_policies(RoutedRows(s * 1.0, large * 1.0, confidence=rng.normal(size=n) + s))
    assert informed.pays and (informed.policies[1].chance or 0) == 0


def test_a_weaker_large_model_can_still_be_worth_asking() -> None:
    """Large model right in 70 %, but exactly where the small one is unsure and wrong."""
    rng = np.random.default_rng(1)
    s = (rng.random(2000) < 0.8).astype(float)
    large = np.where(s > 0, rng.random(2000) < 0.65, 1.0)
    confidence = rng.normal(size=2000) + 4 * s
    found = compare_policies(RoutedRows(s, large, confidence=confidence))
    assert found.llm_quality < found.slm_quality
    assert found.pays and "the small model alone is the better one" in found.verdict


def test_mismatched_columns_are_refused() -> None:
    with pytest.raises(InputError, match="labels"):
        compare_policies(RoutedRows(np.ones(2), np.ones(3)))


def test_the_pre_router_learns_what_is_hard() -> None:
    data = rows(2000)
    assert data.texts is not None
    router = PreRouter.fit(data.texts[:1500], data.slm_correct[:1500], data.llm_correct[:1500])
    hard, easy = router.gain(["reconcile disputed ledger request 3", "simple request 3"])
    assert hard > easy + 0.2
    again = PreRouter.fit(data.texts[:1500], data.slm_correct[:1500], data.llm_correct[:1500])
    assert np.array_equal(again.slm_weights, router.slm_weights)
    assert np.isfinite(router.gain(["", "漢字 ünïcode"])).all()
    with pytest.raises(InputError, match="100 are needed"):
        PreRouter.fit(["x"] * 50, np.ones(50), np.ones(50))
    with pytest.raises(InputError, match="2 texts"):
        PreRouter.fit(["x"] * 2, np.ones(50), np.ones(50))
