"""The fields of a task profile as a form asks for them: label, unit, help, control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from advisor.catalog import load_catalog
from advisor.records import attribute_docstrings
from advisor.task import (
    Adaptation,
    Constraints,
    DataResidency,
    LatencyTarget,
    Metric,
    OutputKind,
    QualityTarget,
    TaskShape,
    TaskType,
    Tokens,
    Traffic,
)

Kind = Literal[
    "text", "area", "number", "whole", "percent", "choice", "many", "lines", "json", "prices"
]

NAMES: Mapping[str, str] = {
    "sql": "SQL",
    "json": "JSON",
    "macro_f1": "Macro F1",
    "field_f1": "Field F1",
    "rouge_l": "ROUGE-L",
    "vpc": "VPC",
    "on_prem": "On premises",
    "lora": "LoRA",
    "full_ft": "Full fine-tuning",
    "zero_shot": "Zero-shot",
    "few_shot": "Few-shot",
    "any": "Any, hosted APIs included",
}


def named(option: str) -> str:
    """A value of the profile as people write it."""
    if option in NAMES or "/" in option or not option.islower():
        return NAMES.get(option, option)
    return option.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Field:
    """One value of the profile and the control for it."""

    key: str
    """Dotted key in the profile."""
    label: str
    kind: Kind
    help: str
    options: Callable[[], Iterable[str]] = tuple
    empty: str = ""
    """What the control shows while it holds nothing."""
    accepts: str = ""
    """What is accepted, where the profile's own message speaks of another unit."""


@dataclass(frozen=True)
class Section:
    title: str
    key: str
    """Dotted key under which its errors lie."""
    fields: tuple[Field, ...]


def _doc(record: Any, name: str) -> str:
    return " ".join(attribute_docstrings(record).get(name, "").split())


def _accelerators() -> Iterable[str]:
    return load_catalog().accelerators


def _models() -> Iterable[str]:
    return load_catalog().models


def _providers() -> Iterable[str]:
    return sorted({price.provider for price in load_catalog().prices})


SECTIONS: tuple[Section, ...] = (
    Section(
        "Task",
        "task",
        (
            Field("name", "Name", "text", "Shown on every screen and in exports."),
            Field(
                "task.type",
                "Type",
                "choice",
                "Decides which published evidence is read.",
                lambda: get_args(TaskType),
            ),
            Field(
                "task.output",
                "Output",
                "choice",
                "What an answer is; labels, JSON and SQL can be checked by a program.",
                lambda: get_args(OutputKind),
            ),
            Field("description", "Description", "area", "For people; it changes no figure."),
            Field(
                "task.labels",
                "Labels",
                "lines",
                _doc(TaskShape, "labels") + " One a line, or a number.",
            ),
            Field("task.rules", "Rules", "lines", _doc(TaskShape, "rules") + " One a line."),
            Field(
                "task.schema",
                "JSON Schema",
                "json",
                _doc(TaskShape, "output_schema"),
                accepts="a JSON object",
            ),
        ),
    ),
    Section(
        "Quality",
        "quality",
        (
            Field(
                "quality.metric",
                "Metric",
                "choice",
                "How an answer is scored.",
                lambda: get_args(Metric),
            ),
            Field(
                "quality.threshold",
                "Least quality, %",
                "percent",
                "The score that must be reached.",
                accepts="0 to 100 %",
            ),
            Field(
                "quality.confidence",
                "Confidence, %",
                "percent",
                _doc(QualityTarget, "confidence") + " 95 % unless stated.",
                accepts="50 to less than 100 %",
            ),
            Field(
                "quality.pass_at",
                "An answer is correct from, %",
                "percent",
                _doc(QualityTarget, "pass_at"),
                accepts="0 to 100 %",
                empty="only for graded metrics",
            ),
        ),
    ),
    Section(
        "Latency, 95th percentiles",
        "latency",
        (
            Field(
                "latency.ttft_p95_ms",
                "TTFT, ms",
                "number",
                _doc(LatencyTarget, "ttft_p95_ms"),
                empty="no bound",
            ),
            Field(
                "latency.e2e_p95_ms",
                "E2E, ms",
                "number",
                _doc(LatencyTarget, "e2e_p95_ms"),
                empty="no bound",
            ),
            Field(
                "latency.tpot_p95_ms",
                "TPOT, ms",
                "number",
                _doc(LatencyTarget, "tpot_p95_ms"),
                empty="no bound",
            ),
        ),
    ),
    Section(
        "Traffic",
        "traffic",
        (
            Field(
                "traffic.requests_per_day",
                "Requests a day",
                "number",
                "Mean over the days of a month.",
            ),
            Field(
                "traffic.peak_to_mean",
                "Peak to mean",
                "number",
                _doc(Traffic, "peak_to_mean"),
                empty="1, or by the hour",
            ),
            Field("traffic.burstiness", "Burstiness", "number", _doc(Traffic, "burstiness")),
            Field(
                "traffic.input_tokens.mean",
                "Input tokens, mean",
                "number",
                _doc(Tokens, "mean") or "Prompt tokens of a request, the shared prefix included.",
            ),
            Field(
                "traffic.input_tokens.p95",
                "Input tokens, p95",
                "number",
                "Count that 5 % of the requests exceed.",
                empty="all the same",
            ),
            Field(
                "traffic.shared_prefix_tokens",
                "Shared prefix, tokens",
                "whole",
                _doc(Traffic, "shared_prefix_tokens"),
            ),
            Field(
                "traffic.output_tokens.mean",
                "Output tokens, mean",
                "number",
                "Tokens of an answer.",
            ),
            Field(
                "traffic.output_tokens.p95",
                "Output tokens, p95",
                "number",
                "Count that 5 % of the answers exceed.",
                empty="all the same",
            ),
            Field(
                "traffic.repeat_share",
                "Repeated requests, %",
                "percent",
                _doc(Traffic, "repeat_share"),
                accepts="0 to 100 %",
            ),
            Field(
                "traffic.hourly_rates",
                "Rates of the 24 hours",
                "lines",
                _doc(Traffic, "hourly_rates") + " 24 numbers; they take the place of peak to mean.",
            ),
        ),
    ),
    Section(
        "Constraints",
        "constraints",
        (
            Field(
                "constraints.data_residency",
                "Data residency",
                "choice",
                _doc(Constraints, "data_residency"),
                lambda: get_args(DataResidency),
            ),
            Field(
                "constraints.budget_usd_per_month",
                "Budget, USD a month",
                "number",
                "Empty: no bound.",
                empty="no bound",
            ),
            Field(
                "constraints.max_accelerators",
                "Accelerators at most",
                "whole",
                "Empty: no bound.",
                empty="no bound",
            ),
            Field(
                "constraints.accelerators",
                "Accelerators",
                "many",
                "Empty: all that have a price.",
                _accelerators,
                empty="All",
            ),
            Field(
                "constraints.clouds",
                "Providers",
                "many",
                _doc(Constraints, "clouds"),
                _providers,
                empty="All but marketplaces",
            ),
            Field(
                "constraints.models",
                "Models",
                "many",
                "Empty: the whole catalogue.",
                _models,
                empty="All",
            ),
            Field(
                "constraints.adaptations",
                "Adaptations",
                "many",
                _doc(Constraints, "adaptations"),
                lambda: get_args(Adaptation),
                empty="All but full fine-tuning",
            ),
            Field(
                "constraints.max_escalation_rate",
                "Escalation warning above, %",
                "percent",
                _doc(Constraints, "max_escalation_rate"),
                accepts="0 to 100 %",
            ),
            Field(
                "constraints.high_risk_share",
                "High-risk requests, %",
                "percent",
                _doc(Constraints, "high_risk_share"),
                accepts="0 to 100 %",
            ),
            Field(
                "constraints.usd_per_accelerator_hour",
                "Own prices, USD an hour",
                "prices",
                _doc(Constraints, "usd_per_accelerator_hour") + " One a line: H100-SXM: 2.10",
                accepts="one `ACCELERATOR: USD` a line",
            ),
        ),
    ),
)
