"""Files that are broken where the app finds them: one clear line, on a page that still stands."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from advisor.catalog import load_catalog
from advisor.catalog.locations import PROFILES
from advisor.screens import search
from advisor.screens.sections.trial_worker import records
from advisor.trial.store import TrialStore

PATIENCE_S = 60


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_file("../../app.py", default_timeout=60)


def at(app: AppTest, page: str) -> AppTest:
    app.run()
    app.switch_page(f"advisor/screens/{page}.py").run()
    assert not app.exception
    return app


def said(app: AppTest) -> list[str]:
    """What the page says is wrong."""
    lines = [one.value for one in app.error]
    lines += [one.value for one in app.markdown if one.value.startswith(":red[")]
    assert not [line for line in lines if "\n" in line or "Traceback" in line]
    return [line.replace("\\", "") for line in lines]


@pytest.fixture
def broken_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The catalogue's folder with an accelerator file that somebody got wrong."""
    shutil.copytree(PROFILES, tmp_path / "profiles")
    wrong = tmp_path / "profiles" / "accelerators" / "mine.yaml"
    wrong.write_text("gpus:\n  - {id: MINE, memory_bytes: lots}\n")
    monkeypatch.setattr("advisor.catalog.catalog.PROFILES", tmp_path / "profiles")
    load_catalog.cache_clear()
    search.archive.clear()
    yield wrong.name
    load_catalog.cache_clear()
    search.archive.clear()


@pytest.mark.parametrize("page", ["recommendation", "task", "load", "explore", "evidence"])
def test_a_wrong_accelerator_file_is_named_on_every_page(
    app: AppTest, page: str, broken_accelerator: str
) -> None:
    app.session_state["evidence.tab"] = "Accelerators"
    at(app, page)
    until = time.monotonic() + PATIENCE_S
    while not said(app):
        assert time.monotonic() < until, "nothing was said"
        time.sleep(0.1)
        app.run()
        assert not app.exception
    assert broken_accelerator in said(app)[0]
    assert len(said(app)) == 1


def on_trials(app: AppTest, path: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("ADVISOR_TRIALS", str(path))
    records.clear()
    try:
        return at(app, "trial")
    finally:
        records.clear()


def test_records_that_cannot_be_written_are_told_in_a_line(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that nobody may write to, be it root."""
    on_trials(app, Path("/proc/trials.sqlite"), monkeypatch)
    assert len(said(app)) == 1
    assert "/proc/trials.sqlite" in said(app)[0]
    assert app.button(key="trial.sandbox")


def test_records_that_are_lost_while_the_app_runs_are_told_in_a_line(
    app: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.sqlite"
    monkeypatch.setenv("ADVISOR_TRIALS", str(path))
    records.clear()
    at(app, "trial")
    assert said(app) == []
    for file in tmp_path.iterdir():
        file.write_bytes(b"no database" * 1000)
    app.run()
    assert not app.exception
    assert len(said(app)) == 1
    assert "trials.sqlite" in said(app)[0]
    records.clear()


def test_a_trial_deleted_elsewhere_is_no_longer_shown(
    app: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown in one tab of the browser, deleted in another."""
    path = tmp_path / "trials.sqlite"
    with TrialStore(path):
        pass
    app.session_state["trial.shown"] = "20260101-000000-gone"
    on_trials(app, path, monkeypatch)
    assert said(app) == []
