"""Whole runs over an engine whose times are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from bench_points import shape
from stand_in_engine import FACTS, step_s, write_interpreter, write_model

from advisor.calibrate.bench.law import Steps
from advisor.calibrate.bench.local import LocalRun, find_python, run_local
from advisor.calibrate.bench.points import Shape, read_points
from advisor.calibrate.bench.products import PRODUCTS_VISITS, ROWS
from advisor.calibrate.bench.session import Session, Update
from advisor.calibrate.measurements import read_measurements
from advisor.catalog import load_catalog
from advisor.catalog.catalog import read_accelerator
from advisor.catalog.fits import calibration_for, load_fits
from advisor.errors import InputError
from advisor.predict import predict
from advisor.task import TaskProfile

pytestmark = pytest.mark.live

Told = list[Update]

PRODUCTS = PRODUCTS_VISITS * sum(rows <= FACTS["max_num_seqs"] for rows in ROWS)
"""Points of products alone, before the first step."""


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "advisor.calibrate.bench.engine.pinned", lambda command, cores, on_gpu: command
    )
    monkeypatch.setattr("advisor.calibrate.bench.hardware._nvidia", dict)


def session_in(folder: Path, told: Told | None = None, **settings: object) -> Session:
    return Session(
        output=folder / "run.jsonl",
        budget_s=float(str(settings.pop("budget_s", 20))),
        tell=(told if told is not None else []).append,
        **settings,
    )


def local(folder: Path, **settings: object) -> LocalRun:
    return LocalRun(
        model=str(write_model(folder / "model")),
        python=write_interpreter(folder),
        serve=False,
        **settings,
    )


def test_a_run_learns_the_engine_and_stops_when_it_knows_enough(tmp_path: Path) -> None:
    told: Told = []
    session = session_in(tmp_path, told, precision=0.15)
    outcome = run_local(local(tmp_path), session, load_catalog())

    assert outcome is not None
    assert outcome.ended == "narrow enough"
    assert outcome.after is not None
    assert outcome.before is not None
    width = outcome.after.high_ms - outcome.after.low_ms
    assert width / outcome.after.value_ms <= 0.31
    assert width < 0.2 * (outcome.before.high_ms - outcome.before.low_ms)
    assert session.belief is not None
    seconds = session.belief.seconds(Steps.of_shapes([shape("decode", 8, 256)]))[0]
    assert seconds == pytest.approx(step_s(8, 264, 0), rel=0.06)
    kinds = [point.shape.kind for point in read_points(tmp_path / "run.jsonl")]
    assert kinds[:3] == ["start", "copy", "matmul"]
    assert any("p95" in update.message for update in told)


def test_every_point_says_what_it_was_measured_on(tmp_path: Path) -> None:
    run_local(local(tmp_path), session_in(tmp_path, precision=0.3), load_catalog())

    for line in (tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines():
        facts = json.loads(line)["facts"]
        assert facts["vllm_version"] == "0.32.0"
        assert facts["enforce_eager"] is True
        assert facts["weights"] == "random"
        assert facts["machine"]["processor"]
        assert len(facts["model_digest"]) == 12


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    first = session_in(tmp_path, precision=0.25)
    run_local(local(tmp_path), first, load_catalog())
    before = (tmp_path / "run.jsonl").read_bytes()
    again = session_in(tmp_path, precision=0.3)
    outcome = run_local(local(tmp_path), again, load_catalog())

    assert outcome is not None
    assert outcome.new_points == 0
    assert (tmp_path / "run.jsonl").read_bytes() == before

    finer = session_in(tmp_path, precision=0.12)
    run_local(local(tmp_path), finer, load_catalog())
    points = read_points(tmp_path / "run.jsonl")
    assert finer.new_points > 0
    assert len({point.shape for point in points}) == len(points), "nothing was measured twice"


def test_ctrl_c_keeps_the_points_and_what_they_taught(tmp_path: Path) -> None:
    def interrupt(update: Update) -> None:
        if update.point is not None and update.point.shape.kind == "decode":
            raise KeyboardInterrupt

    session = session_in(tmp_path)
    session.tell = interrupt
    with pytest.raises(KeyboardInterrupt):
        run_local(local(tmp_path), session, load_catalog())

    kept = read_points(tmp_path / "run.jsonl")
    before = ["start", "copy", "matmul", *["products"] * PRODUCTS]
    assert [point.shape.kind for point in kept] == [*before, "decode"]
    assert session.files.fits.is_file()


def test_ctrl_c_while_the_first_point_is_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(session: Session) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "learn", interrupt)
    session = session_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_local(local(tmp_path), session, load_catalog())

    (own,) = load_fits(session.files.fits).deployments.values()
    assert own.points == 1


def test_stopping_from_another_thread_ends_it_with_an_outcome(tmp_path: Path) -> None:
    session = session_in(tmp_path)

    def stop(update: Update) -> None:
        if update.point is not None and update.point.shape.kind == "prefill":
            session.stop.set()

    session.tell = stop
    outcome = run_local(local(tmp_path), session, load_catalog())

    assert outcome is not None
    assert outcome.ended == "stopped"
    assert outcome.points == 5 + PRODUCTS


def test_an_engine_that_dies_keeps_the_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "killed")
    session = session_in(tmp_path)
    with pytest.raises(InputError, match="vLLM ended: the system killed it"):
        run_local(local(tmp_path), session, load_catalog())

    assert len(read_points(tmp_path / "run.jsonl")) == 6


def test_points_that_were_asked_for_are_measured_first(tmp_path: Path) -> None:
    wanted = (Shape(kind="decode", batch=3, context_tokens=100), shape("mixed", 5, 50, 70))
    session = session_in(tmp_path, precision=0.9)
    run_local(local(tmp_path, shapes=wanted), session, load_catalog())

    assert {point.shape for point in session.points} >= set(wanted)


def test_the_files_beside_it_are_what_other_commands_take(tmp_path: Path) -> None:
    wanted = tuple(shape("decode", batch, 128) for batch in (2, 16))
    session = session_in(tmp_path, precision=0.12)
    outcome = run_local(local(tmp_path, shapes=wanted), session, load_catalog())
    assert outcome is not None
    assert session.belief is not None
    accelerator = read_accelerator(session.files.accelerator)
    calibration = calibration_for(accelerator, fits=session.files.fits)
    for name, value in outcome.coefficients.items():
        assert getattr(calibration.coefficients, name) == pytest.approx(value, rel=2e-3), name
    assert calibration.label == "calibrated"
    assert "advisor calibrate run" not in calibration.basis
    assert f"{len(session.step_points)} rows of {accelerator.id}" in calibration.basis

    rows = read_measurements((session.files.rows,))
    assert {row.setup.load for row in rows} == {"steady_batch", "static_batch"}
    table = predict(session.files.rows, fits=session.files.fits)
    assert table["error"].isna().all()
    measured = np.array([row.measured.get("tpot_mean_ms", np.nan) for row in rows])
    errors = np.abs(table["tpot_mean_ms"].to_numpy(float) / measured - 1)
    assert np.nanmax(errors) < 0.05


def test_a_task_s_own_load_is_the_target(tmp_path: Path) -> None:
    from advisor.catalog.locations import PROFILES

    task = TaskProfile.load(PROFILES / "tasks" / "intent-classification.yaml")
    session = session_in(tmp_path, task=task, precision=0.4)
    outcome = run_local(local(tmp_path), session, load_catalog())

    assert outcome is not None
    assert outcome.target.startswith(f"task {task.name} at ")
    assert session.target is not None
    assert session.target.rate_per_s < task.traffic.peak_rate_per_s, "what one engine sustains"


def test_without_vllm_the_way_to_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADVISOR_VLLM_PYTHON", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("advisor.calibrate.bench.local.__file__", str(tmp_path / "a/b/c/d.py"))
    with pytest.raises(InputError, match=r"make vllm-cpu"):
        find_python()
    with pytest.raises(InputError, match=r"--python .*: no such interpreter"):
        run_local(
            LocalRun(model=str(write_model(tmp_path / "m")), python=tmp_path / "none"),
            session_in(tmp_path),
            load_catalog(),
        )
