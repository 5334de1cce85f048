"""How the simulator's inner functions are compiled: numba, once, cached on disk."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache

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


class _Cache(FunctionCache):
    """Compiled code on disk, valid as long as none of the sources changes."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        # numba asks whether the function's own file has changed; what it calls counts too.
        self._cache_file._source_stamp = SOURCES

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Machine code from disk; None where it has to be compiled.

        numba would first import all that compiling needs, a quarter of a second. Its compiler
        does that itself; code that is loaded needs none of it.
        """
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, target)  # type: ignore[no-untyped-call]


def _compile(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "_nrt": False}
    result: Any = numba.njit(**options)(function)
    with contextlib.suppress(RuntimeError):  # no folder to cache in can be written
        result._cache = _Cache(function)
    return cast("Function", result)


def _index_of(function: Callable[..., object]) -> Any:
    """numba's index of the cache of a function; None where it has none."""
    return getattr(getattr(function, "_cache", None), "_cache_file", None)
