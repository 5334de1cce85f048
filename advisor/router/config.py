"""The router's configuration: what `recommend --output` writes and `route` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, ValidationError, model_validator

from advisor.documents import parse_yaml, read_yaml
from advisor.errors import InputError
from advisor.records import Record
from advisor.router.addresses import is_loopback
from advisor.router.settings import (
    BudgetSettings,
    CacheSettings,
    FailureSettings,
    HighRiskRule,
    PolicyName,
    PolicySettings,
    RouterTask,
    ServerSettings,
    TelemetrySettings,
    UpstreamSettings,
)

TierName = Literal["slm", "llm"]

UNSHOWN = ("url", "key", "otlp_endpoint", "extra_body")
"""Parts of the names of fields whose value a message leaves out: it may be a secret."""


class ConfigurationError(InputError):
    """Everything that is wrong with a configuration, one line each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        more = len(problems) - 1
        super().__init__(problems[0] + (f" (and {more} more)" if more else ""))
        self.problems = problems


class RouterConfig(Record):
    """Which models, which policy, which limits."""

    model_config = ConfigDict(allow_inf_nan=False)

    task: RouterTask = RouterTask()
    slm: UpstreamSettings | None = None
    """The small model; not needed with slm-free policies."""
    llm: UpstreamSettings | None = None
    policy: PolicySettings = PolicySettings()
    high_risk: tuple[HighRiskRule, ...] = ()
    cache: CacheSettings | None = None
    """None: nothing is kept."""
    budget: BudgetSettings = BudgetSettings()
    failure: FailureSettings = FailureSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    server: ServerSettings = ServerSettings()

    @classmethod
    def load(cls, path: str | Path) -> RouterConfig:
        """Read a configuration; paths in it are relative to its folder.

        Raises:
            ConfigurationError: one line for each thing that is wrong.
            InputError: the file cannot be read, or is not YAML.
        """
        path = Path(path)
        value = read_yaml(path, what="router configuration")
        return cls.from_mapping(value, folder=path.parent)

    @classmethod
    def from_yaml(cls, text: str) -> RouterConfig:
        """A configuration from YAML text.

        Raises:
            InputError: as `load`.
        """
        return cls.from_mapping(parse_yaml(text, what="router configuration"))

    @classmethod
    def from_mapping(cls, value: Any, *, folder: Path = Path()) -> RouterConfig:
        """A configuration from plain data.

        Raises:
            InputError: as `load`.
        """
        if not isinstance(value, dict):
            raise InputError("router configuration: a mapping of keys to values was expected")
        try:
            return cls.model_validate(value)._with_paths_in(folder)
        except ValidationError as error:
            raise ConfigurationError(tuple(_problems(error))) from None

    def to_yaml(self) -> str:
        """YAML that `load` reads back to an equal configuration."""
        document = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)

    @property
    def tiers(self) -> dict[TierName, UpstreamSettings]:
        """The models that are configured."""
        named: dict[TierName, UpstreamSettings | None] = {"slm": self.slm, "llm": self.llm}
        return {name: tier for name, tier in named.items() if tier is not None}

    @property
    def policies(self) -> frozenset[PolicyName]:
        """Every policy that some request may follow; a high-risk rule makes it llm_only."""
        return self.policy.names | (frozenset(["llm_only"]) if self.high_risk else frozenset())

    @property
    def fingerprint(self) -> str:
        """Changes with whatever decides what an answer is: part of the cache's keys."""
        decisive = self.model_dump_json(include={"task", "slm", "llm", "policy"}, by_alias=True)
        return sha256(decisive.encode()).hexdigest()[:16]

    @model_validator(mode="after")
    def _has_the_models_it_asks(self) -> RouterConfig:
        asks_large = self.policies != {"slm_only"}
        asks_small = self.policies != {"llm_only"}
        if asks_large and self.llm is None:
            raise ValueError("llm is missing: the policy asks a large model")
        if asks_small and self.slm is None:
            raise ValueError("slm is missing: the policy asks a small model")
        if self.policy.shadow is not None and (self.slm is None or self.llm is None):
            raise ValueError("policy.shadow needs both slm and llm")
        unpriced = [n for n, t in (("slm", self.slm), ("llm", self.llm)) if t and t.price is None]
        if self.budget.usd_per_day is not None and unpriced:
            raise ValueError(f"budget.usd_per_day needs {unpriced[0]}.price")
        return self

    def check_environment(
        self, environment: Mapping[str, str] = os.environ, *, host: str = "127.0.0.1"
    ) -> None:
        """Check what the configuration refers to, before anything is served.

        Args:
            environment: where keys and URLs are looked up.
            host: address that the server will listen on.

        Raises:
            ConfigurationError: variables that are not set, files that are not there, or an address
                beyond this machine without keys for clients.
        """
        problems = [
            f"{field}: environment variable {name} is not set"
            for field, name in self._variables.items()
            if not environment.get(name, "").strip()
        ]
        problems += [
            f"{field}: environment variable {name} holds a line break or what is not ASCII"
            for field, name in self._variables.items()
            if field.endswith(".api_key_env") and not _is_header(environment.get(name, "").strip())
        ]
        prerouter = self.policy.prerouter
        if prerouter is not None and not prerouter.file.is_file():
            problems.append(f"policy.prerouter.file: no file {prerouter.file}")
        if not is_loopback(host) and self.server.api_keys_env is None:
            problems.append(
                f"--host {host} is reached from other machines: server.api_keys_env must name "
                "the variable with the keys of clients"
            )
        if problems:
            raise ConfigurationError(tuple(problems))

    @property
    def _variables(self) -> dict[str, str]:
        named = {
            "slm.api_key_env": self.slm.api_key_env if self.slm else None,
            "llm.api_key_env": self.llm.api_key_env if self.llm else None,
            "cache.redis_url_env": self.cache.redis_url_env if self.cache else None,
            "server.api_keys_env": self.server.api_keys_env,
        }
        return {field: name for field, name in named.items() if name is not None}

    def _with_paths_in(self, folder: Path) -> RouterConfig:
        policy = self.policy
        changes: dict[str, Any] = {}
        if policy.prerouter is not None:
            file = folder / policy.prerouter.file
            changes["prerouter"] = policy.prerouter.model_copy(update={"file": file})
        if policy.shadow is not None and policy.shadow.record is not None:
            record = folder / policy.shadow.record
            changes["shadow"] = policy.shadow.model_copy(update={"record": record})
        if not changes:
            return self
        return self.model_copy(update={"policy": policy.model_copy(update=changes)})


def _is_header(value: str) -> bool:
    """Whether a key can be sent: it would otherwise end its header and begin another."""
    return value.isascii() and (value.isprintable() or not value)


def _problems(error: ValidationError) -> list[str]:
    """One line for each problem: the field, its value unless that may be a secret, and what is
    accepted."""
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        message = " ".join(message.split())
        if problem["type"] == "extra_forbidden":
            lines.append(f"router configuration: unknown key '{place}'")
        elif problem["type"] == "missing":
            lines.append(f"router configuration: '{place}' is missing")
        elif isinstance(problem["input"], dict) or any(name in place for name in UNSHOWN):
            lines.append(": ".join(filter(None, ("router configuration", place, message))))
        else:
            shown = " ".join(repr(problem["input"]).split())[:60]
            lines.append(f"router configuration: {place} = {shown}: {message}")
    return lines
