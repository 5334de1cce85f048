"""The answer: a Recommendation, and the records it is made of (the JSON contract)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from advisor.catalog.models import Precision
from advisor.records import Record
from advisor.task import Adaptation

Status = Literal["proven", "conditional", "infeasible"]
Architecture = Literal["slm", "llm", "hybrid"]
Role = Literal["slm", "llm"]
Policy = Literal["slm_only", "llm_only", "cascade"]


class Projected(Record):
    """One projected figure with its 90 % interval and what it rests on."""

    value: float
    low: float
    high: float | None
    """None: no bound can be given (the system may be overloaded at that end)."""
    basis: str


class EngineArguments(Record):
    """vLLM settings of one tier, by vLLM's names."""

    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    max_model_len: int
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True


class SelfHostedTier(Record):
    """A model on accelerators of one's own or rented by the hour."""

    kind: Literal["self_hosted"] = "self_hosted"
    model: str
    weights_dtype: Precision
    kv_dtype: Precision
    adaptation: Adaptation
    accelerator: str
    tensor_parallel: int
    replicas: int
    engine: EngineArguments
    provider: str
    """Whose price is charged; `owned` for bought hardware."""
    usd_per_accelerator_hour: float
    calibration: str
    """Label of the latency model: measured, calibrated, transferred or assumed."""

    @property
    def accelerators(self) -> int:
        """Accelerators in all."""
        return self.tensor_parallel * self.replicas

    @property
    def title(self) -> str:
        """Short name: model, precision and hardware."""
        parallel = f"{self.tensor_parallel}×" if self.tensor_parallel > 1 else ""
        hardware = f"{self.replicas} × {parallel}{self.accelerator}"
        return f"{short_name(self.model)} {self.weights_dtype} on {hardware}"


class HostedTier(Record):
    """A model behind somebody's API, paid by the token."""

    kind: Literal["hosted"] = "hosted"
    hosted: HostedModelReference
    adaptation: Adaptation

    @property
    def accelerators(self) -> int:
        """Accelerators in all: none of one's own."""
        return 0

    @property
    def title(self) -> str:
        """Short name."""
        return f"{self.hosted.model} ({self.hosted.provider} API)"


class HostedModelReference(Record):
    """Which hosted model."""

    provider: str
    model: str


Tier = Annotated[SelfHostedTier | HostedTier, Field(discriminator="kind")]


class Chosen(Record):
    """One architecture that can be deployed: its tiers and how requests pass between them."""

    tiers: dict[Role, Tier]
    policy: Policy
    threshold: float | None = None
    """Confidence under which the small model's answer is escalated; None without escalation."""

    @property
    def title(self) -> str:
        """Short name of the whole."""
        return " → ".join(self.tiers[role].title for role in ("slm", "llm") if role in self.tiers)


class Projection(Record):
    """What is expected of an architecture; null where it does not apply."""

    quality: Projected
    ttft_p95_ms: Projected
    e2e_p95_ms: Projected
    tpot_p95_ms: Projected | None
    cost_usd_per_month: Projected
    cost_usd_per_million_requests: Projected
    cost_usd_per_correct_answer: Projected | None
    escalation_rate: Projected | None


class Condition(Record):
    """One requirement: how likely it is to hold, on what grounds, and what would settle it."""

    requirement: str
    probability: float
    basis: str
    settle_by: str


class Alternative(Record):
    """An architecture beside the chosen one."""

    architecture: Architecture
    label: str
    """Why it is shown, e.g. `best SLM`, `safer choice`."""
    feasible: bool
    """Whether its median estimate meets every requirement."""
    probability: float
    """Probability that every requirement holds, taking them as independent."""
    misses: tuple[str, ...]
    """Requirements its median estimate misses, in words."""
    chosen: Chosen
    projection: Projection


class Rejected(Record):
    """Something left out: which constraint, by how much, and what would admit it."""

    what: str
    constraint: str
    by: str
    admitted_if: str


class Sensitivity(Record):
    """How the answer moves when one input does."""

    input: str
    change: str
    architecture: Architecture | None
    what: str
    cost_usd_per_month: float | None
    changes_choice: bool


class Measurement(Record):
    """The measurement that would most reduce the chance of a wrong choice."""

    what: str
    reduces: str
    effort: str


class Provenance(Record):
    """Versions and dates of what the answer rests on."""

    advisor: str
    catalogue_as_of: str
    prices_as_of: str
    hosted_prices: str
    calibration: str
    seed: int
    assumptions: dict[str, float]
    notes: tuple[str, ...] = ()


class Recommendation(Record):
    """Which architecture to run for a task, on what, and how sure that is."""

    task: str
    status: Status
    architecture: Architecture | None
    summary: str
    conditions: tuple[Condition, ...]
    chosen: Chosen | None
    projection: Projection | None
    alternatives: tuple[Alternative, ...]
    pareto: tuple[Alternative, ...]
    """Candidates that no other beats in cost, quality and p95 latency at once."""
    rejected: tuple[Rejected, ...]
    sensitivities: tuple[Sensitivity, ...]
    warnings: tuple[str, ...]
    next_measurement: Measurement | None
    provenance: Provenance


def short_name(model: str) -> str:
    """The model's name without its organisation."""
    return model.rsplit("/", 1)[-1]


HostedTier.model_rebuild()
Chosen.model_rebuild()
