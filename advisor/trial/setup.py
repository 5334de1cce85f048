"""What a trial runs on: two endpoints and rows, of the sandbox or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from advisor.decide.recommendation import Role
from advisor.errors import InputError
from advisor.quality.labels import LoggedRow
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow, check_rows, read_rows, split_rows
from advisor.trial.endpoints import Endpoint, EndpointFinding, check_endpoint
from advisor.trial.judging import Price
from advisor.trial.reporting.report import EndpointNote
from advisor.trial.sandbox import SandboxServer
from advisor.trial.sandbox import rows as sandbox_rows
from advisor.trial.sandbox.launch import EngineName, launch
from advisor.trial.watching.server_metrics import ServerFigures
from advisor.trial.watching.traces import ROLES, SpanReceiver

USD_PER_CORE_HOUR = 0.04
"""Assumed, for the sandbox's money: about what clouds charge for one virtual CPU of a
general-purpose machine, on demand."""

SANDBOX_CALIBRATION_ROWS: Mapping[EngineName, int] = {"ctranslate2": 600, "vllm": 300}
"""vLLM on a processor takes about ten times as long for one."""

SANDBOX_TEST_ROWS = 4000
SANDBOX_UNSEEN_ROWS = 200
SANDBOX_REHEARSAL_ROWS = 1000
SANDBOX_SEEDS = (41_000, 42_000, 43_000, 44_000)
"""Of the calibration rows, the rows tried, the unseen wording and the rehearsals, plus the trial's
own seed: apart from those of the models' card."""

LEAST_CALIBRATION_ROWS = 100
CALIBRATION_ROWS_A_REQUEST = 2
"""Rows asked of both endpoints for every request of a load whose length is stated."""

CALIBRATION_SHARE = 0.4
MOST_CALIBRATION_ROWS = 400
"""Of the user's own rows: each is asked of both endpoints, which may cost money."""


@dataclass(frozen=True)
class Setup:
    """Endpoints that answer, and rows to send them."""

    slm: Endpoint
    llm: Endpoint
    calibration_rows: tuple[TrialRow, ...]
    test_rows: tuple[TrialRow, ...]
    unseen_rows: tuple[TrialRow, ...]
    """Of the sandbox, in wording that its models never saw; empty otherwise."""
    notes: tuple[EndpointNote, ...]
    cost_basis: str
    usd_per_core_hour: float | None = None
    """Where the money is the servers' core-seconds."""
    cpu_s: Mapping[Role, Callable[[], float | None]] = field(default_factory=dict)
    """Core-seconds that each server has used so far; of servers that run here."""
    rehearsal_rows: tuple[TrialRow, ...] = ()
    """Empty: nothing is rehearsed, since what it would cost is not for the trial to spend."""

    def for_requests(self, requests: int | None) -> Setup:
        """With no more rows to learn from than so short a load is worth; None: not stated."""
        if requests is None:
            return self
        most = max(LEAST_CALIBRATION_ROWS, CALIBRATION_ROWS_A_REQUEST * requests)
        return replace(
            self,
            calibration_rows=self.calibration_rows[:most],
            unseen_rows=self.unseen_rows[:most],
        )

    @property
    def rows(self) -> Mapping[str, TrialRow]:
        """Every row by its id."""
        everything = (
            *self.calibration_rows,
            *self.test_rows,
            *self.unseen_rows,
            *self.rehearsal_rows,
        )
        return {row.id: row for row in everything}

    @property
    def high_risk_share(self) -> float:
        """Share of the rows that go straight to the large model."""
        risky = sum(row.risk is not None for row in self.calibration_rows)
        return risky / len(self.calibration_rows)


@contextmanager
def sandbox_setup(
    engine: EngineName, *, seed: int, spans: SpanReceiver | None = None
) -> Iterator[Setup]:
    """The two sandbox models, served, with rows of their task.

    Args:
        spans: where vLLM sends a span for each request; the light engine writes none.

    Raises:
        InputError: the engine is not there, or a server does not come up.
    """
    with ExitStack() as running:
        cores = _cores(engine)
        urls = [spans.url(role) if spans else None for role in ROLES]
        small = running.enter_context(launch("small", engine, cpu=cores[0], otlp_url=urls[0]))
        large = running.enter_context(launch("large", engine, cpu=cores[1], otlp_url=urls[1]))
        for server in (small, large):
            server.wait()
        slm, llm = _endpoint("slm", small), _endpoint("llm", large)
        first, second, third, fourth = (start_at + seed for start_at in SANDBOX_SEEDS)
        yield Setup(
            slm=slm,
            llm=llm,
            calibration_rows=_rows(
                sandbox_rows("held_out", SANDBOX_CALIBRATION_ROWS[engine], first)
            ),
            test_rows=_rows(sandbox_rows("held_out", SANDBOX_TEST_ROWS, second)),
            unseen_rows=_rows(sandbox_rows("unseen_wording", SANDBOX_UNSEEN_ROWS, third)),
            notes=(
                EndpointNote(role="slm", severity="good", text=f"{slm.model} on {engine}"),
                EndpointNote(role="llm", severity="good", text=f"{llm.model} on {engine}"),
            ),
            cost_basis=(
                f"seconds that each engine held its core, measured during the load, at "
                f"${USD_PER_CORE_HOUR:g} per core-hour (assumed); HTTP, which costs both models "
                "the same, is not in it"
                if engine == "ctranslate2"
                else f"core-seconds of the servers, measured during the load, at "
                f"${USD_PER_CORE_HOUR:g} per core-hour (assumed)"
            ),
            usd_per_core_hour=USD_PER_CORE_HOUR,
            rehearsal_rows=_rows(sandbox_rows("held_out", SANDBOX_REHEARSAL_ROWS, fourth)),
            cpu_s={"slm": lambda: small.cpu_s, "llm": lambda: large.cpu_s},
        )


def _cores(engine: EngineName) -> tuple[int | None, int | None]:
    """A core for each server: vLLM takes every one it is let have, the light engine takes one."""
    if engine != "vllm":
        return None, None
    from advisor.calibrate.bench.hardware import usable_cores

    cores = usable_cores()
    return cores[0], cores[-1]


@contextmanager
def endpoint_setup(
    task: TaskProfile,
    slm: Endpoint,
    llm: Endpoint,
    data: Path | Sequence[TrialRow],
    *,
    seed: int,
    needs_logprobs: bool,
    keys: Mapping[str, str],
) -> Iterator[Setup]:
    """The user's own endpoints and rows, checked.

    Raises:
        InputError: the first problem of an endpoint or the data, with its remedy.
    """
    rows = read_rows(data) if isinstance(data, Path) else tuple(data)
    notes = []
    for finding in check_rows(rows, task):
        if finding.severity == "problem":
            raise InputError(f"trial data: {finding.text}")
        notes.append(EndpointNote(role="data", severity=finding.severity, text=finding.text))
    for endpoint in (slm, llm):
        for found in check_endpoint(endpoint, task, rows[0], keys=keys):
            if found.severity == "problem" and (needs_logprobs or not _is_logprobs(found)):
                raise InputError(f"--{found.role}: {found.text}")
            notes.append(EndpointNote(role=found.role, severity=found.severity, text=found.text))
    calibration, test = split_rows(rows, calibration_share=CALIBRATION_SHARE, seed=seed)
    priced = slm.price is not None and llm.price is not None
    yield Setup(
        slm=slm,
        llm=llm,
        calibration_rows=calibration[:MOST_CALIBRATION_ROWS],
        test_rows=(*test, *calibration[MOST_CALIBRATION_ROWS:]),
        unseen_rows=(),
        notes=tuple(notes),
        cost_basis=(
            "tokens as the servers report them, at the stated prices"
            if priced
            else "no prices were given"
        ),
    )


def core_s(endpoint: Endpoint, figures: ServerFigures) -> float | None:
    """Core-seconds a request: of an engine of one thread that serves one at a time, the time it was
    busy; otherwise what its process used. None: the server does not say."""
    return figures.busy_s if endpoint.queue == "fifo" else figures.cpu_s


def with_core_price(
    endpoint: Endpoint, figures: ServerFigures, usd_per_core_hour: float
) -> Endpoint:
    """The endpoint at what its core-seconds a request cost."""
    used_s = core_s(endpoint, figures)
    if used_s is None:
        return endpoint
    return replace(endpoint, price=Price(usd_per_request=used_s * usd_per_core_hour / 3600))


def _endpoint(role: Role, server: SandboxServer) -> Endpoint:
    return Endpoint(
        role,
        server.base_url,
        server.model,
        queue="fifo" if server.engine == "ctranslate2" else "sharing",
        metrics_url=server.metrics_url,
    )


def _rows(drawn: Sequence[LoggedRow]) -> tuple[TrialRow, ...]:
    return tuple(
        TrialRow(
            id=row.id,
            messages=({"role": "user", "content": row.input},),
            expected=row.expected,
            risk=row.risk,
            type=row.type,
        )
        for row in drawn
    )


def _is_logprobs(finding: EndpointFinding) -> bool:
    return "log-probabilities" in finding.text
