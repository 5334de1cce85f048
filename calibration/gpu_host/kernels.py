"""A model's kernels called one by one, where vLLM does not start: torch alone, and not vLLM.

`linears` are the matrix products of all layers and the head (`torch.nn.functional.linear`, or
`torch._scaled_mm` for fp8), replayed as a CUDA graph on a GPU so that launching does not count;
`attention` is that of decode steps (`scaled_dot_product_attention`), all layers. There is no
scheduler, no paged cache, no sampling and no host in them. Weights of as many layers are held as it
takes to keep them out of the caches, and the time of the others is theirs.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192)
DECODES = (
    (1, 128),
    (16, 128),
    (64, 128),
    (256, 128),
    (1, 2048),
    (16, 2048),
    (64, 2048),
    (16, 8192),
)

COMPILED = (
    *("vllm._C", "vllm._moe_C", "vllm.cumem_allocator"),
    *("vllm.vllm_flash_attn._vllm_fa2_C", "vllm.vllm_flash_attn._vllm_fa3_C"),
)
"""vLLM's shared objects for an NVIDIA GPU."""

HELD_BYTES = {"cuda": 2e9, "cpu": 2e8}
REPEATS = 10


def questions(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked of a model, cheapest first."""
    longest = int(config["max_position_embeddings"])
    products = [{"ask": "linears", "tokens": tokens} for tokens in TOKENS if tokens < longest]
    decodes = [
        {"ask": "attention", "batch": batch, "context": context}
        for batch, context in DECODES
        if context < longest
    ]
    return [*products, *decodes]


class Kernels:
    """One model's shapes on this machine's accelerator."""

    def __init__(self, config: dict[str, Any]) -> None:
        import torch  # type: ignore[import-not-found,unused-ignore]

        self.torch: Any = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.eight_bit = config.get("quantization_config", {}).get("quant_method") == "fp8"
        self.layers = int(config["num_hidden_layers"])
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config["head_dim"]
        self.width = int(config["hidden_size"])
        self.head = self._weight(config["vocab_size"], self.width, eight_bit=False)
        shapes = self._shapes(config)
        size = sum(out * width for out, width in shapes) * (1 if self.eight_bit else 2)
        self.held = min(self.layers, max(1, round(HELD_BYTES[self.device] / size)))
        self.weights = [
            self._weight(*shape, eight_bit=self.eight_bit)
            for _ in range(self.held)
            for shape in shapes
        ]

    def measure(self, ask: str, **asked: int) -> dict[str, Any]:
        """Seconds of each repetition, all layers."""
        answer: dict[str, Any] = getattr(self, ask)(**asked)
        return answer

    def linears(self, tokens: int) -> dict[str, Any]:
        """Products of so many tokens, and the head of as many."""
        widths = {weight.shape[1] for weight in self.weights}
        given = {width: self._random(tokens, width) for width in {*widths, self.width}}
        product = self._scaled if self.eight_bit else self.torch.nn.functional.linear
        if self.eight_bit:
            given |= {width: given[width].to(self.torch.float8_e4m3fn) for width in widths}
        hidden = self._random(tokens, self.width)

        def layers() -> None:
            for weight in self.weights:
                product(given[weight.shape[1]], weight)

        def head() -> None:
            self.torch.nn.functional.linear(hidden, self.head)

        share = self.layers / self.held
        whole = zip(self._seconds(layers), self._seconds(head), strict=True)
        return {
            "wall_s": [share * body + last for body, last in whole],
            "kernel": "torch._scaled_mm" if self.eight_bit else "torch.nn.functional.linear",
        }

    def attention(self, batch: int, context: int) -> dict[str, Any]:
        """One token of each of `batch` sequences against its cache."""
        query = self._random(batch, self.heads, 1, self.head_dim)
        keys, values = (
            self._random(batch, self.kv_heads, context, self.head_dim) for _ in range(2)
        )
        attend = self.torch.nn.functional.scaled_dot_product_attention

        def once() -> None:
            attend(query, keys, values, enable_gqa=True)

        return {
            "wall_s": [self.layers * one for one in self._seconds(once)],
            "kernel": "torch.nn.functional.scaled_dot_product_attention",
        }

    @staticmethod
    def _shapes(config: dict[str, Any]) -> list[tuple[int, int]]:
        """(out, in) of a layer's products; experts, of which each token picks its own, are out."""
        width, head = config["hidden_size"], config["head_dim"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        projections = [((heads + 2 * kv_heads) * head, width), (width, heads * head)]
        if "num_experts" in config:
            return projections
        return [
            *projections,
            (2 * config["intermediate_size"], width),
            (width, config["intermediate_size"]),
        ]

    def _random(self, *shape: int) -> Any:
        return self.torch.randn(*shape, device=self.device).to(self.torch.bfloat16)

    def _weight(self, out: int, width: int, *, eight_bit: bool) -> Any:
        weight = self._random(out, width)
        return weight.to(self.torch.float8_e4m3fn) if eight_bit else weight

    def _scaled(self, given: Any, weight: Any) -> Any:
        one = self.torch.ones((), device=self.device)
        return self.torch._scaled_mm(
            given, weight.t(), scale_a=one, scale_b=one, out_dtype=self.torch.bfloat16
        )

    def _seconds(self, work: Any) -> list[float]:
        """Seconds of each repetition, after two that warm up; on a GPU as a graph."""
        with self.torch.inference_mode():
            for _ in range(2):
                work()
            if self.device == "cpu":
                return [_timed(work) for _ in range(REPEATS)]
            self.torch.cuda.synchronize()
            graph = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(graph):
                work()
            found = []
            for _ in range(REPEATS):
                begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                graph.replay()
                end.record()
                end.synchronize()
                found.append(begin.elapsed_time(end) / 1e3)
            return found


def _timed(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def parts(torch: Any) -> dict[str, str]:
    """vLLM's compiled parts: whether each loads, and two of its kernels against torch."""
    found = {}
    for name, work in (
        *((name, lambda name=name: importlib.import_module(name)) for name in COMPILED),
        ("FlashAttention 3", lambda: _attention_difference(torch)),
        ("fp8 product", lambda: _fp8_difference(torch)),
    ):
        try:
            told = work()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:300]
        else:
            found[name] = f"within {told:.2g} of torch" if isinstance(told, float) else "loads"
    return found


def _attention_difference(torch: Any) -> float:
    """Largest difference of a causal attention over 64 tokens, 8 heads of 128."""
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    query, keys, values = (torch.randn(64, 8, 128, device="cuda").bfloat16() for _ in range(3))
    ends = torch.tensor([0, 64], device="cuda", dtype=torch.int32)
    given = flash_attn_varlen_func(
        *(query, keys, values),
        max_seqlen_q=64,
        cu_seqlens_q=ends,
        max_seqlen_k=64,
        cu_seqlens_k=ends,
        causal=True,
        fa_version=3,
    )
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(one.transpose(0, 1).float() for one in (query, keys, values)), is_causal=True
    )
    return float((given.float() - wanted.transpose(0, 1)).abs().max())


def _fp8_difference(torch: Any) -> float:
    """Largest difference of a 64 x 512 x 256 product of fp8, over the largest entry."""
    from vllm import _custom_ops

    left, right = (
        torch.randn(rows, 512, device="cuda").to(torch.float8_e4m3fn) for rows in (64, 256)
    )
    one = torch.ones(1, device="cuda")
    given = _custom_ops.cutlass_scaled_mm(left, right.t(), one, one, torch.bfloat16).float()
    wanted = left.float() @ right.float().t()
    return float((given - wanted).abs().max() / wanted.abs().max())
