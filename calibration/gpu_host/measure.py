"""Measure vLLM on a GPU host: unattended, in stages that each end within nine minutes.

    python calibration/gpu_host/measure.py check  --plan PLAN --output RAW.jsonl
    python calibration/gpu_host/measure.py steps  --plan PLAN --output RAW.jsonl [--only MODEL]
    python calibration/gpu_host/measure.py loads  --plan PLAN --output RAW.jsonl [--only MODEL]
    python calibration/gpu_host/measure.py kernels --plan PLAN --output RAW.jsonl [--only MODEL]

`kernels` has work only for models whose engine did not start: their products and attention by torch
alone, which are kept apart from what vLLM showed.
PLAN is the folder that `prepare.py` wrote: `plan.json` and one folder with a config.json a model.
Every result is a JSON line, on disk before the next question; a stage skips what RAW.jsonl already
holds, and ends by itself when its time (--limit) is used up, so that it is simply called again
until it says that nothing is left. Needs vLLM, torch and the standard library, nothing else; the
host needs no network and no weights.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PARENTS = Path(__file__).resolve().parents
PROGRAMS = (
    PARENTS[2] / "advisor/calibrate/bench/program.py",
    PARENTS[3] / "calibrate/bench/program.py",
)
"""In a checkout, and inside the installed package."""

KERNELS = Path(__file__).with_name("kernels.py")

NVIDIA_QUERY = "name,driver_version,clocks.sm,clocks.max.sm,temperature.gpu,power.draw"

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "CUDA_MODULE_LOADING": "LAZY",
}


class Results:
    """RAW.jsonl: what was asked, and what came of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]

    def has(self, stage: str, model: str, question: dict[str, Any]) -> bool:
        """Whether a question was answered, or failed for good."""
        return any(
            (one["stage"], one["model"], one["question"]) == (stage, model, question)
            for one in self.lines
        )

    def add(self, stage: str, model: str, question: dict[str, Any], **more: Any) -> None:
        """Write one result, and print what a person wants to see of it."""
        line = {
            "stage": stage,
            "model": model,
            "question": question,
            "at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            "gpu": gpu_state(),
            **more,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)
        answer = more.get("answer", {})
        wall = sorted(answer.get("wall_s", []))
        shown = f"{1e3 * wall[len(wall) // 2]:.3f} ms" if wall else more.get("error", "")
        print(f"{model} {json.dumps(question)} {shown}", flush=True)


def gpu_state() -> str:
    """Name, driver, clocks, temperature and power; empty without an NVIDIA GPU."""
    command = ["nvidia-smi", f"--query-gpu={NVIDIA_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.splitlines()), "")


def load_program() -> Any:
    """The package's own micro-benchmarks, without the package."""
    return _load("bench_program", next(path for path in PROGRAMS if path.is_file()))


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def check(results: Results, plan: dict[str, Any], deadline: float) -> bool:
    """Versions, and the two ceilings without vLLM in the way."""
    question = {"ask": "check"}
    if results.has("check", "", question):
        return True
    import torch

    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    for name in ("vllm", "transformers", "triton", "flashinfer"):
        try:
            versions[name] = str(__import__(name).__version__)
        except Exception as error:
            versions[name] = f"not usable: {type(error).__name__}: {error}"[:300]
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    synchronize = torch.cuda.synchronize if on_gpu else lambda: None

    def best(work: Any, times: int = 20) -> float:
        found = []
        for _ in range(times):
            synchronize()
            begin = time.perf_counter()
            work()
            synchronize()
            found.append(time.perf_counter() - begin)
        return min(found)

    size, edge = (2**31, 8192) if on_gpu else (2**26, 512)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    left, right = (torch.randn(edge, edge, device=device).bfloat16() for _ in range(2))
    ceilings = {
        "copy_bytes_per_s": 2.0 * size / best(lambda: target.copy_(source)),
        "matmul_flops_per_s": 2.0 * edge**3 / best(lambda: left @ right),
    }
    by_torch = _load("kernels", KERNELS)
    results.add(
        "check",
        "",
        question,
        answer={"versions": versions, **ceilings, "parts": by_torch.parts(torch)},
    )
    return True


def steps(results: Results, plan: dict[str, Any], deadline: float, only: str | None) -> bool:
    """Engine steps of each model, cheapest first; one engine a call."""
    for model in plan["models"]:
        name = model["name"]
        left = [one for one in model["steps"] if not results.has("steps", name, one)]
        if not left or (only and only != name):
            continue
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        begin = {"ask": "start"}
        try:
            benchmarks = load_program().Benchmarks(
                str(plan["folder"] / model["folder"]), arguments_of(results, plan, model)
            )
            facts = benchmarks.start()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"[:500]
            print(f"{name}: the engine did not start: {error}", file=sys.stderr)
            if failed_starts(results, name):
                for question in left:
                    results.add("steps", name, question, error=told)
            results.add("steps", name, begin, error=told)
            return False
        if not any(
            one["model"] == name and one["question"] == begin and one.get("facts")
            for one in results.lines
        ):
            results.add("steps", name, begin, answer=facts, facts=facts)
        for question in left:
            if time.monotonic() > deadline:
                return False
            asked = dict(question)
            try:
                answer = benchmarks.measure(asked.pop("ask"), asked)
            except Exception as error:
                results.add("steps", name, question, error=f"{type(error).__name__}: {error}"[:500])
                continue
            results.add("steps", name, question, answer=answer, facts=facts)
        return not any(
            not results.has("steps", other["name"], one)
            for other in plan["models"]
            for one in other["steps"]
            if only in (None, other["name"])
        )
    return True


def kernels(results: Results, plan: dict[str, Any], deadline: float, only: str | None) -> bool:
    """Kernels of each model whose engine was given up."""
    by_torch = _load("kernels", KERNELS)
    for model in plan["models"]:
        name = model["name"]
        if (only and only != name) or not given_up(results, model):
            continue
        config = json.loads((plan["folder"] / model["folder"] / "config.json").read_text())
        left = [one for one in by_torch.questions(config) if not results.has("kernels", name, one)]
        shapes = None
        for question in left:
            if time.monotonic() > deadline:
                return False
            try:
                shapes = shapes or by_torch.Kernels(config)
                answer = shapes.measure(**question)
            except Exception as error:
                told = f"{type(error).__name__}: {error}"[:500]
                results.add("kernels", name, question, error=told)
            else:
                results.add("kernels", name, question, answer=answer)
    return True


def given_up(results: Results, model: dict[str, Any]) -> bool:
    """Whether a model's engine failed to start so often that its steps were given up."""
    started = any(one["model"] == model["name"] and one.get("facts") for one in results.lines)
    asked = all(results.has("steps", model["name"], one) for one in model["steps"])
    return asked and not started and failed_starts(results, model["name"]) > 0


def failed_starts(results: Results, name: str) -> int:
    """How often a model's engine did not start."""
    return sum(
        one["model"] == name and one["question"] == {"ask": "start"} and "error" in one
        for one in results.lines
    )


def arguments_of(results: Results, plan: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """An engine's settings; without compilation and CUDA graphs where it failed to start before,
    in a process of its own, since a failed start leaves memory behind."""
    eager = {"enforce_eager": True} if failed_starts(results, model["name"]) else {}
    return {**plan["arguments"], **model["arguments"], **eager}


def loads(results: Results, plan: dict[str, Any], deadline: float, only: str | None) -> bool:
    """Open loops through AsyncLLM, at rates and with predictions that the plan holds."""
    for model in plan["models"]:
        name = model["name"]
        left = [one for one in model["loads"] if not results.has("loads", name, one)]
        if not left or (only and only != name) or given_up(results, model):
            continue
        os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        folder = str(plan["folder"] / model["folder"])
        arguments = arguments_of(results, plan, model)
        return asyncio.run(_loads(results, name, folder, arguments, left, deadline))
    return True


async def _loads(
    results: Results,
    name: str,
    folder: str,
    arguments: dict[str, Any],
    left: list[dict[str, Any]],
    deadline: float,
) -> bool:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(model=folder, skip_tokenizer_init=True, **arguments)
    )
    try:
        await _send(engine, 2, 4.0, 32, 4, seed=0)  # warm-up
        for question in left:
            if time.monotonic() + question["seconds"] + 60 > deadline:
                return False
            count = max(8, round(question["rate_per_s"] * question["seconds"]))
            sent = await _send(
                engine,
                count,
                question["rate_per_s"],
                question["input_tokens"],
                question["output_tokens"],
                seed=question["seed"],
            )
            results.add("loads", name, question, answer={"requests": sent})
    finally:
        engine.shutdown()
    return True


async def _send(
    engine: Any, count: int, rate: float, prompt: int, answer: int, *, seed: int
) -> list[list[float]]:
    """[due, sent, first, last, tokens] of each request, seconds from the begin."""
    from vllm import SamplingParams

    draws = random.Random(seed)
    due, now = [], 0.0
    for _ in range(count):
        now += draws.expovariate(rate)
        due.append(now)
    begin = time.perf_counter()

    async def one(number: int) -> list[float]:
        ids = [draws.randrange(10, 1000) for _ in range(prompt)]
        await asyncio.sleep(max(0.0, due[number] - (time.perf_counter() - begin)))
        sent = time.perf_counter() - begin
        first = last = sent
        tokens = 0
        params = SamplingParams(
            max_tokens=answer, ignore_eos=True, temperature=0.0, detokenize=False
        )
        stream = engine.generate({"prompt_token_ids": ids}, params, f"{seed}-{rate}-{number}")
        async for output in stream:
            last = time.perf_counter() - begin
            first = first if tokens else last
            tokens = len(output.outputs[0].token_ids)
        return [due[number], sent, first, last, tokens]

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def main() -> None:
    """Run a stage; exit 0 when nothing is left of it, 3 when it should be called again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("stage", choices=("check", "steps", "loads", "kernels"))
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", help="one model of the plan")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds (480)")
    chosen = parser.parse_args()
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    deadline = time.monotonic() + chosen.limit
    plan = json.loads((chosen.plan / "plan.json").read_text(encoding="utf-8"))
    plan["folder"] = chosen.plan
    results = Results(chosen.output)
    if chosen.stage == "check":
        done = check(results, plan, deadline)
    else:
        stage = {"steps": steps, "loads": loads, "kernels": kernels}[chosen.stage]
        done = stage(results, plan, deadline, chosen.only)
    print("nothing is left of this stage" if done else "call it again: something is left")
    sys.exit(0 if done else 3)


if __name__ == "__main__":
    main()
