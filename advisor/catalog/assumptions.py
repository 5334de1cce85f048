"""What is neither measured nor published: wide, visible, and every one open to the user."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import NonNegativeInt, model_validator

from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.evidence import AdaptationName
from advisor.catalog.models import Precision
from advisor.errors import InputError
from advisor.records import Record

HOURS_PER_MONTH = 730.5

OneOffCost = Literal["labels", "teacher_labels", "training", "engineering"]


class Assumption(Record):
    """A figure with its plausible range (read as a 90 % interval) and what it rests on."""

    value: float
    low: float
    high: float
    unit: str
    why: str
    """What it rests on and what would replace it."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Assumption:
        if not (0 <= self.low <= self.value <= self.high < math.inf):
            raise ValueError(
                f"0 <= low <= value <= high is needed, not {self.low:g}, {self.value:g}, "
                f"{self.high:g}"
            )
        return self

    def set_to(self, value: float) -> Assumption:
        """The same quantity, stated by the user: no range is left."""
        return Assumption(value=value, low=value, high=value, unit=self.unit, why="set by the user")


class Adaptation(Record):
    """A way to fit a model to a task: what it costs once, and what it changes at run time."""

    name: AdaptationName
    shots: NonNegativeInt = 0
    """Worked examples put into every prompt, each of the task's own input and output length."""
    one_off: tuple[OneOffCost, ...] = ()
    """What has to be paid once."""
    training_flops_per_parameter_token: float = 0.0
    """Factor F of F x parameters x tokens; 0 where nothing is trained."""
    shares_base_weights: bool = True
    """Whether one copy of the base model can serve it beside others."""
    latency_effect: str
    source: str


class QuantizationEffect(Record):
    """What a number format costs in quality: a factor on the 16-bit model's score."""

    part: Literal["weights", "kv_cache"] = "weights"
    precision: Precision
    recovery: float
    """Score after / score before, at most 1: gains that sources print are noise."""
    low: float
    high: float
    """90 % range over models and tasks."""
    evidence: tuple[str, ...] = ()
    """Ids of the evidence rows it summarises."""
    source: str


class Assumptions(Record):
    """Everything assumed, by name; profiles/assumptions.yaml states each with its reason."""

    hosted_ttft_small_s: Assumption
    """Median time to first token of a small hosted model, short prompt, network included."""
    hosted_ttft_large_s: Assumption
    """The same of a large one."""
    hosted_ttft_p95_over_median: Assumption
    """Spread of that time over requests: its p95 over its median (a lognormal is taken)."""
    hosted_ttft_s_per_input_token: Assumption
    """Added to the time to first token for each prompt token."""
    hosted_output_token_small_s: Assumption
    """Seconds per output token of a small hosted model."""
    hosted_output_token_large_s: Assumption
    hosted_rate_limit_per_s: Assumption
    """Requests a second that an account may send."""
    hosted_error_rate: Assumption
    """Share of requests that fail (429, 5xx) and are sent again."""
    request_overhead_s: Assumption
    """HTTP and tokenising between a client and an engine in one data centre."""
    validation_s: Assumption
    """Parsing one answer and checking it against schema and rules."""

    onprem_capex_usd: dict[str, Assumption]
    """Purchase price of one accelerator with its share of the server, by accelerator id."""
    onprem_amortization_months: Assumption
    onprem_usd_per_kwh: Assumption
    onprem_pue: Assumption
    """Power usage effectiveness: power of the building over power of the machines."""
    onprem_server_power_factor: Assumption
    """Power of a server over the rated power of its accelerators."""
    onprem_operations_per_year: Assumption
    """Space, maintenance and staff a year, as a share of the purchase price."""

    load_bandwidth_bytes_per_s: Assumption
    """Rate at which weights reach an accelerator's memory when a replica starts."""
    engine_start_s: Assumption
    """Start of the engine apart from loading weights: process, compilation, CUDA graphs."""

    lora_training_usd: Assumption
    """Compute of one training run, per 1e9 parameters and per 10,000 examples of 1,000 tokens."""
    training_runs: Assumption
    """Runs until the adapter that ships."""
    training_examples: Assumption
    """Labelled examples that fine-tuning needs."""
    labelled_example_usd: Assumption
    """One example labelled by a person."""
    teacher_labelled_example_usd: Assumption
    """One example labelled by a large hosted model, with its filtering."""
    distillation_examples: Assumption
    """Examples that distillation has the teacher label."""
    adaptation_engineering_usd: Assumption
    """People's time for one fine-tuning or distillation, evaluation included."""
    one_off_amortization_months: Assumption
    """Months over which one-off costs are spread."""

    utilisation_reserve: Assumption
    """Share of capacity held back at the peak hour."""
    replicas_minimum: Assumption
    """Replicas for availability, whatever the load."""
    router_usd_per_month: Assumption
    """The machine that runs a hybrid's router."""

    adaptations: tuple[Adaptation, ...]
    quantization: tuple[QuantizationEffect, ...]

    def adaptation(self, name: str) -> Adaptation:
        """The adaptation of that name.

        Raises:
            InputError: there is none.
        """
        for adaptation in self.adaptations:
            if adaptation.name == name:
                return adaptation
        known = ", ".join(adaptation.name for adaptation in self.adaptations)
        raise InputError(f"adaptation '{name}': one of {known} was expected")

    def quantization_effect(
        self, precision: Precision, *, part: Literal["weights", "kv_cache"] = "weights"
    ) -> QuantizationEffect:
        """The effect of a format.

        Raises:
            InputError: none is stated for it.
        """
        for effect in self.quantization:
            if effect.precision == precision and effect.part == part:
                return effect
        raise InputError(f"no quality effect is stated for {part} in {precision}")

    def onprem_usd_per_gpu_hour(self, accelerator: AcceleratorSpec) -> Assumption | None:
        """Cost of owning one accelerator for an hour; None where no purchase price is known.

            capex · (1/M + o/12) / 730.5  +  TDP/1000 · s · PUE · e

        capex USD with the share of the server, M months of use, o operations a year as a share of
        capex, 730.5 hours a month, TDP watts, s server over accelerator power, e USD/kWh. The range
        takes every figure at its cheap or at its dear end, so it is wider than a 90 % one.
        """
        capex = self.onprem_capex_usd.get(accelerator.id)
        if capex is None or accelerator.tdp_w is None:
            return None

        def usd_per_hour(end: Literal["value", "low", "high"]) -> float:
            other: Literal["value", "low", "high"] = (
                "high" if end == "low" else "low" if end == "high" else "value"
            )
            months = float(getattr(self.onprem_amortization_months, other))
            operations = float(getattr(self.onprem_operations_per_year, end))
            purchase = float(getattr(capex, end)) * (1 / months + operations / 12)
            kilowatts = (accelerator.tdp_w or 0.0) / 1000
            for factor in (self.onprem_server_power_factor, self.onprem_pue):
                kilowatts *= float(getattr(factor, end))
            return purchase / HOURS_PER_MONTH + kilowatts * float(
                getattr(self.onprem_usd_per_kwh, end)
            )

        return Assumption(
            value=usd_per_hour("value"),
            low=usd_per_hour("low"),
            high=usd_per_hour("high"),
            unit="USD per GPU-hour",
            why="ownership: purchase over its months of use, operations and power, all assumed",
        )

    def with_values(self, values: Mapping[str, Any]) -> Assumptions:
        """The assumptions with some stated by the user.

        Args:
            values: numbers by field name, `onprem_capex_usd.ACCELERATOR` for a purchase price.

        Raises:
            InputError: a name that is none of them, or a value that is no number from 0 up.
        """
        changed: dict[str, Any] = {}
        for name, value in values.items():
            number = _number(name, value)
            field, _, accelerator = name.partition(".")
            current = getattr(self, field, None) if field in type(self).model_fields else None
            if isinstance(current, Assumption) and not accelerator:
                changed[field] = current.set_to(number)
            elif isinstance(current, dict) and accelerator:
                capex: dict[str, Assumption] = changed.setdefault(field, dict(current))
                known = current.get(accelerator, _BOUGHT)
                capex[accelerator] = known.set_to(number)
            else:
                raise InputError(_unknown(name, self.names()))
        return self.model_copy(update=changed)

    def names(self) -> tuple[str, ...]:
        """Every name that `with_values` accepts."""
        names: list[str] = []
        for field in type(self).model_fields:
            current = getattr(self, field)
            if isinstance(current, Assumption):
                names.append(field)
            elif isinstance(current, dict):
                names.extend(f"{field}.{key}" for key in current)
        return tuple(names)


_BOUGHT = Assumption(value=0, low=0, high=0, unit="USD", why="stated by the user")


def _number(name: str, value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(f"assumption {name} = {value!r}: a number from 0 up is expected")
    return number


def _unknown(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=3) or known[:3]
    return f"assumption '{name}' is unknown; did you mean {', '.join(near)}?"
