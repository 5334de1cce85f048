"""Records of a load that another tool sent (Locust), judged as a trial's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from advisor.errors import InputError
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow
from advisor.trial.judging import Judging
from advisor.trial.load.driver import Outcome
from advisor.trial.load.load_scripts import read_records
from advisor.trial.load.plan import LoadPlan
from advisor.trial.records import RequestRecord
from advisor.trial.reporting.report import TrialReport, TrialSettings
from advisor.trial.standing import judge_as_it_stands
from advisor.trial.store import TrialStore

_FIELDS = {field.name for field in fields(RequestRecord)} - {"number", "row_id", "scheduled_s"}


def import_load(
    store: TrialStore, task: TaskProfile, rows: Sequence[TrialRow], folder: Path
) -> TrialReport:
    """Keep and judge what `records-*.jsonl` beside a `plan.json` say.

    There is no projection to compare with, since nothing was calibrated.

    Raises:
        InputError: files that are not there, are something else, or rows that are not the plan's.
    """
    try:
        plan = LoadPlan.read(folder / "plan.json")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: no plan.json of a load: {error}") from None
    files = sorted(folder.glob("records-*.jsonl"))
    if not files:
        raise InputError(f"{folder}: no records-*.jsonl; run the Locust file there first")
    found, began_epoch_s = read_records(files)
    by_id = {row.id: row for row in rows}
    missing = next((one.row_id for one in plan.requests if one.row_id not in by_id), None)
    if missing is not None:
        raise InputError(f"the plan asks row {missing}, which the data does not have")
    planned = {
        one.number: RequestRecord(one.number, one.row_id, one.scheduled_s) for one in plan.requests
    }
    judging = Judging(task, by_id)
    ended = [judging(Outcome(_ended(planned, value))) for value in found]
    settings = _settings(plan, folder)
    trial = store.begin(task.name, settings.model_dump(mode="json"))
    store.put_document(trial, "task", task.to_mapping())
    store.plan(trial, "router", planned.values())
    if began_epoch_s is not None:
        store.begin_arm(trial, "router", began_epoch_s)
    store.record(trial, "router", ended)
    store.close_arm(trial, "router", "the tool wrote no record of it")
    store.finish(trial, "finished", f"imported from {folder.name}: nothing was projected")
    return judge_as_it_stands(store, trial)


def _ended(planned: dict[int, RequestRecord], value: dict[str, Any]) -> RequestRecord:
    number = value.get("number")
    if number not in planned:
        raise InputError(f"a record of request {number}, which the plan does not have")
    known = {name: given for name, given in value.items() if name in _FIELDS}
    return replace(planned[number], **known)


def _settings(plan: LoadPlan, folder: Path) -> TrialSettings:
    return TrialSettings(
        sandbox=False,
        engine=None,
        slm=f"behind {plan.base_url}",
        llm=f"behind {plan.base_url}",
        policy="cascade",
        data=str(folder),
        requests=len(plan.requests),
        rate_per_s=len(plan.requests) / plan.lasts_s if plan.lasts_s else None,
        load=None,
        arrivals="as planned",
        budget_usd=None,
        early_stop=False,
        seed=0,
    )
