"""The programme that runs vLLM in process and times its steps: the child of `engine.Engine`.

It runs under whatever interpreter has vLLM, so it imports nothing of this package. One JSON object
a line on stdin is a question, one on stdout the answer; what vLLM prints goes to stderr.

    {"ask": "start", "model": DIR, "arguments": {...}}   versions, flags, KV tokens, start-up time
    {"ask": "decode", "batch": 8, "context": 128, "steps": 24, "repeats": 2}
    {"ask": "prefill", "tokens": 512, "repeats": 3}
    {"ask": "mixed", "batch": 8, "context": 128, "tokens": 256, "repeats": 3}
    {"ask": "copy"} and {"ask": "matmul"}: the ceilings, bytes and operations a second
    {"ask": "products", "rows": 6, "base": 4, "repeats": 5}   the model's own products, alone

Step times are lists of seconds: `wall_s`, and `cpu_s`, the processor time of this process and its
threads, which a neighbour on the same core does not lengthen. What the machine was like meanwhile
says `reference_s`, seconds of work that never changes: on a GPU a short decode before and after, on
a processor a loop of 0.15 ms before and after every step, of which `probe_s` are those of each.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

REFERENCE_STEPS = 6

PROBE_LOOPS = 4_000

MOST_STEPS = 100_000
"""A measurement that has not ended after so many steps never will."""


Timed = tuple[float, float, float]
"""Of a step: seconds of wall time, of processor time, and of the probes around it (0: none)."""


class Clock:
    """Wall and processor time of a stretch; a GPU has finished its work at both ends."""

    def __init__(self, synchronize: Any) -> None:
        self.synchronize = synchronize

    def now(self) -> tuple[float, float]:
        self.synchronize()
        return time.perf_counter(), time.process_time()


class Benchmarks:
    """One engine and the questions that can be put to it."""

    def __init__(self, model: str, arguments: dict[str, Any]) -> None:
        import torch  # type: ignore[import-not-found,unused-ignore]
        import vllm  # type: ignore[import-not-found,unused-ignore]
        from vllm import LLM

        begin = time.perf_counter()
        self.torch = torch
        self.on_gpu = bool(torch.cuda.is_available())
        self.clock = Clock(torch.cuda.synchronize if self.on_gpu else lambda: None)
        self.llm = LLM(model=model, skip_tokenizer_init=True, **arguments)
        self.engine: Any = self.llm.llm_engine
        self.vocabulary = self.engine.model_config.get_vocab_size()
        self.draws = random.Random(0)
        self.requests = 0
        self.probes: list[float] = []
        self.start_s = time.perf_counter() - begin
        self.vllm_version = vllm.__version__

    def start(self) -> dict[str, Any]:
        """Warm up, and say what was started with which settings."""
        self.prefill(tokens=64, repeats=3)
        self.decode(batch=2, context=16, steps=16, repeats=1)
        config = self.engine.vllm_config
        scheduler, cache = config.scheduler_config, config.cache_config
        blocks = cache.num_gpu_blocks or 0
        return {
            "start_s": self.start_s,
            "vllm_version": self.vllm_version,
            "torch_version": self.torch.__version__,
            "device": self.torch.cuda.get_device_name(0) if self.on_gpu else "cpu",
            "threads": self.torch.get_num_threads(),
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "max_model_len": config.model_config.max_model_len,
            "async_scheduling": bool(getattr(scheduler, "async_scheduling", False)),
            "enforce_eager": bool(config.model_config.enforce_eager),
            "prefix_caching": bool(cache.enable_prefix_caching),
            "block_size": cache.block_size,
            "kv_tokens": blocks * cache.block_size,
        }

    def measure(self, ask: str, question: dict[str, Any]) -> dict[str, Any]:
        """An answer, with what work that never changes took meanwhile."""
        self.probes = []
        before = self._reference()
        answer: dict[str, Any] = getattr(self, ask)(**question)
        return answer | {"reference_s": [*before, *self.probes, *self._reference()]}

    def _reference(self) -> list[float]:
        """Seconds of a short decode on a GPU, of some probes on a processor."""
        if not self.on_gpu:
            return [_probe() for _ in range(REFERENCE_STEPS)]
        return list(self.decode(batch=1, context=16, steps=REFERENCE_STEPS, repeats=1)["wall_s"])

    def decode(self, batch: int, context: int, steps: int, repeats: int) -> dict[str, Any]:
        """Steps that each give every one of `batch` sequences its next token."""
        timed = []
        for _ in range(repeats):
            self._fill(batch, context, steps)
            timed += [self._step() for _ in range(steps)]
            self._drain()
        middle = context + 2 + (self._chunks(0, batch * context) - 1) / 2 + (steps - 1) / 2
        return {**_columns(timed), "mean_context": middle}

    def prefill(self, tokens: int, repeats: int) -> dict[str, Any]:
        """One prompt alone, from handing it over to its first token."""
        timed = [self._until_first(self._add(tokens, 1)) for _ in range(repeats)]
        self._drain()
        return _columns(timed)

    def mixed(self, batch: int, context: int, tokens: int, repeats: int) -> dict[str, Any]:
        """A prompt that joins `batch` decoding sequences: what the step with it takes.

        The steps from its arrival to its first token, less those of decoding alone beyond one.
        """
        timed = []
        chunks = 1
        for _ in range(repeats):
            self._fill(batch, context, 16)
            alone = [self._step() for _ in range(4)]
            before = self._steps
            spent = self._until_first(self._add(tokens, 2))
            chunks = self._steps - before
            surplus = chunks - self._chunks(batch, tokens)
            wall, cpu = (
                spent[kind] - surplus * statistics.median(one[kind] for one in alone)
                for kind in (0, 1)
            )
            timed.append((wall, cpu, spent[2]))
            self._drain()
        return {**_columns(timed), "mean_context": context + 6.0, "steps": chunks}

    def copy(self) -> dict[str, Any]:
        """Bytes read and written a second by a large copy."""
        size = 2**30 if self.on_gpu else 2**27
        source = self.torch.ones(size, dtype=self.torch.uint8, device=self._device())
        target = self.torch.empty_like(source)
        wall, cpu = self._repeat(lambda: target.copy_(source), 12)
        return {"wall_s": wall, "cpu_s": cpu, "bytes": 2.0 * size}

    def matmul(self) -> dict[str, Any]:
        """Operations a second of a square product in the engine's own format."""
        size = 8192 if self.on_gpu else 1024
        dtype = self.engine.vllm_config.model_config.dtype
        left, right = (
            self.torch.randn(size, size, device=self._device()).to(dtype) for _ in range(2)
        )
        wall, cpu = self._repeat(lambda: left @ right, 12)
        return {"wall_s": wall, "cpu_s": cpu, "operations": 2.0 * size**3}

    def products(self, rows: int, base: int, repeats: int) -> dict[str, Any]:
        """All of the model's matrix products in turn, of `rows` tokens; nothing else of a step.

        Each time after those of `base` tokens, `base_s`: what a neighbour takes of caches and
        memory falls on both.
        """

        def timed(model: Any) -> list[tuple[Timed, Timed]]:
            with self.torch.inference_mode():
                all_of = [self._all_products(model, size) for size in (base, rows)]
                for work in all_of:
                    work()
                return [(self._timed(all_of[0]), self._timed(all_of[1])) for _ in range(repeats)]

        (found,) = self.llm.apply_model(timed)
        before, after = zip(*found, strict=True)
        return _columns(list(after)) | {"base_s": _columns(list(before))["cpu_s"]}

    def _all_products(self, model: Any, rows: int) -> Callable[[], None]:
        dtype = self.engine.vllm_config.model_config.dtype
        work: list[tuple[Any, tuple[Any, ...]]] = []
        for layer in model.modules():
            if hasattr(layer, "input_size_per_partition") and hasattr(layer, "quant_method"):
                given = self.torch.randn(rows, layer.input_size_per_partition).to(dtype)
                work.append((layer.quant_method.apply, (layer, given)))
        size = self.engine.model_config.get_hidden_size()
        work.append((model.compute_logits, (self.torch.randn(rows, size).to(dtype),)))

        def everything() -> None:
            for product, given in work:
                product(*given)

        return everything

    def _device(self) -> str:
        return "cuda" if self.on_gpu else "cpu"

    def _repeat(self, work: Any, times: int) -> tuple[list[float], list[float]]:
        """Seconds of each of some repetitions, after three that warm up."""
        wall, cpu = [], []
        for number in range(times + 3):
            begin = self.clock.now()
            work()
            end = self.clock.now()
            if number >= 3:
                wall.append(end[0] - begin[0])
                cpu.append(end[1] - begin[1])
        return wall, cpu

    _steps = 0

    def _step(self) -> Timed:
        """One engine step."""

        def step() -> None:
            self.outputs = self.engine.step()

        self._steps += 1
        return self._timed(step)

    def _timed(self, work: Any) -> Timed:
        before = 0.0 if self.on_gpu else _probe()
        begin = self.clock.now()
        work()
        end = self.clock.now()
        if self.on_gpu:
            return end[0] - begin[0], end[1] - begin[1], 0.0
        probes = [before, _probe()]
        self.probes += probes
        return end[0] - begin[0], end[1] - begin[1], sum(probes) / 2

    def _add(self, prompt_tokens: int, max_tokens: int) -> str:
        from vllm import SamplingParams

        self.requests += 1
        name = f"r{self.requests}"
        # Ids of a small vocabulary repeat; what is in the prompt does not change the work.
        tokens = [self.draws.randrange(self.vocabulary) for _ in range(prompt_tokens)]
        self.engine.add_request(
            name,
            {"prompt_token_ids": tokens},
            SamplingParams(
                max_tokens=max_tokens, ignore_eos=True, temperature=0.0, detokenize=False
            ),
        )
        return name

    def _until_first(self, name: str) -> Timed:
        """Step until a request has its first token."""
        steps: list[Timed] = []
        for _ in self._bounded():
            steps.append(self._step())
            if any(one.request_id == name for one in self.outputs):
                wall, cpu, probe = (sum(values) for values in zip(*steps, strict=True))
                return wall, cpu, probe / len(steps)
        raise RuntimeError(f"request {name} got no token")

    def _fill(self, batch: int, context: int, steps: int) -> None:
        """Step until `batch` new requests have all had their first token, and once more.

        Those prefilled first decode meanwhile: all have tokens enough to still run when the last
        one has joined, and `steps` more.
        """
        chunks = self._chunks(0, batch * context)
        waiting = {self._add(context, steps + chunks + 16) for _ in range(batch)}
        for _ in self._bounded():
            self._step()
            waiting -= {one.request_id for one in self.outputs}
            if not waiting:
                break
        self._step()

    def _chunks(self, batch: int, tokens: int) -> int:
        room = self.engine.vllm_config.scheduler_config.max_num_batched_tokens - batch
        return int(-(-tokens // room))

    def _drain(self) -> None:
        names = list(self.engine.output_processor.request_states)
        if names:
            self.engine.abort_request(names)
        for _ in self._bounded():
            if not self.engine.has_unfinished_requests():
                return
            self.engine.step()

    @staticmethod
    def _bounded() -> Iterator[int]:
        yield from range(MOST_STEPS)
        raise RuntimeError("the engine made no progress")


def _probe() -> float:
    """Processor seconds of a loop that never changes: how quick the core is just now."""
    begin, total = time.thread_time(), 0
    for number in range(PROBE_LOOPS):
        total += number & 7
    return time.thread_time() - begin


def _columns(timed: list[Timed]) -> dict[str, Any]:
    wall, cpu, probe = (list(column) for column in zip(*timed, strict=True))
    return {"wall_s": wall, "cpu_s": cpu, "probe_s": probe if all(probe) else []}


def main() -> None:
    """Answer questions until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # vLLM's own output joins its log
    benchmarks: Benchmarks | None = None
    for line in sys.stdin:
        question = json.loads(line)
        ask = question.pop("ask")
        try:
            if ask == "start":
                benchmarks = Benchmarks(question["model"], question["arguments"])
                answer = benchmarks.start()
            else:
                assert benchmarks is not None
                answer = benchmarks.measure(ask, question)
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
            if isinstance(error, KeyboardInterrupt):
                break
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
