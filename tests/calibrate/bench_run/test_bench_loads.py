"""A server's overheads, and loads that are predicted before they are sent."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bench_points import FACTS, GRID, LAW, point
from stand_in_engine import write_interpreter, write_model
from stand_in_server import FIRST_S, TOKEN_S, serving

from advisor.calibrate.bench.behind import Loop, Round, send_loops
from advisor.calibrate.bench.hardware import busy_core_s
from advisor.calibrate.bench.law import updated
from advisor.calibrate.bench.loads import RATES, ROUNDS, measure_server, notes_of, predict_load
from advisor.calibrate.bench.local import LocalRun, run_local
from advisor.calibrate.bench.prior import prior_belief
from advisor.calibrate.bench.served import Server
from advisor.calibrate.bench.session import Session, comparison_of
from advisor.calibrate.bench.target import target_of
from advisor.catalog import load_catalog
from advisor.catalog.fits import load_fits
from advisor.physics.own_steps import Behind

pytestmark = pytest.mark.live


def test_what_is_sent_behind_http_lengthens_the_prediction() -> None:
    belief = updated(prior_belief(LAW, load_fits()), [point(one) for one in GRID])
    target = target_of(None, FACTS, belief)
    cost = belief.step_cost(max_tokens=2048, max_seqs=32)
    behind = Behind(factor=1.5, step_s=1e-3, sequence_s=1e-4, newcomer_s=5e-3)
    served = target.with_overhead(0.0, 0.0, behind=behind).served(cost)

    alone = predict_load(target, cost, target.requests, 0.0)
    slower = predict_load(target, served, target.requests, 0.0)
    assert slower["tpot_p50_ms"] > 1.5 * alone["tpot_p50_ms"] + 1
    assert predict_load(target, cost, target.requests, 0.5)["ttft_p50_ms"] == pytest.approx(
        alone["ttft_p50_ms"] + 500
    )


def test_a_server_s_overhead_is_measured_and_its_loads_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by Ctrl-C after the first load, it goes on with the second."""
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
    monkeypatch.setattr("advisor.calibrate.bench.behind.LONGEST_ANSWER", 8)
    with serving() as running:
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(
                "advisor.calibrate.bench.loads.send_loops", interrupted_after(1 + ROUNDS)
            )
            measure_server(session, running.url, vocabulary=100)
        assert session.points[-1].shape.kind == "load", "what was sent is kept"
        measure_server(session, running.url, vocabulary=100)
        sent = running.requests
        measure_server(session, running.url, vocabulary=100)
        assert running.requests == sent, "nothing is sent twice"

    kinds = [one.shape.kind for one in session.points if one.shape.kind in ("overhead", "load")]
    assert kinds == [*["overhead"] * ROUNDS, "load", "overhead", "overhead", "load"]
    overheads = [one for one in session.points if one.shape.kind == "overhead"]
    for overhead in overheads:
        assert overhead.results["lone_16_ttft_ms"] >= 1e3 * FIRST_S
        assert overhead.results["loop_3_tpot_ms"] >= 1e3 * TOKEN_S
    assert session.target is not None
    assert session.target.overhead_s == pytest.approx(overheads[-1].value_s, rel=1e-6)
    loads = [one for one in session.points if one.shape.kind == "load"]
    assert [one.predicted["share_of_capacity"] for one in loads] == list(RATES)
    for one in loads:
        compared = comparison_of(one)
        assert compared.requests == 8
        for name, error in compared.errors.items():
            assert error == pytest.approx(
                compared.predicted_ms[name] / compared.measured_ms[name] - 1
            )
        assert one.results["failed"] == 0
        assert one.slowdown**2 == pytest.approx(
            one.results["pace_before"] * one.results["pace_after"]
        )
        assert one.results["server_generation_tokens_total"] == compared.requests * 64


def test_what_disturbed_a_load_is_said() -> None:
    calm = {"failed": 0.0, "others_share": 0.02}
    assert notes_of(1.0, 1.1, calm) == ()
    (others,) = notes_of(1.0, 1.1, calm | {"others_share": 0.3})
    assert others == "other work took 30 % of the machine's cores"
    (restless,) = notes_of(1.0, 1.4, calm)
    assert "1.40 × (after)" in restless


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux counts core-seconds")
def test_core_seconds_of_the_machine_hold_those_of_this_process() -> None:
    """To the ticks that the system counts in."""
    before, own = busy_core_s(), time.process_time()
    while time.process_time() - own < 0.2:
        sum(range(1000))
    assert busy_core_s() - before > 0.15


def interrupted_after(rounds: int) -> Callable[[Server, Sequence[Loop]], Round]:
    """Closed loops that somebody stops once so many rounds were sent."""
    sent = []

    def send(server: Server, loops: Sequence[Loop]) -> Round:
        if len(sent) == rounds:
            raise KeyboardInterrupt
        sent.append(1)
        return send_loops(server, loops)

    return send
