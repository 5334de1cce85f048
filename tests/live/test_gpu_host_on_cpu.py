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
from advisor.calibrate.bench.recorded import kernel_ratios, points_of, read_raw
from advisor.catalog import load_catalog
from advisor.errors import InputError
from advisor.physics.deployment import Deployment

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
    parts = lines[0]["answer"]["parts"]
    assert "Error" in parts["FlashAttention 3"], "there is none here, and that is said"
    points = points_of(lines, model="tiny", digest="", accelerator="cpu", arguments={})
    assert [point.shape.kind for point in points] == ["decode", "prefill", "mixed", "load"]
    assert points[-1].results["failed"] == 0

    assert [stage(name) for name in ("steps", "kernels")] == [0, 0]
    assert len(read_raw(raw)) == len(lines), "what is there is not asked again, and vLLM did start"


def test_kernels_are_called_alone_where_vllm_did_not_start(tmp_path: Path) -> None:
    try:
        python = find_python()
    except InputError as missing:
        pytest.skip(str(missing))
    folder = write_checkpoint(tmp_path / "tiny", "5M")
    model = {
        "name": str(folder),
        "folder": "tiny",
        "arguments": {},
        "steps": STEPS,
        "loads": [LOAD],
    }
    (tmp_path / "plan.json").write_text(json.dumps({"arguments": {}, "models": [model]}))
    raw = tmp_path / "raw.jsonl"
    failed = [{"ask": "start"}, *STEPS, {"ask": "start"}]
    line = {
        "stage": "steps",
        "model": str(folder),
        "at": "",
        "gpu": "",
        "error": "RuntimeError: no",
    }
    raw.write_text("".join(json.dumps(line | {"question": one}) + "\n" for one in failed))
    for stage in ("loads", "kernels"):
        command = [str(python), str(MEASURE), stage, "--plan", str(tmp_path)]
        done = subprocess.run(
            [*command, "--output", str(raw)], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr[-2000:]
    lines = read_raw(raw)[len(failed) :]
    assert {one["stage"] for one in lines} == {"kernels"}
    assert not any("error" in one for one in lines)
    catalog = load_catalog()
    deployment = Deployment(
        model=catalog.model(str(folder)),
        accelerator=catalog.accelerator("H200-SXM"),
        weights_dtype="bf16",
    )
    ratios = kernel_ratios(lines, model=str(folder), deployment=deployment)
    assert len(ratios) == len(lines) > 10
    assert all(seconds > law_s > 0 for _, _, seconds, law_s in ratios), "slower than on an H200"
    longer = [seconds for told, _, seconds, _ in ratios if told.startswith("linears")]
    assert longer[-1] > 5 * longer[0]
