"""Compile the simulator's kernel once, and say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

MESSAGE = "Compiling the simulator (once per installation, about half a minute) …"


def ensure_compiled(announce: Callable[[str], None] | None = None) -> float:
    """Make sure the kernel is ready; returns the seconds that took.

    Loading the compiled code takes a fraction of a second in a new process. Where there is none
    yet, or it is older than the source, all of it is compiled, after `announce` was told.
    """
    begin = time.perf_counter()
    from advisor.serving.simulate import compile_kernel

    cached = is_cached()
    if announce is not None and not cached:
        announce(MESSAGE)
    compile_kernel(everything=not cached)
    return time.perf_counter() - begin


def is_cached() -> bool:
    """Whether compiled code lies on disk for every part, from the sources as they are now."""
    from advisor.serving import dispatch, kernel, tally
    from advisor.serving.compiled import is_on_disk

    parts: tuple[Any, ...] = (kernel.advance, dispatch.dispatch, tally.tally)
    return all(is_on_disk(part) for part in parts)
