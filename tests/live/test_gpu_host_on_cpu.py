"""The programme for a GPU host, run on the vLLM of this machine's processor."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tiny_checkpoint import write_checkpoint

from advisor.calibrate.bench.engine import environment
from advisor.calibrate.bench.hardware import usable_cores
from advisor.calibrate.bench.local import find_python
from advisor.calibrate.bench.recorded import points_of, read_raw
from advisor.errors import InputError

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

MEASURE = Path(__file__).parents[2] / "calibration" / "gpu_host" / "measure.py"

STEPS = [
    {"ask": "copy"},
    {"ask": "decode", "batch": 2, "context": 64, "steps": 8, "repeats": 1},
    {"ask": "prefill", "tokens": 128, "repeats": 2},
    {"ask": "mixed", "batch": 4, "context": 32, "tokens": 64, "repeats": 1},
    {"ask": "decode", "batch": 1, "context": 50_000, "steps": 8, "repeats": 1},
]
LOAD = {
    "ask": "load",
    "rate_per_s": 4.0,
    "seconds": 3.0,
    "input_tokens": 64,
    "output_tokens": 8,
    "seed": 1,
    "predicted": {"share_of_capacity": 0.2, "tpot_p50_ms": 6.0},
}


def test_all_stages_run_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    try:
        python = find_python()
    except InputError as missing:
        pytest.skip(str(missing))
    write_checkpoint(tmp_path / "plan" / "tiny", "5M")
    model = {"name": "tiny", "folder": "tiny", "arguments": {}, "steps": STEPS, "loads": [LOAD]}
    arguments = {
        "load_format": "dummy",
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "dtype": "float32",
        "max_model_len": 2048,
        "max_num_seqs": 16,
    }
    plan = {"arguments": arguments, "models": [model]}
    (tmp_path / "plan" / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    raw = tmp_path / "raw.jsonl"
    variables = environment(
        cores=usable_cores()[-1:], kv_cache_gib=1, on_gpu=False, log_folder=tmp_path
    )

    def stage(name: str) -> int:
        command = [str(python), str(MEASURE), name, "--plan", str(tmp_path / "plan")]
        done = subprocess.run(
            [*command, "--output", str(raw)],
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode in (0, 3), done.stderr[-2000:]
        return done.returncode

    assert [stage(name) for name in ("check", "steps", "loads")] == [0, 0, 0]
    lines = read_raw(raw)
    assert len(lines) == 1 + 1 + len(STEPS) + 1
    assert "maximum context length" in next(one["error"] for one in lines if one.get("error"))
    points = points_of(lines, model="tiny", digest="", accelerator="cpu", arguments={})
    assert [point.shape.kind for point in points] == ["decode", "prefill", "mixed", "load"]
    assert points[-1].results["failed"] == 0

    assert stage("steps") == 0
    assert len(read_raw(raw)) == len(lines), "what is there is not asked again"
