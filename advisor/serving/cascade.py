"""Small model first, large one when the gate says so: coupled queues on one clock.

What the small tier hands up reaches the large one when it is known to be needed: after the small
model's whole answer and its validation. No answer of the small tier depends on the large one, so
the tiers are simulated one after the other and still share a clock exactly; bursts of escalations
queue as they would. Two things look back: the cache of answers (a request hits where an earlier
answer was ready) and a hedge (a large answer that wins ends the small model's work). Causes lie
before effects, so the consistent history is the only fixed point, and it is found by repetition.

Nothing may be shown before it is checked. So the first token of an accepted answer comes with its
last, after validation; that of an escalated one is the large model's.
"""

from __future__ import annotations

import math

import numpy as np

from advisor.errors import AdvisorError, InputError
from advisor.serving.cascade_report import CascadeReport, RouteReport, cascade_report
from advisor.serving.routes import (
    CACHE,
    DIRECT,
    ESCALATED,
    ROUTES,
    SMALL,
    CascadeTimeline,
    Route,
)
from advisor.serving.tiers import (
    AnswerCache,
    BoolArray,
    FloatArray,
    Gate,
    Hosted,
    IntArray,
    PreRouter,
    SelfHosted,
    Server,
    Tier,
    TierTimeline,
)
from advisor.serving.workload import Requests

__all__ = [
    "ROUTES",
    "AnswerCache",
    "CascadeReport",
    "CascadeTimeline",
    "Gate",
    "Hosted",
    "PreRouter",
    "Route",
    "RouteReport",
    "SelfHosted",
    "Tier",
    "TierTimeline",
    "cascade_report",
    "simulate_cascade",
]

MOST_REPETITIONS = 200
"""Repetitions in the search for the history that agrees with the cache of answers; 3 to 10 are
usual, since only repeats within the time an answer takes are in doubt."""


def simulate_cascade(
    small: Tier,
    large: Tier,
    gate: Gate,
    requests: Requests,
    *,
    seed: int,
    large_requests: Requests | None = None,
    cache: AnswerCache | None = None,
    cache_hit_share: float = 0.0,
    high_risk_share: float = 0.0,
    prerouted_share: float = 0.0,
    pre_router: PreRouter | None = None,
    hedge_after_s: float | None = None,
) -> CascadeTimeline:
    """Serve requests with a cache, a small tier, a gate and a large tier.

    Args:
        seed: of every random choice here (the requests have a seed of their own).
        large_requests: the same requests as the large model sees them, where its prompts or
            answers have other lengths; None: as the small one.
        cache: of validated answers; needs `requests.prompt_key`.
        cache_hit_share: share of requests answered from a cache whatever the time, for requests
            without prompt keys.
        high_risk_share: share that must go straight to the large tier.
        prerouted_share: share of the others that is sent straight to the large tier at random.
        pre_router: sends likely failures straight to the large tier.
        hedge_after_s: time after sending at which the large tier is asked as well, while the small
            answer is not accepted yet. The first good answer counts, and the other tier's work on
            the request ends with it, as vLLM's does when its client disconnects.

    `requests.cancel_s` ends the work of every tier on a request.

    Raises:
        InputError, DoesNotFitError: as `simulate_fleet`; closed loops are refused, since the end
            of a request would have to start another.
    """
    if requests.closed_loop is not None:
        raise InputError("a cascade takes an open loop: a closed one is not simulated")
    if cache is not None and requests.prompt_key is None:
        raise InputError("a cache of answers needs requests with prompt keys (repeat_share > 0)")
    run = _Cascade(
        small,
        large,
        gate,
        requests,
        large_requests or requests,
        seed=seed,
        pre_router=pre_router,
        hedge_after_s=hedge_after_s,
    )
    run.choose_direct(high_risk_share, prerouted_share)
    if cache is None:
        return run.simulate(run.chance[0] < cache_hit_share, lookup_s=0.0)
    return run.with_cache(cache)


class _Cascade:
    """One cascade with its random choices drawn; `simulate` plays it for given cache hits."""

    def __init__(
        self,
        small: Tier,
        large: Tier,
        gate: Gate,
        requests: Requests,
        large_requests: Requests,
        *,
        seed: int,
        pre_router: PreRouter | None,
        hedge_after_s: float | None,
    ) -> None:
        count = len(requests)
        if len(large_requests) != count:
            raise InputError(f"large_requests: {count} are expected, not {len(large_requests)}")
        rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(1,)))
        self.chance = rng.random((4, count))
        self.gate, self.requests, self.large_requests = gate, requests, large_requests
        self.pre_router, self.hedge_after_s = pre_router, hedge_after_s
        self.small, self.large = Server(small, requests, rng), Server(large, large_requests, rng)
        self.rejected = (
            self.chance[2] < gate.escalation_rate if gate.escalate is None else gate.escalate
        )
        if len(self.rejected) != count:
            raise InputError(
                f"gate: {count} values of escalate are expected, not {len(self.rejected)}"
            )
        self.direct = np.zeros(count, dtype=np.bool_)
        self.begin_s = requests.arrival_s

    def choose_direct(self, high_risk_share: float, prerouted_share: float) -> None:
        """Which requests skip the small tier."""
        share = high_risk_share + (1 - high_risk_share) * prerouted_share
        self.direct = self.chance[1] < share
        if self.pre_router is not None:
            router = self.pre_router
            likely = np.where(self.rejected, router.recall, router.false_alarm_rate)
            self.direct = self.direct | (self.chance[3] < likely)
            self.begin_s = self.requests.arrival_s + router.decision_s

    def simulate(self, hits: BoolArray, *, lookup_s: float) -> CascadeTimeline:
        """The whole history, given which requests the cache answers.

        A large answer that wins a hedge ends the small model's work on the request, which others
        then finish sooner: the history in which each such moment is that of the win is found by
        repetition, as that of the cache is.
        """
        released_s = np.full(len(self.requests), np.inf)
        for _ in range(MOST_REPETITIONS):
            timeline = self._history(hits, lookup_s, released_s)
            if self.hedge_after_s is None:
                return timeline
            found = np.full(len(self.requests), np.inf)
            won = ~np.isnan(timeline.large.finish_s)
            found[timeline.large.index[won]] = timeline.large.finish_s[won]
            if np.array_equal(found, released_s):
                return timeline
            released_s = found
        raise AdvisorError(
            f"hedged requests did not settle in {MOST_REPETITIONS} repetitions: "
            "the cascade is overloaded"
        )

    def _history(self, hits: BoolArray, lookup_s: float, released_s: FloatArray) -> CascadeTimeline:
        """The same, given when the large model's answer ends the small one's work."""
        count, requests, gate = len(self.requests), self.requests, self.gate
        leaves_s = np.full(count, np.inf) if requests.cancel_s is None else requests.cancel_s
        tried = np.flatnonzero(~hits & ~self.direct)
        begin = self.begin_s[tried]
        gives_up = leaves_s[tried]
        if gate.timeout_s is not None:
            gives_up = np.minimum(gives_up, begin + gate.timeout_s)
        gives_up = np.minimum(gives_up, released_s[tried])
        below = self.small.serve(tried, begin, gives_up if np.isfinite(gives_up).any() else None)
        answered = ~np.isnan(below.finish_s)
        known = below.finish_s + gate.validation_s
        accepted_s = np.where(answered & ~self.rejected[tried], known, np.inf)
        handed_up_s = np.where(answered & self.rejected[tried], known, np.inf)
        handed_up_s[~answered] = gives_up[~answered]
        if self.hedge_after_s is not None:
            hedge_s = begin + self.hedge_after_s
            handed_up_s = np.where(accepted_s > hedge_s, np.minimum(handed_up_s, hedge_s), np.inf)
        handed_up_s[handed_up_s >= leaves_s[tried]] = np.inf
        up = np.isfinite(handed_up_s)

        straight = np.flatnonzero(~hits & self.direct)
        index = np.concatenate([straight, tried[up]])
        sent = np.concatenate([self.begin_s[straight], handed_up_s[up]])
        unwanted = np.minimum(
            leaves_s[index], np.concatenate([np.full(len(straight), np.inf), accepted_s[up]])
        )
        order = np.argsort(sent, kind="stable")
        index, sent, unwanted = index[order], sent[order], unwanted[order]
        above = self.large.serve(index, sent, unwanted if np.isfinite(unwanted).any() else None)

        first, finish = np.full(count, np.nan), np.full(count, np.nan)
        first[above.index], finish[above.index] = above.first_token_s, above.finish_s
        route = np.full(count, SMALL, dtype=np.int8)
        route[above.index] = ESCALATED
        route[straight] = DIRECT
        # An accepted small answer counts where the large one is not complete before it.
        small_won = np.isfinite(accepted_s) & ~(finish[tried] < accepted_s)
        first[tried[small_won]] = finish[tried[small_won]] = accepted_s[small_won]
        route[tried[small_won]] = SMALL
        first[hits] = finish[hits] = requests.arrival_s[hits] + lookup_s
        route[hits] = CACHE
        waited = np.zeros(count)
        waited[tried] += below.waited_s
        waited[above.index] += above.waited_s
        by_large = (route == ESCALATED) | (route == DIRECT)
        return CascadeTimeline(
            arrival_s=requests.arrival_s,
            first_token_s=np.where(first > leaves_s, np.nan, first),
            finish_s=np.where(finish > leaves_s, np.nan, finish),
            output_tokens=np.where(
                by_large, self.large_requests.output_tokens, requests.output_tokens
            ),
            route=route,
            waited_s=waited,
            small=below,
            large=above,
            wasted_large=int(np.count_nonzero(up & small_won)),
        )

    def with_cache(self, cache: AnswerCache) -> CascadeTimeline:
        """The history in which a request hits exactly when a validated answer lay there."""
        assert self.requests.prompt_key is not None
        keys = self.requests.prompt_key
        hits = keys != np.arange(len(keys))
        for _ in range(MOST_REPETITIONS):
            timeline = self.simulate(hits, lookup_s=cache.lookup_s)
            found = answers_found(
                keys, timeline.arrival_s, np.where(hits, np.nan, timeline.finish_s), cache.ttl_s
            )
            if np.array_equal(found, hits):
                return timeline
            hits = found
        raise AdvisorError(
            f"the cache of answers did not settle in {MOST_REPETITIONS} repetitions: "
            "the cascade is overloaded"
        )


def answers_found(
    keys: IntArray, arrival_s: FloatArray, ready_s: FloatArray, ttl_s: float = math.inf
) -> BoolArray:
    """For each request whether an equal one was answered before it arrives, within the TTL.

    Args:
        keys: equal where requests are.
        arrival_s: when each looks.
        ready_s: when each one's own answer enters the cache; NaN: never.
    """
    found = np.zeros(len(keys), dtype=np.bool_)
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    # Few are repeats, and only they (or what is ready before it arrives) can find anything.
    repeated = np.flatnonzero((sizes[group] > 1) | (ready_s <= arrival_s))
    found[repeated] = _found_among(keys[repeated], arrival_s[repeated], ready_s[repeated], ttl_s)
    return found


def _found_among(
    keys: IntArray, arrival_s: FloatArray, ready_s: FloatArray, ttl_s: float
) -> BoolArray:
    """`answers_found`, by one sort of all answers and looks."""
    count = len(keys)
    answered = np.flatnonzero(~np.isnan(ready_s))
    owner = np.concatenate([keys[answered], keys])
    time = np.concatenate([ready_s[answered], arrival_s])
    looks = np.concatenate([np.zeros(len(answered), np.int8), np.ones(count, np.int8)])
    order = np.lexsort((looks, time, owner))
    # Last answer of the same key at or before each look, in the sorted sequence.
    position = np.arange(len(order))
    last = np.maximum.accumulate(np.where(looks[order] == 0, position, -1))
    source = order[np.maximum(last, 0)]
    valid = (last >= 0) & (owner[source] == owner[order]) & (time[order] - time[source] <= ttl_s)
    found = np.zeros(count, dtype=np.bool_)
    asked = looks[order] == 1
    found[order[asked] - len(answered)] = valid[asked]
    return found
