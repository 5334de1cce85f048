"""Labelled logs in the background: read, checked, evaluated and made ready for the search."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from advisor.errors import InputError
from advisor.screens.background import Job, Shelf
from advisor.screens.scenario import Labels
from advisor.task import TaskProfile

if TYPE_CHECKING:
    from advisor.quality.evaluate import EvaluationReport
    from advisor.quality.labels import LabelledLog
    from advisor.quality.log_checks import LogFinding
    from advisor.quality.pairs import Pairs

MOST_KEPT = 12
"""Evaluated logs kept for all sessions of this server."""

MAX_MB = 20
SUFFIXES = ("jsonl", "csv")


@dataclass(frozen=True)
class Upload:
    """A log as it was uploaded."""

    name: str
    content: bytes
    digest: str
    simulated: bool = False

    @classmethod
    def of(cls, name: str, content: bytes, *, simulated: bool = False) -> Upload:
        """An upload with the digest of its name and content.

        Messages carry the name, which nobody else's upload of the same content should show.
        """
        digest = hashlib.sha256(name.encode() + b"\0" + content).hexdigest()
        return cls(name, content, digest, simulated)


class LogAnalysis(Job):
    """One log evaluated for one task."""

    noun = "evaluation"

    def __init__(self, upload: Upload, task: TaskProfile, folder: Path) -> None:
        super().__init__()
        self.upload = upload
        self.task = task
        self._folder = folder
        self.findings: tuple[LogFinding, ...] = ()
        self.report: EvaluationReport | None = None
        self.pairs: Pairs | None = None
        """Rows on which both models are labelled; None where there are none."""
        self.labels: Labels | None = None
        """What the recommendation can take; None where it cannot take the log."""
        self.refused: str | None = None
        """Why the recommendation cannot take the log, in one line."""

    def work(self) -> None:
        """Read, check and evaluate the log, and make it ready for the search."""
        from advisor.quality.evaluate import evaluate
        from advisor.quality.labels import read_log
        from advisor.quality.log_checks import check_log
        from advisor.quality.scoring import scored

        suffix = Path(self.upload.name).suffix.lower()
        path = self._folder / f"upload{suffix}"
        path.write_bytes(self.upload.content)
        metric = self.task.quality.metric
        try:
            log = read_log(path)
        except InputError as error:
            raise InputError(str(error).replace(path.name, self.upload.name)) from None
        finally:
            path.unlink()
        log = scored(log, metric)
        self.findings = check_log(log)
        pairs = log.pairs()
        if len(pairs.slm_correct):
            self.pairs = pairs
        self.report = evaluate(log, metric=metric, task=self.task)
        self._make_ready(log)

    def _make_ready(self, log: LabelledLog) -> None:
        """Write what the search needs of the log, and see whether it takes it."""
        from advisor.catalog import load_catalog
        from advisor.decide.labelled import evidence_of

        path = self._folder / "labels.jsonl"
        path.write_text("".join(_lines(log)), encoding="utf-8")
        try:
            evidence_of(self.task, load_catalog(), path)
        except InputError as error:
            self.refused = str(error).replace(path.name, self.upload.name)
            return
        digest = f"{self.upload.digest} {self.task.quality.metric}"
        self.labels = Labels(self.upload.name, path, digest, len(log.rows))


def _lines(log: LabelledLog) -> Iterator[str]:
    """Labels and confidences of a log, without its texts."""
    for row in log.rows:
        answers = {name: {"correct": out.correct} for name, out in row.outputs.items()}
        confidence = row.confidence_of("slm")
        record = {
            "confidence": None if math.isnan(confidence) else confidence,
            "gate_passed": row.gate_passed,
            "outputs": answers,
        }
        yield json.dumps(record) + "\n"


class Desk:
    """Evaluated logs by content and task, shared by the sessions of one server."""

    def __init__(self) -> None:
        self._shelf = Shelf[LogAnalysis]("labelled-log", most_kept=MOST_KEPT)
        self._folder = tempfile.TemporaryDirectory(prefix="advisor-labels-")

    def analysis(self, upload: Upload, task: TaskProfile) -> LogAnalysis:
        """The evaluation of a log for a task; started where it is new."""
        asked = f"{task.quality.metric}\0{task.task.model_dump_json()}"
        key = hashlib.sha256(f"{upload.digest}\0{asked}".encode()).hexdigest()

        def new() -> LogAnalysis:
            folder = Path(self._folder.name) / key
            folder.mkdir(exist_ok=True)
            return LogAnalysis(upload, task, folder)

        found = self._shelf.get(key, new)
        self._shelf.start(found)
        return found


@st.cache_resource(show_spinner=False, max_entries=1)
def desk() -> Desk:
    """The server's one desk."""
    return Desk()
