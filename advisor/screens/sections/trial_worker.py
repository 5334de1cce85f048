"""The trial in the background: one at a time on this server, whatever the browser does."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from advisor.screens.background import Job, Slot
from advisor.trial.reporting.report import TrialReport
from advisor.trial.store import TrialStore, default_path

Run = Callable[["LiveTrial"], TrialReport]


class LiveTrial(Job):
    """One trial."""

    noun = "trial"

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.step = "starting"
        self.steps: list[str] = []
        self.trial: str | None = None
        """Its id, once it has one."""
        self.report: TrialReport | None = None
        self._run = run

    def announce(self, step: str) -> None:
        """Say what it does now."""
        self.step = step
        self.steps.append(step)

    def begun(self, trial: str) -> None:
        """Its records have this id."""
        self.trial = trial

    def work(self) -> None:
        """Run it; told to stop it judges what was measured."""
        self.report = self._run(self)


class Stage(Slot[LiveTrial]):
    """Where the server's one trial runs."""

    def __init__(self) -> None:
        super().__init__("live-trial")


@st.cache_resource(show_spinner=False, max_entries=1)
def stage() -> Stage:
    """The server's one stage."""
    return Stage()


@st.cache_resource(show_spinner=False, max_entries=1)
def records() -> TrialStore:
    """The trial records, opened once.

    Raises:
        InputError: the file cannot be opened.
    """
    return TrialStore(default_path())
