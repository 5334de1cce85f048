"""Measure both endpoints before the load: what a request takes alone, what company costs, and which
small answers are to be handed up.

The same rows go to both endpoints, one at a time, so that each row shows its small answer, its
large answer and both times; closed loops of more users show how the time grows. Nothing here is a
row that is tried later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError
from advisor.records import Record
from advisor.trial.data import TrialRow
from advisor.trial.endpoints import Endpoint
from advisor.trial.judging import Price
from advisor.trial.load.driver import ArmResult
from advisor.trial.projecting.service import MeasuredService
from advisor.trial.records import RequestRecord
from advisor.trial.session import Session
from advisor.trial.watching.server_metrics import ServerFigures, figures_between, read_page

FloatArray = NDArray[np.float64]

USERS_FIFO = (4,)
"""Users of the closed loop that keeps a one-at-a-time server busy without a pause."""

USERS_SHARING = (2, 4, 8, 16)

REQUESTS_A_USER = 25
"""Requests of each such loop, for every user; at least `LEAST_BUSY` in all."""

LEAST_BUSY = 120
LEAST_A_USER = 6
"""Where the load is stated to be a short one."""

WARM_UP = 10
"""First requests of an endpoint that do not count: connections, caches, compilation."""

BLOCKS = 8
LEAST_SPEED_LOG_SD = 0.02
"""No machine was seen to be steadier than 2 % from one stretch of load to the next."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")

MOST_FAILED = 0.05
"""Share of calibration requests that may fail; more is no endpoint to project from."""


@dataclass(frozen=True, eq=False)
class EndpointCalibration:
    """One endpoint, measured."""

    endpoint: Endpoint
    alone: tuple[RequestRecord, ...]
    """One at a time, in the order of the rows; those that were answered."""
    service: MeasuredService
    speed_log_sd: float
    server: ServerFigures | None
    """The server's own figures over the requests sent one at a time."""
    asked: ArmResult | None = None
    """The arm that sent them."""

    @property
    def here(self) -> bool:
        """Whether this machine serves it, one request at a time."""
        is_local = urlsplit(self.endpoint.base_url).hostname in LOOPBACK
        return is_local and self.endpoint.queue == "fifo"

    @property
    def price(self) -> Price | None:
        """What a request costs, stated or measured."""
        return self.endpoint.price

    @property
    def block_s(self) -> float:
        """Length of the stretches whose speeds `speed_log_sd` compares."""
        ends = [record.end_s for record in self.alone if record.end_s is not None]
        return max(ends[-1] - ends[0], 1e-3) / BLOCKS if ends else 1.0

    def times(self, records: Sequence[RequestRecord]) -> tuple[FloatArray, FloatArray]:
        """(first, whole): seconds to the first and the last token, of answered requests."""
        first = np.array([record.ttft_s for record in records], dtype=float)
        whole = np.array([record.e2e_s for record in records], dtype=float)
        return first, whole


class EndpointReport(Record):
    """What calibration found of an endpoint."""

    role: str
    model: str
    queue: str
    requests: int
    e2e_p50_ms: float
    e2e_p95_ms: float
    busy_share: float
    """Of the time alone, what nobody else can be served in (one at a time)."""
    slowdown: dict[int, float]
    """Time among so many users over the time alone."""
    sustainable_rate_per_s: float
    quality: float | None
    speed_log_sd: float


def calibrate_endpoint(
    session: Session,
    endpoint: Endpoint,
    rows: Sequence[TrialRow],
    *,
    as_small: bool,
    requests: int | None = None,
) -> EndpointCalibration:
    """Measure one endpoint.

    Args:
        rows: asked one at a time.
        as_small: whether as the router asks the small model, whole and with log-probabilities;
            otherwise streamed.
        requests: of the load to come, where it was stated: a short one is calibrated for briefly.

    Raises:
        InputError: too many requests fail.
        StoppedError: the trial was told to end.
    """
    role = endpoint.role
    ask = _Asking(session, endpoint, as_small=as_small)
    if len(rows) > 2 * WARM_UP:
        ask(f"warm_up_{role}", rows[:WARM_UP], users=2)
    before = read_page(endpoint.metrics_url)
    result = ask(f"calibration_{role}", rows, users=1)
    server = figures_between(before, read_page(endpoint.metrics_url))
    alone = _answered(result, endpoint)
    mean_s = float(np.mean([record.e2e_s for record in alone if record.e2e_s is not None]))
    many = USERS_FIFO if endpoint.queue == "fifo" else USERS_SHARING
    users, slowdown = [1.0], [1.0]
    for count in many:
        size = loop_requests(count, requests)
        busy_rows = [rows[i % len(rows)] for i in range(size)]
        busy = _answered(ask(f"calibration_{role}_users_{count}", busy_rows, users=count), endpoint)
        rate = throughput(busy, users=count)
        users.append(float(count))
        slowdown.append(count / rate / mean_s)
    if endpoint.queue == "fifo":
        share = slowdown[-1] / users[-1]
        service = MeasuredService.one_at_a_time(min(share, 1.0))
    else:
        service = MeasuredService("sharing", 1.0, np.array(users), np.maximum(slowdown, 1.0))
    return EndpointCalibration(endpoint, alone, service, _steadiness(alone), server, result)


def loop_requests(users: int, requests: int | None) -> int:
    """Requests of a closed loop.

    Args:
        requests: of the load to come; None: not stated.
    """
    size = max(LEAST_BUSY, REQUESTS_A_USER * users)
    return size if requests is None else min(size, max(requests, LEAST_A_USER * users))


@dataclass
class _Asking:
    session: Session
    endpoint: Endpoint
    as_small: bool

    def __call__(self, arm: str, rows: Sequence[TrialRow], *, users: int) -> ArmResult:
        endpoint = self.endpoint
        return self.session.send(
            arm,
            endpoint.base_url,
            endpoint.model,
            rows,
            concurrency=users,
            stream=not self.as_small,
            logprobs=self.as_small,
            api_key_env=endpoint.api_key_env,
            price=endpoint.price,
            extras=endpoint.request_extras,
        )


def _answered(result: ArmResult, endpoint: Endpoint) -> tuple[RequestRecord, ...]:
    answered = tuple(r for r in result.records if r.status == "completed" and r.e2e_s is not None)
    failed = len(result.records) - len(answered)
    if failed > MOST_FAILED * len(result.records):
        why = next((r.error for r in result.records if r.status != "completed"), None)
        raise InputError(
            f"{endpoint.role} at {endpoint.base_url}: {failed:,} of {len(result.records):,} "
            f"calibration requests failed ({why or result.stopped})"
        )
    return answered


def throughput(records: Sequence[RequestRecord], *, users: int) -> float:
    """Answers a second of a closed loop while all of its users were busy."""
    ends = np.sort([record.end_s for record in records if record.end_s is not None])
    middle = ends[users : len(ends) - users]
    return float((len(middle) - 1) / (middle[-1] - middle[0]))


def _steadiness(records: Sequence[RequestRecord]) -> float:
    """1-sd of ln(median time) from one stretch of the calibration to another."""
    times = np.array([record.e2e_s for record in records], dtype=float)
    if len(times) < 5 * BLOCKS:
        return LEAST_SPEED_LOG_SD
    medians = [math.log(float(np.median(block))) for block in np.array_split(times, BLOCKS)]
    return max(float(np.std(medians, ddof=1)), LEAST_SPEED_LOG_SD)


def report_of(calibration: EndpointCalibration) -> EndpointReport:
    """The findings, for the trial's report."""
    _, whole = calibration.times(calibration.alone)
    correct = [r.correct for r in calibration.alone if r.correct is not None]
    service = calibration.service
    return EndpointReport(
        role=calibration.endpoint.role,
        model=calibration.endpoint.model,
        queue=service.queue,
        requests=len(calibration.alone),
        e2e_p50_ms=1e3 * float(np.median(whole)),
        e2e_p95_ms=1e3 * float(np.quantile(whole, 0.95)),
        busy_share=service.busy_share,
        slowdown={
            int(users): float(slow)
            for users, slow in zip(service.users, service.slowdown, strict=True)
        },
        sustainable_rate_per_s=service.sustainable_per_s(float(whole.mean())),
        quality=float(np.mean(correct)) if correct else None,
        speed_log_sd=calibration.speed_log_sd,
    )
