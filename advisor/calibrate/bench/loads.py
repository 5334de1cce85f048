"""A server's request overhead, and open loops that are predicted before they are sent.

Loads and the closed loops that the server is known by take turns, so that what a neighbour does to
the machine falls on both, and shows.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from advisor.calibrate.bench.behind import (
    LONE_PROMPT,
    Loop,
    Round,
    behind_http,
    loops_of,
    pace_of,
    pooled,
    round_of,
    send_loops,
    unrest_of,
)
from advisor.calibrate.bench.hardware import busy_core_s
from advisor.calibrate.bench.noise import usual_pace
from advisor.calibrate.bench.points import Point, Shape
from advisor.calibrate.bench.served import Sent, Server, quantiles_ms, statistics
from advisor.calibrate.bench.session import Session, utc_now
from advisor.calibrate.bench.target import Target, sustainable_per_s
from advisor.calibrate.served import measured
from advisor.errors import InputError
from advisor.figures import percent
from advisor.physics.own_steps import Behind, in_unrest
from advisor.physics.step_cost import StepCost
from advisor.serving.simulate import simulate_engine
from advisor.serving.workload import Requests

RATES = (0.3, 0.7)
"""Shares of the sustainable rate at which loads are sent."""

ROUNDS = 2
"""Rounds of closed loops before the first load; there is one more before and after each."""

FEWEST, MOST = 24, 400
"""Requests of a load."""

LOADS_SHARE, LONGEST_S = 0.6, 40.0
"""Share of what is left of the budget that is sent; the rest is closed loops before, answers after.
And the most seconds of one load."""

RESTLESS = 1.15
"""From which ratio of paces a load is marked as disturbed."""

OTHERS_SHARE = 0.1
"""Of the machine's cores, from which the same is said of a load beside other work."""

OVERHEAD_LOG_SD = 0.15
"""1-sd of ln of a measured overhead between one day and the next."""


def measure_server(
    session: Session,
    url: str,
    *,
    vocabulary: int,
    cpu_s: Callable[[], float] = lambda: 0.0,
    api_key: str | None = None,
    repeats: int = 1,
) -> None:
    """Overhead of requests and steps, then loads at each of `RATES`, predicted first.

    Args:
        cpu_s: processor seconds of the server so far, where they can be read.
        repeats: of each load.

    Raises:
        InputError: nothing answers, or every request of a load fails.
    """
    server = Server(url, vocabulary=vocabulary, api_key=api_key)
    server.describe()
    work = _Served(session, server, cpu_s)
    wanted = [
        (repeat, share)
        for repeat in range(repeats)
        for share in RATES
        if not work.has_load(share, repeat)
    ]
    if (wanted or len(work.rounds) < ROUNDS) and not session.stop.is_set():
        # Not kept: products of every new number of rows are prepared when they first occur.
        send_loops(server, work.loops)
    kept = len(work.rounds)
    while len(work.rounds) < ROUNDS and not session.stop.is_set():
        work.round()
    for number, (repeat, share) in enumerate(wanted):
        if session.stop.is_set() or session.left_s() <= 0:
            return
        if number == 0 and kept >= ROUNDS:
            work.round()  # an earlier run's rounds do not tell today's pace
        seconds = LOADS_SHARE * session.left_s() / (len(wanted) - number)
        work.load(share, repeat, seconds)


@dataclass
class _Served:
    """One server, what its closed loops showed, and its loads."""

    session: Session
    server: Server
    cpu_s: Callable[[], float]
    loops: list[Loop] = field(init=False)
    cost: StepCost = field(init=False)
    """Of a step in process."""
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        session = self.session
        assert session.target is not None and session.belief is not None
        assert session.facts is not None
        settings = session.target.settings
        self.cost = session.belief.step_cost(
            max_tokens=settings.max_num_batched_tokens, max_seqs=settings.max_num_seqs
        )
        self.loops = loops_of(
            session.target.requests,
            in_flight=_in_flight(session.target, self.cost),
            max_model_len=session.facts.max_model_len,
        )
        if self.rounds:
            self._learn()

    @property
    def rounds(self) -> list[Round]:
        """Every round of closed loops so far."""
        return [round_of(one) for one in self.session.points if one.shape.kind == "overhead"]

    @property
    def pace(self) -> float:
        """How much longer everything took in the last round than usual."""
        rounds = self.rounds
        return pace_of(rounds[-1].figures, pooled(rounds))

    def has_load(self, share: float, repeat: int) -> bool:
        """Whether this load was sent already."""
        return any(
            point.shape.kind == "load"
            and point.shape.repeat == repeat
            and abs(point.predicted.get("share_of_capacity", 0) - share) < 1e-6
            for point in self.session.points
        )

    def round(self) -> None:
        """Send the closed loops once more, and learn from all rounds so far."""
        session, begin = self.session, time.monotonic()
        assert session.facts is not None
        found = send_loops(self.server, self.loops)
        rounds = [*self.rounds, found]
        behind = self._behind(rounds)
        session.add(
            Point(
                shape=Shape(kind="overhead", prompt_tokens=LONE_PROMPT, repeat=len(rounds) - 1),
                facts=session.facts,
                at=utc_now(),
                value_s=behind.request_s,
                basis="wall time",
                slowdown=pace_of(found.figures, pooled(rounds)),
                spent_s=time.monotonic() - begin,
                results={
                    "served_factor": behind.factor,
                    "served_step_ms": 1e3 * behind.step_s,
                    "served_sequence_ms": 1e3 * behind.sequence_s,
                    "served_newcomer_ms": 1e3 * behind.newcomer_s,
                    **{f"{name}_ms": 1e3 * value for name, value in found.figures.items()},
                },
                series={f"{name}_e2e_s": list(each) for name, each in found.e2e_s.items()},
            )
        )
        self._learn(behind)

    def _behind(self, rounds: list[Round]) -> Behind:
        target = self.session.target
        assert target is not None
        return behind_http(
            pooled(rounds),
            self.loops,
            self.cost,
            target.settings,
            target.kv_blocks,
            usual=usual_pace([point.slowdown for point in self.session.step_points]),
        )

    def _learn(self, behind: Behind | None = None) -> None:
        session = self.session
        assert session.target is not None
        behind = behind or self._behind(self.rounds)
        self.overhead_s = behind.request_s
        target = session.target.with_overhead(behind.request_s, OVERHEAD_LOG_SD, behind=behind)
        session.look_at(target.sustained(self.cost))

    def load(self, share: float, repeat: int, seconds: float) -> None:
        """One open loop of about so many seconds: predicted, sent, compared."""
        session, begin = self.session, time.monotonic()
        target, facts = session.target, session.facts
        assert target is not None and facts is not None
        cost = target.served(self.cost)
        sustained = sustainable_per_s(target.requests, cost, target.settings, target.kv_blocks)
        rate = float(f"{share * sustained:.3g}")
        count = int(np.clip(rate * min(seconds, LONGEST_S), FEWEST, MOST))
        requests = requests_at(target, rate, count)
        shape = Shape(
            kind="load",
            prompt_tokens=round(float(requests.input_tokens.mean())),
            output_tokens=round(float(requests.output_tokens.mean())),
            rate_per_s=rate,
            repeat=repeat,
        )
        overhead_s, pace_before = self.overhead_s, self.pace
        unrest = unrest_of(self.rounds)
        predicted = {
            "share_of_capacity": share,
            "request_overhead_ms": 1e3 * overhead_s,
            "unrest_log_sd": unrest,
            **predict_load(target, cost, requests, overhead_s, unrest=unrest),
        }
        session.say(
            f"{shape.title}: predicted TPOT p50 {predicted['tpot_p50_ms']:,.2f} ms, "
            f"E2E p95 {predicted['e2e_p95_ms']:,.0f} ms; now sent"
        )
        before, cores_before = self.server.metrics(), self._cores_s()
        sent = self.server.load(
            due_s=(requests.arrival_s - requests.arrival_s[0]).tolist(),
            prompt_tokens=requests.input_tokens.tolist(),
            output_tokens=requests.output_tokens.tolist(),
        )
        after = self.server.metrics()
        results = statistics(sent) | {
            f"server_{name}": after[name] - before.get(name, 0.0) for name in after
        }
        wall_s, served_s, own_s, busy_s = (
            now - then for now, then in zip(self._cores_s(), cores_before, strict=True)
        )
        results["server_cpu_s"] = served_s
        if served_s > 0:
            others_s = max(0.0, busy_s - served_s - own_s)
            results["others_share"] = others_s / (wall_s * (os.cpu_count() or 1))
        results["fixed_lengths"] = float(np.ptp(requests.input_tokens) == 0)
        pace = pace_after = pace_before
        try:
            # An error here comes again with the next load, or does not matter.
            with contextlib.suppress(InputError):
                self.round()
                pace_after = self.pace
        finally:
            pace = float(np.sqrt(pace_before * pace_after))
            shared = predict_load(
                target, cost.scaled(pace), requests, overhead_s * pace, unrest=unrest
            )
            session.add(
                Point(
                    shape=shape,
                    facts=facts,
                    at=utc_now(),
                    basis="wall time",
                    slowdown=pace,
                    notes=notes_of(pace_before, pace_after, results),
                    spent_s=time.monotonic() - begin,
                    results=results | {"pace_before": pace_before, "pace_after": pace_after},
                    predicted=predicted | {f"shared_{name}": one for name, one in shared.items()},
                    series=_series(sent),
                )
            )

    def _cores_s(self) -> tuple[float, float, float, float]:
        """Seconds so far: of the clock, and of cores for the server, this process and everybody."""
        return time.monotonic(), self.cpu_s(), time.process_time(), busy_core_s()


def _in_flight(target: Target, cost: StepCost) -> float:
    """Requests side by side at the busiest of `RATES`, in process."""
    sustained = sustainable_per_s(target.requests, cost, target.settings, target.kv_blocks)
    requests = requests_at(target, max(RATES) * sustained, MOST)
    timeline = simulate_engine(cost, target.settings, kv_blocks=target.kv_blocks, requests=requests)
    span = float(timeline.finish_s.max() - timeline.arrival_s.min())
    return float((timeline.finish_s - timeline.arrival_s).sum()) / span


def _series(sent: list[Sent]) -> dict[str, list[float]]:
    good = [one for one in sent if not one.error]
    return {
        "sent_s": [one.sent_s for one in good],
        "ttft_s": [one.first_s - one.sent_s for one in good],
        "e2e_s": [one.last_s - one.sent_s for one in good],
    }


def notes_of(before: float, after: float, results: dict[str, float]) -> tuple[str, ...]:
    """What disturbed a load: paces of the closed loops around it, others' work, failures."""
    notes = []
    if max(before, after, 1 / before, 1 / after) > RESTLESS:
        notes.append(
            f"closed loops took {before:.2f} × (before) and {after:.2f} × (after) what they usually"
            " do"
        )
    others = results.get("others_share", 0.0)
    if others > OTHERS_SHARE:
        notes.append(f"other work took {percent(others)} of the machine's cores")
    if results["failed"]:
        notes.append(f"{results['failed']:.0f} requests failed")
    if results.get("late_ms", 0.0) > 50:
        notes.append(f"the client sent up to {results['late_ms']:.0f} ms late")
    return tuple(notes)


def requests_at(target: Target, rate_per_s: float, count: int) -> Requests:
    """The first of the target's requests, at another rate."""
    some = target.requests.select(slice(0, count))
    scale = target.rate_per_s / rate_per_s
    return replace(
        some,
        arrival_s=some.arrival_s * scale,
        cached_tokens=np.zeros(len(some), dtype=np.int64),  # every prompt sent is new
        prompt_key=None,
    )


def predict_load(
    target: Target, cost: StepCost, requests: Requests, overhead_s: float, *, unrest: float = 0.0
) -> dict[str, float]:
    """TTFT, TPOT and E2E of these very requests, milliseconds by `ttft_p50_ms` …

    Args:
        unrest: 1-sd of ln of a request's time by the machine's changing pace (`unrest_of`).
    """
    timeline = simulate_engine(cost, target.settings, kv_blocks=target.kv_blocks, requests=requests)
    served = measured(timeline)
    found = quantiles_ms("ttft", in_unrest(served.ttft_s + overhead_s, unrest))
    if len(served.tpot_s):
        found |= quantiles_ms("tpot", in_unrest(served.tpot_s, unrest))
    found["engine_busy_s"] = timeline.busy_s
    return found | quantiles_ms("e2e", in_unrest(served.e2e_s + overhead_s, unrest))
