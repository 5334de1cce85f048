"""Who answers: thresholds, gates, high-risk rules, task types, hedges, caps, canaries, shadows."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from fake_upstream import FakeUpstream
from routing import (
    LLM_USD,
    SLM_USD,
    Both,
    both,
    counted,
    drained,
    request,
    router,
    said,
    streamed_text,
)

from advisor.quality.labels import read_log
from advisor.quality.prerouter import PreRouter
from advisor.router import prerouting
from advisor.router.answers import Answer
from advisor.router.requests import RouterRequest


def answered(
    asked: RouterRequest, *, slm: dict[str, Any] | None = None, **parts: Any
) -> tuple[Answer, int, int]:
    """The answer, and how often each model was asked."""

    async def scenario() -> tuple[Answer, int, int]:
        async with both() as models:
            for name, value in (slm or {}).items():
                setattr(models.slm, name, value)
            async with router(models, **parts) as opened:
                answer = await opened.answer(asked)
            return answer, len(models.slm.bodies), len(models.llm.bodies)

    return asyncio.run(scenario())


def test_a_sure_and_valid_small_answer_is_given_out() -> None:
    answer, small, large = answered(request())

    assert said(answer) == "refund_status"
    assert (small, large) == (1, 0)
    headers = answer.headers()
    assert headers["x-advisor-route"] == "slm"
    assert headers["x-advisor-reason"] == "accepted"
    assert headers["x-advisor-confidence"] == "0.99"
    assert float(headers["x-advisor-cost-usd"]) == pytest.approx(SLM_USD)


@pytest.mark.parametrize(
    ("slm", "cause"),
    [
        ({"confidence": 0.7999}, "low_confidence"),
        ({"text": "no such label"}, "gate_label"),
        ({"text": "refund_status\nor not"}, "gate_parse"),
        ({"message": {"role": "assistant", "content": None, "refusal": "no"}}, "gate_refusal"),
    ],
)
def test_an_unsure_or_invalid_one_is_handed_up(slm: dict[str, Any], cause: str) -> None:
    answer, small, large = answered(request(), slm=slm)

    assert (small, large) == (1, 1)
    assert answer.facts.route == "llm"
    assert answer.facts.reason == answer.facts.escalated == cause
    assert answer.facts.bill.usd == pytest.approx(SLM_USD + LLM_USD)


def test_the_threshold_itself_is_accepted() -> None:
    accepted, *_ = answered(request(), slm={"confidence": 1.0}, policy={"threshold": 1.0})

    assert accepted.facts.route == "slm"


def test_without_a_threshold_the_gates_alone_decide() -> None:
    answer, _, large = answered(request(), slm={"confidence": 0.01}, policy={"threshold": None})

    assert (answer.facts.route, answer.facts.confidence, large) == ("slm", None, 0)


def test_log_probabilities_are_asked_for_and_not_passed_on() -> None:
    async def scenario() -> None:
        async with both() as models, router(models) as opened:
            plain = await opened.answer(request())
            wanted = await opened.answer(request("another", logprobs=True, top_logprobs=9))
            assert [body["top_logprobs"] for body in models.slm.bodies] == [1, 9]
            assert plain.body is not None
            assert plain.body["choices"][0]["logprobs"] is None
            assert wanted.body is not None
            assert wanted.body["choices"][0]["logprobs"]["content"]

    asyncio.run(scenario())


def test_a_score_that_looks_at_rivals_asks_for_them() -> None:
    async def scenario() -> None:
        policy = {"score": "label_probability", "top_logprobs": 7}
        async with both() as models, router(models, policy=policy) as opened:
            await opened.answer(request())
            assert [body["top_logprobs"] for body in models.slm.bodies] == [7]

    asyncio.run(scenario())


def test_a_calibrated_score_meets_the_threshold() -> None:
    """Temperature with slope 0.5 takes log-odds 4.6 (0.99) to 2.3: 0.909 of being right."""
    calibration = {"method": "temperature", "rows": 50, "slope": 0.5}
    answer, *_ = answered(request(), policy={"threshold": 0.95, "calibration": calibration})

    assert answer.facts.confidence == pytest.approx(0.9087, abs=1e-4)
    assert answer.facts.reason == "low_confidence"


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        ({"header": "X-Risk"}, request(headers={"x-risk": "yes"})),
        ({"header": "x-risk", "values": ["HIGH"]}, request(headers={"x-risk": "high"})),
        ({"field": "metadata.risk"}, request(metadata={"risk": "1"})),
        (
            {"field": "metadata.tags", "values": ["legal"]},
            request(metadata={"tags": ["a", "legal"]}),
        ),
        ({"pattern": r"(?i)\bLAWYER\b"}, request("my lawyer says")),
    ],
    ids=["header", "header value", "field", "list field", "pattern"],
)
def test_high_risk_goes_straight_to_the_large_model(
    rule: dict[str, Any], asked: RouterRequest
) -> None:
    answer, small, large = answered(asked, high_risk=[rule])
    assert (small, large, answer.facts.reason) == (0, 1, "high_risk")

    harmless, small, _ = answered(request(headers={"x-risk": "no"}), high_risk=[rule])
    assert (small, harmless.facts.route) == (1, "slm")


def test_a_pattern_that_takes_too_long_counts_as_high_risk() -> None:
    answer, small, _ = answered(request("a" * 4000 + "!"), high_risk=[{"pattern": "(a|aa)+$"}])

    assert (small, answer.facts.reason) == (0, "high_risk")


def test_task_types_as_in_the_usual_heuristic() -> None:
    by_type = {
        "intent": {"policy": "cascade", "threshold": 0.9},
        "sql": {"policy": "cascade", "task": {"output": "sql", "tables": {"orders": ["id"]}}},
        "*": {"policy": "llm_only"},
    }
    policy = {"by_type": by_type}

    def ask(kind: str | None, **slm: Any) -> tuple[str, str]:
        headers = {"x-advisor-task-type": kind} if kind else {}
        answer, *_ = answered(request(headers=headers), slm=slm, policy=policy)
        return answer.facts.route, answer.facts.reason

    assert ask("intent") == ("slm", "accepted")
    assert ask("intent", confidence=0.89) == ("llm", "low_confidence")
    assert ask("sql", text="SELECT id FROM orders") == ("slm", "accepted")
    assert ask("sql", text="SELECT id FROM users") == ("llm", "gate_sql")
    assert ask("poetry") == ("llm", "task_type")
    assert ask(None) == ("llm", "task_type")


def test_the_pre_router_decides_before_anything_is_paid(tmp_path: Path) -> None:
    texts = [f"easy question {i % 7}" for i in range(60)]
    texts += [f"prove theorem {i % 7}" for i in range(60)]
    fitted = PreRouter.fit(texts, [1] * 60 + [0] * 60, [1] * 120)
    prerouting.save(fitted, tmp_path / "pre.npz")
    settings = {"file": str(tmp_path / "pre.npz"), "min_gain": 0.5}
    policy = {"name": "prerouter", "prerouter": settings, "threshold": None}

    hard, small, _ = answered(request("please prove this theorem"), policy=policy)
    assert (small, hard.facts.reason) == (0, "prerouter")
    easy, _, large = answered(request("an easy question"), policy=policy)
    assert (large, easy.facts.route) == (0, "slm")


def test_a_hedge_takes_whichever_answers_first() -> None:
    async def scenario(
        slm_delay_s: float, llm_delay_s: float, *, after_s: float = 0.03, stream: bool = False
    ) -> Any:
        async with both() as models:
            models.slm.delay_s, models.llm.delay_s = slm_delay_s, llm_delay_s
            models.llm.text = "card_lost"
            policy = {"name": "hedge", "hedge_after_s": after_s}
            async with router(models, policy=policy) as opened:
                answer = await opened.answer(request(stream=stream))
                text = streamed_text(await drained(answer)) if answer.stream else said(answer)
                await asyncio.sleep(0.02)
                assert counted(opened, "advisor_requests_total") == 1
                both_asked = (len(models.slm.bodies), len(models.llm.bodies))
                gone = (models.slm.cancelled, models.llm.cancelled)
                return text, answer.facts.reason, both_asked, gone

    fast = asyncio.run(scenario(0, 0, after_s=10))
    assert fast == ("refund_status", "accepted", (1, 0), (0, 0))
    slow_small = asyncio.run(scenario(5, 0))
    assert slow_small == ("card_lost", "hedge", (1, 1), (1, 0))
    slow_large = asyncio.run(scenario(0.1, 5))
    assert slow_large == ("refund_status", "accepted", (1, 1), (0, 1))
    streamed = asyncio.run(scenario(5, 0, stream=True))
    assert streamed == ("card_lost", "hedge", (1, 1), (1, 0))


def test_the_daily_budget_leaves_the_small_answer_flagged_or_refuses() -> None:
    async def scenario(when_hit: str) -> list[tuple[int, str, str]]:
        async with both() as models:
            models.slm.confidence = 0.5
            budget = {"usd_per_day": SLM_USD + LLM_USD, "when_hit": when_hit}
            async with router(models, budget=budget) as opened:
                found = []
                for number in range(2):
                    answer = await opened.answer(request(f"question {number}"))
                    found.append((answer.status, answer.facts.route, answer.facts.reason))
                assert len(models.llm.bodies) == 1
                assert answer.status == 200 or 0 < float(answer.headers()["retry-after"]) <= 86_400
                return found

    assert asyncio.run(scenario("small"))[1] == (200, "slm", "budget")
    assert asyncio.run(scenario("refuse"))[1] == (429, "none", "budget")


def test_a_capped_high_risk_request_is_refused_not_downgraded() -> None:
    async def scenario() -> None:
        async with both() as models:
            budget = {"llm_requests_per_s": 1.0}
            async with router(models, budget=budget, high_risk=[{"pattern": "."}]) as opened:
                answers = [await opened.answer(request()) for _ in range(2)]
        assert [a.status for a in answers] == [200, 429]
        assert models.slm.bodies == []

    asyncio.run(scenario())


def test_too_many_requests_are_refused() -> None:
    async def scenario() -> None:
        budget = {"requests_per_s": 2.0}
        async with both() as models, router(models, budget=budget) as opened:
            statuses = [(await opened.answer(request())).status for _ in range(4)]
            assert counted(opened, "advisor_requests_total") == 4
        assert statuses == [200, 200, 429, 429]

    asyncio.run(scenario())


def test_a_canary_is_a_share_and_the_same_request_always_the_same() -> None:
    async def scenario() -> None:
        async with both() as models:
            canary = {"share": 0.3, "policy": "llm_only"}
            async with router(models, policy={"canary": canary}) as opened:
                reasons = []
                for number in range(300):
                    asked = request(f"question {number}")
                    first, again = await opened.answer(asked), await opened.answer(asked)
                    assert first.facts.reason == again.facts.reason
                    reasons.append(first.facts.reason)
        # Binomial(300, 0.3): 90 ± 8; the hash is fixed, so this is the same at every run.
        assert 60 <= reasons.count("canary") <= 120

    asyncio.run(scenario())


def test_a_shadow_asks_the_other_model_and_logs_both(tmp_path: Path) -> None:
    log = tmp_path / "pairs.jsonl"

    async def scenario() -> None:
        async with both() as models:
            models.llm.text = "card_lost"
            shadow = {"share": 1.0, "record": str(log)}
            async with router(models, policy={"shadow": shadow}) as opened:
                answer = await opened.answer(request())
                models.slm.confidence = 0.5
                streamed = await opened.answer(request("second", stream=True))
                await drained(streamed)
            assert said(answer) == "refund_status"
            assert answer.facts.bill.usd == pytest.approx(SLM_USD), "shadows are not on the bill"
            assert counted(opened, "advisor_requests_total") == 2
            assert counted(opened, "advisor_shadow_total", result="differ") == 2
            spent = counted(opened, "advisor_cost_usd_total", purpose="shadow")
            assert spent == pytest.approx(SLM_USD + LLM_USD)

    asyncio.run(scenario())
    rows = read_log(log).rows
    assert {name: out.text for name, out in rows[0].outputs.items()} == {
        "slm": "refund_status",
        "llm": "card_lost",
    }
    assert rows[0].input_text == "where is my money?"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "refund",
            "parameters": {
                "type": "object",
                "properties": {"order": {"type": "integer"}},
                "required": ["order"],
            },
        },
    }
]


@pytest.mark.parametrize(
    ("arguments", "route"),
    [('{"order": 7}', "slm"), ('{"order": "7"}', "llm"), ("{order: 7}", "llm")],
)
def test_tool_calls_are_gated_by_the_schemas_of_the_tools(arguments: str, route: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer, *_ = answered(
        request(tools=TOOLS), slm={"message": message}, policy={"threshold": None}
    )

    assert answer.facts.route == route


def test_the_schema_a_request_asks_for_is_a_gate() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}

    def ask(text: str) -> str:
        found, *_ = answered(
            request(response_format=wanted),
            slm={"text": text},
            task={"labels": None, "output": "text"},
            policy={"threshold": None},
        )
        return found.facts.reason

    assert ask('{"n": 1}') == "accepted"
    assert ask('{"n": "1"}') == "gate_schema"
    assert ask("n = 1") == "gate_parse"


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_is_sent_what_it_can_decode_and_the_gate_keeps_the_whole_schema(
    stream: bool,
) -> None:
    """A refund needs an order: no grammar knows `if`, so the small model may leave the order out,
    and the gate refuses what it says; the large one is asked by the same part of the schema."""
    kind = {"enum": ["refund", "other"]}
    schema = {
        "type": "object",
        "properties": {"kind": kind, "order": {"type": "integer"}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "refund"}}},
        "then": {"required": ["order"]},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}

    async def scenario(**parts: Any) -> tuple[Answer, str, Both]:
        async with both() as models, router(models, task={"labels": None}, **parts) as opened:
            for model in (models.slm, models.llm):
                model.undecodable = frozenset({"if", "then", "else"})
            models.slm.text, models.llm.text = (
                '{"kind": "refund"}',
                '{"kind": "refund", "order": 7}',
            )
            asked = request(response_format=wanted, stream=stream)
            answer = await opened.answer(asked)
            text = streamed_text(await drained(answer)) if answer.stream else said(answer)
            assert asked.at("response_format.json_schema.schema") == schema
            return answer, text, models

    answer, text, models = asyncio.run(scenario(policy={"threshold": None}))
    assert (answer.status, answer.facts.route, answer.facts.reason) == (200, "llm", "gate_schema")
    assert json.loads(text) == {"kind": "refund", "order": 7}
    for model in (models.slm, models.llm):
        [body] = model.bodies
        sent = body["response_format"]["json_schema"]
        assert sent == {
            "name": "x",
            "strict": True,
            "schema": {k: schema[k] for k in ("type", "properties", "required")},
        }

    answer, *_ = asyncio.run(scenario(policy={"name": "llm_only"}))
    assert answer.status == 200


def test_a_schema_that_reaches_outside_is_refused_before_anyone_is_asked() -> None:
    schema = {"$ref": "http://169.254.169.254/x"}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer, small, large = answered(request(response_format=wanted))

    assert (answer.status, small, large) == (400, 0, 0)


@pytest.mark.parametrize("policy", ["cascade", "llm_only"])
def test_a_schema_nested_too_deep_is_refused_before_anyone_is_asked(policy: str) -> None:
    schema: dict[str, Any] = {}
    for _ in range(900):
        schema = {"items": schema}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer, small, large = answered(request(response_format=wanted), policy={"name": policy})

    assert (answer.status, small, large) == (400, 0, 0)


def test_every_choice_must_pass_and_the_least_sure_one_counts() -> None:
    answer, *_ = answered(request(n=3))

    assert answer.body is not None
    assert len(answer.body["choices"]) == 3
    assert answer.facts.confidence == pytest.approx(0.99)


def test_the_older_endpoint_is_gated_too() -> None:
    sure, *_ = answered(request(endpoint="completions"))
    unsure, *_ = answered(request(endpoint="completions"), slm={"confidence": 0.5})

    assert sure.body is not None
    assert sure.body["choices"][0]["text"] == "refund_status"
    assert (sure.facts.route, unsure.facts.reason) == ("slm", "low_confidence")


def test_validated_answers_are_kept_and_unsure_ones_are_not() -> None:
    async def scenario() -> None:
        async with both() as models, router(models, cache={}) as opened:
            first = await opened.answer(request(temperature=0, seed=1))
            again = await opened.answer(request(seed=1, temperature=0.0, stream=True))
            assert (first.facts.route, again.facts.route) == ("slm", "cache")
            assert again.body == first.body
            assert again.facts.bill.usd == 0

            models.slm.text = models.llm.text = "no such label"
            for _ in range(2):
                assert (await opened.answer(request("other"))).facts.route == "llm"
            models.slm.text, models.llm.text = "?", "card_lost"
            streamed = await opened.answer(request("streamed", stream=True))
            assert streamed_text(await drained(streamed)) == "card_lost"
            await asyncio.sleep(0)
            kept = await opened.answer(request("streamed"))
            assert (kept.facts.route, said(kept)) == ("cache", "card_lost")
            fresh = await opened.answer(request("streamed", headers={"cache-control": "no-cache"}))
            assert fresh.facts.route == "llm"
            assert counted(opened, "advisor_cache_total", result="hit") == 2

    asyncio.run(scenario())


def test_a_kept_small_answer_does_not_serve_a_high_risk_request() -> None:
    async def scenario() -> None:
        async with both() as models:
            risk = [{"header": "x-risk"}]
            async with router(models, cache={}, high_risk=risk) as opened:
                await opened.answer(request())
                risky = await opened.answer(request(headers={"x-risk": "1"}))
        assert (risky.facts.route, risky.facts.reason) == ("llm", "high_risk")

    asyncio.run(scenario())


def test_requests_pass_through_as_they_came() -> None:
    fields = {
        "temperature": 0.3, "seed": 7, "stop": ["\n"], "n": 2, "tools": TOOLS, "top_p": 0.5,
        "response_format": {"type": "json_object"}, "logit_bias": {"1": 2}, "anything": [1],
    }  # fmt: skip

    async def scenario(upstream: str, **parts: Any) -> None:
        async with both() as models, router(models, **parts) as opened:
            await opened.answer(request(**fields))
            found: FakeUpstream = getattr(models, upstream)
            [body] = found.bodies
            assert {key: body[key] for key in fields} == fields
            assert body["model"] in ("small", "large")

    asyncio.run(scenario("slm", policy={"name": "slm_only"}))
    asyncio.run(scenario("llm", policy={"name": "llm_only"}))
    asyncio.run(scenario("slm", task={"labels": None}))


def test_the_escalation_alarm_fires_on_what_is_above_its_limit() -> None:
    async def scenario(confidence: float) -> float:
        async with both() as models:
            models.slm.confidence = confidence
            async with router(models) as opened:
                for number in range(60):
                    await opened.answer(request(f"question {number}"))
                assert counted(opened, "advisor_small_first_total") == 60
                rate = counted(opened, "advisor_escalation_rate")
                assert rate == (0 if confidence > 0.8 else 1)
                return counted(opened, "advisor_escalation_alarm")

    assert asyncio.run(scenario(0.5)) == 1
    assert asyncio.run(scenario(0.9)) == 0


def test_a_request_log_has_texts_only_where_asked(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(**telemetry: bool) -> str:
        caplog.clear()
        async with both() as models, router(models, telemetry=telemetry) as opened:
            await opened.answer(request("a very private question"))
        return caplog.text

    caplog.set_level("DEBUG")
    assert "private" not in asyncio.run(scenario())
    line = asyncio.run(scenario(log_requests=True))
    assert json.loads(line[line.index("{") :])["route"] == "slm"
    assert "private" not in line
    assert "private" in asyncio.run(scenario(log_requests=True, log_texts=True))
