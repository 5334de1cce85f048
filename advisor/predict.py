"""Measurement rows in, predicted rows out: `advisor predict ROWS.csv --output OUT.csv`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.calibrate.conditions import Condition, condition_of
from advisor.calibrate.forecast import Forecast, Forecaster
from advisor.calibrate.levels import learn_levels
from advisor.calibrate.measurements import (
    METRICS,
    Measurement,
    parse_setup,
    read_rows,
)
from advisor.catalog import Catalog, load_catalog
from advisor.catalog.fits import load_fits
from advisor.errors import AdvisorError

if TYPE_CHECKING:
    import pandas as pd

PREDICTED_COLUMNS: tuple[str, ...] = (
    "row_id",
    *(f"{name}_ms{end}" for name in METRICS for end in ("", "_lo", "_hi")),
    "output_tokens_per_s",
    "calibration",
    "assumed",
    "error",
)
"""Columns of a prediction, in order."""


def predict(
    rows: pd.DataFrame | Path | Sequence[Mapping[str, Any]],
    *,
    own: Sequence[Measurement] = (),
    fits: Path | None = None,
    catalog: Catalog | None = None,
) -> pd.DataFrame:
    """Predict every row of a table in the measurement format.

    Only the configuration columns are read, never what was measured, nor `source`, `caveat` or
    `notes`. A row that cannot be predicted keeps its place, with the reason in `error`.

    Args:
        rows: a table, or the path of a CSV file.
        own: the user's own measurements; rows of the same deployment (model, formats, accelerator,
            layout, engine generation) are then predicted at its measured level.
        fits: a file of coefficients; the shipped ones by default. That of an `advisor calibrate
            run` also holds what its points say of that very deployment: its steps beyond the law,
            and what its server adds to them, which counts for served loads alone.
        catalog: the shipped one by default.

    Returns:
        A table with `PREDICTED_COLUMNS`: milliseconds with 90 % intervals, tokens a second of the
        whole deployment, the calibration's label, and what was assumed for blank settings.

    Raises:
        InputError: the file, or the fits, cannot be read.
    """
    import pandas as pd

    raw = _raw_rows(rows)
    catalog = catalog or load_catalog()
    forecaster = Forecaster(load_fits(fits))
    learn_levels(forecaster, own, catalog)
    conditions: list[Condition] = []
    places: list[int] = []
    errors: dict[int, str] = {}
    for place, row in enumerate(raw):
        try:
            conditions.append(condition_of(parse_setup(row), catalog))
        except AdvisorError as error:
            errors[place] = str(error)
        else:
            places.append(place)
    forecasts = forecaster.forecast(conditions)
    found = dict(zip(places, zip(conditions, forecasts, strict=True), strict=True))
    records = []
    for place, row in enumerate(raw):
        identity = row.get("row_id")
        if place in found:
            records.append(_record(identity, *found[place]))
        else:
            records.append({"row_id": identity, "error": errors[place]})
    return pd.DataFrame(records, columns=list(PREDICTED_COLUMNS))


def _raw_rows(
    rows: pd.DataFrame | Path | Sequence[Mapping[str, Any]],
) -> list[Mapping[str, Any]]:
    if isinstance(rows, (str, Path)):
        return list(read_rows(Path(rows)))
    if hasattr(rows, "to_dict"):
        return [dict(row) for row in rows.to_dict(orient="records")]
    return list(rows)


def _record(identity: Any, condition: Condition, forecast: Forecast) -> dict[str, Any]:
    record: dict[str, Any] = {"row_id": identity}
    for name, figure in forecast.latency_s.items():
        record[f"{name}_ms"] = round(figure.value * 1000, 4)
        record[f"{name}_ms_lo"] = round(figure.low * 1000, 4)
        record[f"{name}_ms_hi"] = round(figure.high * 1000, 4)
    if math.isfinite(forecast.output_tokens_per_s):
        record["output_tokens_per_s"] = round(forecast.output_tokens_per_s, 3)
    record["calibration"] = forecast.label
    record["assumed"] = "; ".join(condition.assumed)
    record["error"] = forecast.error or None
    return record
