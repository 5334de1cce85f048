"""What requests cost: tokens as the upstreams report them, at the configured prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from advisor.catalog import load_catalog
from advisor.errors import InputError
from advisor.router.config import RouterConfig, TierName
from advisor.router.settings import TokenPrice

BYTES_PER_TOKEN = 4
"""Assumed where an upstream took a request and did not say what it used: English text, usual
tokenisers. Such figures are marked as estimated."""

Purpose = Literal["answer", "shadow"]


@dataclass(frozen=True)
class Usage:
    """Tokens of one attempt."""

    input_tokens: int = 0
    cached_tokens: int = 0
    """Of the input, read from the upstream's prompt cache."""
    output_tokens: int = 0
    estimated: bool = False
    """Whether the upstream did not say."""

    @classmethod
    def reported(cls, usage: Any) -> Usage | None:
        """From the OpenAI form; None where there is none."""
        if not isinstance(usage, dict):
            return None
        prompt, answer = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        if prompt is None or answer is None:
            return None
        details = usage.get("prompt_tokens_details")
        cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
        return cls(
            input_tokens=prompt, cached_tokens=min(cached or 0, prompt), output_tokens=answer
        )

    @classmethod
    def assumed(cls, *, sent_bytes: int, output_tokens: int) -> Usage:
        """For an upstream that did not say."""
        return cls(
            input_tokens=-(-sent_bytes // BYTES_PER_TOKEN),
            output_tokens=output_tokens,
            estimated=True,
        )


def _count(usage: Mapping[str, Any], key: str) -> int | None:
    found = usage.get(key)
    usable = isinstance(found, int) and not isinstance(found, bool) and found >= 0
    return found if usable else None


def cost_usd(price: TokenPrice, usage: Usage) -> float:
    """USD of one attempt.

    request + ((input − cached)·p_in + cached·p_cached + output·p_out) / 10⁶
    """
    cached_rate = price.cached_input_usd_per_mtok
    if cached_rate is None:
        cached_rate = price.input_usd_per_mtok
    tokens = (
        (usage.input_tokens - usage.cached_tokens) * price.input_usd_per_mtok
        + usage.cached_tokens * cached_rate
        + usage.output_tokens * price.output_usd_per_mtok
    )
    return price.usd_per_request + tokens / 1e6


def prices(config: RouterConfig) -> dict[TierName, TokenPrice | None]:
    """The price of each tier; names of hosted models are looked up in the catalogue.

    Raises:
        InputError: a name that the catalogue does not know.
    """
    return {name: _price(tier.price, name) for name, tier in config.tiers.items()}


def _price(stated: TokenPrice | str | None, tier: TierName) -> TokenPrice | None:
    if not isinstance(stated, str):
        return stated
    hosted = {model.id: model for model in load_catalog().hosted}
    if stated not in hosted:
        raise InputError(
            f"router configuration: {tier}.price = '{stated}': no hosted model of that name; "
            f"known: {', '.join(hosted)}"
        )
    found = hosted[stated]
    return TokenPrice(
        input_usd_per_mtok=found.input_usd_per_mtok,
        output_usd_per_mtok=found.output_usd_per_mtok,
        cached_input_usd_per_mtok=found.cached_input_usd_per_mtok,
    )


@dataclass(frozen=True)
class Charge:
    """One attempt on a request's bill."""

    tier: TierName
    usage: Usage
    usd: float | None
    """None: the tier has no price."""
    purpose: Purpose = "answer"


@dataclass
class Bill:
    """What one request has spent so far, retries and discarded answers included."""

    charges: list[Charge] = field(default_factory=list)

    @property
    def usd(self) -> float | None:
        """The sum; None where a model that was used has no price."""
        known = [charge.usd for charge in self.charges if charge.usd is not None]
        return sum(known) if len(known) == len(self.charges) else None

    @property
    def estimated(self) -> bool:
        """Whether any part is not as an upstream reported it."""
        return any(charge.usage.estimated for charge in self.charges)

    def tokens(self, tier: TierName) -> tuple[int, int]:
        """Input and output tokens of one tier."""
        used = [charge.usage for charge in self.charges if charge.tier == tier]
        return sum(u.input_tokens for u in used), sum(u.output_tokens for u in used)
