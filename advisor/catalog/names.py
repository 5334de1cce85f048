"""From the name a person types to the entry it means."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from advisor.errors import InputError


class Named(Protocol):
    """An entry with an id and other names for it."""

    @property
    def id(self) -> str: ...

    @property
    def aliases(self) -> tuple[str, ...]: ...


Entry = TypeVar("Entry", bound=Named)


def index_by_id(entries: Iterable[Entry], *, what: str) -> dict[str, Entry]:
    """Entries by id.

    Raises:
        InputError: two entries share a name.
    """
    by_id: dict[str, Entry] = {}
    owners: dict[str, str] = {}
    for entry in entries:
        for name in (entry.id, *entry.aliases):
            if owners.setdefault(name.casefold(), entry.id) != entry.id or entry.id in by_id:
                raise InputError(f"{what} '{name}' is given twice")
        by_id[entry.id] = entry
    return by_id


def find(entries: Mapping[str, Entry], name: str) -> tuple[Entry, ...]:
    """The entries that a name can mean: one if it is clear, none if it is unknown.

    Tried in this order, ignoring case: an id or alias; the last path part of one
    (`qwen3-8b` for `Qwen/Qwen3-8B`); a leading part that ends at a dash (`h200` for `H200-SXM`).
    """
    wanted = name.strip().casefold()
    tests: tuple[Callable[[str], bool], ...] = (
        lambda given: given == wanted,
        lambda given: given.rpartition("/")[2] == wanted,
        lambda given: given.rpartition("/")[2].startswith(f"{wanted}-"),
    )
    for test in tests:
        matches = tuple(
            entry
            for entry in entries.values()
            if any(test(given.casefold()) for given in (entry.id, *entry.aliases))
        )
        if matches:
            return matches
    return ()


def near_matches(entries: Mapping[str, Entry], name: str, count: int = 3) -> tuple[str, ...]:
    """Ids that look like a name, most alike first."""
    wanted = name.strip().casefold().rpartition("/")[2]
    by_short = {
        given.casefold().rpartition("/")[2]: entry.id
        for entry in entries.values()
        for given in (*entry.aliases, entry.id)
    }
    close = difflib.get_close_matches(wanted, by_short, n=3 * count, cutoff=0.5)
    return tuple(dict.fromkeys(by_short[short] for short in close))[:count]
