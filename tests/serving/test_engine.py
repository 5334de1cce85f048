"""vLLM's own defaults, by accelerator and version."""

from __future__ import annotations

import pytest

from advisor.catalog.accelerators import AcceleratorSpec
from advisor.errors import InputError
from advisor.serving.engine import EngineSettings, vllm_defaults


def accelerator(name: str, usable_gib: float) -> AcceleratorSpec:
    return AcceleratorSpec(
        id=name,
        vendor="nvidia",
        arch="any",
        memory_gb=usable_gib,
        usable_memory_mib=usable_gib * 1024,
        mem_bw_gbps=1000,
        bf16_tflops_dense=100,
        interconnect_gbps_unidir=10,
    )


@pytest.mark.parametrize(
    ("name", "usable_gib", "served", "offline"),
    [
        ("H100-SXM", 79.6, (1024, 8192), (1024, 16384)),
        ("A100-SXM-80GB", 79.3, (256, 2048), (256, 8192)),
        ("L4", 22.5, (256, 2048), (256, 8192)),
        ("B200", 179.0, (1024, 16384), (1024, 16384)),
    ],
)
def test_batch_and_budget_follow_memory_and_name(
    name: str, usable_gib: float, served: tuple[int, int], offline: tuple[int, int]
) -> None:
    for api_server, expected in ((True, served), (False, offline)):
        chosen = vllm_defaults(accelerator(name, usable_gib), api_server=api_server)
        assert (chosen.max_num_seqs, chosen.max_num_batched_tokens) == expected


def test_versions_differ_in_what_they_default_to() -> None:
    b200 = accelerator("B200", 179.0)
    old, middle = (vllm_defaults(b200, engine_version=v) for v in ("0.11.0", "v0.19.0"))
    new = vllm_defaults(b200)
    assert [x.async_scheduling for x in (old, middle, new)] == [False, True, True]
    assert [x.scheduler_reserve_full_isl for x in (old, middle, new)] == [False, True, True]
    assert [x.gpu_memory_utilization for x in (old, middle, new)] == [0.9, 0.9, 0.92]
    assert [x.max_num_batched_tokens for x in (old, middle, new)] == [8192, 8192, 16384]


def test_bad_settings_say_what_is_wrong() -> None:
    with pytest.raises(InputError, match="engine_version = 'newest'"):
        vllm_defaults(accelerator("L4", 22.5), engine_version="newest")
    with pytest.raises(ValueError, match=r"max_num_batched_tokens \(8\) must be at least"):
        EngineSettings(max_num_seqs=16, max_num_batched_tokens=8)
