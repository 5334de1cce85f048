"""Names that benchmarks give accelerators: with vendor, memory, socket, or count."""

from __future__ import annotations

import re

from advisor.catalog import Catalog
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.unlisted import unlisted_accelerators
from advisor.errors import InputError

_SAYS_NOTHING = re.compile(
    r"^(nvidia|amd|intel|instinct|geforce|tesla|generation|edition|server|workstation|gpus?|tensor"
    r"|core|hbm[0-9]e?|oam|per|nvl[0-9]+|[0-9]+x)?$"
)
"""Words of a name that do not tell one accelerator from another."""

_MEMORY = re.compile(r"^([0-9]+)gi?b?$")

_SAME_MEMORY = 0.05
"""Relative difference up to which two figures mean the same memory."""


def accelerator_of(name: str, catalog: Catalog, assumed: list[str]) -> AcceleratorSpec:
    """The accelerator that a row's name means.

    A name that the catalogue does not know is compared word by word (`NVIDIA H100 NVL 94GB`,
    `A100-SXM4-80GB`, `RTX4090`), also with `unlisted_accelerators`. A name that several answer to
    (`H100`, `A100`) means the one listed first, the SXM part; `assumed` says so.

    Raises:
        InputError: none answers to it.
    """
    try:
        return catalog.known_accelerator(name)
    except InputError:
        known = (*catalog.accelerators.values(), *unlisted_accelerators(catalog.root))
        found = _by_words(name, known)
        if found is None:
            raise
    assumed.append(f"accelerator={found.id}")
    return found


def _by_words(name: str, known: tuple[AcceleratorSpec, ...]) -> AcceleratorSpec | None:
    words, memory_gb = _words(name)
    for one in known:
        spoken = [_words(given) for given in (one.id, *one.aliases)]
        if not words or not any(words <= theirs for theirs, _ in spoken):
            continue
        if memory_gb is None or abs(memory_gb / one.memory_gb - 1) <= _SAME_MEMORY:
            return one
    return None


def _words(name: str) -> tuple[frozenset[str], float | None]:
    """Telling words of a name, and the memory that it states (GB)."""
    words: set[str] = set()
    memory_gb: float | None = None
    for part in re.split(r"[-_\s/(),]+", name.lower()):
        part = re.sub(r"^[0-9]+x(?=[a-z])", "", part)
        stated = _MEMORY.match(part)
        if stated:
            memory_gb = float(stated[1])
        elif not _SAYS_NOTHING.match(part):
            part = re.sub(r"^(sxm|pcie)[0-9]$", r"\1", part)
            words.update(re.findall(r"^rtx(?=[0-9a])|[a-z0-9]+$", part))
    return frozenset(words), memory_gb
