"""Models and accelerators whose latency is predicted and which are never recommended."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from advisor.catalog.accelerators import AcceleratorFile, AcceleratorSpec
from advisor.catalog.models import ModelFile, ModelSpec
from advisor.documents import read_yaml, validate

FOLDER = "unlisted"
"""In the catalogue's `models/` and `accelerators/`: shapes and speeds, without terms or prices."""


@lru_cache(maxsize=8)
def unlisted_models(root: Path) -> tuple[ModelSpec, ...]:
    """Models of which a catalogue's folder knows the shape alone.

    Read when a name is not in the catalogue itself: a recommendation does not pay for them.
    """
    return tuple(
        spec
        for file in sorted((root / "models" / FOLDER).glob("*.yaml"))
        for spec in validate(
            ModelFile, read_yaml(file, what="models"), what=f"models {file.name}"
        ).models
    )


@lru_cache(maxsize=8)
def unlisted_accelerators(root: Path) -> tuple[AcceleratorSpec, ...]:
    """Accelerators of which a catalogue's folder knows the datasheet alone."""
    return tuple(
        spec
        for file in sorted((root / "accelerators" / FOLDER).glob("*.yaml"))
        for spec in validate(
            AcceleratorFile,
            read_yaml(file, what="accelerators"),
            what=f"accelerators {file.name}",
        ).accelerators
    )


def unlisted_model(root: Path, name: str) -> ModelSpec | None:
    """The one with that id or alias, or with it as the last part of one; ignoring case."""
    wanted = name.strip().casefold()
    for spec in unlisted_models(root):
        names = [one.casefold() for one in (spec.id, *spec.aliases)]
        if wanted in names or wanted in [one.rpartition("/")[2] for one in names]:
            return spec
    return None


def unlisted_accelerator(root: Path, name: str) -> AcceleratorSpec | None:
    """The one with that id or alias, ignoring case."""
    wanted = name.strip().casefold()
    for spec in unlisted_accelerators(root):
        if wanted in {one.casefold() for one in (spec.id, *spec.aliases)}:
            return spec
    return None
