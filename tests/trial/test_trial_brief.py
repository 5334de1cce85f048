"""A load that is stated to be short is learned for briefly: endpoints may cost money."""

from __future__ import annotations

import pytest

from advisor.trial.data import TrialRow
from advisor.trial.endpoints import Endpoint
from advisor.trial.projecting.calibration import loop_requests
from advisor.trial.setup import Setup

ROWS = tuple(TrialRow(str(n), ({"role": "user", "content": "?"},)) for n in range(400))
SETUP = Setup(
    slm=Endpoint("slm", "http://127.0.0.1:1/v1", "small"),
    llm=Endpoint("llm", "http://127.0.0.1:2/v1", "large"),
    calibration_rows=ROWS,
    test_rows=ROWS,
    unseen_rows=ROWS[:200],
    notes=(),
    cost_basis="",
)


@pytest.mark.parametrize(
    ("requests", "rows", "unseen"),
    [(None, 400, 200), (5, 100, 100), (60, 120, 120), (150, 300, 200), (1000, 400, 200)],
)
def test_two_rows_are_learned_from_for_each_request_and_never_fewer_than_a_hundred(
    requests: int | None, rows: int, unseen: int
) -> None:
    found = SETUP.for_requests(requests)

    assert (len(found.calibration_rows), len(found.unseen_rows)) == (rows, unseen)
    assert found.test_rows == ROWS


def test_a_closed_loop_is_no_longer_than_the_load_but_its_users_are_busy() -> None:
    """25 requests a user and at least 120; of a short load as many, or 6 a user."""
    assert [loop_requests(users, None) for users in (2, 4, 8, 16)] == [120, 120, 200, 400]
    assert [loop_requests(users, 60) for users in (2, 4, 8, 16)] == [60, 60, 60, 96]
    assert [loop_requests(users, 5000) for users in (2, 4, 8, 16)] == [120, 120, 200, 400]
