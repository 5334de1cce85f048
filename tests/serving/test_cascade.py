"""A cascade is coupled queues: what the small model hands up queues at the large one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from deployments import ENGINE, KV_BLOCKS, LOAD, STEP
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.physics.step_cost import StepCost
from advisor.serving.cascade import (
    ROUTES,
    AnswerCache,
    CascadeTimeline,
    Gate,
    Hosted,
    PreRouter,
    SelfHosted,
    answers_found,
    cascade_report,
    simulate_cascade,
)
from advisor.serving.engine import EngineSettings
from advisor.serving.metrics import goodput
from advisor.serving.simulate import simulate_engine
from advisor.serving.workload import ClosedLoop, Fixed, Poisson, Requests, Uniform, draw_requests

ENGINE_OF_TWO = EngineSettings(
    max_num_seqs=2, max_num_batched_tokens=64, block_size=4, async_scheduling=False
)


def tier(
    step_s: float, *, engine: EngineSettings = ENGINE_OF_TWO, overhead_s: float = 0.0
) -> SelfHosted:
    """Every step takes `step_s` seconds."""
    step = StepCost(token_s=np.full(65, step_s), sample_s=np.zeros(9), kv_s=0.0, prefill_s=0.0)
    return SelfHosted(step, engine, 100, request_overhead_s=overhead_s)


SMALL, LARGE = tier(1.0), tier(4.0)


def requests_of(arrival_s: list[float], outputs: list[int], **changes: object) -> Requests:
    count = len(arrival_s)
    requests = Requests(
        arrival_s=np.array(arrival_s),
        input_tokens=np.full(count, 4),
        output_tokens=np.array(outputs),
        cached_tokens=np.zeros(count, dtype=np.int64),
    )
    return dataclasses.replace(requests, **changes)  # type: ignore[arg-type]


def routes(timeline: CascadeTimeline) -> list[str]:
    return [ROUTES[code] for code in timeline.route]


def test_an_accepted_answer_shows_when_it_is_complete_and_checked() -> None:
    """3 steps of 1 s, half a second of validation: first and last token both at 3.5 s."""
    timeline = simulate_cascade(
        SMALL, LARGE, Gate(validation_s=0.5), requests_of([0.0], [3]), seed=0
    )
    assert routes(timeline) == ["small"]
    assert timeline.first_token_s[0] == timeline.finish_s[0] == 3.5


def test_an_escalated_answer_pays_for_both() -> None:
    """3.5 s as above, then the large model: first token 4 s later, the last 2·4 s after that."""
    gate = Gate(validation_s=0.5, escalation_rate=1.0)
    timeline = simulate_cascade(SMALL, LARGE, gate, requests_of([0.0], [3]), seed=0)
    assert routes(timeline) == ["escalated"]
    assert timeline.first_token_s[0] == 3.5 + 4
    assert timeline.finish_s[0] == 3.5 + 12
    assert timeline.escalation_rate == 1


def test_escalations_queue_at_the_large_tier() -> None:
    """Three at once through one seat each: the large model gets them at 1, 2 and 3 s."""
    one = EngineSettings(
        max_num_seqs=1, max_num_batched_tokens=64, block_size=4, async_scheduling=False
    )
    timeline = simulate_cascade(
        tier(1.0, engine=one),
        tier(4.0, engine=one),
        Gate(escalation_rate=1.0),
        requests_of([0.0, 0.0, 0.0], [1, 1, 1]),
        seed=0,
    )
    assert timeline.large.sent_s.tolist() == [1, 2, 3]
    assert timeline.finish_s.tolist() == [5, 9, 13]
    # Waits at the small tier 0, 1, 2; at the large one 0, 5 − 2, 9 − 3.
    assert timeline.waited_s.tolist() == [0, 4, 8]


def test_overheads_and_other_lengths_at_the_large_tier() -> None:
    """The large model answers with one token to the small one's three, and is 0.25 s away."""
    requests = requests_of([0.0], [3])
    timeline = simulate_cascade(
        tier(1.0, overhead_s=0.125),
        tier(4.0, overhead_s=0.25),
        Gate(escalation_rate=1.0),
        requests,
        seed=0,
        large_requests=dataclasses.replace(requests, output_tokens=np.array([1])),
    )
    assert timeline.finish_s[0] == 0.125 + 3 + 0.25 + 4
    assert timeline.output_tokens.tolist() == [1]


def test_high_risk_requests_go_straight_to_the_large_tier() -> None:
    timeline = simulate_cascade(
        SMALL, LARGE, Gate(), requests_of([0.0, 0.0], [1, 1]), seed=0, high_risk_share=1.0
    )
    assert routes(timeline) == ["direct", "direct"]
    assert timeline.finish_s.tolist() == [4, 4]
    assert len(timeline.small.index) == 0
    assert timeline.escalation_rate == 0


def test_a_timeout_hands_up_what_the_small_tier_did_not_finish() -> None:
    """10 steps of 1 s against a timeout of 5 s: at the large tier from 5 s on, and the small
    tier is free for the next."""
    one = EngineSettings(
        max_num_seqs=1, max_num_batched_tokens=64, block_size=4, async_scheduling=False
    )
    timeline = simulate_cascade(
        tier(1.0, engine=one),
        LARGE,
        Gate(timeout_s=5.0),
        requests_of([0.0, 3.0], [10, 2]),
        seed=0,
    )
    assert routes(timeline) == ["escalated", "small"]
    assert timeline.first_token_s[0] == 5 + 4
    assert timeline.finish_s[1] == 5 + 2


def test_a_hedge_takes_whichever_answer_is_first() -> None:
    """Hedged at 2 s. Small answers at 3 s: the large one is cancelled. Small answers at 30 s: the
    large one, begun at 2 s, is there at 2 + 4 s … for one token, or never in time for thirty."""
    for outputs, route, finish in ((3, "small", 3.0), (30, "small", 30.0)):
        timeline = simulate_cascade(
            SMALL, LARGE, Gate(), requests_of([0.0], [outputs]), seed=0, hedge_after_s=2.0
        )
        assert (routes(timeline), timeline.finish_s[0]) == ([route], finish)
        assert timeline.wasted_large == 1
    requests = requests_of([0.0], [30])
    short = dataclasses.replace(requests, output_tokens=np.array([1]))
    timeline = simulate_cascade(
        SMALL, LARGE, Gate(), requests, seed=0, hedge_after_s=2.0, large_requests=short
    )
    assert (routes(timeline), timeline.finish_s[0]) == (["escalated"], 6.0)
    assert timeline.wasted_large == 0


def test_a_hedge_that_was_rejected_meanwhile_waits_for_the_large_answer() -> None:
    """Rejected at 3 s, but the large model works on it since 2 s."""
    timeline = simulate_cascade(
        SMALL,
        LARGE,
        Gate(escalation_rate=1.0),
        requests_of([0.0], [3]),
        seed=0,
        hedge_after_s=2.0,
    )
    assert timeline.finish_s[0] == 2 + 12


def test_a_hedge_that_wins_frees_the_seat_of_the_small_model() -> None:
    """One seat. The first answer would hold it until 30 s; the large one is there at 2 + 4 = 6 s,
    so the step then under way is the last, and the second request is served from 6 s on."""
    one_seat = EngineSettings(
        max_num_seqs=1, max_num_batched_tokens=64, block_size=4, async_scheduling=False
    )
    requests = requests_of([0.0, 3.0], [30, 2])
    large = dataclasses.replace(requests, output_tokens=np.array([1, 30]))
    timeline = simulate_cascade(
        tier(1.0, engine=one_seat),
        LARGE,
        Gate(),
        requests,
        seed=0,
        hedge_after_s=2.0,
        large_requests=large,
    )
    assert routes(timeline) == ["escalated", "small"]
    assert np.isnan(timeline.small.finish_s[0])
    assert timeline.finish_s.tolist() == [6.0, 8.0]


@pytest.mark.parametrize("rate_per_s", [20.0, 60.0])
def test_the_history_of_hedges_agrees_with_itself(rate_per_s: float) -> None:
    """What the large tier won, the small one worked on until then and no longer."""
    requests = LOAD.at_rate(rate_per_s).draw(count=800, seed=3)
    timeline = simulate_cascade(
        SelfHosted(STEP, ENGINE, KV_BLOCKS),
        SelfHosted(STEP, ENGINE, KV_BLOCKS),
        Gate(escalation_rate=0.1),
        requests,
        seed=1,
        hedge_after_s=0.05,
        # Other lengths, so that each of them wins some.
        large_requests=dataclasses.replace(
            requests, output_tokens=requests.output_tokens[::-1].copy()
        ),
    )
    won = np.full(len(requests), np.inf)
    won[timeline.large.index] = np.nan_to_num(timeline.large.finish_s, nan=np.inf)
    small = timeline.small
    ended = small.finish_s
    assert np.isnan(ended).any()
    assert not np.isnan(ended).all()
    assert np.all(np.isfinite(won[small.index[np.isnan(ended)]]))
    kept = ~np.isnan(ended)
    assert np.all(ended[kept] <= won[small.index[kept]])


def test_a_client_that_leaves_ends_the_work_of_both_tiers() -> None:
    requests = requests_of([0.0, 0.0], [3, 3], cancel_s=np.array([2.0, 6.0]))
    timeline = simulate_cascade(SMALL, LARGE, Gate(escalation_rate=1.0), requests, seed=0)
    assert np.isnan(timeline.finish_s).all()
    assert timeline.large.index.tolist() == [1]
    assert cascade_report(timeline, warmup_share=0.0).cancelled == 2


def test_a_cached_answer_counts_from_when_it_was_validated() -> None:
    """The same prompt at 0, 2, 4 and 20 s; its answer is ready at 3.5 s, so the second misses."""
    requests = requests_of([0.0, 2.0, 4.0, 20.0], [3] * 4, prompt_key=np.zeros(4, dtype=np.int64))
    timeline = simulate_cascade(
        SMALL,
        LARGE,
        Gate(validation_s=0.5),
        requests,
        seed=0,
        cache=AnswerCache(lookup_s=0.25),
    )
    assert routes(timeline) == ["small", "small", "cache", "cache"]
    assert timeline.finish_s.tolist() == [3.5, 5.5, 4.25, 20.25]
    forgetful = simulate_cascade(
        SMALL,
        LARGE,
        Gate(validation_s=0.5),
        requests,
        seed=0,
        cache=AnswerCache(ttl_s=1.0),
    )
    assert routes(forgetful) == ["small", "small", "cache", "small"]


def test_cache_hits_agree_with_the_history_they_make() -> None:
    """On a busy system, where what hits decides how long the others wait."""
    load = dataclasses.replace(LOAD.at_rate(60), repeat_share=0.6)
    requests = load.draw(count=3000, seed=2)
    timeline = simulate_cascade(
        SelfHosted(STEP.scaled(0.4), ENGINE, KV_BLOCKS),
        SelfHosted(STEP, ENGINE, KV_BLOCKS),
        Gate(escalation_rate=0.1),
        requests,
        seed=1,
        cache=AnswerCache(),
    )
    assert requests.prompt_key is not None
    answered: dict[int, float] = {}
    own = [name != "cache" for name in routes(timeline)]
    for index in np.argsort(timeline.finish_s, kind="stable"):
        if own[index]:
            answered.setdefault(int(requests.prompt_key[index]), float(timeline.finish_s[index]))
    for index, key in enumerate(requests.prompt_key):
        ready = answered.get(int(key), math.inf)
        assert own[index] == (ready > timeline.arrival_s[index] or math.isinf(ready))
    assert 0.1 < np.mean(~np.array(own)) < 0.6


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_answers_found_is_the_search_one_would_write(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    keys = np.array(data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)))
    moments = st.integers(0, 20).map(float)
    arrival = np.sort(data.draw(st.lists(moments, min_size=count, max_size=count)))
    ready = np.array(
        data.draw(st.lists(st.one_of(moments, st.just(math.nan)), min_size=count, max_size=count))
    )
    ttl = data.draw(st.sampled_from([2.0, 5.0, math.inf]))
    slow = [
        any(keys[j] == keys[i] and ready[j] <= arrival[i] <= ready[j] + ttl for j in range(count))
        for i in range(count)
    ]
    assert answers_found(keys, arrival, ready, ttl).tolist() == slow


def test_a_pre_router_skips_the_small_tier_for_what_would_fail() -> None:
    escalate = np.array([True, False, True, False])
    requests = requests_of([0.0] * 4, [1] * 4)
    timeline = simulate_cascade(
        SMALL,
        LARGE,
        Gate(escalate=escalate),
        requests,
        seed=0,
        pre_router=PreRouter(recall=1.0, false_alarm_rate=0.0, decision_s=0.5),
    )
    assert routes(timeline) == ["direct", "small", "direct", "small"]
    assert timeline.finish_s.tolist() == [4.5, 1.5, 4.5, 1.5]


def test_a_hosted_tier_is_its_distribution() -> None:
    """100,000 requests without a limit: median and p95 as asked, tokens on top."""
    api = Hosted(0.4, 1.2, 0.01, 0.02)
    requests = draw_requests(Poisson(50), Fixed(10), Fixed(11), count=100_000, seed=1)
    timeline = simulate_cascade(SMALL, api, Gate(), requests, seed=2, high_risk_share=1.0)
    ttft = timeline.first_token_s - timeline.arrival_s
    assert np.median(ttft) == pytest.approx(0.4, rel=0.02)
    assert np.quantile(ttft, 0.95) == pytest.approx(1.2, rel=0.02)
    tokens = (timeline.finish_s - timeline.first_token_s) / 10
    assert np.median(tokens) == pytest.approx(0.01, rel=0.02)


def test_a_rate_limit_spreads_a_burst_and_errors_cost_attempts() -> None:
    """Five at once through 2 a second: they begin at 0, 0.5 … 2 s."""
    api = Hosted(1.0, 1.0, 0.1, 0.1, rate_limit_per_s=2.0)
    requests = requests_of([0.0] * 5, [1] * 5)
    timeline = simulate_cascade(SMALL, api, Gate(), requests, seed=0, high_risk_share=1.0)
    assert timeline.finish_s.tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    flaky = dataclasses.replace(api, rate_limit_per_s=None, error_rate=0.5)
    many = draw_requests(Poisson(50), Fixed(10), Fixed(1), count=50_000, seed=1)
    served = simulate_cascade(SMALL, flaky, Gate(), many, seed=2, high_risk_share=1.0)
    # Attempts are geometric: two on average.
    assert (served.finish_s - served.arrival_s).mean() == pytest.approx(2.0, rel=0.02)


def test_the_report_is_of_the_mixture() -> None:
    """Not of averages: percentiles over all requests, and the routes partition them."""
    requests = LOAD.at_rate(20).draw(count=4000, seed=1)
    timeline = simulate_cascade(
        SelfHosted(STEP.scaled(0.3), ENGINE, KV_BLOCKS),
        SelfHosted(STEP, ENGINE, KV_BLOCKS),
        Gate(validation_s=0.01, escalation_rate=0.2),
        requests,
        seed=1,
        cache_hit_share=0.1,
        high_risk_share=0.05,
    )
    told = cascade_report(timeline, warmup_share=0.0, small_sustainable_per_s=60.0)
    e2e = timeline.finish_s - timeline.arrival_s
    assert told.e2e.p95 == pytest.approx(np.quantile(e2e, 0.95))
    assert sum(route.requests for route in told.by_route.values()) == told.requests == 4000
    assert sum(route.share for route in told.by_route.values()) == pytest.approx(1)
    assert told.escalation_rate == pytest.approx(0.2, abs=0.02)
    weighted = sum(route.share * route.e2e.mean for route in told.by_route.values())
    assert told.e2e.mean == pytest.approx(weighted)
    assert told.by_route["small"].tpot.p99 == 0, "released whole"
    routes = [told.by_route[name].tpot for name in ("escalated", "direct")]
    assert min(one.mean for one in routes) <= told.tpot.mean <= max(one.mean for one in routes)
    assert told.by_route["escalated"].ttft.p50 > told.by_route["small"].ttft.p50
    assert told.stable
    assert goodput(timeline, e2e_s=told.e2e.p95).share == pytest.approx(0.95, abs=0.001)
    assert told.small is not None and told.small.sustainable_rate_per_s == 60
    tried = len(timeline.small.index) / 4000
    assert told.sustainable_rate_per_s == pytest.approx(60 / tried)


def test_nothing_escalated_is_the_small_tier_alone() -> None:
    requests = LOAD.draw(count=500, seed=1)
    alone = simulate_engine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=requests)
    deployment = SelfHosted(STEP, ENGINE, KV_BLOCKS)
    cascade = simulate_cascade(deployment, deployment, Gate(), requests, seed=0)
    np.testing.assert_array_equal(cascade.finish_s, alone.finish_s)
    np.testing.assert_array_equal(cascade.first_token_s, alone.finish_s)


def test_the_same_seed_gives_the_same_cascade() -> None:
    requests = LOAD.draw(count=500, seed=1)
    deployment = SelfHosted(STEP, ENGINE, KV_BLOCKS)

    def finish(seed: int) -> np.ndarray:
        gate = Gate(escalation_rate=0.3)
        return simulate_cascade(deployment, deployment, gate, requests, seed=seed).finish_s

    np.testing.assert_array_equal(finish(1), finish(1))
    assert (finish(1) != finish(2)).any()


def test_impossible_cascades_are_refused() -> None:
    with pytest.raises(InputError, match="escalation_rate must lie"):
        Gate(escalation_rate=1.5)
    with pytest.raises(InputError, match="timeout_s must be positive"):
        Gate(timeout_s=0.0)
    with pytest.raises(InputError, match="ttft_median_s ≤ ttft_p95_s"):
        Hosted(1.0, 0.5, 0.1, 0.1)
    with pytest.raises(InputError, match="error_rate"):
        Hosted(1.0, 1.5, 0.1, 0.1, error_rate=1.0)
    with pytest.raises(InputError, match="3 values of escalate"):
        simulate_cascade(
            SMALL, LARGE, Gate(escalate=np.ones(2, bool)), requests_of([0.0] * 3, [1] * 3), seed=0
        )
    with pytest.raises(InputError, match="prompt keys"):
        simulate_cascade(SMALL, LARGE, Gate(), requests_of([0.0], [1]), seed=0, cache=AnswerCache())
    loop = draw_requests(ClosedLoop(2), Fixed(4), Uniform(1, 3), count=9, seed=0)
    with pytest.raises(InputError, match="open loop"):
        simulate_cascade(SMALL, LARGE, Gate(), loop, seed=0)
