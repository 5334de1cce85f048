"""A server's overheads, and loads that are predicted before they are sent."""

from pathlib import Path

import numpy as np
import pytest
from bench_points import FACTS, GRID, LAW, point
from stand_in_engine import write_interpreter, write_model
from stand_in_server import FIRST_S, TOKEN_S, serving

from advisor.calibrate.bench.law import prior_belief, updated
from advisor.calibrate.bench.loads import RATES, behind_http, measure_server, predict_load
from advisor.calibrate.bench.local import LocalRun, run_local
from advisor.calibrate.bench.session import Session, comparison_of
from advisor.calibrate.bench.target import target_of
from advisor.catalog import load_catalog
from advisor.catalog.fits import load_fits

pytestmark = pytest.mark.live


DECODE_S = np.array([0.005, 0.006, 0.009])
PREFILL_S = np.array([0.006, 0.020, 0.070])


@pytest.mark.parametrize("factor", [1.0, 1.6])
def test_what_http_changes_is_told_apart(factor: float) -> None:
    """2 ms more a step, 0.3 ms a stream, 4 ms a request, and everything `factor` times as slow."""
    streams = {
        count: factor * step + 2e-3 + 0.3e-3 * count
        for count, step in zip((1, 4, 12), DECODE_S, strict=True)
    }
    first = {
        tokens: 4e-3 + factor * step + 2e-3 + 0.3e-3
        for tokens, step in zip((16, 128, 512), PREFILL_S, strict=True)
    }
    found = behind_http(streams, first, DECODE_S, PREFILL_S)

    assert found.factor == pytest.approx(factor, rel=0.04)
    assert found.step_s == pytest.approx(2e-3, rel=0.15)
    assert found.sequence_s == pytest.approx(0.3e-3, rel=0.15)
    assert found.request_s == pytest.approx(4e-3, rel=0.15)


def test_nothing_behind_http_is_below_zero_and_few_figures_leave_the_usual_pace() -> None:
    found = behind_http({1: 0.004}, {}, DECODE_S[:1], PREFILL_S[:0], usual=1.3)
    assert (found.step_s, found.sequence_s) == pytest.approx((0, 0), abs=1e-8)
    assert found.factor == pytest.approx(0.8, rel=0.03), "one figure, and it is the factor's"

    open_ = behind_http({1: 0.0065}, {}, DECODE_S[:1], PREFILL_S[:0], usual=1.3)
    assert open_.factor == pytest.approx(1.3, rel=0.02)


def test_what_a_stream_costs_lengthens_the_prediction() -> None:
    belief = updated(prior_belief(LAW, load_fits()), [point(one) for one in GRID])
    target = target_of(None, FACTS, belief)
    cost = belief.step_cost(max_tokens=2048, max_seqs=32)
    served = target.with_overhead(
        0.0, 0.0, extra_step_s=1e-3, extra_sequence_s=1e-4, server_factor=1.5
    ).served(cost)

    assert served.token_s[1:] == pytest.approx(1.5 * cost.token_s[1:] + 1e-3)
    assert served.sample_s[10] == pytest.approx(1.5 * cost.sample_s[10] + 1e-3)
    assert served.kv_s == pytest.approx(1.5 * cost.kv_s)
    alone = predict_load(target, cost, target.requests, 0.0)
    behind = predict_load(target, served, target.requests, 0.0)
    assert behind["tpot_p50_ms"] > alone["tpot_p50_ms"] + 1
    assert predict_load(target, cost, target.requests, 0.5)["ttft_p50_ms"] == pytest.approx(
        alone["ttft_p50_ms"] + 500
    )


def test_a_server_s_overhead_is_measured_and_its_loads_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "advisor.calibrate.bench.engine.pinned", lambda command, cores, on_gpu: command
    )
    monkeypatch.setattr("advisor.calibrate.bench.hardware._nvidia", dict)
    session = Session(output=tmp_path / "run.jsonl", budget_s=12, precision=0.4)
    run = LocalRun(
        model=str(write_model(tmp_path / "model")),
        python=write_interpreter(tmp_path),
        serve=False,
    )
    run_local(run, session, load_catalog())
    session.budget_s += 1000
    for bound in ("FEWEST", "MOST"):
        monkeypatch.setattr(f"advisor.calibrate.bench.loads.{bound}", 8)
    with serving() as running:
        measure_server(session, running.url, vocabulary=100)
        measured = running.requests
        measure_server(session, running.url, vocabulary=100)

    overhead = next(one for one in session.points if one.shape.kind == "overhead")
    assert overhead.results["lone_16_ttft_ms"] >= 1e3 * FIRST_S
    assert overhead.results["tpot_12_streams_ms"] >= 1e3 * TOKEN_S
    assert session.target is not None
    assert session.target.overhead_s == overhead.value_s
    loads = [one for one in session.points if one.shape.kind == "load"]
    assert len(loads) == len(RATES)
    assert running.requests < measured + 10, "loads are not sent twice"
    for one in loads:
        compared = comparison_of(one)
        assert compared.requests == 8
        for name, error in compared.errors.items():
            assert error == pytest.approx(
                compared.predicted_ms[name] / compared.measured_ms[name] - 1
            )
        assert one.results["failed"] == 0
        assert one.results["server_generation_tokens_total"] == compared.requests * 64
