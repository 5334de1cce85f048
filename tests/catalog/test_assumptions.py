"""Assumptions: each has a range and a reason, and the user has the last word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog import Assumption, Assumptions, load_catalog
from advisor.errors import InputError

CATALOG = load_catalog()
ASSUMED = CATALOG.assumptions


def every_assumption() -> dict[str, Assumption]:
    flat = {name: value for name, value in ASSUMED if isinstance(value, Assumption)}
    return flat | ASSUMED.onprem_capex_usd


@pytest.mark.parametrize("name", every_assumption())
def test_each_has_a_real_range_and_says_what_would_replace_it(name: str) -> None:
    assumption = every_assumption()[name]
    assert assumption.low < assumption.high
    assert "replace" in assumption.why or "set 1" in assumption.why
    assert assumption.unit


def test_a_range_that_misses_its_value_is_refused() -> None:
    with pytest.raises(ValueError, match="low <= value <= high"):
        Assumption(value=5, low=6, high=7, unit="s", why="")


def test_request_overhead_is_a_data_centre_and_not_a_load_harness() -> None:
    assert ASSUMED.request_overhead_s.high < 0.036


def test_training_cost_follows_from_its_derivation() -> None:
    """6 FLOPs x 1e9 parameters x 1e7 tokens x 3 epochs on an H100 at 35 % for 3 USD an hour."""
    flops = 6 * 1e9 * (10_000 * 1_000) * 3
    seconds = flops / (0.35 * CATALOG.accelerator("H100-SXM").peak_flops("bf16"))
    assert seconds == pytest.approx(520, abs=1)
    assert seconds / 3600 * 3.0 == pytest.approx(ASSUMED.lora_training_usd.value, rel=0.01)
    lora = ASSUMED.adaptation("lora")
    assert lora.training_flops_per_parameter_token == 6
    assert lora.shares_base_weights and not ASSUMED.adaptation("full_ft").shares_base_weights


def test_what_adaptations_cost_once() -> None:
    assert ASSUMED.adaptation("zero_shot").one_off == ()
    assert ASSUMED.adaptation("few_shot").one_off == ("labels",)
    assert "teacher_labels" in ASSUMED.adaptation("distilled").one_off
    with pytest.raises(InputError, match="adaptation 'magic': one of zero_shot, few_shot"):
        ASSUMED.adaptation("magic")


def test_owning_an_h100_by_hand() -> None:
    """35,000 USD over 48 months and 10 % a year for operations; 700 W x 1.4 x 1.4 at 12 cents."""
    purchase = 35_000 * (1 / 48 + 0.10 / 12) / 730.5
    power = 0.7 * 1.4 * 1.4 * 0.12
    owned = ASSUMED.onprem_usd_per_gpu_hour(CATALOG.accelerator("H100-SXM"))
    assert owned is not None
    assert owned.value == pytest.approx(purchase + power) == pytest.approx(1.562, abs=0.001)
    assert owned.low < 0.6 * owned.value and owned.high > 1.8 * owned.value


def test_what_nobody_sells_has_no_price_of_ownership() -> None:
    assert ASSUMED.onprem_usd_per_gpu_hour(CATALOG.accelerator("A10G")) is None
    assert ASSUMED.onprem_usd_per_gpu_hour(CATALOG.accelerator("TPU-v5e")) is None
    bought = ASSUMED.with_values({"onprem_capex_usd.A10G": 3000})
    assert bought.onprem_usd_per_gpu_hour(CATALOG.accelerator("A10G")) is not None


@given(st.sampled_from(ASSUMED.names()), st.floats(0, 1e6))
def test_the_user_has_the_last_word(name: str, value: float) -> None:
    changed = ASSUMED.with_values({name: value})
    field, _, key = name.partition(".")
    stated = getattr(changed, field)[key] if key else getattr(changed, field)
    assert (stated.low, stated.value, stated.high) == (value, value, value)
    assert stated.why == "set by the user"
    others = set(ASSUMED.names()) - {name}
    assert len(others) == len(ASSUMED.names()) - 1
    assert ASSUMED.with_values({}) == ASSUMED


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"request_overhead": 0.01}, "did you mean request_overhead_s"),
        ({"request_overhead_s": "fast"}, "request_overhead_s = 'fast': a number from 0 up"),
        ({"request_overhead_s": -1}, "a number from 0 up"),
        ({"request_overhead_s": float("nan")}, "a number from 0 up"),
        ({"request_overhead_s": True}, "a number from 0 up"),
        ({"onprem_capex_usd": 1}, "assumption 'onprem_capex_usd' is unknown"),
        ({"adaptations": 1}, "assumption 'adaptations' is unknown"),
        ({"request_overhead_s.value": 1}, "is unknown"),
    ],
)
def test_a_wrong_override_is_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        ASSUMED.with_values(values)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8", "int8", "int4", "fp4"])
def test_every_format_has_an_effect_within_what_was_published(precision: str) -> None:
    effect = Assumptions.quantization_effect(ASSUMED, precision)  # type: ignore[arg-type]
    assert effect.low <= effect.recovery <= effect.high <= 1
    published = {row.id: min(row.score, 1.0) for row in CATALOG.evidence}
    scores = [published[row] for row in effect.evidence]  # each id exists
    if scores:
        mean = sum(scores) / len(scores)
        assert effect.low <= min(scores) and effect.recovery == pytest.approx(mean, abs=0.015)


def test_fewer_bits_never_score_higher() -> None:
    order = ("bf16", "fp8", "int8", "int4", "fp4")
    recoveries = [ASSUMED.quantization_effect(name).recovery for name in order]  # type: ignore[arg-type]
    assert recoveries == sorted(recoveries, reverse=True)
    assert ASSUMED.quantization_effect("fp8", part="kv_cache").recovery < 1
    with pytest.raises(InputError, match="no quality effect is stated for kv_cache in fp4"):
        ASSUMED.quantization_effect("fp4", part="kv_cache")
