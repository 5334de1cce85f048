"""Accelerators: memory, bandwidth, peak rates, links and prices, as in profiles/accelerators/."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from advisor.catalog.dates import Day
from advisor.catalog.models import Precision
from advisor.records import Record


class AcceleratorSpec(Record):
    """One accelerator as its file gives it (dense peak rates, no sparsity)."""

    id: str
    aliases: tuple[str, ...] = ()
    vendor: str
    arch: str
    """Hardware generation, e.g. `hopper`: the family whose calibration it borrows."""
    memory_gb: PositiveFloat
    """Marketing figure."""
    usable_memory_mib: PositiveFloat | None = None
    """What the driver shows (`nvidia-smi`); None: estimated from `memory_gb`."""
    mem_bw_gbps: PositiveFloat
    """Peak memory bandwidth in GB/s (1e9 bytes)."""
    bf16_tflops_dense: PositiveFloat
    fp8_tflops_dense: PositiveFloat | None = None
    int8_tops_dense: PositiveFloat | None = None
    fp4_tflops_dense: PositiveFloat | None = None
    interconnect_gbps_unidir: PositiveFloat
    """GB/s between accelerators, per accelerator, one direction."""
    interconnect: str = ""
    data_centre: bool = True
    """False for cards whose licence excludes data centres: used only where a task names them."""
    max_per_node: PositiveInt = 8
    """Largest tensor-parallel group the interconnect joins."""
    tdp_w: PositiveFloat | None = None
    fits: Path | None = None
    """File of coefficients measured on it, beside this one; None: those that are shipped."""
    confidence: str = "sourced"
    """`sourced`, or `memory` where figures are recalled and unchecked."""
    source: str = ""
    as_of: Day | None = None
    note: str = ""
    price_as_of: Day | None = None
    """Date of `usd_per_gpu_hour` (YYYY-MM-DD)."""
    usd_per_gpu_hour: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Prices by provider that travel with the file; profiles/prices/ holds the dated ones."""

    @property
    def memory_bytes(self) -> float:
        """Bytes the driver shows.

        Where the file does not say, the marketing figure is read as GB (1e9): the lower of the two
        readings, so that a fit is never promised on bytes that may not exist.
        """
        if self.usable_memory_mib is not None:
            return self.usable_memory_mib * 2**20
        return self.memory_gb * 1e9

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Peak memory bandwidth, bytes per second."""
        return self.mem_bw_gbps * 1e9

    @property
    def link_bytes_per_s(self) -> float:
        """Peak link rate to the other accelerators, bytes per second in one direction."""
        return self.interconnect_gbps_unidir * 1e9

    def peak_flops(self, precision: Precision) -> float:
        """Peak dense operations per second for operands of a format.

        A format without units of its own is computed in the next wider one that has them
        (weight-only quantisation dequantises to 16 bit first).
        """
        sixteen_bit = self.bf16_tflops_dense * 1e12
        rates: dict[Precision, float | None] = {
            "fp8": self.fp8_tflops_dense,
            "int8": self.int8_tops_dense,
            "fp4": self.fp4_tflops_dense or self.fp8_tflops_dense,
        }
        rate = rates.get(precision)
        return rate * 1e12 if rate else sixteen_bit

    def computes(self, precision: Precision) -> bool:
        """Whether matrix products of this format run in it rather than in 16 bit."""
        return {
            "fp8": self.fp8_tflops_dense,
            "int8": self.int8_tops_dense,
            "fp4": self.fp4_tflops_dense,
        }.get(precision, None if precision == "int4" else self.bf16_tflops_dense) is not None


class AcceleratorFile(Record):
    """One file of profiles/accelerators/."""

    accelerators: tuple[AcceleratorSpec, ...] = Field(min_length=1)
