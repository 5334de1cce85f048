"""Money: hand-computed bills."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog import HostedModel, load_catalog
from advisor.economics import (
    Amount,
    accelerator_price,
    adaptation_once,
    fleet_month,
    hosted_request,
    product,
    spread_over_months,
    total,
)
from advisor.task import Constraints, Tokens, Traffic


def test_a_month_of_two_accelerators() -> None:
    catalog = load_catalog()
    price = accelerator_price(
        catalog, catalog.accelerator("H100-SXM"), Constraints(clouds=("lambda",))
    )
    assert price is not None
    assert price.usd.value == 3.99
    assert fleet_month(price, 2).value == pytest.approx(2 * 3.99 * 730.5)


def test_the_cheapest_provider_counts_and_the_dearest_is_the_upper_end() -> None:
    catalog = load_catalog()
    listed = catalog.gpu_prices("H100-SXM")
    price = accelerator_price(catalog, catalog.accelerator("H100-SXM"), Constraints())
    assert price is not None
    assert (price.usd.value, price.usd.high) == (
        min(p.usd_per_hour for p in listed),
        max(p.usd_per_hour for p in listed),
    )


def test_marketplaces_count_only_by_name_and_never_for_private_data() -> None:
    catalog = load_catalog()
    gpu = catalog.accelerator("H100-SXM")
    named = accelerator_price(catalog, gpu, Constraints(clouds=("vast",)))
    assert named is not None and named.provider == "vast"
    private = Constraints(clouds=("vast",), data_residency="vpc")
    assert accelerator_price(catalog, gpu, private) is None
    default = accelerator_price(catalog, gpu, Constraints())
    assert default is not None and default.provider != "vast"


def test_ones_own_price_beats_the_list() -> None:
    catalog = load_catalog()
    own = Constraints(usd_per_accelerator_hour={"H100-SXM": 1.5})
    price = accelerator_price(catalog, catalog.accelerator("H100-SXM"), own)
    assert price is not None
    assert price.usd == Amount.exactly(1.5)


def test_owned_hardware_costs_purchase_operations_and_power() -> None:
    catalog = load_catalog()
    price = accelerator_price(
        catalog, catalog.accelerator("L4"), Constraints(data_residency="air_gapped")
    )
    assert price is not None and price.provider == "owned"
    # 4000 USD over 48 months with 10 % a year of operations, 72 W x 1.4 x 1.4 at 0.12 USD/kWh.
    by_hand = 4000 * (1 / 48 + 0.1 / 12) / 730.5 + 0.072 * 1.4 * 1.4 * 0.12
    assert price.usd.value == pytest.approx(by_hand)
    assert price.usd.low < by_hand < price.usd.high


def test_tokens_of_a_hosted_request() -> None:
    model = HostedModel(
        id="m",
        provider="p",
        role="llm",
        input_usd_per_mtok=2.0,
        output_usd_per_mtok=8.0,
        cached_input_usd_per_mtok=0.5,
        context_tokens=1000,
        as_of="2026-01-01",
        source="test",
    )
    bill = hosted_request(model, input_tokens=1000, output_tokens=100, cached_tokens=600)
    assert bill.value == pytest.approx((400 * 2 + 600 * 0.5 + 100 * 8) / 1e6)
    assert bill.high == pytest.approx((1000 * 2 + 100 * 8) / 1e6)


def traffic(tokens_in: float, tokens_out: float) -> Traffic:
    return Traffic(
        requests_per_day=1000,
        input_tokens=Tokens(mean=tokens_in),
        output_tokens=Tokens(mean=tokens_out),
    )


def test_lora_costs_labels_training_and_people_once() -> None:
    assumptions = load_catalog().assumptions
    once = adaptation_once(assumptions, "lora", params_b=8, traffic=traffic(900, 100))
    # 2,000 labels, five runs of 8 billion parameters on 2,000 examples of 1,000 tokens.
    by_hand = 2000 * 0.3 + 0.43 * 8 * (2000 / 1e4) * 1 * 5 + 5000
    assert once.value == pytest.approx(by_hand)
    assert spread_over_months(assumptions, once).value == pytest.approx(by_hand / 12)


def test_prompting_needs_no_training() -> None:
    assumptions = load_catalog().assumptions
    assert adaptation_once(
        assumptions, "zero_shot", params_b=70, traffic=traffic(10, 1)
    ) == Amount.exactly(0.0)
    few = adaptation_once(assumptions, "few_shot", params_b=70, traffic=traffic(10, 1))
    assert few.value == pytest.approx(5 * 0.3)


amounts = st.builds(
    lambda value, below, above: Amount(value=value, low=value - below, high=value + above),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)


@given(st.lists(amounts, max_size=6))
def test_a_sum_keeps_its_order_and_narrows_against_adding_the_ends(parts: list[Amount]) -> None:
    whole = total(parts)
    assert whole.low <= whole.value <= whole.high
    assert whole.value == pytest.approx(sum(p.value for p in parts))
    assert whole.high <= sum(p.high for p in parts) * (1 + 1e-9) + 1e-9


def test_a_product_of_two_factors_by_hand() -> None:
    assumptions = load_catalog().assumptions
    two = product([assumptions.training_runs, assumptions.labelled_example_usd])
    assert two.value == pytest.approx(5 * 0.3)
    # 20/5 = 4 and 3/0.3 = 10 as ratios: exp(hypot(1.386, 2.303)) = exp(2.688) = 14.7, not 40.
    assert two.high / two.value == pytest.approx(14.70, abs=0.01)
