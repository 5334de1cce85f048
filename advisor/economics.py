"""Money: what accelerators, tokens and training cost, each figure with its range.

A month is 730.5 hours; money is USD. Rented accelerators are charged for every hour, busy or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from advisor.catalog import Assumption, Assumptions, Catalog, HostedModel
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.records import Record
from advisor.task import HOURS_PER_MONTH, Constraints, Traffic


class Amount(Record):
    """USD with a 90 % range."""

    value: float
    low: float
    high: float

    def __add__(self, other: Amount) -> Amount:
        """The sum; the distances to the ends add in quadrature, as for independent parts."""
        value = self.value + other.value
        below = math.hypot(self.value - self.low, other.value - other.low)
        above = math.hypot(self.high - self.value, other.high - other.value)
        return Amount(value=value, low=value - below, high=value + above)

    def times(self, factor: float) -> Amount:
        """The amount `factor` (≥ 0) times."""
        return Amount(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    @classmethod
    def exactly(cls, value: float) -> Amount:
        """A known amount."""
        return cls(value=value, low=value, high=value)


NOTHING = Amount.exactly(0.0)


class HourlyPrice(Record):
    """What one accelerator costs for an hour, and who says so."""

    accelerator: str
    provider: str
    usd: Amount
    basis: str
    as_of: str


def accelerator_price(
    catalog: Catalog, accelerator: AcceleratorSpec, constraints: Constraints
) -> HourlyPrice | None:
    """The price that counts under a task's constraints; None where there is none.

    The user's own price first; ownership where the hardware must stand in house; else the cheapest
    listed provider among the allowed ones, with the dearest of them as the upper end. Marketplaces
    count only where they are named and the data may go anywhere.
    """
    own = constraints.usd_per_accelerator_hour.get(accelerator.id)
    if own is not None:
        return HourlyPrice(
            accelerator=accelerator.id,
            provider="own price",
            usd=Amount.exactly(own),
            basis="stated in the task profile",
            as_of="",
        )
    if constraints.owned_hardware:
        owned = catalog.assumptions.onprem_usd_per_gpu_hour(accelerator)
        if owned is None:
            return None
        return HourlyPrice(
            accelerator=accelerator.id,
            provider="owned",
            usd=Amount(value=owned.value, low=owned.low, high=owned.high),
            basis=owned.why,
            as_of="",
        )
    named = {cloud.casefold() for cloud in constraints.clouds or ()}
    listed = catalog.gpu_prices(
        accelerator.id,
        clouds=constraints.clouds,
        marketplace=constraints.hosted_allowed and bool(named),
    )
    if not listed:
        return None
    cheapest, dearest = listed[0], listed[-1]
    return HourlyPrice(
        accelerator=accelerator.id,
        provider=cheapest.provider,
        usd=Amount(
            value=cheapest.usd_per_hour, low=cheapest.usd_per_hour, high=dearest.usd_per_hour
        ),
        basis=f"list price of {cheapest.provider} on {cheapest.as_of}, cheapest of {len(listed)}",
        as_of=cheapest.as_of,
    )


def fleet_month(price: HourlyPrice, accelerators: int) -> Amount:
    """USD a month for so many accelerators, all hours."""
    return price.usd.times(accelerators * HOURS_PER_MONTH)


def hosted_request(
    model: HostedModel, *, input_tokens: float, output_tokens: float, cached_tokens: float
) -> Amount:
    """USD for one request to a hosted API.

        ((input − cached)·p_in + cached·p_cached + output·p_out) / 10⁶

    The upper end takes every prompt token at the full price: providers do not promise cache hits.
    """
    rates = model.rates(input_tokens)
    cached_rate = (
        rates.input_usd_per_mtok
        if rates.cached_input_usd_per_mtok is None
        else rates.cached_input_usd_per_mtok
    )
    output_usd = output_tokens * rates.output_usd_per_mtok
    value = (
        (input_tokens - cached_tokens) * rates.input_usd_per_mtok
        + cached_tokens * cached_rate
        + output_usd
    )
    high = input_tokens * rates.input_usd_per_mtok + output_usd
    return Amount(value=value / 1e6, low=value / 1e6, high=high / 1e6)


def adaptation_once(
    assumptions: Assumptions, adaptation: str, *, params_b: float, traffic: Traffic
) -> Amount:
    """One-off USD of adapting a model of `params_b` billion parameters to a task.

    Labels, teacher's labels, training and people's time, as the adaptation lists them. Training is
    lora_training_usd · params_b · examples/10⁴ · tokens/10³ · runs, scaled by the adaptation's
    FLOPs a parameter and token over those of LoRA (6).
    """
    known = assumptions.adaptation(adaptation)
    tokens = traffic.input_tokens.mean_tokens + traffic.output_tokens.mean_tokens
    taught = "teacher_labels" in known.one_off
    examples = assumptions.distillation_examples if taught else assumptions.training_examples

    parts = {
        "labels": [assumptions.labelled_example_usd]
        + ([] if known.shots else [assumptions.training_examples]),
        "teacher_labels": [examples, assumptions.teacher_labelled_example_usd],
        "training": [examples, assumptions.lora_training_usd, assumptions.training_runs],
        "engineering": [assumptions.adaptation_engineering_usd],
    }
    scale = {
        "labels": float(known.shots or 1),
        "training": known.training_flops_per_parameter_token / 6 * params_b * tokens / 1e7,
    }
    return total(product(parts[part]).times(scale.get(part, 1.0)) for part in known.one_off)


def product(factors: Iterable[Assumption]) -> Amount:
    """A product of uncertain factors, taken as independent and lognormal.

    The logarithms of the ends' ratios to the values add in quadrature.
    """
    value, below, above = 1.0, 0.0, 0.0
    for factor in factors:
        if factor.value == 0:
            return NOTHING
        value *= factor.value
        below = math.hypot(below, math.log(factor.value / max(factor.low, 1e-3 * factor.value)))
        above = math.hypot(above, math.log(factor.high / factor.value))
    return Amount(value=value, low=value * math.exp(-below), high=value * math.exp(above))


def spread_over_months(assumptions: Assumptions, once: Amount) -> Amount:
    """USD a month of a one-off cost over the assumed months of use."""
    if once.value == 0:
        return NOTHING
    months = assumptions.one_off_amortization_months
    below = math.hypot(math.log(once.value / once.low), math.log(months.high / months.value))
    above = math.hypot(math.log(once.high / once.value), math.log(months.value / months.low))
    value = once.value / months.value
    return Amount(value=value, low=value * math.exp(-below), high=value * math.exp(above))


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of amounts."""
    return sum(amounts, NOTHING)
