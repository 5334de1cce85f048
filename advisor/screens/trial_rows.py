"""Rows uploaded for a trial, in the background: read and checked, so that a page never waits."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import streamlit as st

from advisor.screens.background import Job, Shelf
from advisor.task import TaskProfile
from advisor.trial.data import DataFinding, TrialRow, check_rows, read_rows

MOST_KEPT = 4
"""Uploads kept for all sessions of this server."""

MAX_MB = 20
"""No more than the server takes of any upload."""

SUFFIXES = ("jsonl", "csv")


class SentRows(Job):
    """One upload, to be read."""

    noun = "reading"

    def __init__(self, name: str, content: bytes, task: TaskProfile) -> None:
        super().__init__()
        self.name = name
        self._content = content
        self._task = task
        self.rows: tuple[TrialRow, ...] = ()
        self.findings: tuple[DataFinding, ...] = ()

    def work(self) -> None:
        """Read and check."""
        try:
            with tempfile.TemporaryDirectory(prefix="advisor-trial-") as folder:
                path = Path(folder) / Path(self.name).name
                path.write_bytes(self._content)
                rows = read_rows(path)
            self.findings = check_rows(rows, self._task)
            self.rows = rows
        finally:
            self._content = b""


class Tray:
    """Uploads by content and task, shared by the sessions of one server."""

    def __init__(self) -> None:
        self._shelf = Shelf[SentRows]("trial-rows", most_kept=MOST_KEPT)

    def rows(self, name: str, content: bytes, task: TaskProfile) -> SentRows:
        """The rows of an upload; started where it is new."""
        asked = f"{name}\0{task.model_dump_json()}\0".encode()
        key = hashlib.sha256(asked + hashlib.sha256(content).digest()).hexdigest()
        found = self._shelf.get(key, lambda: SentRows(name, content, task))
        self._shelf.start(found)
        return found


@st.cache_resource(show_spinner=False, max_entries=1)
def tray() -> Tray:
    """The server's one tray."""
    return Tray()
