"""Every tier that could serve a task: models x formats x adaptations x places, with quality."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from advisor.catalog import Assumptions, Catalog, HostedModel
from advisor.catalog.models import ModelSpec, Precision
from advisor.decide.candidates import TierChoice
from advisor.decide.load import Load, load_of
from advisor.decide.options import (
    Hardware,
    Misfit,
    SelfHostedOption,
    admitted_hardware,
    considered_models,
    deployments_of,
    formats_of,
    hosted_options,
)
from advisor.decide.recommendation import Role
from advisor.economics import NOTHING, adaptation_once, hosted_request, spread_over_months
from advisor.physics.parameters import parameter_count
from advisor.quality.estimate import QualityEstimate
from advisor.quality.labels import update
from advisor.quality.prior import QualityModel
from advisor.task import Adaptation, TaskProfile

LARGE_ADAPTATIONS: tuple[Adaptation, ...] = ("zero_shot", "few_shot", "lora")
"""A large model is prompted or tuned; nothing larger is there to distil it from."""

HOSTED_ADAPTATIONS: tuple[Adaptation, ...] = ("zero_shot", "few_shot")


@dataclass(eq=False)
class TierList:
    """What a task may be served with, by role; what does not fit is kept with its reason."""

    task: TaskProfile
    catalog: Catalog
    assumptions: Assumptions
    quality_model: QualityModel
    measured: Mapping[tuple[Role, str], tuple[float, int]] = field(default_factory=dict)
    """Labelled results: (right, rows) by role and model id, `*` for any model of the role."""
    misfits: list[Misfit] = field(default_factory=list)

    def choices(self, role: Role) -> list[TierChoice]:
        """Every choice for a role.

        Raises:
            InputError: the task names a model or accelerator that is unknown.
        """
        wanted = self.task.constraints.adaptations
        known = LARGE_ADAPTATIONS if role == "llm" else wanted
        by_load: dict[int, list[Adaptation]] = {}
        for adaptation in (a for a in wanted if a in known):
            by_load.setdefault(self.assumptions.adaptation(adaptation).shots, []).append(adaptation)
        choices: list[TierChoice] = []
        for model in self._models:
            if model.role == role:
                for shots, adaptations in by_load.items():
                    choices += self._of_model(model, load_of(self.task, shots=shots), adaptations)
        for hosted in hosted_options(self.task, self.catalog, self._load("zero_shot")):
            if (hosted.role == "slm") == (role == "slm"):
                choices += self._hosted(role, hosted)
        return choices

    @cached_property
    def _models(self) -> tuple[ModelSpec, ...]:
        return considered_models(self.task, self.catalog)

    @cached_property
    def _hardware(self) -> tuple[Hardware, ...]:
        return admitted_hardware(self.task, self.catalog)

    def _of_model(
        self, model: ModelSpec, load: Load, adaptations: Iterable[Adaptation]
    ) -> list[TierChoice]:
        """Choices of one model under one kind of prompt, in every format that fits somewhere."""
        found = []
        formats = {p for machine in self._hardware for p in formats_of(model, machine.accelerator)}
        for precision in sorted(formats):
            fitting, misfits = deployments_of(
                model,
                precision,
                self._hardware,
                load,
                max_accelerators=self.task.constraints.max_accelerators,
            )
            self.misfits.extend(misfits)
            for adaptation in adaptations if fitting else ():
                quality = self._quality(model.role, model, precision, adaptation)
                found += self._on_accelerators(model.role, fitting, adaptation, quality, load)
        return found

    def _load(self, adaptation: str) -> Load:
        return load_of(self.task, shots=self.assumptions.adaptation(adaptation).shots)

    def _on_accelerators(
        self,
        role: Role,
        options: Iterable[SelfHostedOption],
        adaptation: Adaptation,
        quality: QualityEstimate,
        load: Load,
    ) -> list[TierChoice]:
        listed = list(options)
        params_b = parameter_count(listed[0].deployment.model).total / 1e9
        once = adaptation_once(
            self.assumptions, adaptation, params_b=params_b, traffic=self.task.traffic
        )
        return [
            TierChoice(
                role=role,
                option=option,
                adaptation=adaptation,
                quality=quality,
                load=load,
                once=once,
                once_month=spread_over_months(self.assumptions, once),
                request_usd=NOTHING,
                rank_usd=option.rank_usd,
            )
            for option in listed
        ]

    def _hosted(self, role: Role, model: HostedModel) -> list[TierChoice]:
        choices = []
        for adaptation in HOSTED_ADAPTATIONS:
            if adaptation not in self.task.constraints.adaptations:
                continue
            load = self._load(adaptation)
            once = adaptation_once(
                self.assumptions, adaptation, params_b=0.0, traffic=self.task.traffic
            )
            request = hosted_request(
                model,
                input_tokens=load.input_tokens,
                output_tokens=load.output_tokens,
                cached_tokens=load.input_tokens - load.computed_tokens,
            ).times(1 + self.assumptions.hosted_error_rate.value)
            choices.append(
                TierChoice(
                    role=role,
                    option=model,
                    adaptation=adaptation,
                    quality=self._hosted_quality(role, model, adaptation),
                    load=load,
                    once=once,
                    once_month=spread_over_months(self.assumptions, once),
                    request_usd=request,
                    rank_usd=request.value,
                )
            )
        return choices

    def _quality(
        self, role: Role, model: ModelSpec, precision: Precision, adaptation: str
    ) -> QualityEstimate:
        count = parameter_count(model)
        published = (model.published_precision, model.expert_precision)
        estimate = self._projected(
            params_b=count.total / 1e9,
            active_params_b=count.active / 1e9 if model.moe else None,
            adaptation=adaptation,
            # A format the maker publishes was trained for; only conversions cost quality.
            precision="bf16" if precision in published else precision,
            hosted_model=None,
        )
        return self._labelled(estimate, role, model.id)

    def _hosted_quality(self, role: Role, model: HostedModel, adaptation: str) -> QualityEstimate:
        weights = self._open_weights(model)
        count = parameter_count(weights) if weights else None
        estimate = self._projected(
            params_b=count.total / 1e9 if count else _size_in_name(model.id),
            active_params_b=count.active / 1e9 if count and weights and weights.moe else None,
            adaptation=adaptation,
            precision="bf16",
            hosted_model=model.id,
        )
        return self._labelled(estimate, role, model.id)

    def _open_weights(self, model: HostedModel) -> ModelSpec | None:
        """The catalogue's entry of a hosted model whose weights are open; None for closed ones."""
        name = model.id.rsplit("/", 1)[-1].casefold()
        for spec in self.catalog.models.values():
            known = (spec.id, *spec.aliases)
            if any(name.startswith(one.rsplit("/", 1)[-1].casefold()) for one in known):
                return spec
        return None

    def _projected(
        self,
        *,
        params_b: float | None,
        active_params_b: float | None,
        adaptation: str,
        precision: Precision,
        hosted_model: str | None,
    ) -> QualityEstimate:
        shape = self.task.task
        return self.quality_model.project(
            task_type=shape.type,
            metric=self.task.quality.metric,
            output=shape.output,
            label_count=shape.label_count,
            params_b=params_b,
            active_params_b=active_params_b,
            adaptation=adaptation,
            precision=precision,
            hosted_model=hosted_model,
        )

    def _labelled(self, estimate: QualityEstimate, role: Role, model: str) -> QualityEstimate:
        found = self.measured.get((role, model)) or self.measured.get((role, "*"))
        if not found:
            return estimate
        return update(estimate, found[0], found[1])


def _size_in_name(name: str) -> float | None:
    """Billions of parameters that a model's name states, as in `ministral-3b-2512`; else None."""
    stated = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", name.casefold())
    return float(stated[1]) if stated else None
