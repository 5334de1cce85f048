"""A calibration run in the background: one a server, so that two never share the processor."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from advisor.screens.background import Job, Slot
from advisor.task import TaskProfile

if TYPE_CHECKING:
    from advisor.calibrate.bench.session import Outcome, Session, Update

FOLDER = Path(tempfile.gettempdir()) / "advisor-calibration"
"""Points of runs that this app started: the same run goes on where it was stopped."""


@dataclass(frozen=True)
class Step:
    """What was believed after a point."""

    spent_s: float
    value_ms: float
    low_ms: float
    high_ms: float


class Measuring(Job):
    """One run."""

    noun = "run"

    def __init__(
        self, model: str, arguments: Mapping[str, Any], *, budget_s: float, task: TaskProfile | None
    ) -> None:
        super().__init__()
        self.model, self.arguments = model, dict(arguments)
        self.budget_s, self.task = budget_s, task
        self.step = "getting ready"
        self.steps: list[Step] = []
        self.session: Session | None = None
        self.outcome: Outcome | None = None

    def work(self) -> None:
        """Measure; told to stop it ends after the point under way, and what is measured stays."""
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
            stop=self.ending,
        )
        run = LocalRun(model=self.model, arguments=self.arguments)
        self.outcome = run_local(run, self.session, load_catalog())

    def _say(self, message: str) -> None:
        self.step = message

    def _tell(self, update: Update) -> None:
        self.step = update.message
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


class Workbench(Slot[Measuring]):
    """The server's one place to measure."""

    def __init__(self) -> None:
        super().__init__("calibration-run")


@st.cache_resource(show_spinner=False, max_entries=1)
def workbench() -> Workbench:
    """The server's one workbench."""
    return Workbench()
