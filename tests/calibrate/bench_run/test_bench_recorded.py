"""What a GPU host sends back, read here: on output that CPU vLLM 0.32 gave (cut to 5 digits).

`recorded_cpu.jsonl` is the raw file of all stages of calibration/gpu_host/measure.py for the 5M
model, on two shared cores; its last engine question asks for more than the context on purpose.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from bench_points import CHIP
from stand_in_engine import write_model

from advisor.calibrate.bench.checkpoint import config_of
from advisor.calibrate.bench.law import Steps
from advisor.calibrate.bench.outputs import accelerator_text
from advisor.calibrate.bench.recorded import fit_recorded, kernel_ratios, points_of, read_raw
from advisor.calibrate.measurements import read_measurements
from advisor.catalog import load_catalog
from advisor.errors import InputError
from advisor.physics.deployment import Deployment

RAW = Path(__file__).with_name("recorded_cpu.jsonl")
GPU_HOST = Path(__file__).resolve().parents[3] / "calibration" / "gpu_host"


def programme(name: str) -> ModuleType:
    """A programme of calibration/gpu_host/ as a module."""
    spec = importlib.util.spec_from_file_location(f"gpu_host_{name}", GPU_HOST / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def recorded() -> list:
    return points_of(
        read_raw(RAW), model="tiny", digest="0" * 12, accelerator=CHIP.id, arguments={}
    )


def test_every_question_that_was_answered_is_a_point() -> None:
    points = recorded()

    assert [point.shape.kind for point in points] == [
        *("decode", "prefill", "decode", "decode", "prefill", "mixed", "load")
    ]
    assert {point.facts.vllm_version for point in points} == {"0.32.0"}
    assert points[0].basis == "processor time"
    load = points[-1]
    assert load.results["requests"] == 15
    assert load.results["tpot_p50_ms"] > 5
    assert load.predicted["tpot_p50_ms"] == 6.0, "the prediction travels with the load"


def test_recorded_output_becomes_points_coefficients_and_rows(tmp_path: Path) -> None:
    chip = tmp_path / "chip.yaml"
    chip.write_text(accelerator_text(CHIP), encoding="utf-8")
    folder = write_model(tmp_path / "tiny")
    raw = tmp_path / "raw.jsonl"
    raw.write_text(RAW.read_text(encoding="utf-8").replace('"tiny"', json.dumps(str(folder))))
    belief, points = fit_recorded(
        raw,
        model=str(folder),
        accelerator=str(chip),
        folder=folder,
        arguments={},
        weights_dtype="bf16",
        output=tmp_path / "out.jsonl",
        catalog=load_catalog(),
    )
    steps = [point for point in points if point.shape.kind == "decode"]

    assert belief.median_error < 0.1
    assert belief.seconds(Steps.of_points(steps)) == pytest.approx(
        [point.value_s for point in steps], rel=0.3
    )
    rows = read_measurements((tmp_path / "out.rows.csv",))
    assert {row.setup.load for row in rows} == {"steady_batch", "static_batch", "poisson"}
    assert (tmp_path / "out.fits.json").is_file()


def test_raw_results_that_are_none(tmp_path: Path) -> None:
    other = tmp_path / "raw.jsonl"
    other.write_text('{"latency": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1 of .* is none"):
        read_raw(other)
    with pytest.raises(InputError, match="no engine step of absent"):
        points_of(read_raw(RAW), model="absent", digest="", accelerator="x", arguments={})


def test_a_stage_skips_what_is_there_and_mends_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    whole = RAW.read_text(encoding="utf-8").splitlines(keepends=True)[:3]
    path.write_text("".join(whole) + '{"stage": "ste', encoding="utf-8")
    results = programme("measure").Results(path)

    assert len(results.lines) == 3
    assert path.read_text(encoding="utf-8") == "".join(whole)
    assert results.has("steps", "tiny", json.loads(whole[2])["question"])
    assert not results.has("steps", "tiny", {"ask": "decode", "batch": 999})
    results.add("steps", "tiny", {"ask": "x"}, answer={"wall_s": [0.1]})
    assert len(programme("measure").Results(path).lines) == 4


def test_an_engine_that_does_not_start_is_tried_once_more_without_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = programme("measure")
    tried = []

    class Broken:
        def __init__(self, model: str, arguments: dict[str, object]) -> None:
            tried.append(arguments)
            raise RuntimeError("CUDA graphs")

    monkeypatch.setattr(measure, "load_program", lambda: SimpleNamespace(Benchmarks=Broken))
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    model = {"name": "m", "folder": "m", "arguments": {"a": 1}, "steps": [{"ask": "copy"}]}
    plan = {"folder": tmp_path, "arguments": {"b": 2}, "models": [model]}
    results = measure.Results(tmp_path / "raw.jsonl")

    assert not measure.steps(results, plan, 1e12, None), "call again"
    assert not results.has("steps", "m", {"ask": "copy"})
    assert not measure.steps(measure.Results(results.path), plan, 1e12, None)
    assert tried == [{"a": 1, "b": 2}, {"a": 1, "b": 2, "enforce_eager": True}]
    assert measure.steps(measure.Results(results.path), plan, 1e12, None), "given up"
    assert len(tried) == 2


def test_kernels_alone_are_for_engines_that_were_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = programme("measure")
    asked = [{"ask": "linears", "tokens": 8}, {"ask": "attention", "batch": 4, "context": 100}]

    class Kernels:
        def __init__(self, config: dict[str, object]) -> None:
            assert config["hidden_size"] == 256

        def measure(self, ask: str, **more: int) -> dict[str, object]:
            return {"wall_s": [0.03, 0.01, 0.02], "kernel": f"stand-in {ask}"}

    stand_in = SimpleNamespace(questions=lambda config: asked, Kernels=Kernels)
    monkeypatch.setattr(measure, "_load", lambda name, path: stand_in)
    folder = write_model(tmp_path / "m")
    model = {"name": "m", "folder": "m", "arguments": {}, "steps": [{"ask": "copy"}], "loads": []}
    plan = {"folder": tmp_path, "arguments": {}, "models": [model]}
    results = measure.Results(tmp_path / "raw.jsonl")

    assert measure.kernels(results, plan, 1e12, None)
    assert not results.lines, "nobody has tried to start it yet"
    for question in ({"ask": "start"}, {"ask": "copy"}, {"ask": "start"}):
        results.add("steps", "m", question, error="RuntimeError: no")
    assert measure.kernels(results, plan, 1e12, None)
    assert measure.kernels(results, plan, 1e12, None), "and once only"
    lines = [one for one in results.lines if one["stage"] == "kernels"]
    assert [one["question"] for one in lines] == asked

    spec = load_catalog().model(str(folder))
    deployment = Deployment(model=spec, accelerator=CHIP, weights_dtype="bf16")
    ratios = kernel_ratios(lines, model="m", deployment=deployment)
    assert [(told, kernel, seconds) for told, kernel, seconds, _ in ratios] == [
        ("linears of 8 tokens", "stand-in linears", 0.02),
        ("attention of 4 × 100 tokens", "stand-in attention", 0.02),
    ]
    assert all(law_s > 0 for *_, law_s in ratios)


def test_a_mixture_of_experts_has_a_configuration_too(tmp_path: Path) -> None:
    """What is written is read back as the same shape, whole numbers and all."""
    catalog = load_catalog()
    spec = catalog.model("Qwen/Qwen3-30B-A3B")
    (tmp_path / "config.json").write_text(json.dumps(config_of(spec)), encoding="utf-8")
    read = catalog.model(str(tmp_path))

    assert read.moe == spec.moe
    assert (read.num_layers, read.num_kv_heads) == (spec.num_layers, spec.num_kv_heads)
    with pytest.raises(InputError, match="neither a Llama's nor a Qwen3 mixture's"):
        config_of(catalog.model("deepseek-ai/DeepSeek-V3"))


def test_a_plan_holds_what_fits_and_predictions_made_beforehand(tmp_path: Path) -> None:
    prepare = programme("prepare")
    catalog = load_catalog()
    spec, chip = catalog.model(prepare.MAIN), catalog.accelerator("H200-SXM")
    model = prepare.model_plan(spec, chip, "bf16", "0.20.2", main=True)
    prepare.write_plan([model], tmp_path, catalog.models)
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    config = json.loads((tmp_path / model["folder"] / "config.json").read_text(encoding="utf-8"))

    assert config["num_hidden_layers"] == 32
    assert plan["arguments"]["load_format"] == "dummy"
    decodes = [one for one in model["steps"] if one["ask"] == "decode"]
    assert max(one["batch"] for one in decodes) == 256
    assert all(one["batch"] * one["context"] < 860_000 for one in decodes)
    assert all(one["steps"] >= 32 for one in decodes)
    rates = [load["rate_per_s"] for load in model["loads"] if load["input_tokens"] == 512]
    assert len(rates) == 5
    assert rates == sorted(rates)
    waits = [load["predicted"]["e2e_p95_ms"] for load in model["loads"][:5]]
    assert waits == sorted(waits), "a fuller engine is slower"
