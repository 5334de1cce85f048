"""Speeds of kernels by accelerator: what tells one accelerator's coefficients from another's."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from pydantic import PositiveFloat

from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.locations import CALIBRATION
from advisor.documents import read_yaml, validate
from advisor.records import Record

OPERATORS = CALIBRATION / "operators.yaml"

Operators = dict[str, PositiveFloat]
"""Coefficients of the step-time law by name, as kernels alone show them."""


class OperatorTable(Record):
    """calibration/operators.yaml."""

    base: str
    """Accelerator that the shared coefficients stand for."""
    accelerators: dict[str, Operators]
    families: dict[str, str]
    """Whose kernels an accelerator without a table of its own borrows, by family."""
    without_nvlink: Operators
    """Collectives over PCIe."""


def family_of(accelerator: AcceleratorSpec) -> str:
    """Hardware family: accelerators that share kernels, e.g. `blackwell` of B200 and B300."""
    return accelerator.arch.split("-")[0]


@lru_cache(maxsize=4)
def load_operators(path: Path = OPERATORS) -> OperatorTable:
    """The table of kernel speeds.

    Raises:
        InputError: missing, or not such a table.
    """
    return validate(OperatorTable, read_yaml(path, what="operators"), what="operators.yaml")


def operator_offsets(accelerator: AcceleratorSpec) -> dict[str, float]:
    """ln(coefficient of an accelerator / of the base), as far as kernel tables tell.

    Its own table, else that of its family; collectives by the kind of link.
    """
    table = load_operators()
    base = table.accelerators[table.base]
    borrowed = table.families.get(family_of(accelerator), "")
    own = dict(table.accelerators.get(accelerator.id, table.accelerators.get(borrowed, {})))
    if accelerator.interconnect.lower().startswith("pcie"):
        own |= table.without_nvlink
    return {name: math.log(value / base[name]) for name, value in own.items() if name in base}
