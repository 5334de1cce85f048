"""A learned pre-router: from the request alone, is the large model worth its price?

Hashed words and word pairs, weighted by how rare they are, in two logistic regressions: the small
model's chance of being right and the large one's. Their difference is the gain of escalating. It
is a few arrays: no service, no pickle, and nothing to install.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from advisor.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FloatArray = NDArray[np.float64]

BUCKETS = 1 << 16
MAX_WORDS = 2000
"""Words of a request that are looked at: what it asks is said in them."""

RIDGE = 1.0
"""L2 penalty on weights of unit-length rows; the choice of scikit-learn's LogisticRegression."""

MIN_ROWS = 100

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class PreRouter:
    """A fitted pre-router."""

    rarity: FloatArray
    """(buckets,) inverse document frequencies."""
    slm_weights: FloatArray
    """(1 + buckets,) intercept first."""
    llm_weights: FloatArray

    @classmethod
    def fit(cls, texts: Sequence[str], slm_correct: ArrayLike, llm_correct: ArrayLike) -> PreRouter:
        """Fit on labelled requests.

        Raises:
            InputError: fewer than 100, or columns that do not match.
        """
        small = np.asarray(slm_correct, dtype=float)
        large = np.asarray(llm_correct, dtype=float)
        if not len(texts) == len(small) == len(large):
            raise InputError(
                f"pre-router: {len(texts)} texts, {len(small)} and {len(large)} labels"
            )
        if len(texts) < MIN_ROWS:
            raise InputError(f"pre-router: {len(texts)} labelled requests; {MIN_ROWS} are needed")
        counts = _counts(texts)
        present = np.asarray((counts > 0).sum(axis=0), dtype=float).ravel()
        # Smoothed as if one more document had every word (scikit-learn's smooth_idf).
        rarity = np.log((1 + len(texts)) / (1 + present)) + 1
        rows = _weighted(counts, rarity)
        return cls(rarity, _logistic(rows, small), _logistic(rows, large))

    def gain(self, texts: Sequence[str]) -> FloatArray:
        """(n,) P(large right) − P(small right)."""
        rows = _weighted(_counts(texts), self.rarity)
        small = special.expit(rows @ self.slm_weights[1:] + self.slm_weights[0])
        large = special.expit(rows @ self.llm_weights[1:] + self.llm_weights[0])
        return np.asarray(large - small, dtype=float)


def _counts(texts: Sequence[str]) -> csr_matrix[Any]:
    """(n, buckets) of 1 + ln(count) of hashed words and word pairs."""
    from scipy.sparse import csr_matrix

    data: list[float] = []
    columns: list[int] = []
    ends = [0]
    for text in texts:
        words = _WORD.findall(text.lower())[:MAX_WORDS]
        terms = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
        found: dict[int, int] = {}
        for term in terms:
            # CRC-32, not hash(): the same request must fall into the same bucket in any process.
            bucket = zlib.crc32(term.encode()) % BUCKETS
            found[bucket] = found.get(bucket, 0) + 1
        columns.extend(found)
        data.extend(1 + math.log(count) for count in found.values())
        ends.append(len(columns))
    return csr_matrix((data, columns, ends), shape=(len(texts), BUCKETS), dtype=float)


def _weighted(counts: csr_matrix[Any], rarity: FloatArray) -> csr_matrix[Any]:
    """Rows of unit length, weighted by rarity."""
    rows = counts.copy()
    rows.data = rows.data * rarity[rows.indices]
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1), dtype=float)).ravel()
    rows.data = rows.data / np.repeat(np.maximum(lengths, 1e-12), np.diff(rows.indptr))
    return rows


def _logistic(rows: csr_matrix[Any], correct: FloatArray) -> FloatArray:
    """(1 + buckets,) minimiser of −Σ ln L + ridge/2·‖w‖² (graded scores count in part)."""
    from scipy.optimize import minimize

    used = np.unique(rows.indices)
    compact = rows[:, used]

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        margin = compact @ weights[1:] + weights[0]
        value = -(correct * special.log_expit(margin) + (1 - correct) * special.log_expit(-margin))
        error = special.expit(margin) - correct
        gradient = np.concatenate([[error.sum()], compact.T @ error + RIDGE * weights[1:]])
        return float(value.sum() + RIDGE / 2 * (weights[1:] ** 2).sum()), gradient

    start = np.zeros(1 + len(used))
    start[0] = special.logit(np.clip(correct.mean(), 0.01, 0.99))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    weights = np.zeros(1 + BUCKETS)
    weights[0] = found.x[0]
    weights[1 + used] = found.x[1:]
    return weights
