"""A whole trial: calibrate, project, write the projection down, load, judge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from advisor.errors import InputError
from advisor.serving.arrivals import Arrivals, Poisson
from advisor.task import TaskProfile
from advisor.trial.arms import Trial
from advisor.trial.data import TrialRow
from advisor.trial.endpoints import Endpoint
from advisor.trial.judging import Judging
from advisor.trial.reporting.assembly import Reporting
from advisor.trial.reporting.report import POLICIES, PolicyChoice, TrialReport, TrialSettings
from advisor.trial.sandbox.launch import ENGINES, EngineName
from advisor.trial.session import Announce, Session, StoppedError
from advisor.trial.setup import Setup, endpoint_setup, sandbox_setup
from advisor.trial.store import TrialStore, default_path
from advisor.trial.watching.traces import SpanReceiver


def run_trial(
    task: TaskProfile,
    *,
    sandbox: bool = False,
    engine: EngineName = "ctranslate2",
    slm: Endpoint | None = None,
    llm: Endpoint | None = None,
    data: Path | Sequence[TrialRow] | None = None,
    policy: PolicyChoice = "cascade",
    rate_per_s: float | None = None,
    load: float | None = None,
    requests: int | None = None,
    arrivals: Arrivals | None = None,
    budget_usd: float | None = None,
    early_stop: bool | None = None,
    seed: int = 0,
    records: Path | None = None,
    keys: Mapping[str, str] | None = None,
    announce: Announce | None = None,
    on_begin: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    otlp: str | None = None,
) -> TrialReport:
    """Run a live trial of the router on two endpoints, and judge it beside its projection.

    Args:
        task: what is required.
        sandbox: on the two models that ship, served here by `engine`; else `slm`, `llm` and `data`.
        data: rows, or a JSONL or CSV file of them.
        policy: cascade, or one model alone behind the router.
        rate_per_s: of the load. None: the sandbox gets `load` times its measured capacity (a half),
            endpoints the task's busiest hour.
        requests: of the router's arm; the two models alone get a third of its time each, and for a
            short load the calibration is brief too. None: as many as half a minute has room for.
        arrivals: another process than Poisson; its rate is set as above.
        budget_usd: cap on what the trial may spend at known prices.
        early_stop: end the router's arm once every requirement is decided. None: where requests may
            cost something, and so not in the sandbox, where all of the load is to show how far off
            the projection was.
        records: the trial records' file.
        keys: values of environment variables for the children that send; never written.
        announce: told what happens, in words.
        on_begin: told the trial's id before anything is sent.
        stop: ends the trial when it is set; what was measured is judged.
        otlp: `[HOST:]PORT` where OpenTelemetry spans of the endpoints are received
            (`advisor.trial.watching.traces`); None: none are.

    Raises:
        InputError: what was asked for cannot be done, in one line.
    """
    begin_s = time.monotonic()
    announce = announce or _silence
    _check(policy, rate_per_s=rate_per_s, load=load, requests=requests, budget_usd=budget_usd)
    if seed < 0:
        raise InputError(f"seed = {seed}: a whole number of at least 0 is expected")
    settings = TrialSettings(
        sandbox=sandbox,
        engine=engine if sandbox else None,
        slm=_named(slm, "sandbox-small"),
        llm=_named(llm, "sandbox-large"),
        policy=policy,
        data=str(data) if isinstance(data, Path) else "sandbox" if sandbox else "rows",
        requests=requests,
        rate_per_s=rate_per_s,
        load=load if rate_per_s is None else None,
        arrivals=type(arrivals or Poisson(1.0)).__name__,
        budget_usd=budget_usd,
        early_stop=not sandbox if early_stop is None else early_stop,
        seed=seed,
    )
    keys = dict(keys or {})
    announce("starting the endpoints" if sandbox else "checking the endpoints and the data")
    with (
        _receiver(otlp) as spans,
        TrialStore(records or default_path()) as store,
        _setup(task, settings, slm, llm, data, keys, spans) as setup,
    ):
        trial = store.begin(task.name, settings.model_dump(mode="json"))
        store.put_document(trial, "task", task.to_mapping())
        try:
            if on_begin is not None:
                on_begin(trial)
            if spans is not None:
                announce(f"spans are received at {spans.url('slm')} and {spans.url('llm')}")
            session = Session(
                store=store,
                trial=trial,
                task=task,
                rows=setup.rows,
                judging=Judging(task, setup.rows),
                keys=keys,
                announce=announce,
                stop=stop or threading.Event(),
                budget_usd=budget_usd,
            )
            run = Trial(session, setup, settings, arrivals, spans)
            note = ""
            try:
                run.everything()
            except StoppedError as reason:
                note = str(reason)
            report = Reporting(run).report(note=note, wall_s=time.monotonic() - begin_s)
            store.put_document(trial, "report", report.model_dump(mode="json"))
            store.finish(trial, report.state, note)
        except BaseException as error:
            _interrupted(store, trial, error)
            raise
    return report


def _interrupted(store: TrialStore, trial: str, error: BaseException) -> None:
    """Close a trial that ends with an error; the error itself is what the user is told."""
    note = str(error) if isinstance(error, InputError) else f"ended by {type(error).__name__}"
    try:
        store.finish(trial, "interrupted", " ".join(note.split())[:300])
    except InputError:
        # The records cannot be written (a full disk); the file's next opening closes the trial.
        return


def _receiver(otlp: str | None) -> AbstractContextManager[SpanReceiver | None]:
    if otlp is None:
        return nullcontext()
    host, _, port = otlp.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise InputError(f"--otlp {otlp}: [HOST:]PORT is expected, e.g. 4318")
    return SpanReceiver(host=host.strip("[]") or "127.0.0.1", port=int(port))


def _setup(
    task: TaskProfile,
    settings: TrialSettings,
    slm: Endpoint | None,
    llm: Endpoint | None,
    data: Path | Sequence[TrialRow] | None,
    keys: Mapping[str, str],
    spans: SpanReceiver | None,
) -> AbstractContextManager[Setup]:
    if settings.sandbox:
        if slm is not None or llm is not None or data is not None:
            raise InputError("the sandbox brings its own endpoints and rows: give no others")
        if settings.engine not in ENGINES:
            raise InputError(f"engine = {settings.engine}: one of {', '.join(ENGINES)} is expected")
        return sandbox_setup(settings.engine, seed=settings.seed, spans=spans)
    if slm is None or llm is None:
        raise InputError("a trial needs the sandbox, or a small and a large endpoint")
    if data is None:
        raise InputError("a trial of your own endpoints needs rows to send: --data LOG.jsonl")
    return endpoint_setup(
        task,
        slm,
        llm,
        data,
        seed=settings.seed,
        needs_logprobs=settings.policy == "cascade",
        keys=keys,
    )


def _check(
    policy: str,
    *,
    rate_per_s: float | None,
    load: float | None,
    requests: int | None,
    budget_usd: float | None,
) -> None:
    if policy not in POLICIES:
        raise InputError(f"policy = {policy}: one of {', '.join(POLICIES)} is expected")
    if rate_per_s is not None and not 0 < rate_per_s <= 1e5:
        raise InputError(f"rate = {rate_per_s:g}: requests a second above 0 are expected")
    if load is not None and not 0 < load < 2:
        raise InputError(f"load = {load:g}: a share of the capacity above 0 and below 2")
    if requests is not None and not 1 <= requests <= 1_000_000:
        raise InputError(f"requests = {requests}: from 1 to 1,000,000 are expected")
    if budget_usd is not None and not budget_usd > 0:
        raise InputError(f"budget = {budget_usd:g}: dollars above 0 are expected")


def _named(endpoint: Endpoint | None, default: str) -> str:
    return default if endpoint is None else f"{endpoint.model} at {endpoint.base_url}"


def _silence(_: str) -> None:
    """Nobody listens."""
