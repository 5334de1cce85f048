"""The whole catalogue as one value: what is shipped, and what a user adds to it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

from advisor.catalog.accelerators import AcceleratorFile, AcceleratorSpec
from advisor.catalog.assumptions import Assumptions
from advisor.catalog.evidence import EvidenceFile, EvidenceRow
from advisor.catalog.hosted import HostedFile, HostedModel, hosted_models
from advisor.catalog.huggingface import read_model
from advisor.catalog.locations import PROFILES
from advisor.catalog.models import ModelFile, ModelSpec
from advisor.catalog.names import find, index_by_id, near_matches
from advisor.catalog.prices import MARKETPLACES, GpuPrice, PriceFile
from advisor.catalog.unlisted import unlisted_accelerator, unlisted_model
from advisor.catalog.workloads import WorkloadShape
from advisor.documents import RecordType, read_yaml, validate
from advisor.errors import InputError


@dataclass(frozen=True)
class Catalog:
    """Models, accelerators, prices, evidence and assumptions, validated."""

    models: Mapping[str, ModelSpec]
    """By Hugging Face id."""
    accelerators: Mapping[str, AcceleratorSpec]
    """By id."""
    prices: tuple[GpuPrice, ...]
    """GPU-hour prices, those of users' own files included."""
    assumptions: Assumptions
    root: Path = field(default=PROFILES, repr=False)
    """Folder from which the parts below are read when they are first used."""

    @property
    def as_of(self) -> str:
        """Date of the newest model or accelerator entry (YYYY-MM-DD)."""
        models = (spec.as_of for spec in self.models.values())
        accelerators = (spec.as_of or "" for spec in self.accelerators.values())
        return max((*models, *accelerators))

    @property
    def prices_as_of(self) -> str:
        """Date of the newest GPU-hour price (YYYY-MM-DD)."""
        return max(price.as_of for price in self.prices)

    @cached_property
    def hosted(self) -> tuple[HostedModel, ...]:
        """Hosted models at today's list prices."""
        return self.hosted_on(dt.date.today())

    @cached_property
    def evidence(self) -> tuple[EvidenceRow, ...]:
        """Published scores."""
        files = _files(self.root / "evidence", EvidenceFile, what="evidence")
        rows = tuple(row for file in files for study in file.studies for row in study.evidence())
        seen: set[str] = set()
        for row in rows:
            if row.id in seen:
                raise InputError(f"evidence: {row.id} is given twice")
            seen.add(row.id)
        return rows

    @cached_property
    def workloads(self) -> Mapping[str, WorkloadShape]:
        """Shapes of real request streams, by id."""
        shapes = _files(self.root / "workloads", WorkloadShape, what="workloads")
        return {shape.id: shape for shape in shapes}

    def hosted_on(self, day: dt.date) -> tuple[HostedModel, ...]:
        """Hosted models at the list prices of a day."""
        path = self.root / "prices" / "hosted.yaml"
        file = validate(HostedFile, read_yaml(path, what="prices"), what=f"prices {path.name}")
        return hosted_models(file, on=day)

    def model(self, name: str) -> ModelSpec:
        """The model that a name means.

        Args:
            name: an id or alias, its last path part where only one model has it, or the path of a
                `config.json` or of a folder that holds one.

        Raises:
            InputError: unknown, ambiguous, or a configuration that is no decoder's.
        """
        if _is_path(name, ".json"):
            return read_model(Path(name))
        found = find(self.models, name)
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"model '{name}' can mean {_listed(one.id for one in found)}")
        if Path(name).exists():
            return read_model(Path(name))
        if unlisted_model(self.root, name):
            raise InputError(
                f"model '{name}': only its shape is known, without its licence; it is predicted "
                "for and not recommended unless by the path of its config.json"
            )
        near = near_matches(self.models, name)
        hint = f"did you mean {_listed(near)}, or a path" if near else "is there a path"
        raise InputError(f"model '{name}' is not in the catalogue; {hint} to its config.json?")

    def accelerator(self, name: str) -> AcceleratorSpec:
        """The accelerator that a name means.

        Args:
            name: an id or alias, the leading part of one where only one accelerator has it
                (`h200`), or the path of a YAML file with one accelerator.

        Raises:
            InputError: unknown, ambiguous, or a file that is not an accelerator's.
        """
        if _is_path(name, ".yaml", ".yml", ".json"):
            return read_accelerator(Path(name))
        found = find(self.accelerators, name)
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"accelerator '{name}' can mean {_listed(one.id for one in found)}")
        if Path(name).exists():
            return read_accelerator(Path(name))
        near = near_matches(self.accelerators, name) or tuple(self.accelerators)
        raise InputError(
            f"accelerator '{name}' is not in the catalogue; did you mean {_listed(near)}, "
            "or a path to its YAML file?"
        )

    def known_model(self, name: str) -> ModelSpec:
        """The same, also of models that are predicted for and never recommended.

        Raises:
            InputError: as `model` does.
        """
        try:
            return self.model(name)
        except InputError:
            found = unlisted_model(self.root, name)
            if found is None:
                raise
            return found

    def known_accelerator(self, name: str) -> AcceleratorSpec:
        """As `accelerator`, also of those that are predicted for and never recommended.

        Raises:
            InputError: as `accelerator` does.
        """
        try:
            return self.accelerator(name)
        except InputError:
            found = unlisted_accelerator(self.root, name)
            if found is None:
                raise
            return found

    def gpu_prices(
        self,
        accelerator_id: str,
        *,
        clouds: Collection[str] | None = None,
        marketplace: bool = False,
    ) -> tuple[GpuPrice, ...]:
        """Prices of an accelerator, cheapest first.

        Args:
            accelerator_id: its id.
            clouds: providers to keep; None keeps all.
            marketplace: whether to include marketplace asks.
        """
        wanted = None if clouds is None else {cloud.casefold() for cloud in clouds}
        kept = (
            price
            for price in self.prices
            if price.accelerator == accelerator_id
            and (marketplace or price.kind != "marketplace")
            and (wanted is None or price.provider.casefold() in wanted)
        )
        return tuple(sorted(kept, key=lambda price: (price.usd_per_hour, price.provider)))

    def including(
        self,
        *,
        models: Iterable[ModelSpec] = (),
        accelerators: Iterable[AcceleratorSpec] = (),
        prices: Iterable[GpuPrice] = (),
    ) -> Catalog:
        """The catalogue with entries of a user's own.

        An entry replaces the one with its id; prices in an accelerator's own file come with it and
        replace listed prices of the same provider.
        """
        added = tuple(accelerators)
        new = (*prices, *(price for spec in added for price in prices_of(spec)))
        stated = {(price.accelerator, price.provider) for price in new}
        kept = (old for old in self.prices if (old.accelerator, old.provider) not in stated)
        return replace(
            self,
            models={**self.models, **{spec.id: spec for spec in models}},
            accelerators={**self.accelerators, **{spec.id: spec for spec in added}},
            prices=(*kept, *new),
        )


@lru_cache(maxsize=8)
def load_catalog(root: Path | None = None) -> Catalog:
    """Read and validate the catalogue.

    Args:
        root: folder with `models/`, `accelerators/`, `prices/` and the rest; None: the shipped one.

    Raises:
        InputError: a file is missing or wrong, with its name, the field and what is accepted.
    """
    folder = root or PROFILES
    models = index_by_id(_models(folder / "models"), what="model")
    accelerators = index_by_id(
        (
            spec
            for file in _files(folder / "accelerators", AcceleratorFile, what="accelerators")
            for spec in file.accelerators
        ),
        what="accelerator",
    )
    prices = tuple(
        price
        for file in _files(folder / "prices", PriceFile, what="prices", pattern="gpu_*.yaml")
        for price in file.rows()
    )
    assumptions = validate(
        Assumptions,
        read_yaml(folder / "assumptions.yaml", what="assumptions"),
        what="assumptions.yaml",
    )
    return Catalog(
        models=models,
        accelerators=accelerators,
        prices=prices,
        assumptions=assumptions,
        root=folder,
    )


def prices_of(accelerator: AcceleratorSpec) -> tuple[GpuPrice, ...]:
    """The prices that an accelerator's own file states."""
    return tuple(
        GpuPrice(
            accelerator=accelerator.id,
            provider=provider,
            kind="marketplace" if provider in MARKETPLACES else "cloud",
            usd_per_hour=usd,
            as_of=accelerator.price_as_of or accelerator.as_of or dt.date.today().isoformat(),
            source=accelerator.source or "the accelerator's own file",
        )
        for provider, usd in accelerator.usd_per_gpu_hour.items()
    )


def read_accelerator(path: Path) -> AcceleratorSpec:
    """An accelerator from a user's YAML file: its keys, or `gpus:` with a list of one.

    Raises:
        InputError: unreadable, or not exactly one accelerator.
    """
    what = f"accelerator file {path.name}"
    value = read_yaml(path, what="accelerator file")
    shared: dict[str, object] = {}
    for key in ("gpus", "accelerators"):
        if isinstance(value, dict) and key in value:
            listed = value[key]
            if not isinstance(listed, list) or len(listed) != 1:
                raise InputError(f"{what}: {key} must list exactly one accelerator")
            if "price_date" in value:
                shared["price_as_of"] = value["price_date"]
            value = listed[0]
    found = validate(
        AcceleratorSpec, shared | value if isinstance(value, dict) else value, what=what
    )
    if found.fits is None:
        return found
    return found.model_copy(update={"fits": path.parent / found.fits})


def _models(folder: Path) -> Iterable[ModelSpec]:
    files = _files(folder, ModelFile, what="models")
    yield from (spec for file in files for spec in file.models)
    originals = {spec.id: spec for file in files for spec in file.models}
    for file in files:
        for variant in file.variants:
            original = originals.get(variant.variant_of)
            if original is None:
                raise InputError(
                    f"models: {variant.id} is a variant of '{variant.variant_of}', "
                    "which no file lists under models"
                )
            yield variant.spec(original)


def _files(
    folder: Path, record_type: type[RecordType], *, what: str, pattern: str = "*.yaml"
) -> list[RecordType]:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"{what}: no {pattern} in {folder}")
    return [
        validate(record_type, read_yaml(path, what=what), what=f"{what} {path.name}")
        for path in paths
    ]


def _is_path(name: str, *suffixes: str) -> bool:
    return name.startswith(("./", "../", "/", "~")) or name.casefold().endswith(suffixes)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
