"""A calibration run in the background: one a server, so that two never share the processor."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from advisor.errors import AdvisorError
from advisor.task import TaskProfile

if TYPE_CHECKING:
    from advisor.calibrate.bench.session import Outcome, Session, Update

FOLDER = Path(tempfile.gettempdir()) / "advisor-calibration"
"""Points of runs that this app started: the same run goes on where it was stopped."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What was believed after a point."""

    spent_s: float
    value_ms: float
    low_ms: float
    high_ms: float


class Measuring:
    """One run, under way or finished."""

    def __init__(
        self, model: str, arguments: Mapping[str, Any], *, budget_s: float, task: TaskProfile | None
    ) -> None:
        self.model, self.arguments = model, dict(arguments)
        self.budget_s, self.task = budget_s, task
        self.message = "getting ready"
        self.steps: list[Step] = []
        self.session: Session | None = None
        self.outcome: Outcome | None = None
        self.problem: str | None = None
        """Why it ended without a result, in one line."""
        self._stop = threading.Event()
        self._done = threading.Event()

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._done.is_set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop and has not ended yet."""
        return self._stop.is_set() and not self.finished

    def stop(self) -> None:
        """End it after the point under way; what is measured stays."""
        self._stop.set()

    def run(self) -> None:
        """Measure, in a thread of its own."""
        try:
            self._measure()
        except AdvisorError as error:
            self.problem = str(error)
        except Exception:
            _LOG.exception("the calibration of %s failed", self.model)
            self.problem = "The run failed; the app's log says where."
        finally:
            self._done.set()

    def _measure(self) -> None:
        from advisor.calibrate.bench.local import LocalRun, run_local
        from advisor.calibrate.bench.session import Session
        from advisor.catalog import load_catalog
        from advisor.serving.compilation import ensure_compiled

        ensure_compiled(self._say)
        FOLDER.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(f"{self.model} {self.arguments}".encode()).hexdigest()[:10]
        self.session = Session(
            output=FOLDER / f"{digest}.jsonl",
            budget_s=self.budget_s,
            task=self.task,
            tell=self._tell,
            stop=self._stop,
        )
        run = LocalRun(model=self.model, arguments=self.arguments)
        self.outcome = run_local(run, self.session, load_catalog())

    def _say(self, message: str) -> None:
        self.message = message

    def _tell(self, update: Update) -> None:
        self.message = update.message
        interval = update.interval
        if interval is not None:
            self.steps.append(
                Step(
                    update.spent_s,
                    1e3 * interval.value_s,
                    1e3 * interval.low_s,
                    1e3 * interval.high_s,
                )
            )


class Workbench:
    """The server's one place to measure."""

    def __init__(self) -> None:
        self.current: Measuring | None = None
        self._lock = threading.Lock()

    def start(self, measuring: Measuring) -> bool:
        """Start a run; False where another is under way."""
        with self._lock:
            if self.current is not None and not self.current.finished:
                return False
            self.current = measuring
        threading.Thread(target=measuring.run, name="calibration-run", daemon=True).start()
        return True


@st.cache_resource(show_spinner=False, max_entries=1)
def workbench() -> Workbench:
    """The server's one workbench."""
    return Workbench()
