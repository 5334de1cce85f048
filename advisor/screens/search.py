"""The full search in the background, so that a page never waits for it."""

from __future__ import annotations

import streamlit as st

from advisor.decide import Exploration, explore
from advisor.screens.background import Job, Shelf, StoppedError
from advisor.screens.scenario import Labels
from advisor.task import TaskProfile

MOST_KEPT = 32
"""Finished searches kept for all sessions of this server."""

_OWN = "recommendation.search"


class FullSearch(Job):
    """One search over everything that may serve a task."""

    noun = "search"

    def __init__(self, task: TaskProfile, labels: Labels | None = None) -> None:
        super().__init__()
        self.task = task
        self.labels = labels
        self.step = "starting the simulator"
        self.exploration: Exploration | None = None
        self.askers = 0
        """Sessions that wait for it."""

    def is_for(self, task: TaskProfile, labels: Labels | None) -> bool:
        """Whether it answers this question, and is still wanted."""
        return self.task == task and self.labels == labels and not self.ending.is_set()

    def work(self) -> None:
        """Search."""
        self._report(self.step)
        path = self.labels.path if self.labels else None
        self.exploration = explore(self.task, path, progress=self._report)

    def _report(self, step: str) -> None:
        if self.ending.is_set():
            raise StoppedError
        self.step = step


class Archive:
    """Searches by task, shared by the sessions of one server; the newest `MOST_KEPT` stay."""

    def __init__(self) -> None:
        self._shelf = Shelf[FullSearch]("full-search", most_kept=MOST_KEPT, retried=True)

    def search(
        self,
        task: TaskProfile,
        labels: Labels | None = None,
        *,
        instead_of: FullSearch | None = None,
    ) -> FullSearch:
        """The search for a task, perhaps still to be started.

        The one that the session goes on from ends early, unless another session waits for it.
        """
        key = task.model_dump_json() + (labels.digest if labels else "")
        with self._shelf.lock:
            if instead_of is not None:
                instead_of.askers -= 1
                if not instead_of.askers and not instead_of.finished:
                    instead_of.stop()
            found = self._shelf.get(key, lambda: FullSearch(task, labels))
            found.askers += 1
            return found

    def start(self, search: FullSearch) -> None:
        """Let a search run, once."""
        self._shelf.start(search)


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
