"""Alarms that may be looked at again and again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from advisor.errors import InputError
from advisor.quality.bounds import lower_bound
from advisor.quality.sequential import (
    RateWatch,
    anytime_alarm_count,
    anytime_lower_bound,
    fixed_alarm_count,
    log_e_value,
)


def test_the_e_value_is_the_mixture_it_says() -> None:
    """7 of 20 against 20 %, by quadrature over Beta(4, 16) above 0.2."""
    density = stats.beta(4, 16)
    above, _ = integrate.quad(density.pdf, 0.2, 1)
    mixture, _ = integrate.quad(
        lambda p: density.pdf(p) / above * (p / 0.2) ** 7 * ((1 - p) / 0.8) ** 13, 0.2, 1
    )
    assert math.exp(log_e_value(7, 20, limit=0.2)) == pytest.approx(mixture)


def test_it_is_a_martingale_at_the_limit_and_falls_below_it() -> None:
    """E[e after one more request | k of n] = e at rate = limit, and less below."""
    k, n = 6, 21
    now = math.exp(log_e_value(k, n, limit=0.2))
    up, same = np.exp(log_e_value([k + 1, k], n + 1, limit=0.2))
    assert up > now > same
    for rate in (0.05, 0.1, 0.19):
        assert rate * up + (1 - rate) * same < now


def runs(rate: float, count: int = 1000, length: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Escalations so far at every 25th request of many runs."""
    rng = np.random.default_rng(7)
    events = (rng.random((count, length)) < rate).cumsum(axis=1)[:, 24::25]
    return events, np.arange(25, length + 1, 25)


def test_looked_at_every_25_requests_it_fires_in_5_percent_of_the_runs_at_most() -> None:
    events, trials = runs(0.20)
    fired = (log_e_value(events, trials, limit=0.2) >= math.log(20)).any(axis=1)
    assert fired.mean() <= 0.05
    fixed = [
        any(
            lower_bound(int(k), int(n), confidence=0.95) > 0.2
            for k, n in zip(run, trials, strict=True)
        )
        for run in events[:200]
    ]
    assert np.mean(fixed) > 0.15, "the fixed-n bound is what must not be looked at repeatedly"


def test_a_rate_above_the_limit_is_found_soon() -> None:
    events, trials = runs(0.30)
    fired = log_e_value(events, trials, limit=0.2) >= math.log(20)
    assert fired.any(axis=1).all()
    assert np.median(trials[fired.argmax(axis=1)]) <= 250


def test_the_bound_is_where_the_e_value_crosses() -> None:
    bound = anytime_lower_bound(60, 200, confidence=0.95)
    assert log_e_value(60, 200, limit=bound) == pytest.approx(math.log(20), abs=1e-6)
    assert bound < lower_bound(60, 200, confidence=0.95) < 0.3
    assert anytime_lower_bound(0, 200, confidence=0.95) == 0.0
    assert anytime_lower_bound(0, 0, confidence=0.95) == 0.0
    assert 0.9 < anytime_lower_bound(500, 500, confidence=0.95) < 1
    with pytest.raises(InputError, match="events = 3 of 2"):
        anytime_lower_bound(3, 2, confidence=0.95)


def test_a_watch_fires_once_and_says_why() -> None:
    watch = RateWatch(limit=0.2)
    assert math.isnan(watch.alarm().rate)
    for k in range(100):
        watch.observe(k % 2 == 0, "schema" if k % 4 == 0 else "low_confidence")
    watch.observe(True, "schema")
    alarm = watch.alarm()
    assert alarm.fired
    assert alarm.lower_bound > 0.2
    assert list(alarm.causes.items()) == [("schema", 26), ("low_confidence", 25)]
    for _ in range(2000):
        watch.observe(False)
    assert watch.alarm().fired


def test_a_late_change_is_found_as_fast_as_an_early_one() -> None:
    """20,000 calm requests, then 40 %: without fresh starts it would take thousands more."""
    rng = np.random.default_rng(3)
    watch = RateWatch(limit=0.2, stretch=2000)
    for happened in rng.random(20_000) < 0.12:
        watch.observe(bool(happened))
    assert not watch.alarm().fired
    waited = 0
    while not watch.alarm().fired:
        watch.observe(bool(rng.random() < 0.4))
        waited += 1
    assert waited < 300


def test_the_error_of_all_stretches_adds_up() -> None:
    spent = sum(0.05 * 6 / (math.pi**2 * j**2) for j in range(1, 100_000))
    assert 0.0499 < spent <= 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 20}, "limit = 20"),
        ({"confidence": 1}, "confidence = 1"),
        ({"stretch": 0}, "stretch"),
    ],
)
def test_impossible_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RateWatch(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trials", "once"), [(50, 16), (100, 28), (200, 50), (500, 116), (1000, 222)]
)
def test_alarm_counts_for_one_look_and_for_a_running_watch(trials: int, once: int) -> None:
    assert fixed_alarm_count(trials, limit=0.2, confidence=0.95) == once
    running = anytime_alarm_count(trials, limit=0.2, confidence=0.95)
    assert running is not None
    assert running > once
    assert log_e_value(running, trials, limit=0.2) >= math.log(20)
    assert log_e_value(running - 1, trials, limit=0.2) < math.log(20)


def test_too_few_requests_never_ring() -> None:
    """0.2¹ = 0.2 > 0.05: one escalation of one proves nothing."""
    assert fixed_alarm_count(1, limit=0.2, confidence=0.95) is None
