"""How the simulator's inner functions are compiled: numba, once, cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., object])

MODULES = ("compiled", "heaps", "layout", "blocks", "admission", "kernel", "dispatch", "tally")
"""Modules whose source goes into compiled code."""


def _digest() -> str:
    """Hash of the sources that compiled code comes from."""
    digest = hashlib.sha256()
    for module in MODULES:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()


SOURCES = _digest()


def compiled(function: Function) -> Function:
    """Machine code that is cached on disk and releases the GIL.

    Without reference counting (`_nrt=False`): compiled functions allocate nothing, and counting
    each array of an engine on every step would take twenty times as long as the step.
    """
    return _compile(function)


def inlined(function: Function) -> Function:
    """The same, put in the place of each call: a step of the kernel with a name of its own."""
    return _compile(function, inline="always")


def is_on_disk(function: Callable[..., object]) -> bool:
    """Whether a compiled function was compiled before, from the sources as they are now."""
    index = _index_of(function)
    return index is not None and bool(index._load_index())


def _compile(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "_nrt": False}
    try:
        result: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in can be written
        result = numba.njit(**options)(function)
    index = _index_of(result)
    if index is not None:
        # numba asks whether the function's own file has changed; what it calls counts too.
        index._source_stamp = SOURCES
    return result


def _index_of(function: Callable[..., object]) -> Any:
    """numba's index of the cache of a function; None where it has none."""
    return getattr(getattr(function, "_cache", None), "_cache_file", None)
