"""A certified escalation threshold: P(quality of the hybrid ≥ target) ≥ confidence, with n rows.

Paired rows (confidence c_i, small model right S_i, large model right L_i) give the loss of
escalating below t, ℓ_i(t) = 1 − [c_i ≥ t]·S_i − [c_i < t]·L_i, and with it a p-value for
H_t: R(t) > α = 1 − target. Fixed-sequence testing rejects hypotheses in an order fixed before the
rows are seen and stops at the first p > δ; all rejected ones hold together with probability
≥ 1 − δ, and the last one escalates least (Learn then Test, arXiv 2110.01052; the cascade form is
Trust or Escalate, arXiv 2407.18370).

The order is fixed by an end and a grid of thresholds that does not depend on the rows:

    llm   from "escalate all" downward: the large model must clear the target by itself
    slm   "accept all that passes the gates", which is already the least escalation there is
    both  the two, sharing δ (`two_ends`): for when it is not known which model is the better one
    pilot the threshold that was best on every fourth row, downward, proven on the other rows: for
          models that are each below the target and together above it, which no end can certify
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from advisor.errors import InputError
from advisor.quality.bounds import lower_bound, rows_to_certify, upper_bound
from advisor.quality.labels import read_log_pairs
from advisor.quality.paired_losses import PairedLosses, number_column
from advisor.quality.pairs import read_pairs
from advisor.quality.two_ends import levels
from advisor.records import Record

FloatArray = NDArray[np.float64]
Start = Literal["llm", "slm", "both", "pilot"]

INTERVAL_CONFIDENCE = 0.90
"""Of the quality interval beside the certificate."""


class CertifiedQuality(Record):
    """Observed quality of the hybrid at the threshold, with an exact 90 % interval.

    The interval describes the rows; the guarantee is the certificate's, which allows for the
    choice of the threshold, and not the lower end of this interval.
    """

    value: float
    low: float
    high: float


class Certificate(Record):
    """What paired rows prove about an escalation threshold."""

    certified: bool
    target: float
    confidence_level: float
    start: Start
    threshold: float | None
    """Answers with a confidence below it are handed up. The ends are finite, so that every file
    format holds them: accept all is 0 and escalate all just above 1 on a scale of probabilities,
    ∓1.8e308 on others. None where nothing is certified."""
    escalation_rate: float | None
    """Share of the rows handed up at the threshold, gate failures included."""
    quality: CertifiedQuality
    """At the threshold; where nothing is certified, at the end that came nearest."""
    rows: int
    """Rows that the certificate rests on."""
    rows_needed: int | None
    """Rows that would certify if that quality is the true one; None where it does not exceed the
    target."""
    reason: str
    warnings: tuple[str, ...] = ()


def certify(
    confidence: ArrayLike,
    slm_correct: ArrayLike,
    llm_correct: ArrayLike,
    gate_passed: ArrayLike | None = None,
    *,
    target: float,
    confidence_level: float,
    start: Start = "both",
    grid: ArrayLike | None = None,
) -> Certificate:
    """The least escalation that is certified to reach a target quality.

    Args:
        confidence: (n,) score of the small model's answer; higher is surer; NaN is never accepted.
        slm_correct: (n,) 0/1, or graded in [0, 1].
        llm_correct: (n,) likewise, of the large model on the same requests.
        gate_passed: (n,) 0/1: whether the answer passed the hard gates; failures always escalate.
        target: quality that the hybrid must reach or exceed, between 0 and 1.
        confidence_level: 1 − δ, the least probability with which the certificate is right.
        start: the end the sequence starts from; fix it before looking at the rows.
        grid: thresholds to test, chosen without these rows; by default `fixed_grid`.

    The rows must be independent draws from the traffic the threshold is for, and none of them may
    have fitted the confidence score or chosen the order.

    Raises:
        InputError: no rows, columns of different lengths, values outside [0, 1], or levels that
            are no probabilities.
    """
    rows = PairedLosses.checked(confidence, slm_correct, llm_correct, gate_passed)
    _check_level("target", target)
    _check_level("confidence", confidence_level)
    thresholds = fixed_grid(rows.confidence) if grid is None else _checked_grid(grid)
    accept_all, escalate_all = _ends(rows.confidence)
    sequence = np.concatenate([[escalate_all], np.sort(thresholds)[::-1], [accept_all]])
    if start == "pilot":
        pilot, rows = rows.split()
        sequence = sequence[int(np.argmax(pilot.curve(sequence)[0])) :]
    quality, escalated = rows.curve(sequence)
    p_values = rows.p_values(quality, allowed_loss=1 - target)
    spend = _spending(rows, quality, start, target=target, delta=1 - confidence_level)
    chosen = _choose(p_values, spend)
    shown = chosen if chosen is not None else _best_end(quality, start)
    share = spend.slm if shown == len(sequence) - 1 and spend.slm else spend.llm
    observed = float(quality[shown])
    return Certificate(
        certified=chosen is not None,
        target=target,
        confidence_level=confidence_level,
        start=start,
        threshold=float(sequence[chosen]) if chosen is not None else None,
        escalation_rate=float(escalated[chosen]) if chosen is not None else None,
        quality=_interval(observed, rows.count),
        rows=rows.count,
        rows_needed=rows_to_certify(observed, target=target, confidence=1 - share),
        reason=_reason(quality, escalated, chosen, target=target, start=start),
        warnings=rows.warnings(),
    )


def certify_file(
    path: Path, *, target: float, confidence_level: float, start: Start = "both"
) -> Certificate:
    """`certify` on a CSV of pairs, or on a JSONL log of labelled outputs.

    Raises:
        InputError: a file that cannot be read, or as `certify`.
    """
    pairs = read_log_pairs(path) if path.suffix.lower() == ".jsonl" else read_pairs(path)
    _check_level("target", target)
    _check_level("confidence", confidence_level)
    try:
        return certify(
            pairs.confidence,
            pairs.slm_correct,
            pairs.llm_correct,
            pairs.gate_passed,
            target=target,
            confidence_level=confidence_level,
            start=start,
        )
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def fixed_grid(confidence: FloatArray) -> FloatArray:
    """Thresholds that do not depend on the rows beyond the kind of scale they are on.

    Probabilities: 0.01 … 0.99 and steps of a twelfth in log-odds from 10⁻⁶ to 1 − 10⁻⁶, since
    token probabilities crowd near 1. Anything else (log-probabilities, margins): the same grid's
    log-odds as thresholds, ±13.8, and their hundredfold, which reaches sums over long answers.
    """
    log_odds = np.arange(-166, 167) / 12.0
    if _are_probabilities(confidence):
        return np.union1d(np.arange(1, 100) / 100, special.expit(log_odds))
    return np.union1d(log_odds, 100 * log_odds)


def _are_probabilities(confidence: FloatArray) -> bool:
    given = confidence[~np.isnan(confidence)]
    return len(given) == 0 or bool(given.min() >= 0 and given.max() <= 1)


def _ends(confidence: FloatArray) -> tuple[float, float]:
    """Thresholds that accept everything and nothing."""
    if _are_probabilities(confidence):
        return 0.0, math.nextafter(1.0, 2.0)
    largest = float(np.finfo(float).max)
    return -largest, largest


@dataclass(frozen=True)
class _Spending:
    """The part of δ that each starting end may spend; 0: it is no start."""

    llm: float
    slm: float
    after_all: float
    """By "accept all" once every threshold above it is rejected."""


def _spending(
    rows: PairedLosses, quality: FloatArray, start: Start, *, target: float, delta: float
) -> _Spending:
    if start == "slm":
        return _Spending(llm=0.0, slm=delta, after_all=0.0)
    if start != "both":
        return _Spending(llm=delta, slm=0.0, after_all=delta)
    shared = levels(rows.count, allowed_loss=1 - target, delta=delta, binary=rows.binary)
    wrong = np.rint(rows.count * (1 - quality))
    return _Spending(
        llm=shared.whole if wrong[-1] >= shared.hopeless_from else shared.each,
        slm=shared.whole if wrong[0] >= shared.hopeless_from else shared.each,
        after_all=shared.whole,
    )


def _choose(p_values: FloatArray, spend: _Spending) -> int | None:
    """Index in the sequence of the certified threshold that escalates least."""
    last = len(p_values) - 1
    if p_values[last] <= spend.slm:
        return last
    if spend.llm == 0:
        return None
    failed = np.flatnonzero(p_values[:last] > spend.llm)
    if len(failed) == 0 and p_values[last] <= spend.after_all:
        return last
    first_failure = int(failed[0]) if len(failed) else last
    return first_failure - 1 if first_failure > 0 else None


def _best_end(quality: FloatArray, start: Start) -> int:
    """The end that came nearest among those the sequence starts from."""
    last = len(quality) - 1
    ends = {"llm": [0], "slm": [last], "both": [0, last], "pilot": [0]}[start]
    return max(ends, key=lambda index: float(quality[index]))


def _reason(
    quality: FloatArray, escalated: FloatArray, chosen: int | None, *, target: float, start: Start
) -> str:
    """One sentence: what is proven, or what stands in the way and what would help."""
    observed = float(quality[chosen if chosen is not None else _best_end(quality, start)])
    if chosen is not None and escalated[-1] == 1:
        return f"every row is handed up, so this is the large model alone: it reaches {target:g}"
    if chosen == len(quality) - 1:
        return f"the small model alone reaches {target:g}: nothing but gate failures is handed up"
    if chosen is not None:
        return f"at this threshold and above it the hybrid reaches {target:g}"
    where = {
        "llm": "with every answer handed up",
        "slm": "with every answer accepted",
        "both": "at the better end",
        "pilot": "at the threshold the pilot rows chose",
    }[start]
    seen = f"{observed:.4f} of the answers are right {where}"
    if observed > target:
        return f"{seen}, above {target:g}, but too few rows prove it"
    best = float(quality.max())
    if best > target and start != "pilot":
        return (
            f"{seen}, not above {target:g}; thresholds between reach {best:.4f}, "
            "which start = pilot could certify"
        )
    return f"{seen}, not above {target:g}, so more rows would not certify it"


def _interval(observed: float, rows: int) -> CertifiedQuality:
    """Exact (Clopper–Pearson) for whole rows; graded scores count as rounded ones."""
    right = math.floor(observed * rows + 1e-9)
    tail = (1 + INTERVAL_CONFIDENCE) / 2
    return CertifiedQuality(
        value=observed,
        low=lower_bound(right, rows, confidence=tail),
        high=upper_bound(min(rows, math.ceil(observed * rows - 1e-9)), rows, confidence=tail),
    )


def _check_level(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} = {value:g}: a fraction between 0 and 1 is expected")


def _checked_grid(grid: ArrayLike) -> FloatArray:
    thresholds = number_column("grid", grid)
    if not np.isfinite(thresholds).all():
        raise InputError("grid: finite thresholds were expected")
    return np.unique(thresholds)
