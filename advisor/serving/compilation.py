"""Compile the simulator's kernel once, and say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

MESSAGE = "Compiling the simulator (once per installation, about 20 s) …"


def ensure_compiled(announce: Callable[[str], None] | None = None) -> float:
    """Make sure the kernel is ready; returns the seconds that took.

    Loading the compiled code takes a fraction of a second in a new process. Where there is none
    yet, or it is older than the source, it is compiled, after `announce` was told.
    """
    begin = time.perf_counter()
    from advisor.serving import kernel
    from advisor.serving.simulate import compile_kernel

    if announce is not None and not kernel.advance.signatures and not is_cached():
        announce(MESSAGE)
    compile_kernel()
    return time.perf_counter() - begin


def is_cached() -> bool:
    """Whether compiled code lies on disk that is as new as its source."""
    from advisor.serving import kernel

    source = Path(kernel.__file__)
    index = Path(kernel.advance.stats.cache_path or source.parent).glob(
        f"{source.stem}.advance-*.nbi"
    )
    return any(file.stat().st_mtime >= source.stat().st_mtime for file in index)
