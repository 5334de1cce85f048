"""A quality with its uncertainty: a normal distribution on the log-odds scale."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from scipy import special

from advisor.quality.bounds import rows_to_certify
from advisor.records import Record

Z_90 = 1.6448536269514722
"""Standard deviations to either end of a two-sided 90 % interval."""

Basis = Literal["assumed", "prior", "labels", "mixed"]


class QualityEstimate(Record):
    """What share of answers will be right (or how high a score in 0–1), and how sure that is."""

    median: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    """Lower end of the 90 % interval."""
    high: float = Field(ge=0, le=1)
    """Upper end of the 90 % interval."""
    logit_mean: float
    """Mean of ln(q / (1 − q))."""
    logit_sd: float = Field(ge=0)
    """Standard deviation of ln(q / (1 − q))."""
    shared_sd: float = Field(default=0.0, ge=0)
    """The part of `logit_sd` that every model has in common on this task: an unknown data set
    is easy or hard for all of them. Two models' estimates correlate by it."""
    basis: Basis
    """assumed: nothing but a wide prior; prior: published evidence; labels: the user's own
    results decide; mixed: both weigh."""
    evidence_ids: tuple[str, ...] = ()
    """Published rows behind it, the most relevant first."""
    evidence_weights: tuple[float, ...] = ()
    """Share that each of those rows has in the absolute weights of all rows."""
    labels: int = 0
    """The user's labelled rows in it."""
    note: str = ""

    @classmethod
    def from_logit(
        cls,
        *,
        mean: float,
        sd: float,
        basis: Basis,
        shared_sd: float = 0.0,
        evidence_ids: tuple[str, ...] = (),
        evidence_weights: tuple[float, ...] = (),
        labels: int = 0,
        note: str = "",
    ) -> QualityEstimate:
        """The estimate whose log-odds are N(mean, sd²)."""
        return cls(
            median=float(special.expit(mean)),
            low=float(special.expit(mean - Z_90 * sd)),
            high=float(special.expit(mean + Z_90 * sd)),
            logit_mean=mean,
            logit_sd=sd,
            shared_sd=min(shared_sd, sd),
            basis=basis,
            evidence_ids=evidence_ids,
            evidence_weights=evidence_weights,
            labels=labels,
            note=note,
        )

    def probability_at_least(self, threshold: float) -> float:
        """P(quality ≥ threshold) under this estimate; threshold in 0–1."""
        if threshold <= 0:
            return 1.0
        if threshold >= 1:
            return 0.0
        gap = self.logit_mean - float(special.logit(threshold))
        if self.logit_sd == 0:
            return 1.0 if gap >= 0 else 0.0
        return float(special.ndtr(gap / self.logit_sd))

    def labels_to_settle(self, threshold: float, confidence: float) -> int | None:
        """Labelled rows that would prove quality > threshold if the median is the truth.

        Exact binomial planning (`rows_to_certify`); None where the median does not exceed the
        threshold, so that no number of rows is expected to prove it.
        """
        return rows_to_certify(self.median, target=threshold, confidence=confidence)
