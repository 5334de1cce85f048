"""How the simulator's inner functions are compiled: numba, once, cached beside the source."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Machine code that is cached on disk and releases the GIL.

    Without reference counting (`_nrt=False`): compiled functions allocate nothing, and counting
    each array of an engine on every step would take twenty times as long as the step.
    """
    result: Function = njit(cache=True, nogil=True, _nrt=False)(function)
    return result


def inlined(function: Function) -> Function:
    """The same, put in the place of each call: a step of the kernel with a name of its own."""
    result: Function = njit(cache=True, nogil=True, _nrt=False, inline="always")(function)
    return result
