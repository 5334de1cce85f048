"""The parts of a router configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from advisor.catalog.hosted import TokenRates
from advisor.quality.calibration import Calibration, LogisticScore
from advisor.quality.gates import Gates
from advisor.quality.patterns import compile_pattern
from advisor.records import Record
from advisor.router.addresses import checked_url
from advisor.task import OutputKind, TaskShape

PolicyName = Literal["slm_only", "llm_only", "cascade", "prerouter", "hedge"]
Score = Literal["weakest_token", "label_probability", "weakest_field", "logistic"]
Share = Annotated[float, Field(ge=0, le=1)]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def _variable(name: str | None) -> str | None:
    # Whoever pastes a key here must not read it again in a message: the value is not repeated.
    if name is not None and not _VARIABLE.fullmatch(name):
        raise ValueError("the name of an environment variable is expected, not a key")
    return name


class _Part(Record):
    model_config = ConfigDict(allow_inf_nan=False, populate_by_name=True)


class TokenPrice(TokenRates):
    """What an upstream charges, or what its accelerators come to."""

    usd_per_request: NonNegativeFloat = 0.0
    """Beside the tokens, e.g. the share of a machine's hour that a request takes."""


class UpstreamSettings(_Part):
    """One OpenAI-compatible server and the model it serves."""

    base_url: str
    """Up to and including /v1."""
    model: str = Field(min_length=1)
    api_key_env: str | None = None
    """Environment variable that holds the key; None: no key is sent."""
    timeout_s: PositiveFloat = 30.0
    """For a whole answer; of a stream, until its first event."""
    connect_timeout_s: PositiveFloat = 2.0
    stream_idle_timeout_s: PositiveFloat = 15.0
    """Between two events of a stream."""
    max_concurrency: PositiveInt = 1024
    """Requests in flight; more wait, within their time limit."""
    max_response_bytes: PositiveInt = 16_000_000
    price: TokenPrice | str | None = None
    """USD per million tokens, or the id of a hosted model in the catalogue; None: unknown."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields added to every request, e.g. {chat_template_kwargs: {enable_thinking: false}}."""

    _checked_url = field_validator("base_url")(checked_url)
    _checked_variable = field_validator("api_key_env")(_variable)


class RouterTask(_Part):
    """What an answer must be: the hard gates."""

    type: str | None = None
    output: OutputKind | None = None
    """None: label where labels are given, json where a schema is, else text."""
    labels: tuple[str, ...] | None = None
    output_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    rules: tuple[str, ...] = ()
    pattern: str | None = None
    """Regular expression that the whole answer must match."""
    tables: dict[str, tuple[str, ...]] | None = None
    """Columns by table that a query may refer to."""
    dialect: str = ""
    """SQL dialect, by its sqlglot name."""

    @property
    def kind(self) -> OutputKind:
        """The stated output, or what the gates imply."""
        if self.output is not None:
            return self.output
        return "label" if self.labels else "json" if self.output_schema or self.rules else "text"

    @property
    def is_gated(self) -> bool:
        """Whether a program can refuse an answer."""
        return self.kind != "text" or self.pattern is not None

    def gates(self) -> Gates:
        """The gates.

        Raises:
            InputError: a schema, rule or pattern that cannot be used.
        """
        return Gates(
            output=self.kind,
            labels=self.labels,
            schema=self.output_schema,
            rules=self.rules,
            pattern=self.pattern,
            tables=self.tables,
            dialect=self.dialect,
        )

    @classmethod
    def of_task(cls, shape: TaskShape) -> RouterTask:
        """The gates that a task profile states."""
        return cls(
            type=shape.type,
            output=shape.output,
            labels=shape.labels if isinstance(shape.labels, tuple) else None,
            output_schema=shape.output_schema,
            rules=shape.rules,
        )

    @model_validator(mode="after")
    def _gates_can_be_built(self) -> RouterTask:
        self.gates()
        return self


class PreRouterSettings(_Part):
    """Where a learned pre-router lies, and from what gain on it sends a request up."""

    file: Path
    """Written by `advisor.router.prerouting.save`; relative to the configuration."""
    min_gain: float = Field(ge=-1, le=1)
    """Least P(large right) − P(small right) for which the large model is asked at once."""


class TypeRule(_Part):
    """What holds for requests of one type (header x-advisor-task-type, or metadata.task_type)."""

    policy: PolicyName
    threshold: float | None = None
    task: RouterTask | None = None
    """Its own gates."""


class Canary(_Part):
    """A share of the requests follows another policy; the same request always the same one."""

    share: Share
    policy: PolicyName
    threshold: float | None = None


class Shadow(_Part):
    """A sample of answered requests is put to the other model too, unseen by the client."""

    share: Share
    record: Path | None = None
    """Log of both answers, as `advisor evaluate` reads it. Holds prompts and answers: written
    only where it is named."""
    max_in_flight: PositiveInt = 32
    """Further samples are left out, not queued."""


class PolicySettings(_Part):
    """Who is asked, and when an answer is handed up."""

    name: PolicyName = "cascade"
    """slm_only, llm_only; cascade: the small model, and the large one where its answer fails a
    gate or is not sure enough; prerouter: a learned choice before either is asked, then as
    cascade; hedge: cascade, with the large model asked too where the small one is slow."""
    threshold: float | None = None
    """Least confidence with which a small answer is given out; None: the gates alone decide."""
    score: Score = "weakest_token"
    """What confidence is; the one that the threshold was certified on."""
    logistic: LogisticScore | None = None
    """The fitted combination, for score: logistic."""
    calibration: Calibration | None = None
    """From the score to P(right), applied before the threshold."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 5
    """Alternatives asked for at each token by the scores that look at them, label_probability and
    logistic; the others ask for one at most."""
    prerouter: PreRouterSettings | None = None
    hedge_after_s: PositiveFloat | None = None
    by_type: dict[str, TypeRule] = Field(default_factory=dict)
    canary: Canary | None = None
    shadow: Shadow | None = None

    @property
    def names(self) -> frozenset[PolicyName]:
        """Every policy that some request may follow."""
        others = [rule.policy for rule in self.by_type.values()]
        return frozenset([self.name, *others, *([self.canary.policy] if self.canary else [])])

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> PolicySettings:
        if "prerouter" in self.names and self.prerouter is None:
            raise ValueError("policy prerouter needs prerouter: {file: …, min_gain: …}")
        if "hedge" in self.names and self.hedge_after_s is None:
            raise ValueError("policy hedge needs hedge_after_s")
        if self.score == "logistic" and self.logistic is None:
            raise ValueError("score logistic needs its fitted weights under 'logistic'")
        return self


class HighRiskRule(_Part):
    """Requests that go to the large model whatever the small one would say.

    One of header, field and pattern. A header or field matches with any of `values`, or without
    them where it is there and neither empty, false nor 0.
    """

    header: str | None = None
    field: str | None = None
    """Dotted path in the request body, e.g. metadata.risk."""
    pattern: str | None = None
    """Regular expression searched for in the texts of the request."""
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_rule(self) -> HighRiskRule:
        if sum(one is not None for one in (self.header, self.field, self.pattern)) != 1:
            raise ValueError("one of header, field and pattern is expected")
        if self.pattern is not None:
            compile_pattern(self.pattern)
            if self.values:
                raise ValueError("values go with header or field, not with pattern")
        return self


class CacheSettings(_Part):
    """Validated answers, kept for the same request."""

    max_entries: PositiveInt = 10_000
    max_bytes: PositiveInt = 64_000_000
    """Of the answers in memory; Redis has its own maxmemory."""
    ttl_s: PositiveFloat = 3600.0
    redis_url_env: str | None = None
    """Environment variable with a Redis URL, to share the cache between instances."""
    redis_timeout_s: PositiveFloat = 0.05
    """A slower Redis counts as a miss."""

    _checked_variable = field_validator("redis_url_env")(_variable)


class BudgetSettings(_Part):
    """Caps on money and rates, for this instance."""

    usd_per_day: PositiveFloat | None = None
    """Of UTC; both models' spending counts, and calls of the large one stop."""
    llm_requests_per_s: PositiveFloat | None = None
    """Calls of the large model; a second's worth may come at once."""
    requests_per_s: PositiveFloat | None = None
    """All requests; those above are refused with 429."""
    when_hit: Literal["small", "refuse"] = "small"
    """What a request that needs the large model gets when a cap is hit: the small model's answer,
    flagged by x-advisor-reason, where it passes the gates; or a 429."""


class FailureSettings(_Part):
    """What happens when an upstream fails."""

    retries: NonNegativeInt = 2
    """Further attempts at the large model (at the only one, where there is one)."""
    retry_share: Share = 0.2
    """Retries may add this share to the requests: a failing upstream is not stormed."""
    backoff_s: PositiveFloat = 0.1
    """Before the first retry; doubled each time, and drawn from zero to it (full jitter)."""
    max_backoff_s: PositiveFloat = 5.0
    max_retry_after_s: PositiveFloat = 10.0
    """A longer Retry-After of the upstream is passed on, not waited for."""
    breaker_failures: PositiveInt = 5
    """Failures in a row that open the circuit breaker."""
    breaker_open_s: PositiveFloat = 10.0
    """Then nothing is sent for so long, and one request tries."""
    on_llm_failure: Literal["best_answer", "any_answer", "error"] = "best_answer"
    """best_answer: the small model's, where it passed the hard gates; any_answer: even where it
    did not; error: none."""


class TelemetrySettings(_Part):
    """What is told about the traffic; nothing leaves this process unless configured."""

    metrics: bool = True
    """Serve /metrics for Prometheus."""
    otlp_endpoint: str | None = None
    """OpenTelemetry collector (OTLP over HTTP), e.g. http://127.0.0.1:4318; needs the extra
    `telemetry`."""
    service_name: str = "advisor-router"
    export_interval_s: PositiveFloat = 30.0
    escalation_limit: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Escalation rate above which the alarm fires."""
    escalation_confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    log_requests: bool = False
    """One line a request: route, reason, times, tokens, cost."""
    log_texts: bool = False
    """Prompts and answers in those lines too."""

    @field_validator("otlp_endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, url: str | None) -> str | None:
        return None if url is None else checked_url(url)


class ServerSettings(_Part):
    """Limits of the HTTP server."""

    api_keys_env: str | None = None
    """Environment variable with the keys of clients, separated by commas; needed where the server
    listens beyond this machine."""
    model_name: str = "advisor"
    """Model listed first at /v1/models; clients may name any."""
    max_body_bytes: PositiveInt = 4_000_000
    max_header_bytes: PositiveInt = 32_768
    header_timeout_s: PositiveFloat = 10.0
    body_timeout_s: PositiveFloat = 30.0
    request_timeout_s: PositiveFloat = 300.0
    """From the request's last byte to the answer's last."""
    max_requests_in_flight: PositiveInt = 4096
    """Further ones get 503."""
    drain_s: PositiveFloat = 30.0
    """After SIGTERM, for requests that are being answered."""
    drain_notice_s: NonNegativeFloat = 0.0
    """Before that: still serving, with /readyz at 503, so that balancers look elsewhere."""

    _checked_variable = field_validator("api_keys_env")(_variable)
