"""The sandbox's task profile, and rows of it with their right answers."""

from __future__ import annotations

import json

from advisor.catalog.locations import PROFILES
from advisor.errors import InputError
from advisor.quality.labels import LoggedRow
from advisor.task import TaskProfile
from advisor.trial.sandbox.requests import Split, request

TASK_FILE = PROFILES / "tasks" / "sandbox-service-desk.yaml"


def sandbox_task() -> TaskProfile:
    """The task profile of the sandbox."""
    return TaskProfile.load(TASK_FILE)


def rows(split: Split = "held_out", n: int = 500, seed: int = 0) -> tuple[LoggedRow, ...]:
    """Labelled rows of the sandbox task, without any model's answers.

    Args:
        split: held_out (pairs of intent and item never trained, familiar wording) or
            unseen_wording (trained pairs in wording never trained); train for training.
        n: how many; rows of the same split and seed begin alike whatever n is.
        seed: from 0; the card's figures are of the seed it names.

    Raises:
        InputError: no such split, or a negative count or seed (those are the training's own).
    """
    if n < 0 or seed < 0:
        raise InputError(f"rows: n = {n}, seed = {seed}: neither may be negative")
    return tuple(_row(split, seed, index) for index in range(n))


def _row(split: Split, seed: int, index: int) -> LoggedRow:
    drawn = request(split, seed, index)
    expected = json.loads(drawn.expected)
    return LoggedRow(
        id=f"{split}-{seed}-{index}",
        outputs={},
        input=drawn.text,
        expected=expected,
        risk=drawn.risk,
        type=expected["intent"],
    )
