"""Hosted models and their list prices: from `genai-prices` where it knows them, else as shipped."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from advisor.catalog.dates import Day
from advisor.records import Record

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

HostedRole = Literal["slm", "mid", "llm"]


class TokenRates(Record):
    """USD per million tokens."""

    input_usd_per_mtok: NonNegativeFloat
    output_usd_per_mtok: NonNegativeFloat
    cached_input_usd_per_mtok: NonNegativeFloat | None = None
    """Input tokens read from the provider's prompt cache; None: billed as input."""


class LongPromptRates(TokenRates):
    """Rates of a whole request whose prompt is longer than a bound."""

    above_prompt_tokens: PositiveInt


class HostedModel(TokenRates):
    """One model behind an API, at its standard list price."""

    id: str
    provider: str
    role: HostedRole
    context_tokens: PositiveInt
    long_prompts: tuple[LongPromptRates, ...] = ()
    """Dearer rates for long prompts, by rising bound."""
    params_b: None = None
    """Providers do not publish it."""
    retires_on: Day | None = None
    """Date from which it is no longer served (YYYY-MM-DD)."""
    as_of: Day
    """Date for which the price holds (YYYY-MM-DD)."""
    source: str
    """Where the price is from."""
    note: str = ""

    def rates(self, prompt_tokens: float) -> TokenRates:
        """Rates of a request with a prompt of that many tokens."""
        reached = [tier for tier in self.long_prompts if prompt_tokens > tier.above_prompt_tokens]
        return reached[-1] if reached else self

    def is_served(self, on: dt.date) -> bool:
        """Whether it can still be called on a date."""
        return self.retires_on is None or on.isoformat() < self.retires_on


class HostedRow(Record):
    """One hosted model in a file."""

    id: str
    provider: str
    role: HostedRole
    input: NonNegativeFloat
    """USD per million tokens."""
    output: NonNegativeFloat
    cached_input: NonNegativeFloat | None = None
    context: PositiveInt
    """Tokens of prompt and answer."""
    retires_on: Day | None = None
    source_url: str | None = None
    genai_prices: str | None = None
    """`provider/model` in genai-prices; None: look nothing up and keep the shipped price."""
    note: str = ""


class HostedFile(Record):
    """profiles/prices/hosted.yaml."""

    as_of: Day
    source: str
    models: tuple[HostedRow, ...] = Field(min_length=1)


def hosted_models(file: HostedFile, *, on: dt.date) -> tuple[HostedModel, ...]:
    """The hosted models with their prices on a date.

    A price that changes with the hour is given as the mean over the 24 hours of a day, since
    requests come at all of them.
    """
    return tuple(_current(row, on) or _shipped(row, file) for row in file.models)


def _shipped(row: HostedRow, file: HostedFile) -> HostedModel:
    return HostedModel(
        id=row.id,
        provider=row.provider,
        role=row.role,
        input_usd_per_mtok=row.input,
        output_usd_per_mtok=row.output,
        cached_input_usd_per_mtok=row.cached_input,
        context_tokens=row.context,
        retires_on=row.retires_on,
        as_of=file.as_of,
        source=f"shipped list: {row.source_url or file.source}",
        note=row.note,
    )


def _current(row: HostedRow, on: dt.date) -> HostedModel | None:
    """The model at its genai-prices rates; None where that does not know it or its price."""
    info = _lookup(row)
    if info is None:
        return None
    hours = _prices_of_day(info, on)
    if any(price.input_mtok is None or price.output_mtok is None for price in hours):
        return None
    base = [_base_rates(price) for price in hours]
    bounds = sorted({tier.start for price in hours for tier in _tiers(price.input_mtok)})
    return HostedModel(
        id=row.id,
        provider=row.provider,
        role=row.role,
        **_mean(base),
        context_tokens=row.context,
        long_prompts=tuple(
            LongPromptRates(
                above_prompt_tokens=bound, **_mean([_base_rates(price, bound) for price in hours])
            )
            for bound in bounds
        ),
        retires_on=row.retires_on,
        as_of=on.isoformat(),
        source=f"genai-prices {_package_version()}",
        note="; ".join(filter(None, (row.note, _hourly_note(base)))),
    )


def _prices_of_day(info: ModelInfo, on: dt.date) -> list[Any]:
    """The `ModelPrice` of each hour of a day; one where there is only one price."""
    conditional = isinstance(info.prices, list)
    return [
        info.get_prices(dt.datetime.combine(on, dt.time(hour), tzinfo=dt.UTC))
        for hour in (range(24) if conditional else (0,))
    ]


def _lookup(row: HostedRow) -> ModelInfo | None:
    if row.genai_prices is None:
        return None
    from genai_prices.data_snapshot import get_snapshot

    provider, _, model = row.genai_prices.partition("/")
    try:
        return get_snapshot().find_provider_model(model, None, provider, None)[1]
    except LookupError:
        return None


def _base_rates(price: Any, prompt_tokens: int = 0) -> dict[str, float | None]:
    """Rates of one `ModelPrice` just above a prompt length."""
    return {
        "input_usd_per_mtok": _rate(price.input_mtok, prompt_tokens),
        "output_usd_per_mtok": _rate(price.output_mtok, prompt_tokens),
        "cached_input_usd_per_mtok": _rate(price.cache_read_mtok, prompt_tokens),
    }


def _rate(price: Any, prompt_tokens: int) -> float | None:
    if price is None:
        return None
    reached = [tier.price for tier in _tiers(price) if tier.start <= prompt_tokens]
    return float(reached[-1] if reached else getattr(price, "base", price))


def _tiers(price: Any) -> tuple[Any, ...]:
    return tuple(sorted(getattr(price, "tiers", ()), key=lambda tier: tier.start))


def _mean(rates: Iterable[dict[str, float | None]]) -> dict[str, Any]:
    by_name: dict[str, list[float | None]] = {}
    for rate in rates:
        for name, value in rate.items():
            by_name.setdefault(name, []).append(value)
    return {
        name: None if None in values else round(sum(v for v in values if v) / len(values), 6)
        for name, values in by_name.items()
    }


def _hourly_note(rates: list[dict[str, float | None]]) -> str:
    inputs = {rate["input_usd_per_mtok"] or 0.0 for rate in rates}
    if len(inputs) == 1:
        return ""
    return f"input {min(inputs):g} to {max(inputs):g} USD by the hour of the day, mean given"


@cache
def _package_version() -> str:
    from importlib.metadata import version

    return version("genai-prices")
