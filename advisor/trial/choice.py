"""The threshold that a trial runs with: certified where the labels allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.figures import percent
from advisor.quality.threshold import certify, fixed_grid
from advisor.records import Record
from advisor.task import TaskProfile
from advisor.trial.records import RequestRecord

FloatArray = NDArray[np.float64]

UNLABELLED_SHARE = 0.5
"""Without labels, the part of the largest escalation allowed that is planned for."""


class ThresholdChoice(Record):
    """Where answers begin to be handed up, and what that rests on."""

    threshold: float
    certified: bool
    basis: str
    rows: int
    escalation_rate: float
    """On the calibration rows."""
    quality: float | None
    """Of the hybrid on the calibration rows; None without labels."""


class PairedRows:
    """The rows that both endpoints answered in calibration, as columns."""

    def __init__(self, small: Sequence[RequestRecord], large: Sequence[RequestRecord]) -> None:
        above: Mapping[str, RequestRecord] = {record.row_id: record for record in large}
        self.small = tuple(record for record in small if record.row_id in above)
        self.large = tuple(above[record.row_id] for record in self.small)
        self.confidence = _column([record.confidence for record in self.small])
        self.passed = np.array([record.gate == "" for record in self.small], dtype=bool)
        self.small_correct = _column([record.correct for record in self.small])
        self.large_correct = _column([record.correct for record in self.large])

    @property
    def is_labelled(self) -> bool:
        """Whether every row says what is expected."""
        return len(self.small) > 0 and not np.isnan(self.small_correct + self.large_correct).any()

    def escalated(self, threshold: float) -> NDArray[np.bool_]:
        """(m,) whether each small answer is handed up."""
        return ~self.passed | ~(self.confidence >= threshold)

    def quality(self, threshold: float) -> float | None:
        """Of the hybrid; None without labels."""
        if not self.is_labelled:
            return None
        up = self.escalated(threshold)
        return float(np.where(up, self.large_correct, self.small_correct).mean())


def choose_threshold(rows: PairedRows, task: TaskProfile) -> ThresholdChoice:
    """The certified threshold that escalates least; failing that, the best that can be said.

    Nothing certified: the least escalation whose observed quality reaches the target, or else the
    threshold with the best observed quality. No labels: the threshold that hands up half of what
    the task allows.
    """
    allowed = task.constraints.max_escalation_rate
    if not rows.is_labelled:
        known = rows.confidence[rows.passed & ~np.isnan(rows.confidence)]
        share = UNLABELLED_SHARE * allowed
        threshold = float(np.quantile(known, share)) if len(known) else 0.0
        basis = f"no labels: hands up {percent(share)} of the answers that pass the gates"
        return _choice(rows, threshold, certified=False, basis=basis)
    target, level = task.quality.threshold, task.quality.confidence
    certificate = certify(
        rows.confidence,
        rows.small_correct,
        rows.large_correct,
        rows.passed,
        target=target,
        confidence_level=level,
    )
    if certificate.threshold is not None:
        basis = (
            f"certified: quality of at least {percent(target)} with {percent(level)} confidence on "
            f"{certificate.rows:,} rows"
        )
        return _choice(rows, certificate.threshold, certified=True, basis=basis)
    grid = fixed_grid(rows.confidence)
    quality = np.array([rows.quality(float(one)) for one in grid], dtype=float)
    enough = np.flatnonzero(quality >= target)
    index = int(enough[0]) if len(enough) else int(quality.argmax())
    reached = "reaches" if len(enough) else "comes nearest to"
    basis = f"not certified ({certificate.reason}); this threshold {reached} {percent(target)} on "
    basis += f"{len(rows.small):,} rows"
    return _choice(rows, float(grid[index]), certified=False, basis=basis)


def _choice(rows: PairedRows, threshold: float, *, certified: bool, basis: str) -> ThresholdChoice:
    return ThresholdChoice(
        threshold=threshold,
        certified=certified,
        basis=basis,
        rows=len(rows.small),
        escalation_rate=float(rows.escalated(threshold).mean()) if len(rows.small) else 0.0,
        quality=rows.quality(threshold),
    )


def _column(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
