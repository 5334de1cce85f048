"""Uploaded measurements in the background: read and scored, so that a page never waits."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from advisor.errors import AdvisorError, InputError

if TYPE_CHECKING:
    from advisor.calibrate.own import OwnScore

MOST_KEPT = 12
"""Scores kept for all sessions of this server."""

MAX_MB = 5
MOST_ROWS = 5_000
"""Rows of an upload: a minute of one core."""

_LOG = logging.getLogger(__name__)


class Scoring:
    """One uploaded table, being scored or finished."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self._content = content
        self.score: OwnScore | None = None
        self.problem: str | None = None
        """Why there is no score, in one line."""
        self._done = threading.Event()

    @property
    def finished(self) -> bool:
        """Whether there is a score, or a reason why not."""
        return self._done.is_set()

    def run(self) -> None:
        """Score, in a worker thread."""
        try:
            self.score = self._scored()
        except AdvisorError as error:
            self.problem = str(error)
        except Exception:
            _LOG.exception("scoring %s failed", self.name)
            self.problem = "The scoring failed; the app's log says where."
        finally:
            self._content = b""
            self._done.set()

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
        self._scorings: OrderedDict[str, Scoring] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="own-rows")

    def scoring(self, name: str, content: bytes) -> Scoring:
        """The score of a table; started where it is new."""
        key = hashlib.sha256(name.encode() + b"\0" + content).hexdigest()
        with self._lock:
            found = self._scorings.get(key)
            if found is None:
                found = self._scorings[key] = Scoring(name, content)
                self._worker.submit(found.run)
                while len(self._scorings) > MOST_KEPT:
                    self._scorings.popitem(last=False)
            self._scorings.move_to_end(key)
            return found


@st.cache_resource(show_spinner=False, max_entries=1)
def bench() -> Bench:
    """The server's one bench."""
    return Bench()


@st.fragment(run_every=0.4)
def watch(scoring: Scoring) -> None:
    """Say that a table is being scored; draw the page again when it is done."""
    if scoring.finished:
        st.rerun()
    st.badge("Scoring the rows…", icon=":material/progress_activity:", color="blue")
