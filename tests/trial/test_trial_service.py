"""Queues of measured endpoints, against a slow obvious reference and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.trial.projecting.service import MeasuredService, fifo_finish, sharing_finish

arrays = st.lists(st.tuples(st.floats(0, 10), st.floats(0.001, 5)), min_size=1, max_size=40).map(
    lambda pairs: (np.sort([a for a, _ in pairs]), np.array([w for _, w in pairs]))
)


@given(arrays)
def test_fifo_is_the_recursion_of_lindley(load: tuple[np.ndarray, np.ndarray]) -> None:
    sent, hold = load
    free, expected = 0.0, []
    for arrival, service in zip(sent, hold, strict=True):
        free = max(arrival, free) + service
        expected.append(free)

    assert fifo_finish(sent, hold) == pytest.approx(expected, rel=1e-9)


def slow_sharing(
    sent: np.ndarray, work: np.ndarray, users: np.ndarray, slowdown: np.ndarray
) -> list[float]:
    """From event to event, every request's remaining work kept by itself."""
    left, finish, now = {}, [0.0] * len(sent), 0.0
    coming = list(range(len(sent)))
    most = users[-1]
    while coming or left:
        n = len(left)
        pace = 1 / np.interp(n, users, slowdown) if n <= most else most / (slowdown[-1] * n)
        ends = now + min(left.values()) / pace if left else np.inf
        arrives = sent[coming[0]] if coming else np.inf
        step = min(ends, arrives) - now
        left = {i: w - step * pace for i, w in left.items()}
        now += step
        if ends <= arrives:
            first = min(left, key=lambda i: left[i])
            finish[first] = now
            del left[first]
        else:
            i = coming.pop(0)
            left[i] = work[i]
    return finish


@settings(deadline=None)
@given(arrays, st.lists(st.floats(0, 2), min_size=1, max_size=3))
def test_sharing_is_the_slow_reference(
    load: tuple[np.ndarray, np.ndarray], rises: list[float]
) -> None:
    users = np.array([1.0, *(2.0 + 2 * k for k in range(len(rises)))])
    slowdown = 1 + np.concatenate([[0.0], np.cumsum(rises)])
    sent, work = load

    found = sharing_finish(sent, work, users, slowdown)

    assert found == pytest.approx(slow_sharing(sent, work, users, slowdown), rel=1e-6, abs=1e-6)


def test_two_at_once_by_hand() -> None:
    """Both come at 0 with 1 s of work, and two at a time are half as fast: both end at 2 s.
    One at a time the first ends at 1 s. Without slowdown nobody waits at all."""
    sent, work = np.zeros(2), np.ones(2)

    assert sharing_finish(sent, work, np.array([1.0, 2.0]), np.array([1.0, 2.0])) == (
        pytest.approx([2.0, 2.0])
    )
    assert sharing_finish(sent, work, np.array([1.0, 2.0]), np.ones(2)) == pytest.approx([1, 1])
    assert fifo_finish(sent, work) == pytest.approx([1.0, 2.0])


def test_only_the_busy_share_of_the_time_alone_is_queued_for() -> None:
    """1 s alone of which 0.4 s hold the server: the second starts 0.4 s late and ends at 1.4 s."""
    service = MeasuredService.one_at_a_time(0.4)

    finish = service.serve(np.zeros((1, 2)), np.ones((1, 2)))

    assert finish[0] == pytest.approx([1.0, 1.4])
    assert service.sustainable_per_s(1.0) == pytest.approx(2.5)


def test_the_rate_a_sharing_server_sustains_is_the_best_it_was_measured_at() -> None:
    """4 users at twice the time alone: 2 requests a unit of time; 8 users at 5 times: 1.6."""
    service = MeasuredService("sharing", 1.0, np.array([1.0, 4.0, 8.0]), np.array([1.0, 2.0, 5.0]))

    assert service.sustainable_per_s(0.5) == pytest.approx(4.0)
