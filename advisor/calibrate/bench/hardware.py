"""What this machine is: processor or GPU, memory, clocks; and a processor as an accelerator."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydantic import NonNegativeFloat, NonNegativeInt

from advisor.catalog import Catalog
from advisor.catalog.accelerators import AcceleratorSpec
from advisor.errors import InputError
from advisor.records import Record

SUSTAINED_SHARE = 0.75
"""Share of a datasheet's peak that a ceiling measured in one thread reaches: what GPUs' large
products and copies do (calibration/operators.yaml). A processor gets the datasheet that fits."""

NVIDIA_QUERY = "name,driver_version,clocks.max.sm,clocks.sm,temperature.gpu,memory.total"


class Machine(Record):
    """Hardware, and its state when a run began."""

    processor: str
    cores: NonNegativeInt
    memory_bytes: NonNegativeFloat
    system: str
    gpu: str | None = None
    gpu_driver: str | None = None
    gpu_clock_mhz: NonNegativeFloat | None = None
    gpu_top_clock_mhz: NonNegativeFloat | None = None
    gpu_temperature_c: NonNegativeFloat | None = None
    load_average: NonNegativeFloat | None = None
    """Processes that wanted to run, last minute."""

    @property
    def identity(self) -> str:
        """What does not change while it runs."""
        return "|".join((self.processor, str(self.cores), self.gpu or "", self.gpu_driver or ""))


def this_machine() -> Machine:
    """This machine, as /proc and nvidia-smi describe it."""
    gpu = _nvidia()
    return Machine(
        processor=_processor(),
        cores=len(usable_cores()),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        load_average=_load_average(),
        **gpu,
    )


def usable_cores() -> tuple[int, ...]:
    """Cores that this process may run on."""
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except AttributeError:  # not Linux
        return tuple(range(os.cpu_count() or 1))


def other_cores(cores: Sequence[int]) -> tuple[int, ...]:
    """Usable cores beside some; none where those are all."""
    return tuple(core for core in usable_cores() if core not in cores)


def busy_core_s() -> float:
    """Core-seconds that the whole machine has not idled so far, others' included; 0: not known."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return 0.0
    # user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of these.
    ticks = [int(word) for word in line.split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def accelerator_id(machine: Machine, threads: int) -> str:
    """Name of a processor as an accelerator, e.g. `cpu-amd-epyc-1-thread`."""
    name = re.sub(r"[^a-z0-9]+", "-", machine.processor.lower()).strip("-")
    return f"cpu-{name[:40].strip('-')}-{threads}-thread{'s' if threads != 1 else ''}"


def processor_as_accelerator(
    machine: Machine, *, threads: int, copy_bytes_per_s: float, flops_per_s: float
) -> AcceleratorSpec:
    """A processor in the keys of an accelerator file.

    Its datasheet is the measured ceilings over `SUSTAINED_SHARE`: coefficients are shares of it.
    """
    return AcceleratorSpec(
        id=accelerator_id(machine, threads),
        vendor="cpu",
        arch="cpu",
        memory_gb=round(machine.memory_bytes / 1e9, 2),
        mem_bw_gbps=float(f"{copy_bytes_per_s / SUSTAINED_SHARE / 1e9:.4g}"),
        bf16_tflops_dense=float(f"{flops_per_s / SUSTAINED_SHARE / 1e12:.4g}"),
        interconnect_gbps_unidir=1.0,
        interconnect="none",
        data_centre=True,
        max_per_node=1,
        confidence="sourced",
        source="advisor calibrate run: copy and product measured on this machine",
        as_of=dt.datetime.now(dt.UTC).date().isoformat(),
        note=f"{machine.processor}, {threads} pinned thread{'s' if threads != 1 else ''}; the "
        "peak rates are measured ceilings over 0.75, in the engine's own format",
    )


def accelerator_for(
    machine: Machine, catalog: Catalog, named: str | None
) -> AcceleratorSpec | None:
    """The accelerator that runs are compared with; None for a processor that has no file.

    Raises:
        InputError: the name is unknown, or this machine's GPU is not in the catalogue.
    """
    if named is not None:
        return catalog.accelerator(named)
    if machine.gpu is None:
        return None
    wanted = _normal(machine.gpu)
    found = [
        spec
        for spec in catalog.accelerators.values()
        if any(_normal(name) == wanted for name in (spec.id, *spec.aliases))
    ]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"--accelerator: this machine's '{machine.gpu}' is not in the catalogue; name an id, or "
        "the path of its YAML file"
    )


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("nvidia", ""))


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory_bytes() -> float:
    """Main memory, or the control group's limit where that is smaller."""
    try:
        total = float(os.sysconf("SC_PAGE_SIZE")) * float(os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        return 0.0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, float(limit)) if limit.isdigit() else total


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _nvidia() -> dict[str, str | float]:
    """The first NVIDIA GPU; nothing where there is none."""
    command = ["nvidia-smi", f"--query-gpu={NVIDIA_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        name, driver, top, clock, temperature, _ = next(iter(done.stdout.splitlines()), "").split(
            ", "
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    found: dict[str, str | float] = {"gpu": name, "gpu_driver": driver}
    for key, text in (
        ("gpu_top_clock_mhz", top),
        ("gpu_clock_mhz", clock),
        ("gpu_temperature_c", temperature),
    ):
        try:
            found[key] = float(text)
        except ValueError:
            continue
    return found
