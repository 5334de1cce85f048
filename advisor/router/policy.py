"""Who is asked first, decided from the request alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

from advisor.quality.patterns import PatternTimeoutError, found_in
from advisor.router import prerouting
from advisor.router.config import RouterConfig
from advisor.router.gating import GateStep
from advisor.router.requests import RouterRequest
from advisor.router.settings import HighRiskRule, PolicyName, TypeRule

Start = Literal["slm", "llm", "cascade"]

OTHER_TYPES = "*"
"""Key of `policy.by_type` for every type that is not named there, and for none."""

FALSE_TEXTS = frozenset({"", "0", "false", "no", "none", "low"})


@dataclass(frozen=True)
class Plan:
    """How one request is answered."""

    start: Start
    """slm and llm: that one alone; cascade: the small one, and the large one where need be."""
    reason: str
    """Of the start: policy, high_risk, task_type, prerouter."""
    gates: GateStep
    threshold: float | None = None
    hedge_after_s: float | None = None
    is_high_risk: bool = False

    @property
    def key(self) -> str:
        """Part of the cache's key: answers of one plan do not serve another."""
        kind = "llm" if self.start == "llm" else self.start
        return f"{kind}:{self.threshold}:{'risk' if self.is_high_risk else ''}"


class Policy:
    """The policy of a configuration.

    Raises:
        InputError: the pre-router's file cannot be used.
    """

    def __init__(self, config: RouterConfig) -> None:
        self._settings, self._high_risk = config.policy, config.high_risk
        self._gates = GateStep(config.task, config.policy)
        self._gates_by_type = {
            name: GateStep(rule.task, config.policy) if rule.task else self._gates
            for name, rule in config.policy.by_type.items()
        }
        chosen = config.policy.prerouter
        self._prerouter = prerouting.load(chosen.file) if chosen else None

    def plan(self, request: RouterRequest) -> Plan:
        """How a request is answered: high-risk rules first, then its type, then the policy."""
        name, rule = self._type_rule(request)
        gates = self._gates_by_type[name] if rule else self._gates
        if any(_applies(one, request) for one in self._high_risk):
            return Plan(start="llm", reason="high_risk", gates=gates, is_high_risk=True)
        if rule is not None:
            return self._by_name(rule.policy, rule.threshold, "task_type", gates, request)
        canary = self._settings.canary
        if canary is not None and _place(request) < canary.share:
            return self._by_name(canary.policy, canary.threshold, "canary", gates, request)
        settings = self._settings
        return self._by_name(settings.name, settings.threshold, "policy", gates, request)

    def _by_name(
        self,
        name: PolicyName,
        threshold: float | None,
        reason: str,
        gates: GateStep,
        request: RouterRequest,
    ) -> Plan:
        if name in ("slm_only", "llm_only"):
            return Plan(start="slm" if name == "slm_only" else "llm", reason=reason, gates=gates)
        if name == "prerouter" and self._goes_up(request):
            return Plan(start="llm", reason="prerouter", gates=gates)
        hedge = self._settings.hedge_after_s if name == "hedge" else None
        return Plan(
            start="cascade", reason=reason, gates=gates, threshold=threshold, hedge_after_s=hedge
        )

    def _type_rule(self, request: RouterRequest) -> tuple[str, TypeRule | None]:
        rules = self._settings.by_type
        stated = request.task_type
        name = stated if stated is not None and stated in rules else OTHER_TYPES
        return name, rules.get(name)

    def _goes_up(self, request: RouterRequest) -> bool:
        assert self._prerouter is not None and self._settings.prerouter is not None
        gain = float(self._prerouter.gain([request.last_user_text])[0])
        return gain >= self._settings.prerouter.min_gain


def _place(request: RouterRequest) -> float:
    """Where a request falls between 0 and 1; the same request always at the same place."""
    return zlib.crc32(request.canonical) / 2**32


def _applies(rule: HighRiskRule, request: RouterRequest) -> bool:
    if rule.pattern is not None:
        try:
            return found_in(rule.pattern, request.text)
        except PatternTimeoutError:
            # What cannot be told to be harmless is treated as if it were not.
            return True
    if rule.header is not None:
        value: object = request.headers.get(rule.header.lower())
    else:
        assert rule.field is not None
        value = request.at(rule.field)
    if value is None:
        return False
    texts = [str(one).strip().lower() for one in (value if isinstance(value, list) else [value])]
    if rule.values:
        return bool({wanted.strip().lower() for wanted in rule.values} & set(texts))
    return any(text not in FALSE_TEXTS for text in texts)
