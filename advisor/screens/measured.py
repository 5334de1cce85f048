"""Uploaded measurements in the background: read and scored, so that a page never waits."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from advisor.errors import InputError
from advisor.screens.background import Job, Shelf

if TYPE_CHECKING:
    from advisor.calibrate.own import OwnScore

MOST_KEPT = 12
"""Scores kept for all sessions of this server."""

MAX_MB = 5
MOST_ROWS = 5_000
"""Rows of an upload: a minute of one core."""


class Scoring(Job):
    """One uploaded table, to be scored."""

    noun = "scoring"

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__()
        self.name = name
        self._content = content
        self.score: OwnScore | None = None

    def work(self) -> None:
        """Score it."""
        try:
            self.score = self._scored()
        finally:
            self._content = b""

    def _scored(self) -> OwnScore:
        from advisor.calibrate.measurements import read_measurements
        from advisor.calibrate.own import score_rows
        from advisor.catalog import load_catalog
        from advisor.catalog.fits import load_fits

        with tempfile.TemporaryDirectory(prefix="advisor-rows-") as folder:
            path = Path(folder) / "rows.csv"
            path.write_bytes(self._content)
            try:
                rows = read_measurements((path,))
            except InputError as error:
                raise InputError(str(error).replace(str(path), self.name)) from None
        if len(rows) > MOST_ROWS:
            raise InputError(f"{self.name}: {len(rows):,} rows; at most {MOST_ROWS:,} are scored")
        score = score_rows(rows, load_fits(), load_catalog())
        if not score.pairs:
            reason = next(iter(score.left_out), "no row has a measured latency")
            raise InputError(f"{self.name}: nothing to score: {reason}")
        return score


class Bench:
    """Scores by content, shared by the sessions of one server."""

    def __init__(self) -> None:
        self._shelf = Shelf[Scoring]("own-rows", most_kept=MOST_KEPT)

    def scoring(self, name: str, content: bytes) -> Scoring:
        """The score of a table; started where it is new."""
        key = hashlib.sha256(name.encode() + b"\0" + content).hexdigest()
        found = self._shelf.get(key, lambda: Scoring(name, content))
        self._shelf.start(found)
        return found


@st.cache_resource(show_spinner=False, max_entries=1)
def bench() -> Bench:
    """The server's one bench."""
    return Bench()
