"""Train the sandbox's two language models: the weights in `profiles/sandbox` come from this.

    python -m venv env && env/bin/pip install -e . torch ctranslate2
    env/bin/python calibration/sandbox/train.py tokenizer --out build
    env/bin/python calibration/sandbox/train.py small --out build --seed 0
    env/bin/python calibration/sandbox/train.py large --out build --seed 0

Both are Llama-architecture decoders with tied embeddings and see as many rows of the same kind:
what tells them apart is capacity. One layer, 128 wide, was right on 78 % of the held-out rows; two
layers, 32 wide, on all of 256; 24 wide on 98 %; 16 wide, which is the small model, on 95 %. Every
training row is new (drawn from the seed), so an epoch does not exist. Loss is on the answer alone.
Matrices are trained by Muon, embeddings and norms by AdamW; the rate rises over 50 steps, holds,
and falls linearly over the last 60 %. A run stopped early says nothing: accuracy comes in jumps.

The checkpoint is written twice: as Hugging Face folder in 16 bit, which vLLM loads, and as int8 for
CTranslate2, which the sandbox's own server loads. Once both folders lie in `profiles/sandbox` as
`small/` and `large/`, `python -m advisor.trial.sandbox.evaluate --json` gives the card's figures.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.normalizers import Lowercase
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from advisor.trial.sandbox.prompt import (
    ANSWER_TOKEN,
    BOS_TOKEN,
    CHAT_TEMPLATE,
    EOS_TOKEN,
    JSON_PIECES,
    PAD_TOKEN,
    prompt_text,
)
from advisor.trial.sandbox.requests import SPLITS, Request, Split, request

VOCABULARY = 1_280
WARM_UP_STEPS = 50
DECAY_SHARE = 0.6
CHUNK_BATCHES = 32
MAX_POSITIONS = 256
HEAD_DIM = 32
"""The narrowest heads that vLLM serves on a CPU, whatever the model's width."""


@dataclass(frozen=True)
class Size:
    """Shape of one model and how long it learns."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    examples: int
    rate: float
    batch: int = 64

    def config(self, vocabulary: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=self.width,
            intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            head_dim=HEAD_DIM,
            max_position_embeddings=MAX_POSITIONS,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            initializer_range=0.02,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )


SIZES = {
    "small": Size(layers=2, width=16, heads=1, feed_forward=48, examples=160_000, rate=4e-3),
    "large": Size(layers=4, width=160, heads=5, feed_forward=432, examples=160_000, rate=3e-3),
}


def train_tokenizer(folder: Path, rows: int = 60_000) -> None:
    """A byte-level BPE of lower-cased text, digits apart, with pieces of JSON as whole tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD_TOKEN, BOS_TOKEN, EOS_TOKEN, ANSWER_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(JSON_PIECES),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_texts(rows), trainer)
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in JSON_PIECES])
    folder.mkdir(parents=True, exist_ok=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)


def _tokenizer_texts(rows: int) -> Iterator[str]:
    for index in range(rows):
        row = request("train", -1, index)
        yield f" {row.text}"
        yield from (str(value) for value in json.loads(row.expected).values())


def batches(tokenizer: Tokenizer, *, seed: int, examples: int, batch: int) -> Iterator[Batch]:
    """Batches of rows of similar length, never the same row twice."""
    shuffle = random.Random(seed)
    for start in range(0, examples, CHUNK_BATCHES * batch):
        rows = [request("train", seed, start + i) for i in range(CHUNK_BATCHES * batch)]
        pairs = encoded(tokenizer, rows)
        groups = [pairs[i : i + batch] for i in range(0, len(pairs), batch)]
        shuffle.shuffle(groups)
        yield from (Batch.of(group) for group in groups)


def encoded(tokenizer: Tokenizer, rows: list[Request]) -> list[tuple[list[int], list[int]]]:
    """Token ids of prompts and answers, shortest rows first."""
    prompts = [prompt_text(row.text) for row in rows]
    answers = [row.expected + EOS_TOKEN for row in rows]
    pairs = zip(
        tokenizer.encode_batch(prompts, add_special_tokens=False),
        tokenizer.encode_batch(answers, add_special_tokens=False),
        strict=True,
    )
    return sorted(
        ((prompt.ids, answer.ids) for prompt, answer in pairs),
        key=lambda pair: len(pair[0]) + len(pair[1]),
    )


@dataclass(frozen=True)
class Batch:
    """Token ids (rows, positions), right-padded, and where the answers are to be predicted."""

    ids: Tensor
    places: Tensor
    """Flat positions whose next token belongs to an answer."""
    targets: Tensor
    """Those next tokens."""
    lengths: tuple[int, ...]
    """Answer tokens of each row."""

    @classmethod
    def of(cls, pairs: list[tuple[list[int], list[int]]]) -> Batch:
        length = max(len(prompt) + len(answer) for prompt, answer in pairs)
        ids = torch.zeros((len(pairs), length), dtype=torch.long)
        places: list[int] = []
        targets: list[int] = []
        for row, (prompt, answer) in enumerate(pairs):
            ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            first = row * length + len(prompt) - 1
            places.extend(range(first, first + len(answer)))
            targets.extend(answer)
        lengths = tuple(len(answer) for _, answer in pairs)
        return cls(ids, torch.tensor(places), torch.tensor(targets), lengths)


def train(tokenizer: Tokenizer, size: Size, *, seed: int) -> LlamaForCausalLM:
    """A model trained from nothing."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(size.config(tokenizer.get_vocab_size()))
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=size.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=size.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    steps = -(-size.examples // (CHUNK_BATCHES * size.batch)) * CHUNK_BATCHES
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: rate_factor(step, steps))
        for o in optimizers
    ]
    begin, running = time.monotonic(), 0.0
    stream = batches(tokenizer, seed=seed, examples=size.examples, batch=size.batch)
    for step, batch in enumerate(stream):
        loss = answer_loss(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if step % 250 == 249:
            right = {split: exact_match(model, tokenizer, split) for split in SPLITS}
            print(
                f"{step + 1}/{steps} loss {running:.4f}, {time.monotonic() - begin:.0f} s, {right}"
            )
    return model


def answer_loss(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Mean cross-entropy of answer tokens, in nats; padding is at the right, so no mask is due."""
    return nn.functional.cross_entropy(answer_logits(model, batch), batch.targets)


def answer_logits(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """(answer tokens of the batch, vocabulary)."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[batch.places])
    return logits.float()


@torch.no_grad()
def exact_match(
    model: LlamaForCausalLM, tokenizer: Tokenizer, split: Split, rows: int = 256
) -> float:
    """Share of rows that greedy decoding gets right: every token is the likeliest after those
    before it. These rows (seed -2) are for looking at while choosing; the card has others."""
    batch = Batch.of(encoded(tokenizer, [request(split, -2, index) for index in range(rows)]))
    right = answer_logits(model, batch).argmax(dim=1) == batch.targets
    return sum(bool(part.all()) for part in right.split(batch.lengths)) / rows


def rate_factor(step: int, steps: int) -> float:
    """Warm-up, plateau, linear decay."""
    left = (steps - step) / (DECAY_SHARE * steps)
    return min(1.0, (step + 1) / WARM_UP_STEPS, left)


def export(model: LlamaForCausalLM, tokenizer_folder: Path, folder: Path) -> None:
    """Write the 16-bit Hugging Face checkpoint and the int8 CTranslate2 model."""
    checkpoint = folder / "checkpoint"
    model.to(torch.float16).save_pretrained(checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer_folder / name).exists():
            shutil.copy(tokenizer_folder / name, checkpoint / name)
    _converter(checkpoint).convert(str(folder / "ctranslate2"), quantization="int8", force=True)


def _converter(checkpoint: Path) -> Any:
    """CTranslate2's converter, which takes a head to be as wide as the width over the heads: where
    it is wider, attention scores must be divided by the square root of what it really is."""
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        def _load(self) -> Any:
            spec = super()._load()
            for layer in spec.decoder.layer:
                layer.self_attention.queries_scale = np.float32(HEAD_DIM**-0.5)
            return spec

    return Converter(str(checkpoint))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("tokenizer", *SIZES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer_folder = arguments.out / "tokenizer"
    if arguments.what == "tokenizer":
        train_tokenizer(tokenizer_folder)
        return
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    model = train(tokenizer, SIZES[arguments.what], seed=arguments.seed)
    export(model, tokenizer_folder, arguments.out / f"{arguments.what}-{arguments.seed}")


if __name__ == "__main__":
    main()
