"""Timelines worked out by hand. Steps take 1 s + 1/16 s a token unless a test says otherwise."""

from __future__ import annotations

import dataclasses
import math
import threading

import numpy as np
import pytest

from advisor.errors import DoesNotFitError, InputError
from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.simulate import Stopped, StopSignal, Timeline, simulate_engine
from advisor.serving.workload import ClosedLoop, Poisson, Requests, Uniform, draw_requests

STEP = StepCost(token_s=1 + np.arange(65) / 16, sample_s=np.zeros(9), kv_s=0.0, prefill_s=0.0)
ENGINE = EngineSettings(
    max_num_seqs=4, max_num_batched_tokens=16, block_size=4, async_scheduling=False
)


def requests_of(*rows: tuple[float, int, int], cached: int = 0) -> Requests:
    """Requests from (arrival, input tokens, output tokens)."""
    arrival, inputs, outputs = zip(*rows, strict=True)
    return Requests(
        arrival_s=np.array(arrival, dtype=np.float64),
        input_tokens=np.array(inputs),
        output_tokens=np.array(outputs),
        cached_tokens=np.full(len(rows), cached),
    )


def serve(
    requests: Requests,
    engine: EngineSettings = ENGINE,
    step: StepCost = STEP,
    kv_blocks: int = 100,
) -> Timeline:
    return simulate_engine(step, engine, kv_blocks=kv_blocks, requests=requests)


def with_settings(**changes: object) -> EngineSettings:
    return EngineSettings.model_validate(ENGINE.model_dump() | changes)


def test_one_request_alone() -> None:
    """Prefill of 8 tokens: 1.5 s, with the first token; then 2 decode steps of 1 + 1/16 s."""
    timeline = serve(requests_of((5.0, 8, 3)))
    assert timeline.scheduled_s[0] == 5.0
    assert timeline.first_token_s[0] == 6.5
    assert timeline.finish_s[0] == 6.5 + 2 * 1.0625
    assert timeline.steps == 3
    assert timeline.busy_s == timeline.finish_s[0] - 5.0


def test_one_output_token_ends_with_the_prefill() -> None:
    timeline = serve(requests_of((0.0, 8, 1)))
    assert timeline.finish_s[0] == timeline.first_token_s[0] == 1.5
    assert timeline.gap_histogram.sum() == 0


def test_a_long_prompt_takes_several_steps() -> None:
    """40 tokens through a budget of 16: 16 + 16 + 8."""
    timeline = serve(requests_of((0.0, 40, 1)))
    assert timeline.first_token_s[0] == 2.0 + 2.0 + 1.5


def test_an_arrival_within_a_step_waits_for_its_end() -> None:
    """The first decodes in steps of 1.0625 s from 1.5 s on; the second comes at 1.6 s."""
    timeline = serve(requests_of((0.0, 8, 4), (1.6, 8, 1)))
    assert timeline.scheduled_s[1] == 1.5 + 1.0625
    # Its prefill shares a step with one decode: 9 tokens.
    assert timeline.first_token_s[1] == 2.5625 + 1 + 9 / 16
    assert timeline.finish_s[0] == timeline.first_token_s[1] + 1.0625


def test_asynchronous_scheduling_adds_the_step_after() -> None:
    """At 1.6 s the step that begins at 2.5625 s is scheduled already; the arrival gets the next."""
    timeline = serve(requests_of((0.0, 8, 4), (1.6, 8, 1)), with_settings(async_scheduling=True))
    assert timeline.scheduled_s[1] == 1.5 + 2 * 1.0625
    assert timeline.first_token_s[1] == 3.625 + 1 + 9 / 16


def test_running_requests_come_before_waiting_ones() -> None:
    """Budget 16: decode takes 1, the prompt under way the rest, and a newcomer waits for it."""
    timeline = serve(requests_of((0.0, 4, 20), (0.1, 40, 1), (0.2, 4, 1)))
    # Steps: 4 | 1+15 | 1+15 | 1+10+4 (the prompt ends, what is left goes to the newcomer).
    ends = np.cumsum([1 + 4 / 16, 2.0, 2.0, 1 + 15 / 16])
    assert timeline.first_token_s.tolist() == [ends[0], ends[3], ends[3]]


def test_without_chunked_prefill_a_prompt_waits_for_room() -> None:
    """12 tokens do not fit beside another 12 in a budget of 16."""
    both = requests_of((0.0, 12, 1), (0.0, 12, 1))
    assert serve(both).first_token_s[1] == 2.0 + 1 + 8 / 16
    whole = serve(both, with_settings(enable_chunked_prefill=False))
    assert whole.first_token_s[1] == (1 + 12 / 16) * 2


def test_seats_are_limited() -> None:
    timeline = serve(requests_of(*[(0.0, 1, 2)] * 3), with_settings(max_num_seqs=2))
    first_two, third = timeline.finish_s[:2], timeline.scheduled_s[2]
    assert first_two.tolist() == [third, third]


def test_a_full_cache_preempts_the_one_admitted_last() -> None:
    """Two requests of 4 tokens, 3 blocks of 4: after one step each needs a second block.

    The first takes the last one, the second is preempted, waits until the first has ended, and
    computes 4 + 1 tokens again.
    """
    timeline = serve(
        requests_of((0.0, 4, 3), (0.0, 4, 3)),
        with_settings(enable_prefix_caching=False),
        kv_blocks=3,
    )
    assert timeline.preemptions.tolist() == [0, 1]
    prefill, decode = 1 + 8 / 16, 1 + 1 / 16
    first_ends = prefill + 2 * decode
    assert timeline.finish_s[0] == first_ends
    assert timeline.first_token_s[1] == prefill
    again = 1 + 5 / 16
    assert timeline.finish_s[1] == first_ends + again + decode
    assert timeline.kv_peak_share == 2 / 3  # after each step was scheduled


def test_preempted_blocks_that_nobody_took_are_found_again() -> None:
    """As above with a second prompt of two blocks, of which one survives in the cache."""
    requests = requests_of((0.0, 4, 7), (0.0, 8, 3))
    forgetful = serve(requests, with_settings(enable_prefix_caching=False), kv_blocks=4)
    remembering = serve(requests, kv_blocks=4)
    assert forgetful.preemptions.tolist() == remembering.preemptions.tolist() == [0, 1]
    # For its ninth token the first takes the last of the two blocks: 4 of 9 tokens remain.
    saved_tokens = (forgetful.finish_s[1] - remembering.finish_s[1]) * 16
    assert saved_tokens == 4


def test_cached_tokens_are_not_computed() -> None:
    plain, hit = (serve(requests_of((0.0, 12, 1), cached=cached)) for cached in (0, 8))
    assert plain.first_token_s[0] == 1 + 12 / 16
    assert hit.first_token_s[0] == 1 + 4 / 16
    off = with_settings(enable_prefix_caching=False)
    assert serve(requests_of((0.0, 12, 1), cached=8), off).first_token_s[0] == 1 + 12 / 16


def test_attention_follows_the_context() -> None:
    """kv_s counts the tokens in the cache, the one being computed included: 5, then 6."""
    step = dataclasses.replace(STEP, kv_s=1.0, prefill_s=2.0)
    timeline = serve(requests_of((0.0, 4, 3)), step=step)
    assert timeline.first_token_s[0] == 1.25 + 2 * (1 + 2 + 3 + 4)
    assert timeline.finish_s[0] - timeline.first_token_s[0] == 2 * 1.0625 + 5 + 6


def test_windows_cap_what_is_seen() -> None:
    """A window of 5: contexts 5, 6, 7 count as 5; prefill of 7 tokens sees 1+2+3+4+5+5+5."""
    step = dataclasses.replace(STEP, window=5, window_kv_s=1.0, window_prefill_s=1.0)
    timeline = serve(requests_of((0.0, 4, 4)), step=step)
    assert timeline.first_token_s[0] == 1.25 + 10
    assert timeline.finish_s[0] - timeline.first_token_s[0] == 3 * (1.0625 + 5)
    assert serve(requests_of((0.0, 7, 1)), step=step).first_token_s[0] == 1 + 7 / 16 + 25


def test_a_closed_loop_keeps_its_users_busy() -> None:
    """Two users, five requests of 1.125 s for both prompts at once: they march in step."""
    loop = ClosedLoop(concurrency=2, think_s=0.5)
    requests = Requests(
        arrival_s=loop.draw(np.random.default_rng(0), 5),
        input_tokens=np.ones(5, dtype=np.int64),
        output_tokens=np.ones(5, dtype=np.int64),
        cached_tokens=np.zeros(5, dtype=np.int64),
        closed_loop=loop,
    )
    timeline = serve(requests)
    assert timeline.arrival_s.tolist() == [0, 0, 1.625, 1.625, 3.25]
    assert timeline.finish_s.tolist() == [1.125, 1.125, 2.75, 2.75, 3.25 + 1.0625]
    assert np.isnan(requests.arrival_s[2:]).all()


def test_an_answer_ends_where_the_model_length_does() -> None:
    timeline = serve(requests_of((0.0, 4, 50)), with_settings(max_model_len=6))
    assert timeline.output_tokens.tolist() == [2]
    with pytest.raises(InputError, match="a prompt of 6 tokens leaves no room"):
        serve(requests_of((0.0, 6, 1)), with_settings(max_model_len=6))


@pytest.mark.parametrize(
    ("requests", "engine", "step", "kv_blocks", "error", "message"),
    [
        (requests_of((0, 9, 8)), ENGINE, STEP, 3, DoesNotFitError, "needs 4 KV blocks of 4; the"),
        (
            requests_of((0, 20, 1)),
            with_settings(enable_chunked_prefill=False),
            STEP,
            100,
            InputError,
            "max_num_batched_tokens of at least 20, not 16",
        ),
        (
            requests_of((0, 1, 1)),
            with_settings(max_num_batched_tokens=65),
            STEP,
            9,
            InputError,
            "tabulated to 64 tokens",
        ),
        (
            requests_of((0, 1, 1)),
            with_settings(max_num_seqs=9),
            STEP,
            9,
            InputError,
            "tabulated to 8 sequences",
        ),
        (
            requests_of((0, 1, 1)),
            ENGINE,
            dataclasses.replace(STEP, kv_s=-1.0),
            9,
            InputError,
            "at least 0",
        ),
        (requests_of((0, 9, 1), cached=3), ENGINE, STEP, 9, InputError, "whole blocks of 4"),
    ],
)
def test_what_cannot_be_served_is_refused(
    requests: Requests,
    engine: EngineSettings,
    step: StepCost,
    kv_blocks: int,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        serve(requests, engine, step, kv_blocks)


LOAD = draw_requests(Poisson(2.0), Uniform(1, 20), Uniform(1, 10), count=2000, seed=4)


def test_threads_do_not_disturb_each_other() -> None:
    """Eight simulations at once give what one gives alone."""
    alone = serve(LOAD)
    results: list[Timeline] = []
    threads = [threading.Thread(target=lambda: results.append(serve(LOAD))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for timeline in results:
        np.testing.assert_array_equal(timeline.finish_s, alone.finish_s)


def test_a_stopped_simulation_says_so() -> None:
    signal = StopSignal()
    signal.stop()
    with pytest.raises(Stopped):
        simulate_engine(STEP, ENGINE, kv_blocks=100, requests=LOAD, stop=signal)


def test_a_long_run_can_be_interrupted() -> None:
    """A run that would take seconds ends soon after another thread says stop."""
    signal = StopSignal()
    many = draw_requests(Poisson(0.2), Uniform(1, 20), Uniform(1, 10), count=3_000_000, seed=4)
    threading.Timer(0.05, signal.stop).start()
    with pytest.raises(Stopped):
        simulate_engine(STEP, ENGINE, kv_blocks=100, requests=many, stop=signal)
    assert math.isfinite(many.arrival_s[-1])
