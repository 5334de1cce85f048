"""Go on with a trial that was killed during its router's load: what was never sent is sent now.

The threshold, the prices and the projection are those of the trial's own calibration; of the
sandbox, the models are served anew. The arm's clock goes on where the first request that was never
sent would have been due, so that the pause is in no figure.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from advisor.documents import validate
from advisor.errors import InputError
from advisor.router.config import RouterConfig
from advisor.trial.data import TrialRow, read_rows
from advisor.trial.judging import Judging
from advisor.trial.records import RequestRecord
from advisor.trial.reporting.report import TrialReport, TrialSettings
from advisor.trial.router_process import RouterProcess
from advisor.trial.sandbox.launch import ENGINES
from advisor.trial.session import Announce, Session, StoppedError
from advisor.trial.setup import sandbox_setup
from advisor.trial.standing import judge_as_it_stands, task_of
from advisor.trial.store import TrialStore, default_path


def resume_trial(
    trial: str,
    *,
    records: Path | None = None,
    keys: Mapping[str, str] | None = None,
    announce: Announce | None = None,
    stop: threading.Event | None = None,
) -> TrialReport:
    """Send what a trial's router never got, and judge the whole as it stands.

    Raises:
        InputError: no such trial, it is running or whole, or it was cut off before its load.
    """
    with TrialStore(records or default_path()) as store:
        waiting = _waiting(store, trial)
        task = task_of(store, trial)
        document = store.document(trial, "settings")
        settings = validate(TrialSettings, document, what=f"settings of trial {trial}")
        announce = announce or (lambda _: None)
        with _running(store, trial, settings) as (config, rows):
            session = Session(
                store=store,
                trial=trial,
                task=task,
                rows=rows,
                judging=Judging(task, rows),
                keys=dict(keys or {}),
                announce=announce,
                stop=stop or threading.Event(),
                budget_usd=settings.budget_usd,
                spent_usd=_spent(store, trial),
            )
            announce(f"resuming: {len(waiting):,} requests were never sent")
            note = _send(session, config, waiting)
        store.finish(trial, "stopped" if note else "finished", note)
        return judge_as_it_stands(store, trial)


def _waiting(store: TrialStore, trial: str) -> tuple[RequestRecord, ...]:
    """The router's requests that were never sent."""
    if store.summary(trial).state == "running":
        raise InputError(f"trial {trial} is running")
    if store.document(trial, "router") is None or not store.requests(trial, "router"):
        raise InputError(f"trial {trial} was cut off before its load began: start it anew")
    found = tuple(
        record
        for record in store.requests(trial, "router")
        if record.status == "cancelled" and record.sent_s is None and record.scheduled_s is not None
    )
    if not found:
        raise InputError(f"trial {trial}: every request was sent; there is nothing to resume")
    return found


def _send(session: Session, config: RouterConfig, waiting: tuple[RequestRecord, ...]) -> str:
    """Send them; returns why they were not all sent, empty where they were."""
    due = [record.scheduled_s or 0.0 for record in waiting]
    rows = [session.rows[record.row_id] for record in waiting]
    with RouterProcess(config, keys=session.keys) as router:
        session.store.reopen_arm(session.trial, "router")
        try:
            session.send(
                "router",
                router.base_url,
                "advisor",
                rows,
                times_s=[time_s - due[0] for time_s in due],
                numbers=[record.number for record in waiting],
                resumed_at_s=due[0],
            )
        except StoppedError as reason:
            return str(reason)
    return ""


@contextmanager
def _running(
    store: TrialStore, trial: str, settings: TrialSettings
) -> Iterator[tuple[RouterConfig, Mapping[str, TrialRow]]]:
    """The router's configuration on endpoints that answer, and the rows by id."""
    document = store.document(trial, "router")
    config = validate(RouterConfig, document, what=f"router of trial {trial}")
    if not settings.sandbox:
        if not Path(settings.data).is_file():
            raise InputError(f"trial {trial}: its rows ({settings.data}) are not there any more")
        yield config, {row.id: row for row in read_rows(Path(settings.data))}
        return
    assert settings.engine in ENGINES
    with sandbox_setup(settings.engine, seed=settings.seed) as setup:
        assert config.slm is not None
        assert config.llm is not None
        slm = config.slm.model_copy(update={"base_url": setup.slm.base_url})
        llm = config.llm.model_copy(update={"base_url": setup.llm.base_url})
        yield config.model_copy(update={"slm": slm, "llm": llm}), setup.rows


def _spent(store: TrialStore, trial: str) -> float:
    """USD that the trial has spent before."""
    return sum(
        record.cost_usd or 0.0
        for arm in store.arms(trial)
        for record in store.requests(trial, arm.name)
    )
