"""Answers as `advisor/calibrate/bench/program.py` does, from a law written out below.

Run as a script it is the "interpreter" that a run is given: it ignores its arguments. What it is to
do wrong comes in the environment variable STAND_IN.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

HIDDEN, LAYERS, VOCABULARY = 256, 6, 4096

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 704,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
"""About 5M parameters, as this module's law is of."""

FACTS = {
    "start_s": 1.5,
    "vllm_version": "0.32.0",
    "torch_version": "2.13.0+cpu",
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
    "max_num_seqs": 32,
    "max_num_batched_tokens": 2048,
    "max_model_len": 2048,
    "async_scheduling": False,
    "enforce_eager": True,
    "prefix_caching": False,
    "block_size": 16,
    "kv_tokens": 100_000,
}


def step_s(batch: float, context: float, prompt: float) -> float:
    """4 ms + 0.12 ms a token + 0.08 ms a sequence + 0.3 µs a context token + 0.1 µs a pair."""
    tokens = batch + prompt
    sampled = batch + (1 if prompt else 0)
    pairs = prompt * (prompt + 1) / 2
    return 4e-3 + 0.12e-3 * tokens + 0.08e-3 * sampled + 0.3e-6 * batch * context + 0.1e-6 * pairs


def products_s(rows: float) -> float:
    """The part of that law that multiplies matrices: 1 ms and 0.1 ms a token."""
    return 1e-3 + 0.1e-3 * rows


def answer(question: dict[str, object]) -> dict[str, object]:
    ask = question["ask"]
    if ask == "start":
        return dict(FACTS)
    reference = [step_s(1, 20, 0)] * 12
    if ask == "copy":
        return {**timed(0.012), "bytes": 2.4e8, "reference_s": reference}
    if ask == "matmul":
        return {**timed(0.025), "operations": 2.1e9, "reference_s": reference}
    if ask == "products":
        rows, base = (products_s(float(str(question[name]))) for name in ("rows", "base"))
        return {**timed(rows), "base_s": timed(base)["cpu_s"], "reference_s": reference}
    batch = float(str(question.get("batch", 0)))
    context = float(str(question.get("context", 0))) + 8
    prompt = float(str(question.get("tokens", 0)))
    found = timed(step_s(batch, context if batch else 0.0, prompt))
    return {**found, "reference_s": reference, "mean_context": context if batch else 0.0}


def timed(seconds: float) -> dict[str, object]:
    """Ten repetitions, up to 1 % longer; the wall shows a neighbour for half of them."""
    cpu = [seconds * (1 + 0.001 * number) for number in range(10)]
    wall = [value * (3 if number % 2 else 1) for number, value in enumerate(cpu)]
    return {"wall_s": wall, "cpu_s": cpu}


def write_interpreter(folder: Path) -> Path:
    """An executable that answers like this module, whatever program it is given."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n" + Path(__file__).read_text(encoding="utf-8"))
    script.chmod(0o755)
    return script


def write_model(folder: Path) -> Path:
    """A folder with the config.json that the law is of."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder


def main() -> None:
    fault = os.environ.get("STAND_IN", "")
    for number, line in enumerate(sys.stdin):
        question = json.loads(line)
        if fault == "missing":
            print("ModuleNotFoundError: No module named 'vllm'", file=sys.stderr)
            sys.exit(1)
        if fault == "memory" and question["ask"] == "decode":
            reply: dict[str, object] = {"error": "RuntimeError: Cannot allocate memory"}
        elif fault == "killed" and number == 6:
            os.kill(os.getpid(), 9)
        elif fault == "hangs" and question["ask"] == "decode":
            time.sleep(60)
        else:
            reply = answer(question)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
