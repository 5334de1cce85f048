"""What a processor's matrix products take, by the number of their rows: measured, not a law.

A processor's kernels may work in tiles of rows: in one profile, on one core with AVX-512, those of
one and two rows took a quarter longer than those of three to six, and the seventh row a fifth more
again. No smooth law follows that, nor do points at some batches tell of those between. But products
can be timed alone, at every number of rows, in a fraction of the time that a decode step takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.bench.points import Point

FloatArray = NDArray[np.float64]

ROWS = (
    *(1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 5, 7, 10, 14, 20, 28, 40, 56),
    *(9, 11, 13, 15, 18, 22, 26, 30, 36, 44, 52, 60),
)
"""Rows to time products of, those first that tell most."""

PRODUCTS_SHARE = 0.05
"""Of a run's budget, after which no further products are timed."""

BASE_ROWS = 4
"""Rows of the products that every other is timed beside: their ratio is steadier than either."""

PRODUCTS_VISITS, PRODUCTS_REPEATS = 3, 4
"""At so many moments, so often each."""

RATIO_LOG_SD = 0.02
"""1-sd of ln of such a ratio, at least."""

IN_STEP_LOG_SD = 0.15
"""1-sd of ln of products inside a step over those alone: other work empties caches. By judgement;
the steps tell."""


@dataclass(frozen=True)
class Bends:
    """Measured products over the law's, by rows; between them along a line, beyond them as last."""

    rows: tuple[float, ...] = (1.0,)
    """Ascending."""
    ratios: tuple[float, ...] = (1.0,)

    def at(self, rows: FloatArray) -> FloatArray:
        """The ratios of some numbers of rows."""
        return np.asarray(np.interp(rows, self.rows, self.ratios))


STRAIGHT = Bends()
"""The law's own products."""


def ratio_to_base(seconds: Sequence[float], base_s: Sequence[float]) -> float:
    """Seconds of products over those of `BASE_ROWS` timed just before: the middle of the pairs."""
    return float(np.median(np.asarray(seconds) / np.asarray(base_s)))


def timed_products(points: Sequence[Point]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows (ascending), seconds and 1-sd of their logarithm of timed products.

    Seconds are the middle ratio of the visits times those of `BASE_ROWS` (middle of all visits, on
    the machine at its best); without these nothing is known.
    """
    timed = [one for one in points if one.shape.kind == "products"]
    base_s = [one.value_s for one in timed if one.shape.batch == BASE_ROWS]
    if not base_s:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    rows = sorted({one.shape.batch for one in timed})
    logs = [
        np.log([one.results["over_base"] for one in timed if one.shape.batch == each])
        for each in rows
    ]
    noise = [float(each.std(ddof=1)) / np.sqrt(len(each)) if len(each) > 1 else 0 for each in logs]
    return (
        np.array(rows, dtype=np.float64),
        float(np.median(base_s)) * np.exp([float(np.median(each)) for each in logs]),
        np.hypot(noise, RATIO_LOG_SD),
    )
