"""What is different behind HTTP, from closed loops of the requests that a server will get.

In process one thread has its core to itself. Behind HTTP the engine's scheduler waits beside it
without sleeping, on a processor perhaps on the other half of the same core; arrivals are read and
tokens are sent while it computes. What that comes to depends on how many run side by side, so it is
found where it matters: users, from one to more than the busiest load will have in flight, who each
send the target's own requests, the next when the last has ended. The law's steps, simulated for the
same loops, are changed until TTFT and TPOT are the measured ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.bench.points import Point
from advisor.calibrate.bench.served import Server
from advisor.calibrate.served import measured
from advisor.errors import InputError
from advisor.physics.own_steps import Behind
from advisor.physics.step_cost import StepCost
from advisor.serving.arrivals import ClosedLoop
from advisor.serving.engine import EngineSettings
from advisor.serving.simulate import simulate_engine
from advisor.serving.workload import Requests

FloatArray = NDArray[np.float64]

LONE_PROMPT, LONE_REQUESTS = 16, 5
"""A short prompt that is sent alone for its first token, and how often."""

BEYOND = 1.5
MOST_USERS = (3, 4, 6, 9, 12, 18, 27, 36, 54, 81, 108, 162, 243)
"""Of the largest closed loop: the first that is `BEYOND` times what is in flight at the busiest
load, so that no load is extrapolated to; behind HTTP more wait than in process."""

FEWER = 3
"""Each smaller loop has so many times fewer users."""

REQUESTS_PER_USER = 3

LONGEST_ANSWER = 32
"""Tokens; the pace of tokens is known after so many."""

SPREAD = (1.0, 0.75, 1.25)
"""Of the answers' lengths, in turn: users with equal ones would march in step."""

FIGURE_LOG_SD = 0.05
"""1-sd of ln of a figure measured over HTTP, medians of its rounds."""

FACTOR_LOG_SD = 0.3
"""1-sd of ln of a served step over the machine's usual pace, before it is measured."""

EXTRA_SD_S = (3e-3, 3e-4, 10e-3)
"""What a step, a sequence and a newcomer may take longer, 1-sd, before it is measured: a message
between processes, the write of a chunk, the reading of a request. By judgement; wide."""

LEAST_REQUEST_S = 0.0002

_LOW = (np.log(0.5), 0.0, 0.0, 0.0, LEAST_REQUEST_S)
_HIGH = (np.log(6.0), 1.0, 0.1, 1.0, 10.0)
_SCALE = (0.2, 1e-3, 1e-4, 3e-3, 5e-3)


@dataclass(frozen=True, slots=True)
class Loop:
    """Users who each send the next of these requests when their last one has ended."""

    users: int
    prompt_tokens: int
    output_tokens: tuple[int, ...]
    """Of each request."""

    @property
    def name(self) -> str:
        """E.g. `loop_8`, or `lone_16` of a prompt that is sent for its first token alone."""
        if max(self.output_tokens) == 1:
            return f"lone_{self.prompt_tokens}"
        return f"loop_{self.users}"


def loops_of(requests: Requests, *, in_flight: float, max_model_len: int) -> list[Loop]:
    """Closed loops of typical requests: a short lone prompt, then more and more users.

    Args:
        in_flight: requests side by side at the busiest load that will be sent.
    """
    answer = int(np.clip(np.median(requests.output_tokens), 2, LONGEST_ANSWER))
    room = max_model_len - int(np.ceil(max(SPREAD) * answer)) - 1
    prompt = int(np.clip(np.median(requests.input_tokens), 1, max(1, room)))
    loops = [Loop(1, min(LONE_PROMPT, max_model_len - 2), (1,) * LONE_REQUESTS)]
    for users in _sizes(BEYOND * in_flight):
        count = REQUESTS_PER_USER * users
        answers = tuple(max(2, round(answer * SPREAD[k % len(SPREAD)])) for k in range(count))
        loops.append(Loop(users, prompt, answers))
    return loops


def _sizes(wanted: float) -> list[int]:
    """Users of the loops, ascending from 1 to the first of `MOST_USERS` that is so many."""
    sizes = [next((one for one in MOST_USERS if one >= wanted), MOST_USERS[-1])]
    while sizes[0] > 1:
        sizes.insert(0, max(sizes[0] // FEWER, 1))
    return sizes


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of closed loops showed."""

    figures: Mapping[str, float]
    """Mean TTFT and TPOT of each loop, seconds by `loop_8_ttft` …"""
    e2e_s: Mapping[str, Sequence[float]]
    """Of each request in turn, by the loop's name."""


def round_of(point: Point) -> Round:
    """A point of closed loops as what they showed."""
    return Round(
        {
            name.removesuffix("_ms"): value / 1e3
            for name, value in point.results.items()
            if name.startswith(("lone_", "loop_"))
        },
        {name.removesuffix("_e2e_s"): each for name, each in point.series.items()},
    )


def send_loops(server: Server, loops: Sequence[Loop]) -> Round:
    """Send each loop once.

    Raises:
        InputError: the server fails.
    """
    figures: dict[str, float] = {}
    e2e_s: dict[str, list[float]] = {}
    for loop in loops:
        count = len(loop.output_tokens)
        sent = server.load(
            due_s=[0.0] * count,
            prompt_tokens=[loop.prompt_tokens] * count,
            output_tokens=loop.output_tokens,
            concurrency=loop.users,
        )
        good = [one for one in sent if not one.error]
        several = [one for one in good if one.tokens > 1]
        figures[f"{loop.name}_ttft"] = float(np.mean([one.first_s - one.sent_s for one in good]))
        if several:
            figures[f"{loop.name}_tpot"] = float(
                np.mean([(one.last_s - one.first_s) / (one.tokens - 1) for one in several])
            )
        if len(good) == count:
            e2e_s[loop.name] = [one.last_s - one.sent_s for one in good]
    return Round(figures, e2e_s)


def simulate_loops(
    loops: Sequence[Loop],
    cost: StepCost,
    settings: EngineSettings,
    kv_blocks: int,
    request_s: float,
) -> dict[str, float]:
    """The same figures of an engine whose steps cost this."""
    found = {}
    for loop in loops:
        count = len(loop.output_tokens)
        arrival_s = np.full(count, np.nan)
        arrival_s[: loop.users] = 0.0
        requests = Requests(
            arrival_s=arrival_s,
            input_tokens=np.full(count, loop.prompt_tokens),
            output_tokens=np.array(loop.output_tokens),
            cached_tokens=np.zeros(count, dtype=np.int64),
            closed_loop=ClosedLoop(loop.users, think_s=request_s),
        )
        timeline = simulate_engine(cost, settings, kv_blocks=kv_blocks, requests=requests)
        served = measured(timeline)
        found[f"{loop.name}_ttft"] = float(served.ttft_s.mean()) + request_s
        if len(served.tpot_s):
            found[f"{loop.name}_tpot"] = float(served.tpot_s.mean())
    return found


def behind_http(
    figures: Mapping[str, float],
    loops: Sequence[Loop],
    cost: StepCost,
    settings: EngineSettings,
    kv_blocks: int,
    *,
    usual: float = 1.0,
) -> Behind:
    """What turns the engine's steps in process into the measured loops.

    Least squares of ln(simulated/measured)/sd beside weak priors; nothing below 0. Where the
    figures leave the factor open it is the machine's usual pace.

    Args:
        figures: of a round, or of several pooled.
        cost: of the fitted law, in process.
        usual: the machine's usual pace over its best, of steps.

    Raises:
        InputError: there are no figures of these loops.
    """
    from scipy.optimize import least_squares

    def misfit(values: FloatArray) -> FloatArray:
        behind = _behind(values)
        simulated = simulate_loops(
            loops, behind.served(cost), settings, kv_blocks, behind.request_s
        )
        errors = [
            np.log(value / figures[name]) / FIGURE_LOG_SD
            for name, value in simulated.items()
            if figures.get(name, 0.0) > 0
        ]
        beliefs = [(values[0] - np.log(usual)) / FACTOR_LOG_SD, *(values[1:4] / EXTRA_SD_S)]
        return np.array([*errors, *beliefs])

    start = np.array([np.log(np.clip(usual, 0.6, 5.0)), 5e-4, 5e-5, 1e-3, 5e-3])
    if len(misfit(start)) <= len(start) - 1:
        raise InputError("the server answered none of the requests that its overhead is known by")
    # Loops change by whole steps: slopes are taken over 3 % of a value.
    found = least_squares(misfit, start, bounds=(_LOW, _HIGH), x_scale=_SCALE, diff_step=[0.03] * 5)
    return _behind(found.x)


def _behind(values: FloatArray) -> Behind:
    factor, *seconds = (float(value) for value in values)
    return Behind(float(np.exp(factor)), *seconds)


def pooled(rounds: Sequence[Round]) -> dict[str, float]:
    """Each figure's median over the rounds that have it."""
    names = dict.fromkeys(name for one in rounds for name in one.figures)
    return {
        name: float(np.median([one.figures[name] for one in rounds if name in one.figures]))
        for name in names
    }


def unrest_of(rounds: Sequence[Round]) -> float:
    """1-sd of ln of what one and the same request takes in different rounds.

    A machine that others share is not as quick for one request as for the next: what clients see
    is the mixture. Pooled over loops, √(Σ (x − mean over rounds)²/(rounds − 1)/requests); 0 of
    fewer than two rounds.
    """
    variances = []
    for name in dict.fromkeys(name for one in rounds for name in one.e2e_s):
        each = [one.e2e_s[name] for one in rounds if name in one.e2e_s]
        if len(each) > 1 and len({len(one) for one in each}) == 1:
            variances.append(float(np.log(each).var(axis=0, ddof=1).mean()))
    return float(np.sqrt(np.mean(variances))) if variances else 0.0


def pace_of(figures: Mapping[str, float], usual: Mapping[str, float]) -> float:
    """How much longer everything takes than usual: geometric mean of the figures' ratios."""
    ratios = [figures[name] / usual[name] for name in figures if name in usual]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else 1.0
