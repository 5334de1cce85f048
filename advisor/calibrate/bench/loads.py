"""A server's request overhead, and open loops that are predicted before they are sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.bench.law import Steps
from advisor.calibrate.bench.noise import usual_pace
from advisor.calibrate.bench.points import Point, Shape
from advisor.calibrate.bench.served import Server, quantiles_ms, statistics
from advisor.calibrate.bench.session import Session, utc_now
from advisor.calibrate.bench.target import Target, sustainable_per_s
from advisor.calibrate.served import measured
from advisor.physics.step_cost import StepCost
from advisor.serving.simulate import simulate_engine
from advisor.serving.workload import Requests

FloatArray = NDArray[np.float64]

RATES = (0.3, 0.7)
"""Shares of the sustainable rate at which loads are sent."""

ROUNDS = 2
"""How often lone requests and streams are measured before the first load."""

LONE_PROMPT = 16
LONE_PROMPTS, LONE_REQUESTS = (LONE_PROMPT, 128, 512), 5
"""Prompts that are sent one at a time, and how often in a round."""

STREAMS = (1, 4, 12)
"""Requests side by side whose tokens tell what a step takes behind HTTP."""

STREAM_ANSWER = 24

FEWEST, MOST = 24, 400
"""Requests of a load."""

LOADS_SHARE, LONGEST_S = 0.75, 40.0
"""Share of what is left of the budget that is sent; the rest is streams before, answers after. And
the most seconds of one load."""

LEAST_REQUEST_S = 0.0002

SERVED_LOG_SD = 0.05
"""1-sd of ln of a figure measured over HTTP, medians of its rounds."""

FACTOR_LOG_SD = 0.3
"""1-sd of ln of a served step over the machine's usual pace, before it is measured."""

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
        server_factor=overhead.results.get("served_factor", 1.0),
    )
    session.learn()
    wanted = [(repeat, share) for repeat in range(repeats) for share in RATES]
    for number, (repeat, share) in enumerate(wanted):
        if session.stop.is_set() or session.left_s() <= 0:
            return
        seconds = LOADS_SHARE * session.left_s() / (len(wanted) - number)
        _load(session, server, share, overhead, cpu_s, repeat, seconds)


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


def _prompts(session: Session, server: Server) -> dict[int, float]:
    """TTFT of lone requests, seconds, by the tokens of their prompts."""
    assert session.facts is not None
    found = {}
    for tokens in (one for one in LONE_PROMPTS if one < session.facts.max_model_len - 1):
        sent = server.load(
            due_s=[0.0] * LONE_REQUESTS,
            prompt_tokens=[tokens] * LONE_REQUESTS,
            output_tokens=[1] * LONE_REQUESTS,
            concurrency=1,
        )
        found[tokens] = float(
            np.median([one.first_s - one.sent_s for one in sent if not one.error])
        )
    return found


def _overhead(session: Session, server: Server) -> Point:
    """What HTTP adds to a lone request's TTFT, to a step, and to each sequence in it.

    Medians of `ROUNDS` rounds of lone requests and of streams side by side.
    """
    assert session.facts is not None and session.belief is not None
    shape = Shape(kind="overhead", prompt_tokens=LONE_PROMPT)
    known = [point for point in session.points if point.shape == shape]
    if known:
        return known[0]
    begin = time.monotonic()
    rounds = [(_prompts(session, server), _streams(session, server)) for _ in range(ROUNDS)]
    first, streams = (
        {key: float(np.median([one[kind][key] for one in rounds])) for key in rounds[0][kind]}
        for kind in (0, 1)
    )
    steps = [_step_of(count) for count in streams]
    prompts = [Shape(kind="prefill", prompt_tokens=tokens) for tokens in first]
    fitted = session.belief.seconds(Steps.of_shapes([*steps, *prompts]))
    paces = [point.slowdown for point in session.step_points]
    behind = behind_http(
        streams, first, fitted[: len(steps)], fitted[len(steps) :], usual=usual_pace(paces)
    )
    point = Point(
        shape=shape,
        facts=session.facts,
        at=utc_now(),
        value_s=behind.request_s,
        basis="wall time",
        spent_s=time.monotonic() - begin,
        results={
            "served_step_ms": 1e3 * behind.step_s,
            "served_sequence_ms": 1e3 * behind.sequence_s,
            "served_factor": behind.factor,
            **{f"lone_{tokens}_ttft_ms": 1e3 * value for tokens, value in first.items()},
            **{f"tpot_{count}_streams_ms": 1e3 * value for count, value in streams.items()},
        },
    )
    session.add(point)
    return point


def _step_of(streams: int) -> Shape:
    context = LONE_PROMPT + STREAM_ANSWER // 2 - 8
    return Shape(kind="decode", batch=streams, context_tokens=context)


@dataclass(frozen=True, slots=True)
class Behind:
    """What is different behind HTTP."""

    factor: float
    """Of the engine's own step."""
    step_s: float
    sequence_s: float
    """Added to a step, and for each sequence in it."""
    request_s: float
    """Added to a request's time to first token."""


def behind_http(
    streams: Mapping[int, float],
    first: Mapping[int, float],
    decode_s: FloatArray,
    prefill_s: FloatArray,
    *,
    usual: float = 1.0,
) -> Behind:
    """What explains TPOT of streams and TTFT of lone prompts by the fitted steps in process.

        TPOT(n) = f·decode(n) + step + sequence·n
        TTFT(p) = request + f·prefill(p) + step + sequence

    Least squares of relative errors, nothing below 0. Where the figures leave f open it is that of
    the machine as it usually is.

    Args:
        streams: TPOT in seconds by the number of streams; `decode_s` the fitted steps of as many.
        first: TTFT in seconds by prompt tokens; `prefill_s` the fitted steps.
        usual: the machine's usual pace over its best, of steps.
    """
    from scipy.optimize import lsq_linear

    measured = np.array([*streams.values(), *first.values(), usual])
    rows = [[step, 1.0, count, 0.0] for count, step in zip(streams, decode_s, strict=True)]
    rows += [[step, 1.0, 1.0, 1.0] for step in prefill_s]
    rows.append([1.0, 0.0, 0.0, 0.0])
    weights = 1 / measured
    weights[-1] *= SERVED_LOG_SD / FACTOR_LOG_SD
    found = lsq_linear(
        np.array(rows) * weights[:, None],
        measured * weights,
        bounds=([0.5, 0.0, 0.0, LEAST_REQUEST_S], [6.0, 1.0, 0.1, 10.0]),
    ).x
    return Behind(*(float(value) for value in found))


def _slowdown(overhead: Point, streams: dict[int, float]) -> float:
    """How much slower streams are now than when the overhead was measured."""
    ratios = [
        1e3 * value / overhead.results[f"tpot_{count}_streams_ms"]
        for count, value in streams.items()
        if f"tpot_{count}_streams_ms" in overhead.results
    ]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else 1.0


def _load(
    session: Session,
    server: Server,
    share: float,
    overhead: Point,
    cpu_s: Callable[[], float],
    repeat: int,
    seconds: float,
) -> None:
    """One open loop of about so many seconds: predicted, sent, compared."""
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
    count = int(np.clip(rate * min(seconds, LONGEST_S), FEWEST, MOST))
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
