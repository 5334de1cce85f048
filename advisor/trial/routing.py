"""The router's configuration in a trial."""

from __future__ import annotations

from advisor.router.config import RouterConfig
from advisor.router.settings import (
    HighRiskRule,
    PolicySettings,
    RouterTask,
    TokenPrice,
    UpstreamSettings,
)
from advisor.task import TaskProfile
from advisor.trial.choice import ThresholdChoice
from advisor.trial.endpoints import RISK_HEADER, Endpoint
from advisor.trial.reporting.report import PolicyChoice


def config_of(
    task: TaskProfile, slm: Endpoint, llm: Endpoint, *, policy: PolicyChoice,
    choice: ThresholdChoice | None, timeout_s: float,
) -> RouterConfig:  # fmt: skip
    """The router in front of two endpoints.

    Args:
        choice: the cascade's threshold; None of the other policies.
        timeout_s: for an answer of either.
    """
    return RouterConfig(
        task=RouterTask.of_task(task.task),
        slm=_upstream(slm, timeout_s),
        llm=_upstream(llm, timeout_s),
        policy=(
            PolicySettings(name="cascade", threshold=choice.threshold)
            if choice is not None
            else PolicySettings(name=policy)
        ),
        high_risk=(HighRiskRule(header=RISK_HEADER),) if policy == "cascade" else (),
    )


def _upstream(endpoint: Endpoint, timeout_s: float) -> UpstreamSettings:
    price = endpoint.price
    return UpstreamSettings(
        base_url=endpoint.base_url,
        model=endpoint.model,
        api_key_env=endpoint.api_key_env,
        timeout_s=timeout_s,
        price=None if price is None else TokenPrice(
            input_usd_per_mtok=1e6 * price.usd_per_input_token,
            output_usd_per_mtok=1e6 * price.usd_per_output_token,
            usd_per_request=price.usd_per_request,
        ),
        extra_body=dict(endpoint.request_extras),
    )  # fmt: skip
