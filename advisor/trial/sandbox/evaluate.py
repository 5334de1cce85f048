"""Measure the sandbox models: accuracy on both test sets, confidence, gates, speed.

python -m advisor.trial.sandbox.evaluate                 # 2,000 rows of each set
python -m advisor.trial.sandbox.evaluate --rows 200 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError
from advisor.quality.confidence import logged_confidence
from advisor.quality.gates import Gates
from advisor.quality.labels import LoggedRow
from advisor.quality.metrics import exact_match
from advisor.quality.reliability import auroc
from advisor.records import Record
from advisor.trial.sandbox.engine import ROLES, WEIGHTS, Decoding, Engine, Role
from advisor.trial.sandbox.openai_form import chat_logprobs
from advisor.trial.sandbox.prompt import prompt_text
from advisor.trial.sandbox.requests import Split
from advisor.trial.sandbox.task import rows, sandbox_task

TEST_SPLITS: tuple[Split, ...] = ("held_out", "unseen_wording")
CARD_SEED = 20_262
"""Seed of the rows the card's figures are of; no choice was made by looking at them."""

CARD_ROWS = 2_000
ESCALATION_SHARES = (0.05, 0.1, 0.15, 0.2, 0.3)


class ModelFigures(Record):
    """One model on one test set."""

    accuracy: float
    """Share of exact matches."""
    auroc: float | None
    """Of the least likely value token's probability; None where every answer is right or wrong."""
    gate_failures: dict[str, int]
    """Answers that the gates refuse, by the first gate that does."""
    ms_per_request: float
    """Median time in the engine, one thread, without HTTP."""
    prompt_tokens: float
    """Mean."""
    output_tokens: float
    """Mean, the token that ends the answer included."""


class SplitFigures(Record):
    """Both models on one test set, and the cascade of the two."""

    rows: int
    small: ModelFigures
    large: ModelFigures
    cascade: dict[str, float]
    """Accuracy when that share of the requests, those refused by a gate and then the least
    confident ones, go to the large model."""
    large_right_where_small_wrong: float | None


class SandboxFigures(Record):
    """What `evaluate` measures."""

    seed: int
    held_out: SplitFigures
    unseen_wording: SplitFigures
    bytes: dict[str, int]
    """Sizes of the shipped files by folder."""


class _Answers:
    """One model's answers to the rows of a set."""

    def __init__(self, role: Role, asked: Sequence[LoggedRow], gates: Gates) -> None:
        engine = Engine(role)
        right, confidence, self.causes = [], [], Counter[str]()
        times_s, prompts, outputs = [], [], []
        for row in asked:
            begin_s = time.perf_counter()
            prompt = engine.prompt_tokens(prompt_text(row.input_text))
            generation = engine.generate(prompt, Decoding(top_logprobs=5))
            times_s.append(time.perf_counter() - begin_s)
            prompts.append(len(prompt))
            outputs.append(generation.steps)
            right.append(exact_match(generation.text, row.expected))
            cause = gates.check(generation.text).cause
            self.causes.update([cause] if cause else [])
            found = logged_confidence(generation.text, chat_logprobs(generation.tokens))
            confidence.append(found.weakest_token if found and not cause else -1.0)
        engine.close()
        self.right: NDArray[np.float64] = np.array(right)
        self.confidence: NDArray[np.float64] = np.array(confidence)
        """-1 where a gate refused the answer."""
        self._ms = float(1000 * np.median(times_s))
        self._prompt, self._output = float(np.mean(prompts)), float(np.mean(outputs))

    def figures(self) -> ModelFigures:
        both = 0 < self.right.sum() < len(self.right)
        ranking = auroc(np.maximum(self.confidence, 0), self.right).value if both else None
        return ModelFigures(
            accuracy=float(self.right.mean()),
            auroc=ranking,
            gate_failures=dict(sorted(self.causes.items())),
            ms_per_request=self._ms,
            prompt_tokens=self._prompt,
            output_tokens=self._output,
        )


def evaluate_split(split: Split, *, n: int, seed: int) -> SplitFigures:
    """Run both models over one test set.

    Raises:
        InputError: fewer than one row, or no weights.
    """
    if n < 1:
        raise InputError(f"rows = {n}: at least 1")
    asked, gates = rows(split, n, seed), Gates.of_task(sandbox_task().task)
    small, large = (_Answers(role, asked, gates) for role in ROLES)
    order = np.argsort(small.confidence, kind="stable")
    cascade = {}
    for share in ESCALATION_SHARES:
        handed_up = order[: round(share * n)]
        right = small.right.copy()
        right[handed_up] = large.right[handed_up]
        cascade[f"{share:g}"] = float(right.mean())
    wrong = small.right == 0
    return SplitFigures(
        rows=n,
        small=small.figures(),
        large=large.figures(),
        cascade=cascade,
        large_right_where_small_wrong=float(large.right[wrong].mean()) if wrong.any() else None,
    )


def evaluate(*, n: int = CARD_ROWS, seed: int = CARD_SEED) -> SandboxFigures:
    """Run both models over both test sets.

    Raises:
        InputError: as `evaluate_split`.
    """
    sizes = {
        str(folder.relative_to(WEIGHTS)): sum(f.stat().st_size for f in folder.iterdir())
        for role in ROLES
        for folder in sorted((WEIGHTS / role).iterdir())
    }
    held_out, unseen = (evaluate_split(split, n=n, seed=seed) for split in TEST_SPLITS)
    return SandboxFigures(seed=seed, held_out=held_out, unseen_wording=unseen, bytes=sizes)


def table(figures: SandboxFigures) -> str:
    """The figures as text."""
    lines = [f"seed {figures.seed}"]
    for name, split in (
        ("held-out combinations", figures.held_out),
        ("unseen wording", figures.unseen_wording),
    ):
        lines.append(f"{name}, {split.rows:,} rows")
        for role, model in (("small", split.small), ("large", split.large)):
            ranking = "-" if model.auroc is None else f"{model.auroc:.3f}"
            refused = ", ".join(f"{gate} {count}" for gate, count in model.gate_failures.items())
            lines.append(
                f"  {role}: accuracy {model.accuracy:.4f}, AUROC {ranking}, gates refused "
                f"{refused or 'none'}; {model.ms_per_request:.2f} ms a request "
                f"({model.prompt_tokens:.1f} tokens in, {model.output_tokens:.1f} out)"
            )
        shares = ", ".join(f"{float(k):.0%} → {v:.4f}" for k, v in split.cascade.items())
        lines.append(f"  escalating {shares}")
        if split.large_right_where_small_wrong is not None:
            lines.append(
                f"  large right where small is wrong: {split.large_right_where_small_wrong:.3f}"
            )
    lines += [f"{folder}: {size / 1e6:.2f} MB" for folder, size in figures.bytes.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit 2 where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m advisor.trial.sandbox.evaluate")
    parser.add_argument("--rows", type=int, default=CARD_ROWS)
    parser.add_argument("--seed", type=int, default=CARD_SEED)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    try:
        figures = evaluate(n=given.rows, seed=given.seed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    document: dict[str, Any] = figures.model_dump(mode="json")
    print(json.dumps(document, indent=2) if given.json else table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
