"""Fit the shape of a request stream to a trace: `profiles/workloads/*.yaml` come from this.

    python calibration/fit_workload_shapes.py TRACE.csv --id azure-code-2023 --title "..." \
        --source "..." --license "CC-BY 4.0" > profiles/workloads/azure-code-2023.yaml

The trace is a CSV file with prompt and answer tokens of each request and, where it has times, one
timestamp a row in ISO form. Columns of the Azure LLM inference traces and of Vidur's length files
are known by name; others are given with --input, --output and --time.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import sys
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import stats

from advisor.catalog import ArrivalShape, LengthShape, WorkloadShape
from advisor.catalog.workloads import QUANTILE_LEVELS

Array = NDArray[np.float64]

TINY_TOKENS = 10
WINDOWS_S = (1, 10, 60)
INPUT_COLUMNS = ("ContextTokens", "num_prefill_tokens", "input_tokens")
OUTPUT_COLUMNS = ("GeneratedTokens", "num_decode_tokens", "output_tokens")
TIME_COLUMNS = ("TIMESTAMP", "timestamp")


def length_shape(tokens: Array) -> LengthShape:
    """The distribution of token counts, shape (n,), each at least 1.

    The lognormal is the maximum-likelihood one: mean and standard deviation of the logarithms.
    """
    logs = np.log(tokens)
    mu, sigma = float(logs.mean()), float(logs.std())
    levels = np.asarray(QUANTILE_LEVELS)
    quantiles = np.quantile(tokens, levels)
    return LengthShape(
        mean=_rounded(tokens.mean()),
        log_mean=_rounded(mu),
        log_sd=_rounded(sigma),
        lognormal_ks=_distance(logs, stats.norm(mu, sigma).cdf(np.unique(logs))),
        quantiles=tuple(_rounded(value) for value in quantiles),
        quantiles_ks=_distance(tokens, np.interp(np.unique(tokens), quantiles, levels)),
        tiny_share=_rounded(np.mean(tokens <= TINY_TOKENS)),
    )


def arrival_shape(times_s: Array) -> ArrivalShape:
    """The arrival process of rising times, shape (n,), seconds."""
    gaps = np.diff(times_s)
    positive = gaps[gaps > 0]
    if np.ptp(positive) == 0:
        sys.exit("all gaps between requests are equal: a constant rate, which no gamma describes")
    shape, _, scale = stats.gamma.fit(positive, floc=0)
    fitted = stats.gamma(shape, scale=scale).cdf(np.unique(positive))
    minutes = _counts(times_s, 60)
    return ArrivalShape(
        rate_per_s=_rounded(len(gaps) / (times_s[-1] - times_s[0])),
        burstiness=_rounded(shape),
        gamma_ks=_distance(positive, fitted),
        dispersion={
            f"{window}s": _rounded(counts.var() / counts.mean())
            for window, counts in ((window, _counts(times_s, window)) for window in WINDOWS_S)
        },
        peak_to_mean=_rounded(minutes.max() / minutes.mean()),
    )


def _counts(times_s: Array, window_s: int) -> Array:
    """Arrivals in each whole window."""
    index = ((times_s - times_s[0]) // window_s).astype(int)
    return np.bincount(index)[:-1].astype(np.float64)


def _distance(values: Array, fitted: Array) -> float:
    """Kolmogorov distance, taken between the steps of integer counts: max |F(x) - G(x)|.

    `fitted` is the fitted distribution function at the distinct values. Counts are whole numbers
    with many ties, where the usual statistic would charge a smooth curve for the height of a step:
    it is compared with the middle of the step instead.
    """
    _, counts = np.unique(values, return_counts=True)
    cumulative = np.cumsum(counts) / len(values)
    middle = cumulative - counts / (2 * len(values))
    return _rounded(np.max(np.abs(middle - fitted)))


def _rounded(value: float | np.floating) -> float:
    return float(f"{float(value):.4g}")


def read_trace(path: Path, names: dict[str, str | None]) -> tuple[Array, Array, Array | None]:
    """Prompt tokens, answer tokens and times in seconds (None where there are none), by time."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])

    def column(given: str | None, known: tuple[str, ...]) -> str | None:
        return given or next((name for name in known if name in columns), None)

    input_name = column(names["input"], INPUT_COLUMNS)
    output_name = column(names["output"], OUTPUT_COLUMNS)
    time_name = column(names["time"], TIME_COLUMNS)
    if input_name is None or output_name is None:
        sys.exit(f"{path.name}: name the token columns with --input and --output; it has {columns}")
    prompts = np.array([float(row[input_name]) for row in rows])
    answers = np.array([float(row[output_name]) for row in rows])
    if time_name is None:
        return prompts, answers, None
    # Azure prints seven decimals; datetime reads six.
    times = np.array([dt.datetime.fromisoformat(row[time_name][:26]).timestamp() for row in rows])
    order = np.argsort(times, kind="stable")
    return prompts[order], answers[order], times[order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trace", type=Path)
    for name in ("id", "title", "source", "license"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("input", "output", "time", "note"):
        parser.add_argument(f"--{name}")
    given = parser.parse_args()
    prompts, answers, times = read_trace(given.trace, vars(given))
    kept = (prompts >= 1) & (answers >= 1)
    correlation = np.corrcoef(np.log(prompts[kept]), np.log(answers[kept]))[0, 1]
    shape = WorkloadShape(
        id=given.id,
        title=given.title,
        requests=len(prompts),
        duration_s=0.0 if times is None else _rounded(times[-1] - times[0]),
        input=length_shape(prompts[kept]),
        output=length_shape(answers[kept]),
        log_correlation=_rounded(correlation),
        arrivals=None if times is None else arrival_shape(times),
        source=given.source,
        license=given.license,
        as_of=dt.date.today().isoformat(),
        note=given.note or "",
    )
    print("# yaml-language-server: $schema=../schemas/workloads.json")
    document = shape.model_dump(mode="json", exclude_none=True)
    yaml.safe_dump(document, sys.stdout, sort_keys=False, default_flow_style=None, width=100)


if __name__ == "__main__":
    main()
