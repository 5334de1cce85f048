"""Accuracy on rows whose wording the sandbox's models never saw, beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from advisor.decide.recommendation import Role
from advisor.trial.data import TrialRow
from advisor.trial.projecting.calibration import EndpointCalibration
from advisor.trial.reporting.report import SplitQuality
from advisor.trial.session import Session

LEAST_ANSWERED = 0.95
"""Share of a set of rows that must be answered for an accuracy to be stated."""

USERS = 2


def unseen_wording(
    session: Session, rows: Sequence[TrialRow], calibrations: Mapping[Role, EndpointCalibration]
) -> tuple[SplitQuality, ...]:
    """Both models on the same rows; empty where there are none, or too few are answered.

    Raises:
        StoppedError: the trial was told to end.
        InputError: the records cannot be written.
    """
    if not rows:
        return ()
    session.announce(f"unseen wording: {len(rows):,} rows to each model")
    found = {}
    for role, calibration in calibrations.items():
        endpoint = calibration.endpoint
        result = session.send(
            f"unseen_wording_{role}",
            endpoint.base_url,
            endpoint.model,
            rows,
            concurrency=USERS,
            stream=False,
            price=endpoint.price,
        )
        answered = [one.correct or 0.0 for one in result.records if one.status == "completed"]
        if len(answered) < LEAST_ANSWERED * len(rows):
            session.announce(
                f"{role} answered {len(answered):,} of {len(rows):,} of them: no accuracy"
            )
            return ()
        found[role] = float(np.mean(answered))
    return (
        SplitQuality(split="unseen wording", rows=len(rows), slm=found["slm"], llm=found["llm"]),
    )
