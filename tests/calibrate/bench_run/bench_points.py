"""Facts and points for the tests of this folder."""

from __future__ import annotations

from stand_in_engine import CONFIG, step_s

from advisor.calibrate.bench.hardware import Machine, processor_as_accelerator
from advisor.calibrate.bench.law import Law
from advisor.calibrate.bench.points import EngineFacts, Point, Shape
from advisor.catalog.models import ModelSpec
from advisor.physics.deployment import Deployment

MACHINE = Machine(processor="Test CPU", cores=2, memory_bytes=16e9, system="Linux 6")

CHIP = processor_as_accelerator(MACHINE, threads=1, copy_bytes_per_s=20e9, flops_per_s=84e9)

FACTS = EngineFacts(
    model="tiny",
    model_digest="0" * 12,
    accelerator=CHIP.id,
    vllm_version="0.32.0",
    dtype="float32",
    threads=1,
    max_num_seqs=32,
    max_num_batched_tokens=2048,
    max_model_len=2048,
    kv_tokens=100_000,
    machine=MACHINE,
)

TINY = ModelSpec(
    id="tiny",
    family="llama",
    role="slm",
    num_layers=CONFIG["num_hidden_layers"],
    hidden_size=CONFIG["hidden_size"],
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    intermediate_size=704,
    vocab_size=CONFIG["vocab_size"],
    tie_word_embeddings=True,
    context_window=4096,
    license="none",
    source="test",
    as_of="2026-11-22",
)

LAW = Law(
    Deployment(model=TINY, accelerator=CHIP, weights_dtype="bf16"),
    "v1_latest",
    FACTS.max_num_batched_tokens,
)


def shape(kind: str, batch: int = 0, context: int = 0, prompt: int = 0) -> Shape:
    return Shape.model_validate(
        {"kind": kind, "batch": batch, "context_tokens": context, "prompt_tokens": prompt}
    )


def point(one: Shape, *, factor: float = 1.0, log_sd: float = 0.01) -> Point:
    """What the stand-in engine would show of a shape."""
    mean = one.context_tokens + 8.0 if one.batch else 0.0
    return Point(
        shape=one,
        facts=FACTS,
        at="2026-11-22T00:00:00+00:00",
        mean_context=mean,
        value_s=factor * step_s(one.batch, mean, one.prompt_tokens),
        basis="processor time",
        log_sd=log_sd,
    )


GRID = [
    *(shape("decode", batch, context) for batch in (1, 4, 16) for context in (64, 1024)),
    *(shape("prefill", prompt=tokens) for tokens in (32, 128, 512, 2048)),
    shape("mixed", 4, 64, 256),
]
