"""The assumed latency of hosted APIs: one law for the search, the whole and the simulator."""

import math

import numpy as np
import pytest

from advisor.catalog import HostedModel, load_catalog
from advisor.decide.hosted import HostedLatency
from advisor.serving.workload import Requests

CATALOG = load_catalog()


def requests(count: int, input_tokens: int) -> Requests:
    return Requests(
        input_tokens=np.full(count, input_tokens),
        output_tokens=np.full(count, 50),
        cached_tokens=np.zeros(count, dtype=int),
        arrival_s=np.arange(count, dtype=float),
    )


def model(role: str) -> HostedModel:
    return next(one for one in CATALOG.hosted if one.role == role)


@pytest.mark.parametrize("role", ["slm", "llm"])
def test_what_is_drawn_has_the_percentiles_that_are_assumed(role: str) -> None:
    latency = HostedLatency.of(model(role), CATALOG.assumptions)
    first, token = latency.drawn(requests(200_000, 1), np.random.default_rng(1))
    ratio = latency.p95_over_median
    assert np.median(first) == pytest.approx(latency.first.value, rel=0.01)
    assert np.quantile(first, 0.95) == pytest.approx(ratio * latency.first.value, rel=0.02)
    slow = math.sqrt(ratio) * latency.token.value
    assert np.quantile(token, 0.95) == pytest.approx(slow, rel=0.02)


def test_the_simulator_s_tier_has_the_same_percentiles_for_prompts_of_one_length() -> None:
    latency = HostedLatency.of(model("llm"), CATALOG.assumptions)
    prompts = requests(200_000, 3000)
    first, token = latency.drawn(prompts, np.random.default_rng(1))
    tier = latency.tier(prompts, rate_limit_per_s=None)
    assert tier.ttft_median_s == pytest.approx(np.median(first), rel=0.01)
    assert tier.ttft_p95_s == pytest.approx(np.quantile(first, 0.95), rel=0.02)
    assert tier.token_p95_s == pytest.approx(np.quantile(token, 0.95), rel=0.02)


def test_a_small_model_is_assumed_to_be_quicker() -> None:
    small, large = (HostedLatency.of(model(role), CATALOG.assumptions) for role in ("slm", "llm"))
    assert small.first.value < large.first.value
    assert small.token.value < large.token.value
