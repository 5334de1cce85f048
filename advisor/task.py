"""What the user needs: one task profile, read from YAML or built in the app."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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

from advisor.documents import parse_yaml, read_text, read_yaml, validate
from advisor.errors import InputError
from advisor.records import Record

HOURS_PER_MONTH = 730.5
DAYS_PER_MONTH = HOURS_PER_MONTH / 24
SECONDS_PER_DAY = 86_400.0

TaskType = Literal[
    "classification", "extraction", "sql", "summarization", "generation", "reasoning"
]
OutputKind = Literal["label", "json", "sql", "text"]
Metric = Literal[
    "exact_match", "accuracy", "macro_f1", "field_f1", "execution_match", "pass_rate", "rouge_l"
]
DataResidency = Literal["any", "vpc", "on_prem", "air_gapped", "edge"]
Adaptation = Literal["zero_shot", "few_shot", "lora", "distilled", "full_ft"]

RIGHT_OR_WRONG: frozenset[Metric] = frozenset(
    {"exact_match", "accuracy", "execution_match", "pass_rate"}
)
"""Metrics that call each answer right or wrong, so that a correct answer has a cost."""

MAX_P95_TO_MEAN = 3.8
"""A lognormal distribution's p95 is at most exp(1.645²/2) = 3.87 times its mean."""

MAX_SAMPLES = 1_000_000
"""Token counts read from a samples file."""


class _Stated(Record):
    """A record that the user fills in: every number is finite."""

    model_config = ConfigDict(allow_inf_nan=False, populate_by_name=True)


class TaskShape(_Stated):
    """What goes in and what comes out."""

    type: TaskType
    output: OutputKind
    labels: tuple[str, ...] | PositiveInt | None = None
    """The closed set of answers, or just how many there are."""
    output_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    """JSON Schema of the answer; remote references are refused."""
    rules: tuple[str, ...] = ()
    """Checks across fields, e.g. `total == net + tax`."""

    @field_validator("output_schema")
    @classmethod
    def _schema_is_local(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        for reference in _references(schema):
            if not reference.startswith("#"):
                raise ValueError(f"remote reference '{reference}': only references within it (#/…)")
        return schema

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...] | int | None) -> tuple[str, ...] | int | None:
        if isinstance(labels, tuple) and len(set(labels)) < len(labels):
            raise ValueError("labels must differ from each other")
        return labels

    @model_validator(mode="after")
    def _labels_for_label_output(self) -> TaskShape:
        if self.labels is not None and self.output == "sql":
            raise ValueError("labels do not go with output sql")
        return self

    @property
    def label_count(self) -> int | None:
        """Size of the closed answer set; None where answers are open."""
        return len(self.labels) if isinstance(self.labels, tuple) else self.labels

    @property
    def can_be_checked(self) -> bool:
        """Whether a program can reject an answer (parse, schema, enum, rules) before it is used."""
        return self.output in ("label", "json", "sql") or bool(self.rules)


class QualityTarget(_Stated):
    """How good the answers must be."""

    metric: Metric
    threshold: float
    """Least quality, a fraction from 0 to 1."""
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    """Confidence with which a proof must hold."""
    pass_at: float | None = Field(default=None, ge=0, le=1)
    """For graded metrics (ROUGE, F1): the score from which one answer counts as correct."""

    @field_validator("threshold")
    @classmethod
    def _threshold_is_a_fraction(cls, threshold: float) -> float:
        if 1 < threshold <= 100:
            raise ValueError(
                f"a fraction from 0 to 1 is expected; for {threshold:g} % write {threshold / 100:g}"
            )
        if not 0 <= threshold <= 1:
            raise ValueError("a fraction from 0 to 1 is expected")
        return threshold

    @property
    def says_right_or_wrong(self) -> bool:
        """Whether single answers count as correct, so that they have a cost each."""
        return self.metric in RIGHT_OR_WRONG or self.pass_at is not None


class LatencyTarget(_Stated):
    """Service level objectives on 95th percentiles; what is absent does not bind."""

    ttft_p95_ms: PositiveFloat | None = None
    """Time to first token: from sending to the first token that may be shown."""
    e2e_p95_ms: PositiveFloat | None = None
    """End-to-end latency: from sending to the last token."""
    tpot_p95_ms: PositiveFloat | None = None
    """Time per output token after the first."""

    @property
    def bounds(self) -> dict[str, float]:
        """The stated bounds, by field name."""
        return {name: value for name, value in self if value is not None}


class Tokens(_Stated):
    """A distribution of token counts: one number, a mean and a p95, or samples."""

    mean: PositiveFloat | None = None
    p95: PositiveFloat | None = None
    samples: str | None = None
    """File with one count a line, or a JSON list, beside the profile."""
    values: tuple[PositiveInt, ...] = Field(default=(), repr=False)
    """The samples, once read."""

    @model_validator(mode="after")
    def _one_form(self) -> Tokens:
        if (self.mean is None) == (not self.values and self.samples is None):
            raise ValueError("a number, {mean, p95} or {samples: FILE} is expected")
        if (
            self.p95 is not None
            and self.mean is not None
            and not (self.mean <= self.p95 <= MAX_P95_TO_MEAN * self.mean)
        ):
            raise ValueError(
                f"p95 must lie between the mean ({self.mean:g}) and {MAX_P95_TO_MEAN:g} times it, "
                "as of a lognormal distribution; give samples for anything longer-tailed"
            )
        if self.samples is not None and not self.values:
            raise ValueError(f"samples file {self.samples} was not read; use TaskProfile.load")
        return self

    @property
    def mean_tokens(self) -> float:
        """Mean count."""
        if self.mean is not None:
            return self.mean
        return sum(self.values) / len(self.values)

    @property
    def high_tokens(self) -> float:
        """Count that about 5 % exceed (the number itself where lengths are fixed)."""
        if self.values:
            return float(sorted(self.values)[int(0.95 * (len(self.values) - 1))])
        return self.p95 if self.p95 is not None else self.mean_tokens


class Traffic(_Stated):
    """How many requests, when, and how long."""

    requests_per_day: Annotated[float, Field(gt=0, le=1e12)]
    peak_to_mean: Annotated[float, Field(ge=1, le=1000)] | None = None
    """Rate of the busiest hour over the mean rate; 1 where neither it nor hourly_rates is given."""
    hourly_rates: tuple[NonNegativeFloat, ...] | None = Field(
        default=None, min_length=24, max_length=24
    )
    """Relative rates of the 24 hours; their sum is requests_per_day."""
    burstiness: PositiveFloat = 1.0
    """Shape of the gamma-distributed gaps between requests, as in `vllm bench serve`:
    1 is Poisson, less is burstier."""
    input_tokens: Tokens
    output_tokens: Tokens
    shared_prefix_tokens: NonNegativeInt = 0
    """Tokens at the start of every prompt (instructions, labels, examples)."""
    repeat_share: float = Field(default=0, ge=0, lt=1)
    """Share of requests that repeat an earlier one word for word."""

    @field_validator("input_tokens", "output_tokens", mode="before")
    @classmethod
    def _number_is_a_mean(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"mean": value}
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Traffic:
        if self.hourly_rates is not None:
            if self.peak_to_mean is not None:
                raise ValueError("give peak_to_mean or hourly_rates, not both")
            if sum(self.hourly_rates) <= 0:
                raise ValueError("hourly_rates: at least one must be positive")
        if self.shared_prefix_tokens > self.input_tokens.mean_tokens:
            raise ValueError(
                f"shared_prefix_tokens ({self.shared_prefix_tokens}) exceeds the mean of "
                f"input_tokens ({self.input_tokens.mean_tokens:g})"
            )
        return self

    @property
    def mean_rate_per_s(self) -> float:
        """Mean request rate over the day."""
        return self.requests_per_day / SECONDS_PER_DAY

    @property
    def peak_rate_per_s(self) -> float:
        """Request rate of the busiest hour: what is sized for."""
        if self.hourly_rates is not None:
            return self.mean_rate_per_s * max(self.hourly_rates) * 24 / sum(self.hourly_rates)
        return self.mean_rate_per_s * (self.peak_to_mean or 1.0)

    @property
    def requests_per_month(self) -> float:
        """Requests in a month of 730.5 hours."""
        return self.requests_per_day * DAYS_PER_MONTH


class Constraints(_Stated):
    """What the answer may use."""

    data_residency: DataResidency = "any"
    """Where the data may go: `any` admits hosted APIs, the others do not."""
    accelerators: tuple[str, ...] | None = None
    """Accelerators to consider (ids, or paths of a YAML file); None: all that have a price."""
    max_accelerators: PositiveInt | None = None
    clouds: tuple[str, ...] | None = None
    """Providers whose prices count; None: all but marketplaces."""
    budget_usd_per_month: PositiveFloat | None = None
    high_risk_share: float = Field(default=0, ge=0, le=1)
    """Share of requests that must go to the large model whatever the small one says."""
    models: tuple[str, ...] | None = None
    """Models to consider (ids, aliases or paths of a config.json); None: the whole catalogue."""
    usd_per_accelerator_hour: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Prices of one's own by accelerator; they replace the listed ones."""
    adaptations: tuple[Adaptation, ...] = get_args(Adaptation)[:4]
    """Adaptations the team can carry out."""
    max_escalation_rate: float = Field(default=0.2, gt=0, le=1)
    """Escalation rate above which a hybrid earns a warning."""

    @property
    def hosted_allowed(self) -> bool:
        """Whether requests may leave for a hosted API."""
        return self.data_residency == "any"

    @property
    def owned_hardware(self) -> bool:
        """Whether the accelerators are bought rather than rented."""
        return self.data_residency in ("on_prem", "air_gapped", "edge")


class TaskProfile(_Stated):
    """A task as its owner states it: the one input of every projection."""

    name: str = Field(min_length=1, max_length=120)
    description: str = ""
    task: TaskShape
    quality: QualityTarget
    latency: LatencyTarget = LatencyTarget()
    traffic: Traffic
    constraints: Constraints = Constraints()
    assumptions: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Assumed figures stated by the user, by name (profiles/assumptions.yaml lists them)."""

    @classmethod
    def load(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> TaskProfile:
        """Read a profile from a YAML (or JSON) file.

        Args:
            path: the file; samples files are looked for beside it.
            overrides: values by dotted key, e.g. `{"latency.e2e_p95_ms": 120}`.

        Raises:
            InputError: one line naming the field, its value and what is accepted.
        """
        path = Path(path)
        return cls.from_mapping(
            read_yaml(path, what="task profile"),
            overrides=overrides,
            folder=path.parent,
            what=f"task profile {path.name}",
        )

    @classmethod
    def from_yaml(cls, text: str) -> TaskProfile:
        """A profile from YAML text.

        Raises:
            InputError: as `load`.
        """
        return cls.from_mapping(parse_yaml(text, what="task profile"))

    @classmethod
    def from_mapping(
        cls,
        value: Any,
        *,
        overrides: Mapping[str, Any] | None = None,
        folder: Path = Path(),
        what: str = "task profile",
    ) -> TaskProfile:
        """A profile from plain data, with overrides by dotted key.

        Raises:
            InputError: as `load`.
        """
        if isinstance(value, dict):
            value = _with_samples(_with_overrides(value, overrides or {}), folder)
        return validate(cls, value, what=what)

    def with_values(self, values: Mapping[str, Any]) -> TaskProfile:
        """This profile with other values by dotted key.

        Raises:
            InputError: as `load`.
        """
        return self.from_mapping(self.to_mapping(), overrides=values)

    def to_mapping(self) -> dict[str, Any]:
        """Plain data that `from_mapping` reads back to an equal profile."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _references(node: Any) -> Iterator[str]:
    """Every `$ref` and `$dynamicRef` in a JSON Schema."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def _with_overrides(value: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested mappings with values replaced by dotted key."""
    result: dict[str, Any] = json.loads(json.dumps(value, default=str))
    for key, new in overrides.items():
        *parents, last = key.split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise InputError(f"{key}: '{parent}' is not a mapping")
            node = child
        node[last] = new
    return result


def _with_samples(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Read the samples files that token counts name."""
    traffic = value.get("traffic")
    if not isinstance(traffic, dict):
        return value
    for field in ("input_tokens", "output_tokens"):
        tokens = traffic.get(field)
        if (
            isinstance(tokens, dict)
            and isinstance(tokens.get("samples"), str)
            and not tokens.get("values")
        ):
            tokens["values"] = _read_samples(folder / tokens["samples"], field)
    return value


def _read_samples(path: Path, field: str) -> list[int]:
    """Token counts from a file: a JSON list, or one count a line."""
    what = f"traffic.{field}.samples"
    text = read_text(path, what=what, max_bytes=16 * MAX_SAMPLES)
    try:
        values = json.loads(text) if text.lstrip().startswith("[") else text.split()
        counts = [int(float(value)) for value in values]
    except (ValueError, TypeError):
        raise InputError(
            f"{what}: {path.name} must hold one token count a line, or a JSON list"
        ) from None
    if not counts or len(counts) > MAX_SAMPLES or min(counts) < 1:
        raise InputError(f"{what}: {path.name} must hold 1 to {MAX_SAMPLES:,} counts of at least 1")
    return counts
