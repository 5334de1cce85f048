"""Latency of a hosted API: lognormal, and all of it assumed until a trial measures it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.catalog import Assumptions, HostedModel
from advisor.catalog.assumptions import Assumption
from advisor.quality.estimate import Z_90
from advisor.serving.tiers import Hosted
from advisor.serving.workload import Requests

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class HostedLatency:
    """What is assumed of one API; wide, visible and the user's to change.

    Time to first token is M·exp(σz) + c·(prompt tokens) with σ = ln(p95/median)/1.645; the time of
    each further token is lognormal by request with half that σ, so its p95 is √(p95/median) times
    its median.
    """

    first: Assumption
    """Median time to first token of a short prompt, s."""
    token: Assumption
    """Median time per output token, s."""
    per_input_token_s: float
    p95_over_median: float
    error_rate: float

    @classmethod
    def of(cls, model: HostedModel, assumptions: Assumptions) -> HostedLatency:
        """By the size of the model."""
        small = model.role == "slm"
        return cls(
            first=assumptions.hosted_ttft_small_s if small else assumptions.hosted_ttft_large_s,
            token=(
                assumptions.hosted_output_token_small_s
                if small
                else assumptions.hosted_output_token_large_s
            ),
            per_input_token_s=assumptions.hosted_ttft_s_per_input_token.value,
            p95_over_median=assumptions.hosted_ttft_p95_over_median.value,
            error_rate=assumptions.hosted_error_rate.value,
        )

    @property
    def log_sd(self) -> float:
        """Of its level: the wider of what is assumed of the first token and of the others."""
        return max(_log_width(self.first), _log_width(self.token))

    def drawn(self, requests: Requests, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Time to first token and time per further token of each request, s, (n,) each."""
        sigma = math.log(self.p95_over_median) / Z_90
        first = self.first.value * np.exp(sigma * rng.standard_normal(len(requests)))
        token = self.token.value * np.exp(0.5 * sigma * rng.standard_normal(len(requests)))
        return first + requests.input_tokens * self.per_input_token_s, token

    def tier(self, requests: Requests, *, rate_limit_per_s: float | None) -> Hosted:
        """As the simulator of cascades takes it: the prompt is the mean one."""
        prompt_s = float(requests.input_tokens.mean()) * self.per_input_token_s
        return Hosted(
            ttft_median_s=self.first.value + prompt_s,
            ttft_p95_s=self.first.value * self.p95_over_median + prompt_s,
            token_median_s=self.token.value,
            token_p95_s=self.token.value * math.sqrt(self.p95_over_median),
            rate_limit_per_s=rate_limit_per_s,
            error_rate=self.error_rate,
        )


def _log_width(assumption: Assumption) -> float:
    return math.log(assumption.high / assumption.low) / (2 * Z_90) if assumption.low > 0 else 0.0
