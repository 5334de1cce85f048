"""A small Gaussian mixed model, solved in closed form and averaged over its variance components.

    y = X·θ + e,   θ_j ~ N(m_j, s_j²),   e_i ~ N(0, σ²·w_i + v_i)

s_j is either given (a weak prior from the literature) or one of a few shared standard deviations
(data set, study …) that the data decide, as does σ. Those are not maximised over, which would be
too sure of itself with a few studies, but averaged over by importance sampling on a fixed lattice:
once from their half-normal priors, once from a log-normal fitted to the first round. Nothing is
random: the same rows give the same answer to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

DRAWS = 80
"""Sets of variance components in each of the two rounds."""

NEGLIGIBLE = 1e-3
"""Draws with less than this share of the largest weight are left out."""

RESIDUAL = "residual"

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """One coefficient: its prior mean, and its prior sd or the name of the shared one."""

    mean: float
    sd: float | str


@dataclass(frozen=True)
class Observations:
    """n rows of p columns."""

    design: FloatArray
    """(n, p)."""
    observed: FloatArray
    """(n,)."""
    noise_weights: FloatArray
    """(n,) multiples of σ²: above 1 for rows that count less, 0 where `noise_variances` is all."""
    noise_variances: FloatArray
    """(n,) known variances, above 0: the sampling error of a score."""


@dataclass(frozen=True)
class Prediction:
    """A normal approximation of the mixture over variance components, by its moments."""

    mean: float
    sd: float
    shared_sd: float
    """Standard deviation of the part named as shared."""


@dataclass(frozen=True)
class MixedModel:
    """A fitted model."""

    mean: FloatArray
    """Posterior mean of θ, (p,)."""
    covariance: FloatArray
    """Posterior covariance of θ, the spread over variance components included, (p, p)."""
    gain: FloatArray
    """What one unit of each observation adds to θ, (p, n)."""
    squares: Mapping[str, float]
    """Posterior mean of the square of each shared standard deviation."""
    effective_draws: float
    """1 / Σ weight²: how many draws carry the average."""

    @classmethod
    def fit(
        cls, columns: Sequence[Column], data: Observations, *, scales: Mapping[str, float]
    ) -> MixedModel:
        """Fit; `scales` has the half-normal scale of each shared sd, `RESIDUAL` among them."""
        marginal = _Marginal(columns, data, tuple(scales))
        prior_scales = np.array(list(scales.values()))
        lattice = _lattice(DRAWS, len(scales))
        first = prior_scales * special.ndtri(0.5 + 0.5 * lattice)
        weights = special.softmax([marginal.log_likelihood(sds) for sds in first])
        second, log_proposal = _refined(first, weights, lattice)
        log_prior = -0.5 * ((second / prior_scales) ** 2).sum(axis=1)
        weights = special.softmax(
            np.array([marginal.log_likelihood(sds) for sds in second]) + log_prior - log_proposal
        )
        keep = np.flatnonzero(weights > NEGLIGIBLE * weights.max())
        weights = weights[keep] / weights[keep].sum()
        return cls._averaged(columns, data, weights, second[keep], marginal, tuple(scales))

    @classmethod
    def _averaged(
        cls,
        columns: Sequence[Column],
        data: Observations,
        weights: FloatArray,
        sds: FloatArray,
        marginal: _Marginal,
        names: tuple[str, ...],
    ) -> MixedModel:
        """Posterior moments of θ over the draws: mean of covariances + covariance of means."""
        prior_mean = np.array([column.mean for column in columns])
        centred = data.observed - data.design @ prior_mean
        size = len(columns)
        mean, gain = np.zeros(size), np.zeros((size, len(centred)))
        covariance = np.zeros((size, size))
        for weight, draw in zip(weights, sds, strict=True):
            variances = _variances(columns, dict(zip(names, draw, strict=True)))
            scaled = data.design * variances
            draw_gain = np.linalg.solve(marginal.covariance(draw), scaled).T
            draw_mean = draw_gain @ centred
            mean += weight * draw_mean
            gain += weight * draw_gain
            covariance += weight * (
                np.diag(variances) - draw_gain @ scaled + np.outer(draw_mean, draw_mean)
            )
        return cls(
            mean=prior_mean + mean,
            covariance=covariance - np.outer(mean, mean),
            gain=gain,
            squares=dict(zip(names, (weights @ sds**2).tolist(), strict=True)),
            effective_draws=float(1 / (weights**2).sum()),
        )

    def predict(
        self, row: FloatArray, *, new_effects: Mapping[str, float], shared: Sequence[str]
    ) -> Prediction:
        """A new observation of its own.

        Args:
            row: (p,) design row; 0 for the effects of levels not seen before.
            new_effects: for each shared sd, how many squared units of it a new level adds to the
                variance (1 for a new data set; `RESIDUAL`: 1 for a new model on it).
            shared: those of `new_effects` that are common to all rows on the new data set.
        """
        added = {name: share * self.squares[name] for name, share in new_effects.items()}
        variance = float(row @ self.covariance @ row) + sum(added.values())
        return Prediction(
            mean=float(self.mean @ row),
            sd=math.sqrt(variance),
            shared_sd=math.sqrt(sum(added[name] for name in shared if name in added)),
        )


class _Marginal:
    """Covariance of the observations, V = X·S·Xᵀ + noise, as a function of the shared sds."""

    def __init__(
        self, columns: Sequence[Column], data: Observations, names: tuple[str, ...]
    ) -> None:
        self._data = data
        self._residual = names.index(RESIDUAL)
        self._centred = data.observed - data.design @ [column.mean for column in columns]
        given = [j for j, column in enumerate(columns) if not isinstance(column.sd, str)]
        scaled = data.design[:, given] * [float(columns[j].sd) for j in given]
        self._base = scaled @ scaled.T + np.diag(data.noise_variances)
        blocks = [
            data.design[:, [j for j, column in enumerate(columns) if column.sd == name]]
            for name in names
        ]
        self._grams = np.stack([block @ block.T for block in blocks])
        self._grams[self._residual] = np.diag(data.noise_weights)

    def covariance(self, sds: FloatArray) -> FloatArray:
        """V, (n, n)."""
        found: FloatArray = self._base + np.tensordot(sds**2, self._grams, 1)
        return found

    def log_likelihood(self, sds: FloatArray) -> float:
        """−½·(eᵀV⁻¹e + log|V|) of the centred observations e, up to a constant.

        The Cholesky factor L of V bordered by e has L⁻¹e as its last row, so one factorisation
        gives both terms.
        """
        n = len(self._centred)
        bordered = np.empty((n + 1, n + 1))
        bordered[:n, :n] = self.covariance(sds)
        bordered[n, :n] = self._centred
        bordered[n, n] = np.inf
        factor = np.linalg.cholesky(bordered)
        error = factor[n, :n]
        return -0.5 * float(error @ error) - float(np.log(np.diag(factor)[:n]).sum())


def _variances(columns: Sequence[Column], shared: Mapping[str, float]) -> FloatArray:
    """Prior variance of each coefficient, (p,)."""
    sds = [shared[column.sd] if isinstance(column.sd, str) else column.sd for column in columns]
    return np.array(sds) ** 2


def _refined(
    first: FloatArray, weights: FloatArray, lattice: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Draws of the second round, (draws, d), and the log density they come from, (draws,).

    Log-normal with the weighted moments of the first round's logarithms, widened: a proposal
    wider than its target keeps the importance weights bounded.
    """
    logs = np.log(first)
    centre = weights @ logs
    spread = np.maximum(1.5 * np.sqrt(weights @ (logs - centre) ** 2), 0.3)
    deviates = special.ndtri(lattice)
    second = np.exp(centre + spread * deviates)
    log_density = (-0.5 * deviates**2 - np.log(spread) - np.log(second)).sum(axis=1)
    return second, log_density


def _lattice(points: int, dimensions: int) -> FloatArray:
    """(points, d) in (0, 1): even cover of the cube without randomness.

    The k-th point is frac((k + ½)·(φ⁻¹, φ⁻², …)) with φ the root of φ^(d+1) = φ + 1: the golden
    ratio's additive recurrence in d dimensions (Roberts 2018, "The unreasonable effectiveness of
    quasirandom sequences").
    """
    phi = 2.0
    for _ in range(64):
        phi = (1 + phi) ** (1 / (dimensions + 1))
    steps = phi ** -np.arange(1.0, dimensions + 1)
    cube = np.mod((np.arange(points)[:, None] + 0.5) * steps, 1.0)
    return np.clip(cube, 1e-3, 1 - 1e-3)
