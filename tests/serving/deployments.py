"""One deployment that several tests serve loads with: about an 8B model on an 80 GB accelerator."""

from __future__ import annotations

import numpy as np

from advisor.physics.step_cost import StepCost
from advisor.serving.capacity import sustainable_rate
from advisor.serving.engine import EngineSettings
from advisor.serving.workload import Lognormal, Poisson, Workload

STEP = StepCost(
    token_s=np.maximum(5.5e-3, 2.4e-5 * np.arange(8193)) + 8e-4,
    sample_s=1e-5 * np.arange(1025),
    kv_s=3.5e-8,
    prefill_s=2e-9,
    mixed_s=2e-4,
)
ENGINE = EngineSettings(max_num_seqs=1024, max_num_batched_tokens=8192)
KV_BLOCKS = 30_000

LOAD = Workload(Poisson(10.0), Lognormal(1024, 2500), Lognormal(256, 700))


def load_at(utilization: float) -> Workload:
    """The load at a share of what the deployment can take for ever."""
    return LOAD.at_rate(utilization * sustainable_rate(STEP, ENGINE, KV_BLOCKS, LOAD))
