"""The score of somebody's own table of measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from advisor.calibrate.fit import sample_of
from advisor.calibrate.forecast import Forecaster
from advisor.calibrate.measurements import Measurement
from advisor.calibrate.score import Pair, pairs_of
from advisor.catalog import Catalog
from advisor.catalog.fits import FitFile


@dataclass(frozen=True, slots=True)
class OwnScore:
    """Measured figures beside their predictions."""

    rows: int
    """Rows that were predicted."""
    pairs: tuple[Pair, ...]
    left_out: Mapping[str, int]
    """Rows that were not, by reason."""


def score_rows(rows: Sequence[Measurement], fits: FitFile, catalog: Catalog) -> OwnScore:
    """Predict every row from its configuration and set it beside what was measured.

    What cannot be predicted is counted by its reason.
    """
    sample = sample_of(rows, catalog)
    forecasts = Forecaster(fits).forecast(sample.conditions)
    left_out = dict(sample.left_out)
    for forecast in forecasts:
        if forecast.error:
            left_out[forecast.error] = left_out.get(forecast.error, 0) + 1
    return OwnScore(
        rows=sum(not forecast.error for forecast in forecasts),
        pairs=tuple(pairs_of(sample.rows, forecasts, catalog, fit=fits)),
        left_out=left_out,
    )
