"""A timeline over time."""

from __future__ import annotations

import numpy as np
import pytest
from deployments import ENGINE, KV_BLOCKS, LOAD, STEP

from advisor.errors import InputError
from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.series import kv_tokens, series
from advisor.serving.simulate import simulate_engine
from advisor.serving.workload import Requests


def test_a_series_by_hand() -> None:
    """Steps of 1 s, one seat: arrivals at 0, 0 and 4; served 0–2, 2–5 (with a wait) and 5–6."""
    step = StepCost(token_s=np.ones(65), sample_s=np.zeros(2), kv_s=0.0, prefill_s=0.0)
    engine = EngineSettings(max_num_seqs=1, max_num_batched_tokens=64, async_scheduling=False)
    requests = Requests(
        np.array([0.0, 0.0, 4.0]), np.full(3, 8), np.array([2, 3, 1]), np.zeros(3, dtype=np.int64)
    )
    timeline = simulate_engine(step, engine, kv_blocks=10, requests=requests)
    assert timeline.finish_s.tolist() == [2, 5, 6]
    seen = series(timeline, resolution_s=1.0)
    assert seen.time_s == (1, 2, 3, 4, 5, 6)
    assert seen.arrivals_per_s == (2, 0, 0, 1, 0, 0)
    assert seen.completions_per_s == (0, 1, 0, 0, 1, 1)
    assert seen.output_tokens_per_s == (0, 2, 0, 0, 3, 1)
    assert seen.waiting == (1, 0, 0, 1, 0, 0)
    assert seen.running == (1, 1, 1, 1, 1, 0)
    # After its prefill the first request holds 8 tokens, of the 160 that fit.
    assert seen.kv_share[0] == pytest.approx(8 / 160)
    assert seen.e2e_p95_s[0] == pytest.approx(2 + 0.95 * 3)
    assert seen.e2e_p95_s[1] is None
    with pytest.raises(InputError, match="at most 100,000"):
        series(timeline, resolution_s=1e-6)
    with pytest.raises(InputError, match="a positive number"):
        series(timeline, resolution_s=0)


def test_a_series_adds_up_to_the_run() -> None:
    timeline = simulate_engine(
        STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=LOAD.draw(count=2000, seed=2)
    )
    seen = series(timeline, resolution_s=0.5)
    assert sum(seen.arrivals_per_s) * 0.5 == pytest.approx(2000)
    assert sum(seen.completions_per_s) * 0.5 == pytest.approx(2000)
    assert sum(seen.output_tokens_per_s) * 0.5 == pytest.approx(timeline.output_tokens.sum())
    assert seen.running[-1] == seen.waiting[-1] == 0
    # The mean of the running requests is Little's law on the time after admission.
    stay = (timeline.finish_s - timeline.scheduled_s).sum() / (
        timeline.finish_s.max() - timeline.arrival_s[0]
    )
    assert np.mean(seen.running) == pytest.approx(stay, rel=0.03)


def test_cancelled_requests_leave_the_series_when_their_clients_do() -> None:
    requests = LOAD.at_rate(40).draw(count=500, seed=2).with_timeout(3.0)
    timeline = simulate_engine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=requests)
    assert np.isnan(timeline.scheduled_s).any() or np.isnan(timeline.finish_s).any()
    seen = series(timeline, resolution_s=0.25)
    assert seen.running[-1] == seen.waiting[-1] == 0
    assert min(seen.running) >= 0 and min(seen.waiting) >= 0


def test_kv_tokens_follow_a_request_from_prompt_to_last_token() -> None:
    """Alone: empty at first, the prompt when the first token comes, at last the answer too."""
    requests = Requests(np.zeros(1), np.array([600]), np.array([50]), np.zeros(1, dtype=np.int64))
    timeline = simulate_engine(STEP, ENGINE, kv_blocks=KV_BLOCKS, requests=requests)
    first, finish = float(timeline.first_token_s[0]), float(timeline.finish_s[0])
    moments = np.array([0.0, first / 2, first, (first + finish) / 2, finish * (1 - 1e-9), finish])
    assert kv_tokens(timeline, moments) == pytest.approx([0, 300, 600, 625, 650, 0], abs=1e-3)
