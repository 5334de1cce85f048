"""How good predictions are: errors and interval coverage by any grouping, beside two baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from advisor.calibrate.baselines import affine_latency_s, naive_latency_s
from advisor.calibrate.conditions import Condition, condition_of
from advisor.calibrate.expectation import capacity_of
from advisor.calibrate.forecast import Forecast
from advisor.calibrate.measurements import METRICS, Measurement
from advisor.calibrate.problem import UNCONGESTED, is_saturated
from advisor.catalog import Catalog
from advisor.catalog.fits import FitFile
from advisor.errors import AdvisorError

if TYPE_CHECKING:
    import pandas as pd

GROUPINGS = ("metric", "load", "accelerator", "model", "source", "seen_model", "seen_accelerator")

FIRST_TOKENS_OF_BATCHES = ("static_batch", "burst")


@dataclass(frozen=True, slots=True)
class Pair:
    """One measured figure beside its prediction and the baselines, seconds."""

    row_id: str
    source: str
    model: str
    accelerator: str
    load: str
    metric: str
    """E.g. `tpot_mean`."""
    congested: bool
    """More requests in flight than nine tenths of what the engine holds."""
    seen_model: bool
    """The fit had rows of the model."""
    seen_accelerator: bool
    batch: float
    """Requests in flight, or in the batch; NaN for open loads."""
    input_tokens: float
    """Mean prompt."""
    context_tokens: float
    """Mean context while decoding."""
    tensor_parallel: int
    measured_s: float
    predicted_s: float
    low_s: float
    high_s: float
    naive_s: float
    affine_s: float


def pairs_of(
    rows: Sequence[Measurement],
    forecasts: Sequence[Forecast],
    catalog: Catalog,
    *,
    fit: FitFile | None = None,
) -> list[Pair]:
    """Every measured latency that has a prediction; rows that could not be predicted drop out."""
    pairs: list[Pair] = []
    for row, forecast in zip(rows, forecasts, strict=True):
        try:
            condition = condition_of(row.setup, catalog)
        except AdvisorError:
            continue
        pairs += _pairs_of_row(row, condition, forecast, fit)
    return pairs


def is_congested(condition: Condition) -> bool:
    """Whether a loop has more users than the engine holds sequences with ease."""
    users = condition.setup.concurrency
    if users is None:
        return False
    capacity = min(float(condition.engine.max_num_seqs), capacity_of(condition))
    return users / condition.parts > UNCONGESTED * capacity


def _pairs_of_row(
    row: Measurement, condition: Condition, forecast: Forecast, fit: FitFile | None
) -> list[Pair]:
    deployment, setup = condition.deployment, condition.setup
    congested = is_congested(condition) or is_saturated(row)
    pairs = []
    for metric in METRICS:
        measured, figure = row.seconds(metric), forecast.latency_s.get(metric)
        if measured is None or figure is None:
            continue
        quantity = metric.partition("_")[0]
        pairs.append(
            Pair(
                row_id=setup.row_id,
                source=row.source,
                model=deployment.model.id,
                accelerator=deployment.accelerator.id,
                load=setup.load,
                metric=metric,
                congested=congested,
                seen_model=bool(fit and deployment.model.id in fit.models),
                seen_accelerator=bool(fit and deployment.accelerator.id in fit.accelerators),
                batch=float(setup.batch_size or setup.concurrency or np.nan),
                input_tokens=condition.input_tokens,
                context_tokens=condition.input_tokens + condition.output_tokens / 2,
                tensor_parallel=deployment.tensor_parallel,
                measured_s=measured,
                predicted_s=figure.value,
                low_s=figure.low,
                high_s=figure.high,
                naive_s=naive_latency_s(condition, quantity),
                affine_s=affine_latency_s(condition, quantity),
            )
        )
    return pairs


def table_of(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Pairs as a table, one row each, with `error` = predicted/measured − 1 and `inside`."""
    import pandas as pd

    table = pd.DataFrame([asdict(pair) for pair in pairs])
    if len(table):
        table["error"] = table.predicted_s / table.measured_s - 1
        table["inside"] = (table.measured_s >= table.low_s) & (table.measured_s <= table.high_s)
    return table


def summarize(pairs: Sequence[Pair], by: Sequence[str] = ("metric",)) -> pd.DataFrame:
    """Errors by group: median, mean and 90th percentile of |predicted/measured − 1|, median bias,
    share inside the 90 % interval, and the medians of both baselines. Fractions, not percent.

    Raises:
        ValueError: a grouping that does not exist.
    """
    import pandas as pd

    unknown = [name for name in by if name not in GROUPINGS]
    if unknown:
        raise ValueError(f"by = {', '.join(unknown)}: one of {', '.join(GROUPINGS)} is expected")
    table = table_of(pairs)
    if not len(table):
        return pd.DataFrame()
    groups = table.groupby(list(by), sort=True, observed=True)
    return groups.apply(_summary, include_groups=False).reset_index()


def _summary(group: pd.DataFrame) -> pd.Series[float]:
    import pandas as pd

    error = group.error.abs()
    return pd.Series(
        {
            "figures": float(len(group)),
            "median_error": float(error.median()),
            "mean_error": float(error.mean()),
            "p90_error": float(error.quantile(0.9)),
            "bias": float(group.error.median()),
            "coverage": float(group.inside.mean()),
            "naive_median_error": float((group.naive_s / group.measured_s - 1).abs().median()),
            "affine_median_error": float((group.affine_s / group.measured_s - 1).abs().median()),
        }
    )


TPOT, BATCH_E2E, TTFT = "TPOT", "Static-batch E2E", "TTFT, uncongested"

KINDS = (TPOT, BATCH_E2E, TTFT)
"""Figures of the scoreboard: TPOT of everything, E2E of static batches, TTFT of loads that flow
without congestion; means, or medians where a row has them."""


def kind_of(metric: str, load: str, congested: bool) -> str:
    """Which of `KINDS` a figure is; empty for none."""
    quantity, _, statistic = metric.partition("_")
    if statistic not in ("mean", "p50"):
        return ""
    if quantity == "tpot":
        return TPOT
    if quantity == "e2e" and load == "static_batch":
        return BATCH_E2E
    if quantity == "ttft" and not congested and load not in FIRST_TOKENS_OF_BATCHES:
        return TTFT
    return ""


def headline(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The figures of the scoreboard by kind."""
    kinds = [kind_of(one.metric, one.load, one.congested) for one in pairs]
    return {
        name: [one for one, kind in zip(pairs, kinds, strict=True) if kind == name]
        for name in KINDS
    }


def describe(pairs: Sequence[Pair]) -> str:
    """One line: median/mean/90th percentile of the error in percent, bias, coverage, count."""
    if not pairs:
        return "no figures"
    error = np.array([one.predicted_s / one.measured_s - 1 for one in pairs])
    inside = np.mean([one.low_s <= one.measured_s <= one.high_s for one in pairs])
    size = np.abs(error)
    return (
        f"{100 * np.median(size):.1f}/{100 * size.mean():.1f}/{100 * np.quantile(size, 0.9):.1f} % "
        f"(bias {100 * np.median(error):+.1f} %, inside {100 * inside:.0f} %, {len(pairs)} figures)"
    )
