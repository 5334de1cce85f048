"""A fitted pre-router in a file of arrays, so that nothing executable is loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from advisor.errors import InputError
from advisor.quality.prerouter import BUCKETS, PreRouter

SHAPES = {"rarity": BUCKETS, "slm_weights": 1 + BUCKETS, "llm_weights": 1 + BUCKETS}


def save(prerouter: PreRouter, path: Path) -> None:
    """Write a pre-router as a compressed .npz file."""
    with path.open("wb") as file:
        np.savez_compressed(file, **{name: getattr(prerouter, name) for name in SHAPES})


def load(path: Path) -> PreRouter:
    """Read a pre-router.

    Raises:
        InputError: no such file, or not one that `save` wrote.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], dtype=float) for name in SHAPES}
    except FileNotFoundError:
        raise InputError(f"policy.prerouter.file: no file {path}") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        raise InputError(f"policy.prerouter.file: {path} is not a pre-router") from None
    for name, size in SHAPES.items():
        if arrays[name].shape != (size,) or not np.isfinite(arrays[name]).all():
            raise InputError(f"policy.prerouter.file: {path}: {name} must be {size:,} numbers")
    return PreRouter(**arrays)
