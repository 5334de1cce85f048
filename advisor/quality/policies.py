"""Routing policies on one log: what each reaches for how many calls of the large model.

Every policy orders the requests and sends a share r of them to the large model, from 0 to 1:

    random mix      no order: the straight line between the two models, the policy to beat
    cascade         the small model's least sure answers first; the small model is always paid
    pre-router      the requests with the largest predicted gain first, before anything is paid
    both            the pre-router sends its surest half directly, the cascade decides the rest

Measures of arXiv 2406.18665, with Q the quality and s, l the two models alone:

    PGR(r) = (Q(r) − Q_s)/(Q_l − Q_s)      performance gap recovered
    APGR   = ∫₀¹ PGR(r) dr                 0.5 for the random mix
    CPT(x) = least r with PGR(r) ≥ x       x for the random mix

They are ratios to random routing, not to the large model alone, and say nothing of money: costs
stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from advisor.errors import InputError
from advisor.figures import percent
from advisor.quality.calibration import folds
from advisor.quality.prerouter import MIN_ROWS, PreRouter
from advisor.records import Record

FloatArray = NDArray[np.float64]

FOLDS = 5
RESAMPLES = 400
"""Bootstrap resamples for the interval of an APGR."""

BATCHES = 50
BATCHED_ROWS = 50_000
"""From so many rows on the interval comes from the spread of 50 batches instead: one pass."""

FALSE_PRAISE = 0.05
"""Chance of calling routing worth while where no policy is better than the random mix."""

WORTH_WHILE = 0.52
"""APGR below which a policy is not worth having, however many rows prove it above 0.5."""

SHARES = np.linspace(0, 1, 101)
"""Shares of large-model calls at which curves are stated."""

CPT_LEVELS = (0.2, 0.5, 0.8)


class PolicyReport(Record):
    """One policy on one log."""

    name: str
    share: tuple[float, ...]
    """Large-model calls a request."""
    quality: tuple[float, ...]
    cost: tuple[float, ...] | None
    """USD a request; None where the log has no costs."""
    apgr: float | None
    """None where the large model is not the better one."""
    apgr_low: float | None
    """90 % bootstrap interval."""
    apgr_high: float | None
    chance: float | None
    """Share of the bootstrap resamples in which it does no better than the random mix."""
    cpt: Mapping[str, float | None]
    """Least share of large calls that recovers 20, 50 and 80 % of the gap; None: never."""


class PolicyComparison(Record):
    """All policies on one log, with the single models and a verdict."""

    rows: int
    slm_quality: float
    llm_quality: float
    slm_cost: float | None
    llm_cost: float | None
    oracle_quality: float
    """Best of the two answers to each request: what no policy can exceed."""
    llm_right_given_slm_wrong: float | None
    policies: tuple[PolicyReport, ...]
    pays: bool
    verdict: str


@dataclass(frozen=True)
class RoutedRows:
    """n labelled requests."""

    slm_correct: FloatArray
    llm_correct: FloatArray
    confidence: FloatArray | None = None
    """Of the small model; scores that were fitted must be cross-fitted."""
    texts: Sequence[str] | None = None
    slm_cost: float | None = None
    """USD a request, mean."""
    llm_cost: float | None = None


def performance_gap_recovered(quality: ArrayLike, *, slm: float, llm: float) -> FloatArray:
    """(Q − Q_s)/(Q_l − Q_s), elementwise.

    Raises:
        InputError: the large model is not the better one, so that there is no gap.
    """
    if llm <= slm:
        raise InputError(f"the large model ({llm:g}) is not better than the small one ({slm:g})")
    return (np.asarray(quality, dtype=float) - slm) / (llm - slm)


def average_gap_recovered(share: ArrayLike, recovered: ArrayLike) -> float:
    """APGR: area under PGR over the share of large calls, by trapezia from 0 to 1."""
    x, y = np.asarray(share, dtype=float), np.asarray(recovered, dtype=float)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def call_performance_threshold(
    share: ArrayLike, recovered: ArrayLike, *, level: float
) -> float | None:
    """CPT: least share of large calls at which PGR reaches `level`, linear between points."""
    x, y = np.asarray(share, dtype=float), np.asarray(recovered, dtype=float)
    reached = np.flatnonzero(y >= level - 1e-12)
    if len(reached) == 0:
        return None
    k = int(reached[0])
    if k == 0:
        return float(x[0])
    return float(x[k - 1] + (level - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1]))


def quality_curve(order: FloatArray, slm: FloatArray, llm: FloatArray) -> FloatArray:
    """Quality at `SHARES` when requests go up in rising order of a score.

    Ties go up together in proportion: a score that says nothing gives the straight line.
    """
    return np.asarray(slm.mean() + _cumulated(order, llm - slm), dtype=float)


def compare_policies(rows: RoutedRows) -> PolicyComparison:
    """All policies that the log allows, with the random mix and the single models.

    Raises:
        InputError: no rows, or columns of different lengths.
    """
    slm, llm = rows.slm_correct, rows.llm_correct
    if len(slm) == 0 or len(slm) != len(llm):
        raise InputError(f"{len(slm)} labels of the small model and {len(llm)} of the large one")
    reports = [_report(order, rows) for order in _orders(rows)]
    wrong = slm < 0.5
    pays, verdict = _verdict(rows, reports)
    return PolicyComparison(
        rows=len(slm),
        slm_quality=float(slm.mean()),
        llm_quality=float(llm.mean()),
        slm_cost=rows.slm_cost,
        llm_cost=rows.llm_cost,
        oracle_quality=float(np.maximum(slm, llm).mean()),
        llm_right_given_slm_wrong=float(llm[wrong].mean()) if wrong.any() else None,
        policies=tuple(reports),
        pays=pays,
        verdict=verdict,
    )


@dataclass(frozen=True)
class _Order:
    """A policy: who goes up first, and who goes up without the small model being asked."""

    name: str
    first: FloatArray
    """Requests go up in rising order of it."""
    direct: NDArray[np.bool_]


def _orders(rows: RoutedRows) -> list[_Order]:
    """The policies that the log allows."""
    n = len(rows.slm_correct)
    all_direct = np.ones(n, dtype=bool)
    found = [_Order("random mix", np.zeros(n), all_direct)]
    sure = None
    if rows.confidence is not None and np.isfinite(rows.confidence).any():
        # An answer without a confidence goes up first.
        sure = np.where(np.isfinite(rows.confidence), rows.confidence, -np.inf)
        found.append(_Order("cascade", sure, ~all_direct))
    if rows.texts is not None and n >= FOLDS / (FOLDS - 1) * MIN_ROWS:
        gain = _cross_fitted_gain(rows)
        found.append(_Order("pre-router", -gain, all_direct))
        if sure is not None:
            by_gain, by_doubt = _ranks(-gain), _ranks(sure)
            first = np.minimum(by_gain, by_doubt).astype(float)
            found.append(_Order("pre-router and cascade", first, by_gain <= by_doubt))
    return found


def _cross_fitted_gain(rows: RoutedRows) -> FloatArray:
    """Predicted gain of each request by a pre-router that has not seen it."""
    assert rows.texts is not None
    gain = np.empty(len(rows.slm_correct))
    for held in folds(len(gain), FOLDS):
        seen = np.setdiff1d(np.arange(len(gain)), held)
        router = PreRouter.fit(
            [rows.texts[i] for i in seen], rows.slm_correct[seen], rows.llm_correct[seen]
        )
        gain[held] = router.gain([rows.texts[i] for i in held])
    return gain


def _ranks(values: FloatArray) -> NDArray[np.intp]:
    ranks = np.empty(len(values), dtype=np.intp)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def _report(order: _Order, rows: RoutedRows) -> PolicyReport:
    slm, llm = rows.slm_correct, rows.llm_correct
    quality = quality_curve(order.first, slm, llm)
    cost = None
    if rows.slm_cost is not None and rows.llm_cost is not None:
        asked = 1 + _cumulated(order.first, -order.direct.astype(float))
        cost = tuple((asked * rows.slm_cost + SHARES * rows.llm_cost).tolist())
    apgr, draws = _apgr_draws(order.first, slm, llm)
    recovered = None
    if apgr is not None:
        recovered = performance_gap_recovered(quality, slm=float(slm.mean()), llm=float(llm.mean()))
    return PolicyReport(
        name=order.name,
        share=tuple(SHARES.tolist()),
        quality=tuple(quality.tolist()),
        cost=cost,
        apgr=apgr,
        apgr_low=None if draws is None else float(np.quantile(draws, 0.05)),
        apgr_high=None if draws is None else float(np.quantile(draws, 0.95)),
        chance=None if draws is None else float(np.mean(draws <= 0.5)),
        cpt={
            f"{level:.0%}": None
            if recovered is None
            else call_performance_threshold(SHARES, recovered, level=level)
            for level in CPT_LEVELS
        },
    )


def _apgr_draws(
    order: FloatArray, slm: FloatArray, llm: FloatArray
) -> tuple[float | None, FloatArray | None]:
    """APGR, and its bootstrap draws; resamples without a gap are left out."""
    if llm.mean() <= slm.mean():
        return None, None

    def apgr(chosen: NDArray[np.intp]) -> float | None:
        s, l = slm[chosen], llm[chosen]  # noqa: E741 (the letters of the formula)
        if l.mean() <= s.mean():
            return None
        quality = quality_curve(order[chosen], s, l)
        return average_gap_recovered(
            SHARES, performance_gap_recovered(quality, slm=float(s.mean()), llm=float(l.mean()))
        )

    n = len(slm)
    value = apgr(np.arange(n))
    rng = np.random.default_rng(0)
    if n >= BATCHED_ROWS and value is not None:
        batches = [apgr(part) for part in np.array_split(rng.permutation(n), BATCHES)]
        known = np.array([batch for batch in batches if batch is not None])
        error = float(known.std(ddof=1)) / math.sqrt(BATCHES)
        evenly = special.ndtri((np.arange(RESAMPLES) + 0.5) / RESAMPLES)
        return value, value + error * evenly
    draws = [apgr(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    kept = [draw for draw in draws if draw is not None]
    return value, np.array(kept) if len(kept) >= RESAMPLES / 2 else None


def _cumulated(order: FloatArray, values: FloatArray) -> FloatArray:
    """At each of `SHARES` the sum of the first rows' values, over all rows; ties in proportion."""
    n = len(order)
    ranked = np.argsort(order, kind="stable")
    rising = order[ranked]
    ends = np.append(np.flatnonzero(rising[1:] > rising[:-1]) + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(values[ranked])])
    points = np.concatenate([[0], ends])
    return np.asarray(np.interp(SHARES, points / n, sums[points] / n), dtype=float)


def _verdict(rows: RoutedRows, reports: Sequence[PolicyReport]) -> tuple[bool, str]:
    slm, llm = float(rows.slm_correct.mean()), float(rows.llm_correct.mean())
    learned = [report for report in reports if report.name != "random mix"]
    if not learned:
        return False, "the log has neither confidences nor requests: nothing to route by"
    if llm <= slm:
        best = max(max(report.quality) for report in learned)
        if best > slm + 0.005:
            return True, (
                f"the small model alone is the better one ({slm:.4f} against {llm:.4f}); "
                f"routing reaches {best:.4f} on these rows"
            )
        return False, f"always the small model: it is the better one ({slm:.4f} against {llm:.4f})"
    found = max(learned, key=lambda report: report.apgr or 0.0)
    # The best of several policies looks good by luck; the bar falls with their number.
    by_luck = found.chance is None or found.chance > FALSE_PRAISE / len(learned)
    if by_luck or (found.apgr or 0.0) < WORTH_WHILE:
        return False, (
            f"no policy beats a random mix by more than chance (best: {found.name}, "
            f"APGR {found.apgr:.3f}): take the single model that meets the target"
        )
    better = "; over 100 %: together they beat the large model" if (found.apgr or 0.0) > 1 else ""
    return True, (
        f"{found.name} recovers {percent(found.apgr)} of the gap on average "
        f"(at least {percent(found.apgr_low)}; a random mix 50 %){better}"
    )
