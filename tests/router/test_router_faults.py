"""Every failure, at either model, under every policy, streamed or not: the client gets a valid
answer or a valid error, the request is counted once, and what was spent is charged."""

import asyncio
import json
from typing import Any, get_args

import pytest
from fake_upstream import Fault
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from routing import (
    LLM_USD,
    SLM_USD,
    both,
    counted,
    drained,
    request,
    router,
    said,
)

from advisor.router.answers import Answer
from advisor.router.router import Router

pytestmark = pytest.mark.live

FAULTS: tuple[Fault, ...] = tuple(fault for fault in get_args(Fault) if fault)

POLICIES: dict[str, dict[str, Any]] = {
    "llm_only": {"policy": {"name": "llm_only"}},
    "cascade": {"policy": {"name": "cascade", "threshold": 0.8}},
    "hedge": {"policy": {"name": "hedge", "threshold": 0.8, "hedge_after_s": 0.005}},
    "high_risk": {"high_risk": [{"pattern": "money"}]},
    "by_type": {"policy": {"by_type": {"*": {"policy": "llm_only"}}}},
    "canary": {"policy": {"canary": {"share": 1.0, "policy": "llm_only"}}},
    "error": {"failure": {"on_llm_failure": "error"}},
    "shadow": {"policy": {"name": "llm_only", "shadow": {"share": 1.0}}},
}
SMALL_HAS_ANSWERED = {"cascade", "hedge"}

NOT_SERVED = {"rate_limited", "server_error", "bad_request", "unauthorized", "redirect"}
"""The upstream says itself that it has not answered: nothing is charged."""

ATTEMPTS = {"bad_request": 1, "unauthorized": 1}
STATUS = {"timeout": 504, "rate_limited": 429, "bad_request": 400}


def limited(fault: Fault) -> dict[str, float]:
    """A short time for a model that will not answer; ample for one that does, on a busy machine."""
    return {"timeout_s": 0.05 if fault == "timeout" else 20.0}


async def checked(answer: Answer) -> bytes:
    """The answer is one that an OpenAI client understands."""
    if answer.stream is None:
        assert answer.body is not None
        if answer.status == 200:
            ChatCompletion.model_validate(answer.body)
        else:
            assert {"message", "type", "param", "code"} <= answer.body["error"].keys()
        return json.dumps(answer.body).encode()
    raw = await drained(answer)
    *events, end, nothing = raw.split(b"\n\n")
    assert nothing == b""
    for event in events:
        if event.startswith(b"data: "):
            ChatCompletionChunk.model_validate_json(event[6:])
    assert end == b"data: [DONE]" or "error" in json.loads(end[6:])
    return raw


def assert_counted_once(opened: Router, answer: Answer) -> None:
    assert counted(opened, "advisor_requests_total") == 1
    assert counted(opened, "advisor_requests_in_flight") == 0
    charged = sum(charge.usd or 0.0 for charge in answer.facts.bill.charges)
    assert counted(opened, "advisor_cost_usd_total", purpose="answer") == pytest.approx(charged)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_large_model_fails(fault: Fault, policy: str, stream: bool) -> None:
    async def scenario() -> None:
        async with both() as models:
            models.slm.confidence = 0.5
            models.slm.delay_s = 0.02 if policy == "hedge" else 0.0
            models.llm.fault = fault
            parts = {**POLICIES[policy]}
            llm = limited(fault)
            async with router(models, llm=llm, **parts) as opened:
                answer = await opened.answer(request(stream=stream))
                await checked(answer)
                assert_counted_once(opened, answer)

            begun = stream and fault == "truncated"
            stood_in = policy in SMALL_HAS_ANSWERED and fault != "bad_request" and not begun
            if stood_in:
                assert (answer.status, answer.facts.reason) == (200, "llm_failed")
                assert answer.facts.route == "slm"
                assert answer.facts.confidence == pytest.approx(0.5)
                assert said(answer) == "refund_status"
            elif begun:
                assert answer.status == 200
                assert answer.facts.route == "llm"
            else:
                assert answer.status == STATUS.get(fault, 502)
                assert answer.facts.route == "none"

            tried = 1 if begun else ATTEMPTS.get(fault, 3)
            assert len(models.llm.bodies) == tried
            bill = [c for c in answer.facts.bill.charges if c.tier == "llm"]
            assert len(bill) == (0 if fault in NOT_SERVED else tried)
            assert all(charge.usage.estimated and charge.usd for charge in bill)

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_small_model_fails_and_the_large_one_answers(fault: Fault, stream: bool) -> None:
    async def scenario() -> None:
        async with both() as models:
            models.slm.fault = fault
            async with router(models, slm=limited(fault)) as opened:
                answer = await opened.answer(request(stream=stream))
                raw = await checked(answer)
                assert_counted_once(opened, answer)
                causes = {"timeout": "slm_timeout", "bad_request": "slm_rejected"}
                cause = causes.get(fault, "slm_error")
                assert counted(opened, "advisor_escalations_total", cause=cause) == 1

            assert (answer.status, answer.facts.route) == (200, "llm")
            assert answer.facts.reason == answer.facts.escalated == cause
            assert b"refund_status" in raw or stream
            assert len(models.slm.bodies) == 1, "a cascade does not retry the small model"
            large = [c.usd for c in answer.facts.bill.charges if c.tier == "llm"]
            assert large == [pytest.approx(LLM_USD)]

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_only_model_fails(fault: Fault, stream: bool) -> None:
    async def scenario() -> None:
        async with both() as models:
            models.slm.fault = fault
            slm = limited(fault)
            async with router(models, slm=slm, policy={"name": "slm_only"}) as opened:
                answer = await opened.answer(request(stream=stream))
                await checked(answer)
                assert_counted_once(opened, answer)
            assert models.llm.bodies == []

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["rate_limited", "server_error", "reset", "timeout", "malformed"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_one_failure_is_retried_and_not_seen(fault: Fault, stream: bool) -> None:
    async def scenario() -> None:
        async with both() as models:
            models.llm.faults = [fault]
            llm = {"timeout_s": 0.5}
            async with router(models, llm=llm, policy={"name": "llm_only"}) as opened:
                answer = await opened.answer(request(stream=stream))
                await checked(answer)
                assert_counted_once(opened, answer)
            assert (answer.status, answer.facts.route) == (200, "llm")
            assert len(models.llm.bodies) == 2

    asyncio.run(scenario())


def test_a_hard_gate_is_not_outvoted_by_a_failure() -> None:
    async def scenario(wanted: str) -> Answer:
        async with both() as models:
            models.slm.text, models.llm.fault = "no such label", "server_error"
            async with router(models, failure={"on_llm_failure": wanted}) as opened:
                return await opened.answer(request())

    assert asyncio.run(scenario("best_answer")).status == 502
    assert asyncio.run(scenario("error")).status == 502
    any_answer = asyncio.run(scenario("any_answer"))
    assert said(any_answer) == "no such label"
    assert any_answer.facts.reason == "llm_failed"


def test_a_long_retry_after_is_passed_on_and_not_waited_for() -> None:
    async def scenario() -> None:
        async with both() as models:
            models.llm.fault, models.llm.retry_after = "rate_limited", "77"
            async with router(models, policy={"name": "llm_only"}) as opened:
                answer = await opened.answer(request())
            assert answer.status == 429
            assert answer.headers()["retry-after"] == "77"
            assert len(models.llm.bodies) == 1

    asyncio.run(scenario())


def test_the_breaker_opens_and_closes_again() -> None:
    async def scenario() -> None:
        async with both() as models:
            models.llm.fault = "server_error"
            failure = {"retries": 0, "breaker_failures": 3, "breaker_open_s": 0.05}
            policy = {"name": "llm_only"}
            async with router(models, failure=failure, policy=policy) as opened:
                answers = [await opened.answer(request()) for _ in range(5)]
                assert [a.status for a in answers] == [502, 502, 502, 503, 503]
                assert "retry-after" in answers[-1].headers()
                assert len(models.llm.bodies) == 3
                assert counted(opened, "advisor_breaker_state", tier="llm") == 2

                models.llm.fault = ""
                await asyncio.sleep(0.06)
                assert (await opened.answer(request())).status == 200
                assert counted(opened, "advisor_breaker_state", tier="llm") == 0
                assert counted(opened, "advisor_requests_total") == 6

    asyncio.run(scenario())


def test_retries_stay_within_their_share() -> None:
    """A reserve of ten, and a fifth of a retry for each of forty requests: eighteen in all."""

    async def scenario() -> None:
        async with both() as models:
            models.llm.fault = "server_error"
            failure = {"retries": 2, "breaker_failures": 1000, "backoff_s": 0.0001}
            policy = {"name": "llm_only"}
            async with router(models, failure=failure, policy=policy) as opened:
                for _ in range(40):
                    await opened.answer(request())
            # The first requests earn nothing: the reserve is full.
            assert 40 + 10 <= len(models.llm.bodies) <= 40 + 18

    asyncio.run(scenario())


def test_the_upstreams_secrets_stay_upstream() -> None:
    async def scenario() -> None:
        async with both() as models:
            models.llm.fault = "unauthorized"
            async with router(models, policy={"name": "llm_only"}) as opened:
                answer = await opened.answer(request())
        assert answer.status == 502
        assert "sk-secret" not in json.dumps(answer.body)

    asyncio.run(scenario())


def test_cost_is_the_sum_of_all_attempts() -> None:
    """A rejected small answer, a large one that fails with 500 (free), and one that answers."""

    async def scenario() -> None:
        async with both() as models:
            models.slm.confidence, models.llm.faults = 0.5, ["server_error"]
            async with router(models) as opened:
                answer = await opened.answer(request())
        assert answer.facts.bill.usd == pytest.approx(SLM_USD + LLM_USD)
        assert float(answer.headers()["x-advisor-cost-usd"]) == pytest.approx(SLM_USD + LLM_USD)
        assert not answer.facts.bill.estimated

    asyncio.run(scenario())
