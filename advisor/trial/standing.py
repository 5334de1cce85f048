"""A trial judged as it stands, from its records alone: one that was killed, or sent by others.

What lived only in the process that ran it is gone: calibration figures, the threshold's basis and
the servers' own counts. Requirements, and measured beside projected where a projection was written,
are all there.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.documents import validate
from advisor.errors import InputError
from advisor.task import TaskProfile
from advisor.trial.projecting.projection import LoadProjection
from advisor.trial.records import ARMS
from advisor.trial.reporting.comparing import comparisons
from advisor.trial.reporting.measured import ArmMeasurement, measure, why_invalid
from advisor.trial.reporting.report import LoadReport, TrialReport, TrialSettings
from advisor.trial.reporting.verdict import summary_of, verdicts
from advisor.trial.store import TrialStore


def task_of(store: TrialStore, trial: str) -> TaskProfile:
    """The task that a trial was for.

    Raises:
        InputError: no such trial, or it does not say.
    """
    store.summary(trial)
    document = store.document(trial, "task")
    if document is None:
        raise InputError(f"trial {trial} holds no task")
    return TaskProfile.from_mapping(document, what=f"task of trial {trial}")


def judge_as_it_stands(store: TrialStore, trial: str) -> TrialReport:
    """The report of a trial that ended without one; it is kept.

    Raises:
        InputError: no such trial, it is running, or it holds nothing to judge.
    """
    summary = store.summary(trial)
    if summary.state == "running":
        raise InputError(f"trial {trial} is running: stop it first")
    task = task_of(store, trial)
    document = store.document(trial, "settings")
    settings = validate(TrialSettings, document, what=f"settings of trial {trial}")
    cascade = settings.policy == "cascade"
    projections, load = _projected(store, trial)
    measurements = _measured(store, trial, cascade=cascade)
    router = measurements.get("router")
    cost = router.cost_usd_per_request if router else None
    judged = verdicts(task, store.requests(trial, "router"), cost=cost, cascade=cascade)
    invalid = why_invalid(measurements)
    began = {arm.name: arm.began_epoch_s for arm in summary.arms}
    report = TrialReport(
        trial=trial,
        task=task.name,
        state=summary.state,
        note=summary.note,
        valid=not invalid,
        invalid_because=invalid,
        summary=summary_of(judged, invalid=invalid),
        settings=settings,
        endpoints=(),
        calibration={},
        threshold=None,
        load=load,
        projection_written_epoch_s=store.written_epoch_s(trial, "projection"),
        load_began_epoch_s=began.get("router"),
        projections=dict(projections),
        measurements=measurements,
        comparisons=comparisons(projections, measurements),
        verdicts=judged,
        attributions=(),
        advice_before=None,
        advice=None,
        what_changed="",
        splits=(),
        servers={},
        cost_basis="as the records say, at calibration's prices or the router's",
        wall_s=(summary.ended_epoch_s or summary.created_epoch_s) - summary.created_epoch_s,
    )
    store.put_document(trial, "report", report.model_dump(mode="json"))
    return report


def _projected(
    store: TrialStore, trial: str
) -> tuple[Mapping[str, LoadProjection], LoadReport | None]:
    document = store.document(trial, "projection")
    if document is None:
        return {}, None
    arms = {
        name: validate(LoadProjection, value, what=f"projection of trial {trial}")
        for name, value in document["arms"].items()
    }
    return arms, validate(LoadReport, document["load"], what=f"load of trial {trial}")


def _measured(store: TrialStore, trial: str, *, cascade: bool) -> dict[str, ArmMeasurement]:
    return {
        arm.name: measure(
            arm.name,
            store.requests(trial, arm.name),
            arm.requests,
            cascade=cascade and arm.name == "router",
        )
        for arm in store.arms(trial)
        if arm.name in ARMS and arm.requests.completed
    }
