"""A server's request overhead, and open loops that are predicted before they are sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from advisor.calibrate.bench.law import Steps
from advisor.calibrate.bench.points import Point, Shape
from advisor.calibrate.bench.served import Server, quantiles_ms, statistics
from advisor.calibrate.bench.session import Session, utc_now
from advisor.calibrate.bench.target import Target, sustainable_per_s
from advisor.calibrate.served import measured
from advisor.physics.step_cost import StepCost
from advisor.serving.simulate import simulate_engine
from advisor.serving.workload import Requests

RATES = (0.3, 0.7)
"""Shares of the sustainable rate at which loads are sent."""

LONE_REQUESTS, LONE_PROMPT, LONE_ANSWER = 10, 16, 12

STREAMS = (1, 4, 12)
"""Requests side by side whose tokens tell what a step takes behind HTTP."""

STREAM_ANSWER = 24

FEWEST, MOST = 24, 400
"""Requests of a load."""

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
    """Overhead of a request, then a load at each of `RATES`, predicted first.

    Args:
        cpu_s: processor seconds of the server so far, where they can be read.

    Raises:
        InputError: nothing answers, or every request of a load fails.
    """
    server = Server(url, vocabulary=vocabulary, api_key=api_key)
    server.describe()
    server.load(due_s=[0.0] * 3, prompt_tokens=[32] * 3, output_tokens=[4] * 3, concurrency=1)
    overhead = _overhead(session, server)
    assert session.target is not None
    session.target = session.target.with_overhead(
        overhead.value_s,
        OVERHEAD_LOG_SD,
        extra_step_s=overhead.results["served_step_ms"] / 1e3,
        extra_sequence_s=overhead.results["served_sequence_ms"] / 1e3,
    )
    session.learn()
    for repeat in range(repeats):
        for share in RATES:
            if session.stop.is_set() or session.left_s() <= 0:
                return
            _load(session, server, share, overhead, cpu_s, repeat)


def _streams(session: Session, server: Server) -> dict[int, float]:
    """TPOT of requests that run side by side, seconds, by how many they are."""
    assert session.facts is not None
    found = {}
    for streams in (one for one in STREAMS if one <= session.facts.max_num_seqs):
        count = max(6, 3 * streams)
        sent = server.load(
            due_s=[0.0] * count,
            prompt_tokens=[LONE_PROMPT] * count,
            output_tokens=[STREAM_ANSWER] * count,
            concurrency=streams,
        )
        good = [one for one in sent if not one.error and one.tokens > 1]
        each = [(one.last_s - one.first_s) / (one.tokens - 1) for one in good]
        found[streams] = float(np.median(each))
    return found


def _overhead(session: Session, server: Server) -> Point:
    """What HTTP adds to a lone request's TTFT, to a step, and to each sequence in it.

    TTFT of a short prompt less a step behind HTTP; TPOT of streams side by side less the fitted
    step of as many, by a line over their number: extra = step + sequence·streams.
    """
    assert session.facts is not None and session.belief is not None
    shape = Shape(kind="overhead", prompt_tokens=LONE_PROMPT)
    known = [point for point in session.points if point.shape == shape]
    if known:
        return known[0]
    begin = time.monotonic()
    lone = server.load(
        due_s=[0.0] * LONE_REQUESTS,
        prompt_tokens=[LONE_PROMPT] * LONE_REQUESTS,
        output_tokens=[1] * LONE_REQUESTS,
        concurrency=1,
    )
    first = [one.first_s - one.sent_s for one in lone if not one.error]
    streams = _streams(session, server)
    fitted = session.belief.seconds(Steps.of_shapes([_step_of(count) for count in streams]))
    step_s, sequence_s = extra_of(streams, fitted)
    prefill = Shape(kind="prefill", prompt_tokens=LONE_PROMPT)
    prefill_s = float(session.belief.seconds(Steps.of_shapes([prefill]))[0])
    behind_s = prefill_s + step_s + sequence_s
    point = Point(
        shape=shape,
        facts=session.facts,
        at=utc_now(),
        value_s=max(0.0002, float(np.quantile(first, 0.25)) - behind_s),
        basis="wall time",
        spent_s=time.monotonic() - begin,
        results={
            "lone_ttft_ms": 1e3 * float(np.quantile(first, 0.25)),
            "served_step_ms": 1e3 * step_s,
            "served_sequence_ms": 1e3 * sequence_s,
            **{f"tpot_{count}_streams_ms": 1e3 * value for count, value in streams.items()},
        },
    )
    session.add(point)
    return point


def _step_of(streams: int) -> Shape:
    context = LONE_PROMPT + STREAM_ANSWER // 2 - 8
    return Shape(kind="decode", batch=streams, context_tokens=context)


def extra_of(
    streams: dict[int, float], fitted: np.ndarray[Any, np.dtype[np.float64]]
) -> tuple[float, float]:
    """What a step and each sequence take longer behind HTTP, seconds (never less).

    Least squares of TPOT − fitted over the number of streams, with both at least 0.
    """
    from scipy.optimize import nnls

    counts = np.array(list(streams), dtype=np.float64)
    extra = np.maximum(np.array(list(streams.values())) - fitted, 0.0)
    found, _ = nnls(np.stack([np.ones_like(counts), counts], axis=1), extra)
    return float(found[0]), float(found[1])


def _slowdown(overhead: Point, streams: dict[int, float]) -> float:
    """How much slower streams are now than when the overhead was measured (at least 1)."""
    ratios = [
        1e3 * value / overhead.results[f"tpot_{count}_streams_ms"]
        for count, value in streams.items()
        if f"tpot_{count}_streams_ms" in overhead.results
    ]
    return max(1.0, float(np.exp(np.mean(np.log(ratios))))) if ratios else 1.0


def _load(
    session: Session,
    server: Server,
    share: float,
    overhead: Point,
    cpu_s: Callable[[], float],
    repeat: int,
) -> None:
    """One open loop: predicted, sent, compared."""
    assert session.target is not None and session.facts is not None
    assert session.belief is not None
    target = session.target
    settings = target.settings
    overhead_s = overhead.value_s
    cost = target.served(
        session.belief.step_cost(
            max_tokens=settings.max_num_batched_tokens, max_seqs=settings.max_num_seqs
        )
    )
    sustained = sustainable_per_s(target.requests, cost, settings, target.kv_blocks)
    rate = float(f"{share * sustained:.3g}")
    seconds = float(np.clip(0.4 * session.left_s(), 4.0, 40.0))
    count = int(np.clip(rate * seconds, FEWEST, MOST))
    requests = requests_at(target, rate, count)
    shape = Shape(
        kind="load",
        prompt_tokens=round(float(requests.input_tokens.mean())),
        output_tokens=round(float(requests.output_tokens.mean())),
        rate_per_s=rate,
        repeat=repeat,
    )
    if any(
        point.shape.kind == "load"
        and point.shape.repeat == repeat
        and abs(point.predicted.get("share_of_capacity", 0) - share) < 1e-6
        for point in session.points
    ):
        return
    begin = time.monotonic()
    slowdown = _slowdown(overhead, _streams(session, server))
    predicted = {
        "share_of_capacity": share,
        "request_overhead_ms": 1e3 * overhead_s,
        **predict_load(target, cost, requests, overhead_s),
        **{
            f"shared_{name}": value
            for name, value in predict_load(
                target, cost.scaled(slowdown), requests, overhead_s * slowdown
            ).items()
        },
    }
    session.say(
        f"{shape.title}: predicted TPOT p50 {predicted['tpot_p50_ms']:,.2f} ms, "
        f"E2E p95 {predicted['e2e_p95_ms']:,.0f} ms; now sent"
    )
    before, cpu_before = server.metrics(), cpu_s()
    sent = server.load(
        due_s=(requests.arrival_s - requests.arrival_s[0]).tolist(),
        prompt_tokens=requests.input_tokens.tolist(),
        output_tokens=requests.output_tokens.tolist(),
    )
    after = server.metrics()
    results = statistics(sent) | {
        f"server_{name}": after[name] - before.get(name, 0.0) for name in after
    }
    results["server_cpu_s"] = cpu_s() - cpu_before
    results["fixed_lengths"] = float(np.ptp(requests.input_tokens) == 0)
    notes = _notes(slowdown, results)
    session.add(
        Point(
            shape=shape,
            facts=session.facts,
            at=utc_now(),
            basis="wall time",
            slowdown=slowdown,
            notes=notes,
            spent_s=time.monotonic() - begin,
            results=results,
            predicted=predicted,
            series={
                "ttft_s": [one.first_s - one.sent_s for one in sent if not one.error],
                "e2e_s": [one.last_s - one.sent_s for one in sent if not one.error],
            },
        )
    )


def _notes(slowdown: float, results: dict[str, float]) -> tuple[str, ...]:
    notes = []
    if slowdown > 1.15:
        notes.append(f"streams took {slowdown:.2f} × what they did when the overhead was measured")
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
    target: Target, cost: StepCost, requests: Requests, overhead_s: float
) -> dict[str, float]:
    """TTFT, TPOT and E2E of these very requests, milliseconds by `ttft_p50_ms` …"""
    timeline = simulate_engine(cost, target.settings, kv_blocks=target.kv_blocks, requests=requests)
    served = measured(timeline)
    found = quantiles_ms("ttft", served.ttft_s + overhead_s)
    if len(served.tpot_s):
        found |= quantiles_ms("tpot", served.tpot_s)
    found["engine_busy_s"] = timeline.busy_s
    return found | quantiles_ms("e2e", served.e2e_s + overhead_s)
