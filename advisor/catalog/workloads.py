"""Shapes of real request streams, fitted to public traces, as in profiles/workloads/."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from advisor.catalog.dates import Day
from advisor.records import Record

QUANTILE_LEVELS: tuple[float, ...] = (
    *(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0),
)
"""Probabilities at which `LengthShape.quantiles` are taken."""


class LengthShape(Record):
    """How token counts of one direction are distributed, in two ways of different exactness."""

    mean: PositiveFloat
    """Tokens."""
    log_mean: float
    """Mean of ln(tokens): the lognormal's mu (maximum likelihood)."""
    log_sd: PositiveFloat
    """Standard deviation of ln(tokens): its sigma."""
    lognormal_ks: float = Field(ge=0, le=1)
    """Largest distance between the trace's distribution function and the lognormal's."""
    quantiles: tuple[PositiveFloat, ...]
    """Tokens at `QUANTILE_LEVELS`; linear in between, it follows caps that a lognormal misses."""
    quantiles_ks: float = Field(ge=0, le=1)
    """The same distance for the interpolated quantiles."""
    tiny_share: float = Field(ge=0, le=1)
    """Share of requests with at most 10 tokens."""

    @model_validator(mode="after")
    def _quantiles_rise(self) -> LengthShape:
        if len(self.quantiles) != len(QUANTILE_LEVELS):
            raise ValueError(f"quantiles: {len(QUANTILE_LEVELS)} are expected")
        if list(self.quantiles) != sorted(self.quantiles):
            raise ValueError("quantiles must not fall")
        return self


class ArrivalShape(Record):
    """When requests come."""

    rate_per_s: PositiveFloat
    """Mean rate over the trace."""
    burstiness: PositiveFloat
    """Shape of a gamma distribution of the gaps (maximum likelihood): 1 Poisson, less burstier."""
    gamma_ks: float = Field(ge=0, le=1)
    """Distance between the gaps and that gamma: above about 0.1 the gaps are no gamma's."""
    dispersion: dict[str, NonNegativeFloat]
    """Variance over mean of the counts in windows of 1, 10 and 60 s; Poisson is 1."""
    peak_to_mean: PositiveFloat
    """Busiest minute over the mean minute."""


class WorkloadShape(Record):
    """One trace in a few parameters."""

    id: str
    title: str
    requests: PositiveInt
    """Rows of the trace."""
    duration_s: NonNegativeFloat
    """Time it spans; 0 where it has no times."""
    input: LengthShape
    output: LengthShape
    log_correlation: float = Field(ge=-1, le=1)
    """Correlation of ln(input) and ln(output)."""
    arrivals: ArrivalShape | None = None
    source: str
    license: str
    as_of: Day
    """Date of the fit (YYYY-MM-DD)."""
    note: str = ""
