"""Hosted models: which list a price is from, and what a long prompt or the hour does to it."""

from __future__ import annotations

import datetime as dt

import pytest

from advisor.catalog import HostedModel, load_catalog
from advisor.catalog.hosted import HostedFile, HostedRow, hosted_models

DAY = dt.date(2026, 11, 22)
HOSTED = {model.id: model for model in load_catalog().hosted_on(DAY)}


def one(**changes: object) -> HostedModel:
    given = {
        "id": "m",
        "provider": "p",
        "role": "slm",
        "input": 1.0,
        "output": 2.0,
        "context": 1000,
        "source_url": "https://example.org",
    }
    file = HostedFile(
        as_of="2026-01-01",
        source="list",
        models=(HostedRow.model_validate(given | changes),),
    )
    return hosted_models(file, on=DAY)[0]


def test_forty_one_models_each_with_price_date_and_source() -> None:
    assert len(HOSTED) == 41
    for model in HOSTED.values():
        assert model.output_usd_per_mtok >= model.input_usd_per_mtok > 0
        assert model.source.startswith(("genai-prices 0.", "shipped list: "))
        assert model.params_b is None


def test_genai_prices_is_asked_first_and_the_shipped_list_second() -> None:
    known = one(genai_prices="openai/gpt-4o-mini", input=99.0)
    assert known.input_usd_per_mtok == 0.15 and known.source.startswith("genai-prices")
    assert known.as_of == "2026-11-22"
    unknown = one(genai_prices="openai/no-such-model-at-all")
    assert (unknown.input_usd_per_mtok, unknown.as_of) == (1.0, "2026-01-01")
    assert unknown.source == "shipped list: https://example.org"
    assert one().source == unknown.source


def test_a_price_that_changes_with_the_hour_is_averaged_over_the_day() -> None:
    """Dear from 1 to 4 and from 6 to 10 h UTC: (7 x 1.32 + 17 x 0.66) / 24 = 0.8525."""
    model = HOSTED["deepseek/deepseek-v4-pro"]
    assert model.input_usd_per_mtok == pytest.approx((7 * 1.32 + 17 * 0.66) / 24)
    assert "0.66 to 1.32 USD by the hour" in model.note


def test_a_price_that_changes_on_a_date() -> None:
    later = {model.id: model for model in load_catalog().hosted_on(dt.date(2027, 1, 1))}
    before, after = HOSTED["gemini-3.8-flash"], later["gemini-3.8-flash"]
    assert (before.input_usd_per_mtok, after.input_usd_per_mtok) == (0.75, 1.5)


def test_a_long_prompt_is_dearer_for_all_its_tokens() -> None:
    model = HOSTED["claude-haiku-5-5"]
    assert model.rates(100_000).input_usd_per_mtok == 0.1
    assert model.rates(100_001).input_usd_per_mtok == 0.5
    assert model.rates(100_001).output_usd_per_mtok == 2.5
    assert HOSTED["gpt-4o-mini"].rates(127_000).input_usd_per_mtok == 0.15


def test_a_retired_model_is_not_served() -> None:
    model = HOSTED["together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo"]
    assert not model.is_served(DAY)
    assert model.is_served(dt.date(2026, 10, 21))
    assert HOSTED["gpt-4o-mini"].is_served(DAY)
