"""Workload shapes: what the shipped fits say, and that the fit recovers what it is given."""

from __future__ import annotations

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from advisor.catalog import WorkloadShape, load_catalog
from advisor.catalog.locations import CALIBRATION
from advisor.catalog.workloads import QUANTILE_LEVELS

SHAPES = load_catalog().workloads
PROGRAMME = CALIBRATION / "fit_workload_shapes.py"


def test_three_public_traces_with_source_and_licence() -> None:
    assert {name: shape.requests for name, shape in SHAPES.items()} == {
        "arxiv-summarization": 28257,
        "azure-code-2023": 8819,
        "azure-conversation-2023": 19366,
    }
    assert all(shape.source and shape.license for shape in SHAPES.values())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.id)
def test_quantiles_follow_the_trace_closer_than_the_lognormal(shape: WorkloadShape) -> None:
    for lengths in (shape.input, shape.output):
        assert lengths.quantiles_ks < 0.5 * lengths.lognormal_ks
        middle = np.interp((np.arange(100_000) + 0.5) / 1e5, QUANTILE_LEVELS, lengths.quantiles)
        assert middle.mean() == pytest.approx(lengths.mean, rel=0.08)


def test_the_rate_is_the_requests_over_the_time() -> None:
    shape = SHAPES["azure-conversation-2023"]
    assert shape.arrivals is not None
    assert shape.arrivals.rate_per_s == pytest.approx(19_365 / shape.duration_s, rel=1e-3)
    assert shape.arrivals.dispersion["60s"] > shape.arrivals.dispersion["1s"] > 1


def test_the_fit_finds_the_parameters_of_a_made_up_stream() -> None:
    """Lognormal lengths and gamma gaps of shape 0.5: every parameter within 3 %."""
    fit = runpy.run_path(str(PROGRAMME))
    random = np.random.default_rng(1)
    lengths = np.maximum(1, np.round(random.lognormal(6.0, 0.8, 50_000)))
    gaps = random.gamma(0.5, 2 / 5.0, 50_000)  # mean gap 0.2 s
    shape, arrivals = fit["length_shape"](lengths), fit["arrival_shape"](np.cumsum(gaps))
    assert (shape.log_mean, shape.log_sd) == pytest.approx((6.0, 0.8), rel=0.03)
    assert shape.lognormal_ks < 0.01 and shape.quantiles_ks < 0.03
    assert arrivals.rate_per_s == pytest.approx(5.0, rel=0.03)
    assert arrivals.burstiness == pytest.approx(0.5, rel=0.03)
    assert arrivals.gamma_ks < 0.01
    # A renewal process tends to the squared coefficient of variation of its gaps: 1 / 0.5.
    assert arrivals.dispersion["60s"] == pytest.approx(2.0, rel=0.2)


def test_the_programme_reads_a_trace_and_writes_a_profile(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    random = np.random.default_rng(2)
    with trace.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
        for second in range(300):
            tokens = random.integers(20, 400)
            time = f"2026-01-01 00:{second // 60:02d}:{second % 60:02d}.{second % 7}000000"
            writer.writerow([time, tokens, 2 * tokens])
    command = [sys.executable, str(PROGRAMME), str(trace), "--id", "t", "--title", "t"]
    done = subprocess.run(
        [*command, "--source", "made up", "--license", "none"],
        capture_output=True,
        text=True,
        check=True,
    )
    shape = WorkloadShape.model_validate(yaml.safe_load(done.stdout))
    assert (shape.requests, shape.duration_s) == (300, 299.5)
    assert shape.log_correlation == pytest.approx(1.0)
    assert shape.output.mean == pytest.approx(2 * shape.input.mean, rel=1e-3)
