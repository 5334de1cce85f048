"""Work in the background: a page never waits for it, and is drawn again once it has ended."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Generic, TypeVar

import streamlit as st

from advisor.errors import AdvisorError

_LOG = logging.getLogger(__name__)


class StoppedError(Exception):
    """Raised by work that was told to stop and has nothing to show."""


class Job(ABC):
    """One piece of work: waiting, under way, or ended with a result or a reason why not."""

    noun: ClassVar[str]
    """What it is, in a word: the search, the trial."""

    def __init__(self) -> None:
        self.step = ""
        """What it is doing, in words."""
        self.problem: str | None = None
        """Why there is no result, in one line."""
        self.ending = threading.Event()
        """Set once it should end early; the work looks at it."""
        self._done = threading.Event()

    @abstractmethod
    def work(self) -> None:
        """Do it, in a worker thread, and keep the result."""

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._done.is_set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop and has not ended yet."""
        return self.ending.is_set() and not self.finished

    def stop(self) -> None:
        """Ask it to end early."""
        self.ending.set()

    def run(self) -> None:
        """Work to the end, whatever that is: no page waits for a thread that died."""
        problem: str | None = f"The {self.noun} failed; the app's log says where."
        try:
            self.work()
            problem = None
        except StoppedError:
            problem = f"The {self.noun} was stopped."
        except AdvisorError as error:
            problem = str(error)
        except Exception:
            _LOG.exception("the %s failed", self.noun)
        finally:
            self.problem = problem
            self._done.set()


Kind = TypeVar("Kind", bound=Job)


class Shelf(Generic[Kind]):
    """Jobs by what they answer, shared by the sessions of one server, done one after another."""

    def __init__(self, thread_name: str, *, most_kept: int, retried: bool = False) -> None:
        """An empty shelf.

        Args:
            thread_name: of its worker.
            most_kept: ended jobs that stay; the least recently asked for go first.
            retried: whether a job that ended without a result is made anew when it is asked for.
        """
        self.lock = threading.RLock()
        """Reentrant: who holds it may take several steps as one."""
        self._jobs: OrderedDict[str, Kind] = OrderedDict()
        self._started: set[Kind] = set()
        self._most_kept = most_kept
        self._retried = retried
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread_name)

    def get(self, key: str, make: Callable[[], Kind]) -> Kind:
        """The job of a key, perhaps still to be started; a new one where there is none."""
        with self.lock:
            found = self._jobs.get(key)
            if found is None or found.ending.is_set() or (self._retried and found.problem):
                found = self._jobs[key] = make()
            self._jobs.move_to_end(key)
            self._clear()
            return found

    def start(self, job: Kind) -> None:
        """Let a job run when its turn comes; once, however often this is called."""
        with self.lock:
            if job not in self._started and not job.finished:
                self._started.add(job)
                self._worker.submit(self._run, job)

    def _run(self, job: Kind) -> None:
        try:
            job.run()
        finally:
            with self.lock:
                self._started.discard(job)

    def _clear(self) -> None:
        ended = [key for key, job in self._jobs.items() if job.finished]
        for key in ended[: max(0, len(ended) - self._most_kept)]:
            del self._jobs[key]


class Slot(Generic[Kind]):
    """Room for one job on this server: two at once would disturb each other's measurements."""

    def __init__(self, thread_name: str) -> None:
        self.current: Kind | None = None
        """The job under way, or the last one."""
        self._thread_name = thread_name
        self._lock = threading.Lock()

    def start(self, job: Kind) -> bool:
        """Start a job; False where another is under way."""
        with self._lock:
            if self.current is not None and not self.current.finished:
                return False
            threading.Thread(target=job.run, name=self._thread_name, daemon=True).start()
            self.current = job
            return True


@st.fragment(run_every=0.4)
def watch(job: Job, message: str) -> None:
    """Say what a running job does; draw the page again when it has ended."""
    if job.finished:
        st.rerun()
    said = f"{message}: {job.step}…" if job.step else f"{message}…"
    st.badge(said, icon=":material/progress_activity:", color="blue")
