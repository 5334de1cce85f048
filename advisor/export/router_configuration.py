"""A recommendation as a configuration of the router: what was simulated is what runs."""

from __future__ import annotations

from advisor.decide.recommendation import Chosen, HostedTier, Recommendation, Role, Tier
from advisor.errors import InputError
from advisor.router.config import RouterConfig
from advisor.router.settings import (
    CacheSettings,
    HighRiskRule,
    PolicySettings,
    RouterTask,
    TelemetrySettings,
    TokenPrice,
    UpstreamSettings,
)
from advisor.task import HOURS_PER_MONTH, TaskProfile

LOCAL_URLS: dict[Role, str] = {"slm": "http://127.0.0.1:8001/v1", "llm": "http://127.0.0.1:8002/v1"}
"""Where a self-hosted tier is looked for until the file says better."""

PROVIDER_URLS = {
    "anthropic": "https://api.anthropic.com/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "moonshotai": "https://api.moonshot.ai/v1",
    "openai": "https://api.openai.com/v1",
    "together": "https://api.together.xyz/v1",
    "xai": "https://api.x.ai/v1",
    "zai": "https://api.z.ai/api/paas/v4",
}
"""OpenAI-compatible addresses in the providers' documentation."""

KEY_VARIABLES: dict[Role, str] = {"slm": "ADVISOR_SLM_API_KEY", "llm": "ADVISOR_LLM_API_KEY"}

HEADER = """\
# Router for "{task}": {title}
# advisor route FILE. Addresses of self-hosted models are placeholders: put in those of your own.
{notes}"""


def router_configuration(found: Recommendation, task: TaskProfile) -> RouterConfig:
    """The router that runs a recommendation.

    Self-hosted tiers are charged per request with their share of the fleet's hours at the mean
    rate; hosted ones by the catalogue's token prices.

    Raises:
        InputError: nothing was recommended.
    """
    chosen = found.chosen
    if chosen is None:
        raise InputError("nothing was recommended: there is nothing to route to")
    shares = _shares(chosen, found)
    upstreams = {
        role: _upstream(
            role, tier, requests_per_month=shares[role] * task.traffic.requests_per_month
        )
        for role, tier in chosen.tiers.items()
    }
    risky = task.constraints.high_risk_share > 0 and "llm" in upstreams
    return RouterConfig(
        task=RouterTask.of_task(task.task),
        slm=upstreams.get("slm"),
        llm=upstreams.get("llm"),
        policy=PolicySettings(name=chosen.policy, threshold=chosen.threshold),
        high_risk=(HighRiskRule(header="x-risk", values=("high",)),) if risky else (),
        cache=CacheSettings() if task.traffic.repeat_share > 0 else None,
        telemetry=TelemetrySettings(escalation_limit=task.constraints.max_escalation_rate),
    )


def router_file(found: Recommendation, task: TaskProfile) -> str:
    """The configuration as YAML, with what must be filled in said at its top.

    Raises:
        InputError: nothing was recommended.
    """
    config = router_configuration(found, task)
    assert found.chosen is not None
    notes = "".join(f"# {note}\n" for note in _notes(found.chosen))
    title = found.chosen.title
    return HEADER.format(task=" ".join(task.name.split()), title=title, notes=notes) + (
        config.to_yaml()
    )


def _shares(chosen: Chosen, found: Recommendation) -> dict[Role, float]:
    """Share of all requests that each tier answers or tries."""
    escalated = found.projection.escalation_rate if found.projection else None
    if len(chosen.tiers) == 1 or escalated is None:
        return dict.fromkeys(chosen.tiers, 1.0)
    return {"slm": 1.0, "llm": max(escalated.value, 1e-6)}


def _upstream(role: Role, tier: Tier, *, requests_per_month: float) -> UpstreamSettings:
    if isinstance(tier, HostedTier):
        return UpstreamSettings(
            base_url=PROVIDER_URLS[tier.hosted.provider],
            model=tier.hosted.model,
            api_key_env=KEY_VARIABLES[role],
            price=tier.hosted.model,
        )
    month_usd = tier.accelerators * tier.usd_per_accelerator_hour * HOURS_PER_MONTH
    per_request = TokenPrice(
        input_usd_per_mtok=0.0,
        output_usd_per_mtok=0.0,
        usd_per_request=float(f"{month_usd / requests_per_month:.4g}"),
    )
    return UpstreamSettings(base_url=LOCAL_URLS[role], model=tier.model, price=per_request)


def _notes(chosen: Chosen) -> tuple[str, ...]:
    notes = [
        f"{role}: {tier.adaptation.replace('_', '-')}, as the projection supposes"
        for role, tier in chosen.tiers.items()
        if tier.adaptation != "zero_shot"
    ]
    if chosen.threshold is not None:
        notes.append("threshold: projected; `advisor certify` finds the one that your labels prove")
    return tuple(notes)
