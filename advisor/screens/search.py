"""The full search in the background, so that a page never waits for it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import streamlit as st

from advisor.decide import Exploration, explore
from advisor.errors import AdvisorError
from advisor.screens.scenario import Labels
from advisor.task import TaskProfile

MOST_KEPT = 32
"""Finished searches kept for all sessions of this server."""

_OWN = "recommendation.search"

_LOG = logging.getLogger(__name__)


class _SupersededError(Exception):
    """Nobody waits for this search any more."""


class FullSearch:
    """One search over everything that may serve a task, running or finished."""

    def __init__(self, task: TaskProfile, labels: Labels | None = None) -> None:
        self.task = task
        self.labels = labels
        self.step = "starting the simulator"
        """What it is doing, in words."""
        self.exploration: Exploration | None = None
        self.problem: str | None = None
        """Why there is no result, in one line."""
        self.superseded = False
        """Whether it was given up because its session went on to another task."""
        self.started = False
        self._done = threading.Event()

    def is_for(self, task: TaskProfile, labels: Labels | None) -> bool:
        """Whether it answers this question, and is still wanted."""
        return self.task == task and self.labels == labels and not self.superseded

    @property
    def finished(self) -> bool:
        """Whether there is a result, or a reason why not."""
        return self._done.is_set()

    def run(self) -> None:
        """Search, in a worker thread."""
        try:
            self._report(self.step)
            path = self.labels.path if self.labels else None
            self.exploration = explore(self.task, path, progress=self._report)
        except _SupersededError:
            self.problem = "superseded"
        except AdvisorError as error:
            self.problem = str(error)
        except Exception:
            _LOG.exception("the search for %s failed", self.task.name)
            self.problem = "The search failed; the app's log says where."
        finally:
            self._done.set()

    def _report(self, step: str) -> None:
        if self.superseded:
            raise _SupersededError
        self.step = step


class Archive:
    """Searches by task, shared by the sessions of one server; the newest `MOST_KEPT` stay."""

    def __init__(self) -> None:
        self._searches: OrderedDict[str, FullSearch] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="full-search")

    def search(
        self,
        task: TaskProfile,
        labels: Labels | None = None,
        *,
        instead_of: FullSearch | None = None,
    ) -> FullSearch:
        """The search for a task, perhaps still to be started; one for another task gives way."""
        key = _key(task, labels)
        with self._lock:
            if instead_of and not instead_of.finished and not instead_of.is_for(task, labels):
                instead_of.superseded = True
                self._searches.pop(_key(instead_of.task, instead_of.labels), None)
            found = self._searches.get(key)
            if found is None or found.problem or found.superseded:
                found = self._searches[key] = FullSearch(task, labels)
                while len(self._searches) > MOST_KEPT:
                    self._searches.popitem(last=False)
            self._searches.move_to_end(key)
            return found

    def start(self, search: FullSearch) -> None:
        """Let a search run, once."""
        with self._lock:
            if not search.started:
                search.started = True
                self._worker.submit(search.run)


def _key(task: TaskProfile, labels: Labels | None) -> str:
    return task.model_dump_json() + (labels.digest if labels else "")


@st.cache_resource(show_spinner=False, max_entries=1)
def archive() -> Archive:
    """The server's one archive."""
    return Archive()


def own(task: TaskProfile, labels: Labels | None) -> FullSearch:
    """The session's search for its task, perhaps still to be started."""
    search: FullSearch | None = st.session_state.get(_OWN)
    if search is None or not search.is_for(task, labels):
        search = archive().search(task, labels, instead_of=search)
        st.session_state[_OWN] = search
    return search


@st.fragment(run_every=0.4)
def watch(search: FullSearch, message: str) -> None:
    """Say what a running search does; draw the page again when it has finished."""
    if search.finished:
        st.rerun()
    st.badge(f"{message}: {search.step}…", icon=":material/progress_activity:", color="blue")
