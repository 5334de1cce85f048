"""A condition served by the simulator: what its client would have measured."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.calibrate.conditions import Condition
from advisor.catalog.coefficients import Coefficients
from advisor.errors import DoesNotFitError
from advisor.physics.memory import plan_memory
from advisor.physics.step_cost import StepCost
from advisor.physics.step_time import step_cost
from advisor.serving.arrivals import Arrivals, Burst, ClosedLoop, Constant, Gamma, Poisson
from advisor.serving.lengths import Fixed, Lengths, Lognormal, Uniform
from advisor.serving.metrics import Percentiles, gap_percentiles
from advisor.serving.simulate import Timeline, simulate_engine
from advisor.serving.workload import Requests, draw_requests

FloatArray = NDArray[np.float64]

REQUESTS_PER_USER = 10
"""Requests for each concurrent user where a row does not say: the habit of InferenceX."""

JITTER = (0.8, 1.2)
"""Spread given to fixed output lengths in a loop. Identical requests would march in step round
after round and wait for each other's prompts; measured loops do not: their TTFT is that of the
opening burst and of steps met by chance, whatever the output length. E2E is of the nominal one."""

SHORTEST_JITTERED = 20
"""Tokens up to which a spread would change the mean."""

VARIED = ("sharegpt", "distribution")

CHAT_P95_TO_MEAN = 2.0
"""95th percentile of lengths over their mean where a row says only that they vary (lognormal)."""

MOST_REQUESTS, FEWEST_REQUESTS = 6_000, 64


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """Engine-side latencies of each request (seconds), without request overhead."""

    ttft_s: FloatArray
    tpot_s: FloatArray
    """Of requests with at least two tokens."""
    itl_s: Percentiles
    """Gaps between two tokens of a request, all requests together."""
    e2e_s: FloatArray
    output_tokens_per_s: float
    requests_per_s: float


def serve(
    condition: Condition,
    cost: StepCost,
    *,
    seed: int = 0,
    overhead_s: float = 0.0,
    frontend_s: float = 0.0,
) -> Served:
    """Simulate one engine's share of a condition's load.

    Args:
        cost: of `cost_of`, scaled by the deployment's own level where that is known.
        overhead_s: time between a user's last token and the engine seeing their next request.
        frontend_s: serial time of client and API server for each request; a burst reaches the
            engine no faster, and latencies count from the sending.

    Raises:
        DoesNotFitError: the model, or one request, does not fit the memory.
    """
    settings = condition.engine
    requests = draw(condition, seed=seed, overhead_s=overhead_s)
    requests, behind_s = behind_frontend(requests, frontend_s)
    longest = int((requests.input_tokens + requests.output_tokens).max())
    blocks = kv_blocks_of(condition, longest)
    if not settings.enable_chunked_prefill and longest > settings.max_num_batched_tokens:
        # Without chunks vLLM refuses such prompts; rows that have them overrode the limit.
        settings = settings.model_copy(update={"enable_chunked_prefill": True})
    timeline = simulate_engine(cost, settings, kv_blocks=blocks, requests=requests)
    served = measured(timeline, behind_s)
    if not _is_jittered(condition):
        return served
    gaps = max(1, round(condition.output_tokens)) - 1
    return dataclasses.replace(served, e2e_s=served.ttft_s + gaps * served.tpot_s)


def _is_jittered(condition: Condition) -> bool:
    """Whether a loop's output lengths are given a spread that its requests do not have."""
    return (
        condition.setup.load == "closed_loop"
        and condition.spread is None
        and condition.setup.length_spread not in VARIED
        and condition.output_tokens > SHORTEST_JITTERED
    )


def cost_of(condition: Condition, coefficients: Coefficients) -> StepCost:
    """The step cost of a condition's deployment, as wide as its engine needs."""
    return step_cost(
        condition.deployment,
        coefficients,
        max_tokens=condition.engine.max_num_batched_tokens,
        max_seqs=condition.engine.max_num_seqs,
        generation=condition.generation,
    )


def kv_blocks_of(condition: Condition, longest: int) -> int:
    """Blocks of one rank's pool, for requests of the condition's mean context.

    Raises:
        DoesNotFitError: not even the longest request fits.
    """
    plan = plan_memory(
        condition.deployment,
        context_tokens=max(1, math.ceil(condition.input_tokens + condition.output_tokens)),
        max_num_batched_tokens=condition.engine.max_num_batched_tokens,
        gpu_memory_utilization=condition.engine.gpu_memory_utilization,
    )
    if plan.kv_blocks * 16 < longest:
        needed = plan.shortfall_bytes or plan.kv_bytes_per_sequence
        raise DoesNotFitError(
            f"{condition.deployment.model.id} ({condition.deployment.weights_dtype}) on "
            f"{condition.deployment.ranks} x {condition.deployment.accelerator.id}: "
            f"{needed / 1e9:.1f} GB short for a request of {longest} tokens"
        )
    return plan.kv_blocks


def draw(condition: Condition, *, seed: int, overhead_s: float = 0.0) -> Requests:
    """The requests that one engine of a condition's replicas and ranks sees."""
    setup = condition.setup
    arrivals, count = _arrivals(condition, condition.parts, overhead_s)
    return draw_requests(
        arrivals,
        _lengths(condition, setup.input_tokens, condition.input_tokens),
        _output_lengths(condition),
        count=count,
        seed=seed,
        shared_prefix_tokens=int(setup.shared_prefix_tokens or 0),
        prefix_caching=condition.engine.enable_prefix_caching,
    )


def _arrivals(condition: Condition, share: int, overhead_s: float) -> tuple[Arrivals, int]:
    setup = condition.setup
    stated = max(1, round(setup.requests / share)) if setup.requests else None
    if setup.load in ("static_batch", "burst"):
        size = setup.batch_size if setup.load == "static_batch" else setup.requests
        return Burst(), max(1, round((size or 1) / share))
    if setup.load == "closed_loop":
        users = max(1, round((setup.concurrency or 1) / share))
        count = stated or REQUESTS_PER_USER * users
        count = min(MOST_REQUESTS, max(count, users, FEWEST_REQUESTS if not stated else 1))
        return ClosedLoop(min(users, count), overhead_s), count
    rate = (setup.request_rate_per_s or 1.0) / share
    count = min(MOST_REQUESTS, stated or max(600, round(60 * rate)))
    if setup.load == "constant_rate":
        return Constant(rate), count
    if setup.load == "gamma" and setup.burstiness:
        return Gamma(rate, setup.burstiness), count
    return Poisson(rate), count


def _lengths(condition: Condition, nominal: float, true_mean: float) -> Lengths:
    if condition.spread:
        low, high = condition.spread
        return Uniform(max(1, round(nominal * low)), max(1, round(nominal * high)))
    mean = max(1, round(true_mean))
    if condition.setup.length_spread in VARIED:
        return Lognormal(float(mean), float(mean) * CHAT_P95_TO_MEAN)
    return Fixed(mean)


def _output_lengths(condition: Condition) -> Lengths:
    if not _is_jittered(condition):
        return _lengths(condition, condition.setup.output_tokens, condition.output_tokens)
    low, high = JITTER
    return Uniform(round(condition.output_tokens * low), round(condition.output_tokens * high))


def behind_frontend(requests: Requests, service_s: float) -> tuple[Requests, FloatArray]:
    """Requests as they reach the engine through a serial frontend, and how long each waited.

    First come, first served: departure = max(arrival, last departure) + service; what a lone
    request takes is not part of the wait. Of a closed loop only the opening burst is delayed: later
    requests come one by one.
    """
    waits = np.zeros(len(requests))
    known = np.flatnonzero(np.isfinite(requests.arrival_s))
    if service_s <= 0 or len(known) == 0:
        return requests, waits
    sent = requests.arrival_s[known]
    turn = service_s * np.arange(len(known))
    waits[known] = np.maximum.accumulate(sent - turn) + turn - sent
    arrival_s = requests.arrival_s + waits
    return dataclasses.replace(requests, arrival_s=arrival_s), waits


def measured(timeline: Timeline, behind_s: FloatArray | float = 0.0) -> Served:
    """Latencies as `vllm bench serve` defines them, `behind_s` counted before the arrival."""
    ttft = timeline.first_token_s - timeline.arrival_s + behind_s
    e2e = timeline.finish_s - timeline.arrival_s + behind_s
    several = timeline.output_tokens > 1
    gaps = timeline.output_tokens[several] - 1
    tpot = (timeline.finish_s - timeline.first_token_s)[several] / gaps
    span = float(timeline.finish_s.max() - timeline.arrival_s.min())
    return Served(
        ttft_s=ttft,
        tpot_s=tpot,
        itl_s=gap_percentiles(timeline),
        e2e_s=e2e,
        output_tokens_per_s=float(timeline.output_tokens.sum()) / span,
        requests_per_s=len(timeline) / span,
    )
