"""Generations of vLLM: what changed between versions that a step's time shows."""

from __future__ import annotations

import re
from typing import Literal

Generation = Literal["v0_early", "v0", "v1", "v1_recent", "v1_latest"]
"""`v0_early`: before 0.2.7 (no CUDA graphs, workers called through Ray). `v0`: before 0.8
(synchronous scheduler, Python per sequence, inputs broadcast). `v1`: 0.8 to 0.14. `v1_recent`: 0.15
to 0.17 (fused kernels, asynchronous scheduling by default). `v1_latest`: 0.18 on (faster routed
layers)."""

CURRENT: Generation = "v1_latest"

_VERSION = re.compile(r"^v?(\d+)\.(\d+)(?:\.(\d+))?")


def is_version(version: str | None) -> bool:
    """Whether a text begins as a release does; `nightly` and commits do not."""
    return version is not None and _VERSION.match(version.strip()) is not None


def engine_generation(version: str | None) -> Generation:
    """Generation of a vLLM version string; the current one where none is given or readable."""
    found = _VERSION.match(version.strip()) if version else None
    if found is None:
        return CURRENT
    release = (int(found[1]), int(found[2]), int(found[3] or 0))
    if release < (0, 2, 7):
        return "v0_early"
    if release < (0, 8):
        return "v0"
    if release < (0, 15):
        return "v1"
    return "v1_recent" if release < (0, 18) else "v1_latest"
