"""What to know of a labelled log before believing it: gaps, copies, labels of one kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from advisor.figures import percent
from advisor.quality.labels import LabelledLog, LoggedRow

FEW_PAIRS = 59
"""Rows on which both models are labelled below which not even a flawless log certifies 95 %."""

COPIED_SHARE = 0.05
"""Repeated requests are mentioned from this share on."""


@dataclass(frozen=True)
class LogFinding:
    """One thing about a log."""

    severity: Literal["good", "note", "problem"]
    text: str


def check_log(log: LabelledLog, *, slm: str = "slm", llm: str = "llm") -> tuple[LogFinding, ...]:
    """Everything worth telling about a log, problems included; never empty."""
    return tuple(_findings(log, slm, llm))


def _findings(log: LabelledLog, slm: str, llm: str) -> Iterator[LogFinding]:
    rows = len(log.rows)
    yield LogFinding("good", f"{rows:,} rows read, of {_listed(log.models)}")
    pairs = log.pairs(slm, llm)
    both = len(pairs.slm_correct)
    if both == 0:
        missing = [name for name in (slm, llm) if not len(log.correct(name))]
        yield LogFinding(
            "problem",
            f"no row is labelled for both models ({_listed(missing)} has no labels): no threshold "
            "and no routing policy can be judged",
        )
    elif both < FEW_PAIRS:
        yield LogFinding("note", f"only {both:,} rows are labelled for both models")
    elif both < rows:
        yield LogFinding(
            "note", f"{rows - both:,} rows are not labelled for both models and are left out there"
        )
    for name in (slm, llm):
        yield from _one_class(log, name)
    yield from _confidence(np.asarray(pairs.confidence))
    yield from _copies(log.rows)


def _one_class(log: LabelledLog, model: str) -> Iterator[LogFinding]:
    correct = log.correct(model)
    if not len(correct):
        return
    if correct.min() == 1:
        yield LogFinding(
            "note",
            f"every labelled answer of {model} is right: how its confidence ranks cannot be judged",
        )
    elif correct.max() == 0:
        yield LogFinding(
            "problem", f"no labelled answer of {model} is right: is the label inverted?"
        )


def _confidence(confidence: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Iterator[LogFinding]:
    if not len(confidence):
        return
    missing = int(np.isnan(confidence).sum())
    if missing == len(confidence):
        yield LogFinding(
            "problem",
            "no row has a confidence or log-probabilities: nothing says which answers to hand up",
        )
        return
    if missing:
        share = missing / len(confidence)
        yield LogFinding(
            "note",
            f"{missing:,} rows ({percent(share)}) have no confidence: they count as handed up",
        )
    if len(np.unique(confidence[~np.isnan(confidence)])) == 1:
        yield LogFinding(
            "problem", "all rows have the same confidence: no threshold can tell them apart"
        )


def _copies(rows: tuple[LoggedRow, ...]) -> Iterator[LogFinding]:
    """Requests that occur again; labels without their requests cannot be told apart."""
    asked = [row.input if isinstance(row.input, str) else json.dumps(row.input) for row in rows
             if row.input is not None]  # fmt: skip
    repeated = len(asked) - len(set(asked))
    if asked and repeated >= COPIED_SHARE * len(asked):
        yield LogFinding(
            "note",
            f"{repeated:,} of {len(asked):,} requests occur again: if they are copies rather than "
            "traffic, the rows are not independent and prove less than they seem to",
        )


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return " and ".join(names) if len(names) < 3 else ", ".join(names)
