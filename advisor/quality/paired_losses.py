"""The losses of paired rows at any escalation threshold, by prefix sums, with their p-values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.errors import InputError
from advisor.quality.bounds import binomial_p_value, hoeffding_bentkus_p_value

FloatArray = NDArray[np.float64]

PILOT_EVERY = 4
"""With `start="pilot"` every fourth row chooses where to start and proves nothing."""

REPEATED_SHARE = 0.5
"""Warn where more rows than this repeat another row to the last digit."""


class PairedLosses:
    """Rows with `count`, `confidence` (n,) and `ungated`, those handed up at every threshold.

    Sorted by confidence once, so that quality and escalation at m thresholds cost O(m log n).
    `binary`: both models are only right or wrong, and exact binomial tails serve.
    """

    def __init__(
        self, confidence: FloatArray, slm: FloatArray, llm: FloatArray, gate: NDArray[np.bool_]
    ) -> None:
        self.count = len(confidence)
        self.confidence = confidence
        self.ungated = int((~gate | np.isnan(confidence)).sum())
        self._columns = (confidence, slm, llm, gate)
        accepted = gate & ~np.isnan(confidence)
        order = np.argsort(confidence[accepted], kind="stable")
        self._sorted = confidence[accepted][order]
        always = float(llm[~accepted].sum())
        # Right answers when the k least confident are handed up: L of those, S of the rest.
        self._right = (
            always
            + np.concatenate([[0.0], np.cumsum((llm - slm)[accepted][order])])
            + float(slm[accepted].sum())
        )
        self.binary = bool(np.isin(slm, (0, 1)).all() and np.isin(llm, (0, 1)).all())

    @classmethod
    def checked(
        cls,
        confidence: ArrayLike,
        slm_correct: ArrayLike,
        llm_correct: ArrayLike,
        gate_passed: ArrayLike | None,
    ) -> PairedLosses:
        """Columns of equal length (n,); raises InputError for what is no number or outside [0, 1].

        A confidence may be NaN (the row is handed up) or infinite; no gates: all passed.
        """
        score = number_column("confidence", confidence)
        # Infinite scores are as sure, or as unsure, as a finite number can say.
        score = np.clip(score, -np.finfo(float).max, np.finfo(float).max / 2)
        slm = _scores("slm_correct", slm_correct, len(score))
        llm = _scores("llm_correct", llm_correct, len(score))
        gate = (
            np.ones(len(score), dtype=bool)
            if gate_passed is None
            else _scores("gate_passed", gate_passed, len(score)) >= 1
        )
        return cls(score, slm, llm, gate)

    def split(self) -> tuple[PairedLosses, PairedLosses]:
        """Every fourth row, and the others."""
        if self.count < 2 * PILOT_EVERY:
            raise InputError(f"start = pilot: {2 * PILOT_EVERY} rows are needed, not {self.count}")
        pilot = np.arange(self.count) % PILOT_EVERY == 0
        return (
            PairedLosses(*(column[pilot] for column in self._columns)),
            PairedLosses(*(column[~pilot] for column in self._columns)),
        )

    def curve(self, thresholds: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean quality and share handed up at each of the thresholds (m,): two arrays (m,)."""
        handed = np.searchsorted(self._sorted, thresholds, side="left")
        quality = self._right[handed] / self.count
        return quality, (handed + self.ungated) / self.count

    def p_values(self, quality: FloatArray, *, allowed_loss: float) -> FloatArray:
        """p-values (m,) of "the true loss exceeds `allowed_loss`", from `curve`'s quality (m,)."""
        if self.binary:
            wrong = np.rint(self.count * (1 - quality))
            return binomial_p_value(wrong, self.count, allowed_loss=allowed_loss)
        return hoeffding_bentkus_p_value(1 - quality, self.count, allowed_loss=allowed_loss)

    def warnings(self) -> tuple[str, ...]:
        """What makes a certificate from these rows doubtful, a sentence each."""
        found = []
        confidence, slm, llm, gate = self._columns
        missing = int(np.isnan(confidence).sum())
        if missing:
            found.append(
                f"{missing:,} of {self.count:,} rows have no confidence: they count as handed up"
            )
        levels = len(np.unique(confidence))
        # With few levels (rounded scores, ties) equal rows are no sign of copying.
        if self.count / 20 < levels < (1 - REPEATED_SHARE) * self.count:
            distinct = len(np.unique(np.column_stack([confidence, slm, llm, gate]), axis=0))
            if distinct < (1 - REPEATED_SHARE) * self.count:
                found.append(
                    f"only {distinct:,} of {self.count:,} rows differ: if rows are copies of "
                    "others, they are not independent and the certificate does not hold"
                )
        if levels == 1 and self.count - missing > 1:
            found.append("all rows have the same confidence: no threshold can tell them apart")
        return tuple(found)


def number_column(name: str, values: ArrayLike) -> FloatArray:
    """One column of floats (n,), n ≥ 1; raises InputError, naming it, for anything else."""
    try:
        column = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{name}: numbers were expected") from None
    if column.ndim != 1 or len(column) == 0:
        raise InputError(f"{name}: one column with at least one row was expected")
    return column


def _scores(name: str, values: ArrayLike, rows: int) -> FloatArray:
    column = number_column(name, values)
    if len(column) != rows:
        raise InputError(f"{name}: {len(column):,} rows, but confidence has {rows:,}")
    wrong = np.flatnonzero(~((column >= 0) & (column <= 1)))
    if len(wrong):
        raise InputError(
            f"{name} = {column[wrong[0]]:g} in row {wrong[0] + 1}: 0, 1 or a score between"
        )
    return column
