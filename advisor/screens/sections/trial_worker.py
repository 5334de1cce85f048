"""The trial in the background: one at a time on this server, whatever the browser does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import streamlit as st

from advisor.errors import AdvisorError
from advisor.trial.report import TrialReport
from advisor.trial.store import TrialStore, default_path

_LOG = logging.getLogger(__name__)

Run = Callable[["LiveTrial"], TrialReport]


class LiveTrial:
    """One trial, running or finished."""

    def __init__(self, run: Run) -> None:
        self.stop = threading.Event()
        self.step = "starting"
        """What it is doing, in words."""
        self.steps: list[str] = []
        self.trial: str | None = None
        """Its id, once it has one."""
        self.report: TrialReport | None = None
        self.problem: str | None = None
        """Why there is no report, in one line."""
        self._run = run
        self._thread = threading.Thread(target=self._work, name="live-trial", daemon=True)

    @property
    def finished(self) -> bool:
        """Whether there is a report, or a reason why not."""
        return self.report is not None or self.problem is not None

    def start(self) -> None:
        """Let it run."""
        self._thread.start()

    def announce(self, step: str) -> None:
        """Say what it does now."""
        self.step = step
        self.steps.append(step)

    def begun(self, trial: str) -> None:
        """Its records have this id."""
        self.trial = trial

    def _work(self) -> None:
        try:
            self.report = self._run(self)
        except AdvisorError as error:
            self.problem = str(error)
        except Exception:
            _LOG.exception("the trial failed")
            self.problem = "The trial failed; the app's log says where."


class Stage:
    """Where the server's one trial runs: two at once would measure each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.current: LiveTrial | None = None

    def begin(self, run: Run) -> LiveTrial:
        """Start a trial, unless one is running: then that one."""
        with self._lock:
            if self.current is None or self.current.finished:
                self.current = LiveTrial(run)
                self.current.start()
            return self.current


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
