"""Background work: how it ends, what is kept of it, and who shares it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from advisor.errors import InputError
from advisor.screens.background import Job, Shelf, Slot, StoppedError
from advisor.screens.search import Archive
from advisor.task import TaskProfile

PATIENCE_S = 10


class Sum(Job):
    """Adds when it is let; or does whatever it is given."""

    noun = "sum"

    def __init__(self, *numbers: int, instead: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.numbers = numbers
        self.total: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        self._instead = instead

    def work(self) -> None:
        self.step = "adding"
        self.gate.wait(PATIENCE_S)
        if self.ending.is_set():
            raise StoppedError
        if self._instead is not None:
            self._instead()
        self.total = sum(self.numbers)


def held(*numbers: int) -> Sum:
    job = Sum(*numbers)
    job.gate.clear()
    return job


def ended(job: Job) -> Job:
    until = time.monotonic() + PATIENCE_S
    while not job.finished:
        assert time.monotonic() < until, "it did not end"
        time.sleep(0.005)
    return job


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_work_ends_with_its_result() -> None:
    job = Sum(1, 2, 3)
    assert not job.finished
    job.run()
    assert job.finished
    assert (job.total, job.problem) == (6, None)


def test_a_mistake_of_the_user_is_told_in_its_own_words() -> None:
    job = Sum(instead=raising(InputError("labels.csv line 3: 'x' is not a number")))
    job.run()
    assert job.finished
    assert job.problem == "labels.csv line 3: 'x' is not a number"


def test_a_mistake_of_the_program_goes_to_the_log_and_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = Sum(instead=raising(ZeroDivisionError("secret detail")))
    with caplog.at_level(logging.ERROR):
        job.run()
    assert job.problem == "The sum failed; the app's log says where."
    assert "secret detail" in caplog.text


def test_a_thread_that_dies_leaves_no_page_waiting() -> None:
    """`SystemExit` is no `Exception`: it ends the thread, and yet the job says that it failed."""
    shelf = Shelf[Sum]("sums", most_kept=4)
    dying, next_one = Sum(instead=raising(SystemExit(1))), Sum(1)
    for name, job in (("dying", dying), ("next", next_one)):
        shelf.start(shelf.get(name, lambda job=job: job))  # type: ignore[misc]
    assert ended(dying).problem == "The sum failed; the app's log says where."
    assert ended(next_one).problem is None, "the worker goes on"


def test_work_that_is_stopped_ends_without_a_result() -> None:
    slot, job = Slot[Sum]("sums"), held(1)
    assert slot.start(job)
    job.stop()
    assert job.stopping
    job.gate.set()
    assert ended(job).problem == "The sum was stopped."
    assert not job.stopping


def test_a_slot_has_room_for_one() -> None:
    slot, first, second = Slot[Sum]("sums"), held(1), Sum(2)
    assert slot.start(first)
    assert not slot.start(second)
    assert slot.current is first
    first.gate.set()
    ended(first)
    assert slot.start(second)
    assert ended(second) is slot.current
    assert second.total == 2


def test_a_shelf_makes_each_job_once_and_runs_it_once() -> None:
    shelf = Shelf[Sum]("sums", most_kept=4)
    job = shelf.get("1+2", lambda: Sum(1, 2))
    assert not job.finished, "nothing runs before it is started"
    shelf.start(job)
    shelf.start(job)
    ended(job)
    job.total = 0
    shelf.start(job)
    assert shelf.get("1+2", lambda: Sum(9)) is job
    assert job.total == 0, "it did not run again"


def test_a_shelf_works_in_turn() -> None:
    shelf, first, second = Shelf[Sum]("sums", most_kept=4), held(1), Sum(2)
    for name, job in (("first", first), ("second", second)):
        shelf.start(shelf.get(name, lambda job=job: job))  # type: ignore[misc]
    time.sleep(0.05)
    assert not second.finished
    first.gate.set()
    assert ended(second).problem is None
    assert first.finished


def test_ended_jobs_leave_the_shelf_the_least_wanted_first() -> None:
    shelf = Shelf[Sum]("sums", most_kept=2)
    jobs = {name: shelf.get(name, Sum) for name in ("a", "b", "c")}
    for job in jobs.values():
        shelf.start(job)
        ended(job)
    shelf.get("a", Sum)
    # b is the least recently asked for of three, of which two stay.
    assert shelf.get("a", Sum) is jobs["a"]
    assert shelf.get("c", Sum) is jobs["c"]
    assert shelf.get("b", Sum) is not jobs["b"]


def test_a_job_under_way_never_leaves_the_shelf() -> None:
    shelf, slow = Shelf[Sum]("sums", most_kept=1), held(1)
    shelf.start(shelf.get("slow", lambda: slow))
    for name in "abc":
        shelf.get(name, Sum).run()
    assert shelf.get("slow", Sum) is slow
    slow.gate.set()
    ended(slow)


@pytest.mark.parametrize("retried", [False, True])
def test_what_failed_is_made_anew_only_where_that_is_wanted(retried: bool) -> None:
    shelf = Shelf[Sum]("sums", most_kept=4, retried=retried)
    failed = shelf.get("x", lambda: Sum(instead=raising(InputError("no"))))
    failed.run()
    assert (shelf.get("x", Sum) is failed) is not retried


def test_a_search_gives_way_only_when_nobody_waits_for_it() -> None:
    """Two sessions ask the same; when one goes on to another task, the other keeps its search."""
    archive, one, other = Archive(), task("one"), task("other")
    first = archive.search(one)
    assert archive.search(one) is first, "the second session shares it"
    later = archive.search(other, instead_of=first)
    assert later is not first
    assert not first.ending.is_set()
    archive.search(other, instead_of=first)
    assert first.ending.is_set()
    assert archive.search(one) is not first, "what was given up is not handed out again"


def task(name: str) -> TaskProfile:
    return TaskProfile.from_yaml(f"""
name: {name}
task: {{type: classification, output: label, labels: [red, green]}}
quality: {{metric: exact_match, threshold: 0.9}}
traffic: {{requests_per_day: 1000, input_tokens: 8, output_tokens: 1}}
""")


def watching() -> None:
    import streamlit as st

    from advisor.screens.background import watch

    job = st.session_state["job"]
    if job.finished:
        st.write("drawn")
    else:
        watch(job, "Counting")


def test_a_page_says_what_runs_and_is_drawn_when_it_has_ended() -> None:
    app = AppTest.from_function(watching)
    job = Sum(1, 2)
    app.session_state["job"] = job
    assert "Counting…" in app.run().markdown[0].value
    job.step = "adding"
    assert "Counting: adding…" in app.run().markdown[0].value
    job.run()
    assert app.run().markdown[0].value == "drawn"
