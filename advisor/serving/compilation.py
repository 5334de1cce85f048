"""Compile the simulator's kernel once, and say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MESSAGE = "Compiling the simulator (once per installation, about 30 s) …"


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
    """Whether compiled code lies on disk for every part, as new as its source."""
    from advisor.serving import dispatch, kernel, tally

    parts: tuple[Any, ...] = (kernel.advance, dispatch.dispatch, tally.tally)
    return all(part.signatures or _on_disk(part) for part in parts)


def _on_disk(part: Any) -> bool:
    """Whether an index of compiled code exists that is newer than the function's module."""
    source = Path(part.py_func.__code__.co_filename)
    folder = Path(part.stats.cache_path)
    index = folder.glob(f"{source.stem}.{part.py_func.__name__}-*.nbi")
    return any(file.stat().st_mtime >= source.stat().st_mtime for file in index)
