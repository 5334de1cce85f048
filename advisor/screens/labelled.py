"""Labelled logs in the background: read, checked, evaluated and made ready for the search."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from advisor.errors import AdvisorError, InputError
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

_LOG = logging.getLogger(__name__)


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


class LogAnalysis:
    """One log evaluated for one task, running or finished."""

    def __init__(self, upload: Upload, task: TaskProfile, folder: Path) -> None:
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
        self.problem: str | None = None
        """Why there is no result at all, in one line."""
        self._done = threading.Event()

    @property
    def finished(self) -> bool:
        """Whether there is a result, or a reason why not."""
        return self._done.is_set()

    def run(self) -> None:
        """Evaluate, in a worker thread."""
        try:
            self._evaluate()
        except AdvisorError as error:
            self.problem = str(error)
        except Exception:
            _LOG.exception("the evaluation of %s failed", self.upload.name)
            self.problem = "The evaluation failed; the app's log says where."
        finally:
            self._done.set()

    def _evaluate(self) -> None:
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
        self._analyses: OrderedDict[str, LogAnalysis] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="labelled-log")
        self._folder = tempfile.TemporaryDirectory(prefix="advisor-labels-")

    def analysis(self, upload: Upload, task: TaskProfile) -> LogAnalysis:
        """The evaluation of a log for a task; started where it is new."""
        asked = f"{task.quality.metric}\0{task.task.model_dump_json()}"
        key = hashlib.sha256(f"{upload.digest}\0{asked}".encode()).hexdigest()
        with self._lock:
            found = self._analyses.get(key)
            if found is None:
                folder = Path(self._folder.name) / key
                folder.mkdir(exist_ok=True)
                found = self._analyses[key] = LogAnalysis(upload, task, folder)
                self._worker.submit(found.run)
                while len(self._analyses) > MOST_KEPT:
                    self._analyses.popitem(last=False)
            self._analyses.move_to_end(key)
            return found


@st.cache_resource(show_spinner=False, max_entries=1)
def desk() -> Desk:
    """The server's one desk."""
    return Desk()


@st.fragment(run_every=0.4)
def watch(analysis: LogAnalysis) -> None:
    """Say that a log is being evaluated; draw the page again when it is done."""
    if analysis.finished:
        st.rerun()
    st.badge("Evaluating the log…", icon=":material/progress_activity:", color="blue")
