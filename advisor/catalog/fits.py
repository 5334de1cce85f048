"""Calibrated coefficients: which ones an accelerator gets, and how far to trust them."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.coefficients import Coefficients, bounds_of
from advisor.catalog.locations import CALIBRATION
from advisor.catalog.models import ModelSpec
from advisor.catalog.operators import family_of, operator_offsets
from advisor.documents import read_json, validate
from advisor.records import Record

DEFAULT_FITS = CALIBRATION / "fits" / "default.json"

NORMAL_90 = 1.6449
"""Half-width of a normal distribution's central 90 %, in standard deviations."""

Label = Literal["measured", "calibrated", "transferred", "assumed"]
"""`measured`: rows of the very deployment; `calibrated`: rows of the accelerator; `transferred`:
rows of its hardware family, or of the same vendor's others; `assumed`: nothing of its kind."""


class Evidence(Record):
    """What a group of accelerators' coefficients were fitted on."""

    rows: NonNegativeInt
    sources: tuple[str, ...]
    engine_versions: tuple[str, ...] = ()
    """Lowest and highest version named by the rows."""
    log_deviations: dict[str, float] = Field(default_factory=dict)
    """ln of each coefficient's ratio to the level above, where there is one."""


class Spread(Record):
    """1-sd of ln(true/predicted) of a deployment that was not measured itself, over and above the
    uncertainty of the coefficients."""

    decode: NonNegativeFloat
    """Decode steps of dense models, under served loads."""
    decode_routed: NonNegativeFloat
    """Decode steps of mixture-of-experts models, under served loads."""
    batch: NonNegativeFloat | None = None
    """Steps of batches handed to an engine in process: no server, no arrivals, known settings.
    None where it was not measured: as under served loads."""
    prefill: NonNegativeFloat
    """Time to first token within the engine, dense models."""
    prefill_routed: NonNegativeFloat
    shape: NonNegativeFloat
    """Decode along batch and length, once the deployment's own level is known."""
    shape_prefill: NonNegativeFloat = 0.2
    """The same of the time to first token."""
    shape_typical: NonNegativeFloat = 0.05
    """The spread along batch and length without its tails (1.48 median deviations): how far one
    row of a deployment tells its level."""
    shape_prefill_typical: NonNegativeFloat = 0.13
    """The same of the time to first token."""


class ServedSteps(Record):
    """What a server adds to its engine's steps and requests, found by closed loops of requests."""

    factor: float = Field(1.0, gt=0)
    """Of the engine's own step."""
    step_s: NonNegativeFloat = 0.0
    """Added to a step."""
    sequence_s: NonNegativeFloat = 0.0
    """Added for each sequence in it."""
    newcomer_s: NonNegativeFloat = 0.0
    """Added to a step with prefill."""
    request_s: NonNegativeFloat = 0.0
    """Added to a request's time to first token alone."""
    unrest_log_sd: NonNegativeFloat = 0.0
    """1-sd of ln of what one and the same request takes from one moment to another."""


class OwnSteps(Record):
    """What one deployment's own points say beyond its accelerator's coefficients."""

    points: NonNegativeInt
    log_sd: NonNegativeFloat
    """1-sd of ln(true/predicted) of its steps."""
    tokens: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """Of a step, ascending."""
    extra_s: tuple[float, ...] = Field(min_length=1)
    """Seconds that such a step takes beyond the law; between along a line, beyond them as last."""
    served: ServedSteps | None = None
    """Behind HTTP, where that was measured."""

    @model_validator(mode="after")
    def _is_a_line(self) -> OwnSteps:
        if len(self.tokens) != len(self.extra_s):
            raise ValueError(f"{len(self.tokens)} tokens, but {len(self.extra_s)} extra_s")
        if list(self.tokens) != sorted(set(self.tokens)):
            raise ValueError("tokens: each larger than the one before is expected")
        return self


class FitFile(Record):
    """calibration/fits/*.json: one fit."""

    as_of: str
    note: str = ""
    vendor: str = "nvidia"
    """Maker of the accelerators that the rows are from."""
    coefficients: Coefficients
    """The prior for any accelerator."""
    log_covariance: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """Of the logarithms of the coefficients: by name, in the order of the names."""
    deviation_log_sd: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """By which an accelerator without rows may differ, by coefficient."""
    overhead_log_sd: NonNegativeFloat = 0.6
    """1-sd of ln of the request overhead between serving set-ups."""
    models: tuple[str, ...] = ()
    """Ids of the models that the rows are of."""
    families: dict[str, Evidence] = Field(default_factory=dict)
    """By `family_of` the accelerator."""
    accelerators: dict[str, Evidence] = Field(default_factory=dict)
    deployments: dict[str, OwnSteps] = Field(default_factory=dict)
    """Of deployments that were measured themselves, by `advisor.physics.own_steps.identity_of`."""
    calibrated: Spread
    """Spread of a model without rows on an accelerator with rows (leaving out models in turn)."""
    calibrated_known: Spread | None = None
    """The same of a model with rows (leaving out a fold of the deployments in turn)."""
    transferred: Spread
    """Spread of a model without rows on an accelerator without rows."""
    transferred_known: Spread | None = None
    """The same of a model with rows on other accelerators (leaving out accelerators in turn)."""
    assumed: Spread
    """Spread for another vendor's hardware: wider, by judgement."""


class Calibration(Record):
    """The coefficients of one accelerator, with what they rest on."""

    label: Label
    basis: str
    """One line for people, e.g. `fitted on 331 rows of H100-SXM from 2 sources`."""
    coefficients: Coefficients
    spread: Spread
    """Of a model that the fit has no rows of."""
    spread_known: Spread
    """Of the models in `known_models`."""
    known_models: tuple[str, ...] = ()
    """Ids of the models that the fit has rows of."""
    overhead_log_sd: NonNegativeFloat
    """1-sd of ln of the request overhead between serving set-ups."""
    as_of: str
    deployments: dict[str, OwnSteps] = Field(default_factory=dict)
    """Of the fit: those that were measured themselves."""
    own: OwnSteps | None = None
    """Of the deployment that this calibration is for, where it is one of them."""

    @property
    def log_sd(self) -> float:
        """1-sd of ln(true/predicted) of decode steps, whatever the model."""
        return max(self.spread.decode, self.spread.decode_routed)

    @property
    def log_sd_prefill(self) -> float:
        """The same of prefill."""
        return max(self.spread.prefill, self.spread.prefill_routed)

    def spread_of(self, model: ModelSpec) -> Spread:
        """The spread of a model: narrower where the fit has rows of it."""
        return self.spread_known if model.id in self.known_models else self.spread

    def decode_log_sd(self, model: ModelSpec, *, in_process: bool = False) -> float:
        """1-sd of ln(true/predicted) of a model's decode steps; `in_process`: of batches handed
        to an engine in its own process."""
        spread = self.spread_of(model)
        if in_process and spread.batch is not None:
            return spread.batch
        return spread.decode_routed if model.moe else spread.decode

    def prefill_log_sd(self, model: ModelSpec) -> float:
        """The same of its prefill."""
        spread = self.spread_of(model)
        return spread.prefill_routed if model.moe else spread.prefill

    def frontend_s(self, input_tokens: float) -> float:
        """Seconds that client and API server spend on one request, one request at a time."""
        c = self.coefficients
        return c.frontend_request_s + c.frontend_token_s * input_tokens

    def request_overhead_s(self, input_tokens: float) -> float:
        """Seconds of a lone request outside the engine, typical of the set-ups that were measured;
        ln of it varies between set-ups by `overhead_log_sd`."""
        return self.coefficients.request_overhead_s + self.frontend_s(input_tokens)

    def decode_interval(self, seconds: float) -> tuple[float, float]:
        """90 % interval around a decode step's time, whatever the model."""
        return interval_90(seconds, self.log_sd)

    def prefill_interval(self, seconds: float) -> tuple[float, float]:
        """90 % interval around a prefill's time, whatever the model."""
        return interval_90(seconds, self.log_sd_prefill)


def interval_90(value: float, log_sd: float) -> tuple[float, float]:
    """value·exp(∓1.645·σ): the central 90 % of a lognormal distribution around its median."""
    factor = math.exp(NORMAL_90 * log_sd)
    return value / factor, value * factor


PRIOR = FitFile(
    as_of="2026-11-22",
    note="physical priors: published efficiencies of vLLM's kernels, nothing fitted",
    coefficients=Coefficients(),
    calibrated=Spread(decode=0.25, decode_routed=0.25, prefill=0.3, prefill_routed=0.35, shape=0.1),
    transferred=Spread(decode=0.25, decode_routed=0.3, prefill=0.3, prefill_routed=0.4, shape=0.1),
    assumed=Spread(
        decode=0.4,
        decode_routed=0.45,
        prefill=0.45,
        prefill_routed=0.5,
        shape=0.15,
        shape_prefill=0.3,
    ),
)
"""Used where there is no file of fits."""


def load_fits(path: Path | None = None) -> FitFile:
    """A fit from its file; the shipped one, or the physical priors, where none is named.

    Raises:
        InputError: the named file is missing or not a fit.
    """
    if path is None:
        path = DEFAULT_FITS
        if not path.is_file():
            return PRIOR
    changed_ns = path.stat().st_mtime_ns if path.is_file() else 0
    return _fits_of(path, changed_ns)


@lru_cache(maxsize=8)
def _fits_of(path: Path, changed_ns: int) -> FitFile:
    """A file as it was when it was last changed: a run of benchmarks writes it again and again."""
    return validate(FitFile, read_json(path, what="fits"), what=f"fits {path.name}")


def calibration_for(
    accelerator: AcceleratorSpec,
    *,
    engine_version: str | None = None,
    fits: Path | None = None,
) -> Calibration:
    """The coefficients to use for an accelerator; there is always an answer.

    Ratios between accelerators come from kernel tables; on top, its own deviations where it was
    measured, and those of its hardware family. Each step down widens the spread. A named engine
    version outside those fitted is said in `basis`. Without `fits`, an accelerator's own file of
    them counts before the shipped one. Raises InputError only for a file that cannot be read.
    """
    fit = load_fits(fits or accelerator.fits)
    return calibration_of(fit, accelerator, engine_version=engine_version)


def calibration_of(
    fit: FitFile, accelerator: AcceleratorSpec, *, engine_version: str | None = None
) -> Calibration:
    """As `calibration_for`, from a fit at hand."""
    family = fit.families.get(family_of(accelerator))
    own = fit.accelerators.get(accelerator.id)
    deviations = operator_offsets(accelerator)
    for evidence in (family, own):
        for name, deviation in (evidence.log_deviations if evidence else {}).items():
            deviations[name] = deviations.get(name, 0.0) + deviation
    spread, known, label, basis = _trust(fit, accelerator, family, own)
    return Calibration(
        label=label,
        basis=basis + _version_note(own or family, engine_version),
        coefficients=_shifted(fit.coefficients, deviations),
        spread=spread,
        spread_known=known or spread,
        known_models=fit.models,
        overhead_log_sd=fit.overhead_log_sd,
        as_of=fit.as_of,
        deployments=fit.deployments,
    )


def _trust(
    fit: FitFile, accelerator: AcceleratorSpec, family: Evidence | None, own: Evidence | None
) -> tuple[Spread, Spread | None, Label, str]:
    if own:
        basis = f"fitted on {own.rows:,} rows of {accelerator.id} from {_sources(own)}"
        return fit.calibrated, fit.calibrated_known, "calibrated", basis + _versions(own)
    if family:
        basis = f"transferred from {family.rows:,} rows of other {family_of(accelerator)} chips"
        return fit.transferred, fit.transferred_known, "transferred", basis + _versions(family)
    measured = sum(evidence.rows for evidence in fit.accelerators.values())
    if accelerator.vendor == fit.vendor and measured:
        basis = f"transferred from {measured:,} rows of other {accelerator.vendor} accelerators"
        return fit.transferred, fit.transferred_known, "transferred", basis
    if not measured:
        return fit.assumed, None, "assumed", "assumed: physical priors, nothing fitted"
    basis = f"assumed: no measurements of {accelerator.vendor} {accelerator.arch} accelerators"
    return fit.assumed, None, "assumed", basis


def _sources(evidence: Evidence) -> str:
    count = len(evidence.sources)
    return f"{count} source{'s' if count != 1 else ''}"


def _versions(evidence: Evidence) -> str:
    if not evidence.engine_versions:
        return ""
    first, last = evidence.engine_versions[0], evidence.engine_versions[-1]
    return f", vLLM {first}" + (f"–{last}" if last != first else "")


def _version_note(evidence: Evidence | None, engine_version: str | None) -> str:
    """Says when a version lies outside those that the rows were made with."""
    if not engine_version or evidence is None or not evidence.engine_versions:
        return ""
    first, last = evidence.engine_versions[0], evidence.engine_versions[-1]
    if _release(first) <= _release(engine_version) <= _release(last):
        return ""
    return f"; vLLM {engine_version} was not among them"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.lstrip("v").split(".")[:2] if part.isdigit())


def _shifted(prior: Coefficients, deviations: dict[str, float]) -> Coefficients:
    values = prior.model_dump()
    for name, deviation in deviations.items():
        low, high = bounds_of(name)
        values[name] = min(high, max(low, values[name] * math.exp(deviation)))
    return Coefficients(**values)
