"""The router's parts, each by itself: breaker, budgets, cache, events, costs, logprobs."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing import both, counted, request, router

from advisor.errors import InputError
from advisor.quality.confidence import answer_confidence
from advisor.router.cache import MemoryCache, RedisCache
from advisor.router.costs import Bill, Charge, Usage, cost_usd
from advisor.router.events import Collected, MalformedEventError, as_events, events
from advisor.router.failures import retry_after_s
from advisor.router.gating import GateStep, weakest_token
from advisor.router.limits import Limits
from advisor.router.refusals import RefusedError
from advisor.router.requests import RouterRequest
from advisor.router.resilience import Breaker, RetryBudget, TokenBucket, backoff_s
from advisor.router.settings import (
    BudgetSettings,
    CacheSettings,
    FailureSettings,
    PolicySettings,
    RouterTask,
    TokenPrice,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_half_open_breaker_lets_one_request_try() -> None:
    clock = Clock()
    breaker = Breaker(failures=2, open_s=10, clock=clock)
    breaker.failed("usual")
    assert breaker.state == "closed"
    breaker.failed("usual")
    assert (breaker.state, breaker.admit(), breaker.retry_after_s) == ("open", None, 10)

    clock.now += 10
    assert (breaker.state, breaker.admit(), breaker.admit()) == ("half_open", "trial", None)
    breaker.failed("trial")
    assert breaker.state == "open"

    clock.now += 10
    assert breaker.admit() == "trial"
    breaker.undecided("trial")  # it was cancelled: the next request may try
    assert breaker.admit() == "trial"
    breaker.succeeded("trial")
    assert (breaker.state, breaker.admit()) == ("closed", "usual")


def test_what_was_sent_before_a_breaker_opened_has_no_say() -> None:
    clock = Clock()
    breaker = Breaker(failures=1, open_s=10, clock=clock)
    breaker.failed("usual")
    clock.now += 6
    breaker.failed("usual")
    breaker.succeeded("usual")
    assert (breaker.state, breaker.retry_after_s) == ("open", 4)
    clock.now += 4
    assert breaker.admit() == "trial"
    breaker.undecided("usual")
    assert breaker.admit() is None, "the trial is still under way"


def test_a_success_between_failures_keeps_a_breaker_closed() -> None:
    breaker = Breaker(failures=2, open_s=10)
    for _ in range(5):
        breaker.failed("usual")
        breaker.succeeded("usual")
    assert breaker.admit() == "usual"


@given(st.floats(0, 1), st.integers(0, 300))
def test_retries_never_exceed_their_share_and_the_reserve(share: float, requests: int) -> None:
    budget, retries = RetryBudget(share), 0
    for _ in range(requests):
        budget.earn()
        while budget.take():
            retries += 1
    assert retries <= RetryBudget.RESERVE + share * requests


@given(st.integers(0, 2000), st.one_of(st.none(), st.floats(0, 100)))
def test_backoff_is_bounded_and_waits_for_the_upstream(attempt: int, wait_s: float | None) -> None:
    settings = FailureSettings(backoff_s=0.1, max_backoff_s=2)
    found = backoff_s(settings, attempt, retry_after_s=wait_s)

    assert (wait_s or 0) <= found <= max(2, wait_s or 0)
    if attempt == 0 and wait_s is None:
        assert found <= 0.1


def test_a_token_bucket_gives_a_seconds_worth_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(4.0, clock)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 0]
    assert bucket.take() == pytest.approx(0.25)
    clock.now += 0.5
    assert [bucket.take() for _ in range(3)] == [0, 0, pytest.approx(0.25)]


def test_a_days_budget_starts_anew_at_midnight_utc() -> None:
    wall = Clock()
    wall.now = 86_400.0 * 3 - 100
    limits = Limits(BudgetSettings(usd_per_day=1.0), wall_clock=wall)
    limits.admit_large()
    limits.spend(1.0)
    with pytest.raises(RefusedError) as caught:
        limits.admit_large()
    assert caught.value.retry_after_s == pytest.approx(100)
    wall.now += 100
    limits.admit_large()
    assert limits.spent_usd == 0


def test_memory_is_bounded_in_number_size_and_time() -> None:
    clock = Clock()
    cache = MemoryCache(CacheSettings(max_entries=2, max_bytes=60, ttl_s=10), clock=clock)

    async def scenario() -> None:
        for key in "abc":
            await cache.put(key, {"n": key})
        assert await cache.get("a") is None, "the third put the first out"
        assert await cache.get("b") == {"n": "b"}
        await cache.put("d", {"n": "d"})
        assert await cache.get("c") is None, "b was used since"
        await cache.put("large", {"x": "y" * 100})
        assert await cache.get("large") is None
        await cache.put("e", {"x": "y" * 45})  # 53 bytes: no room beside it
        assert (len(cache), cache.size_bytes) == (1, 53)
        clock.now += 10
        assert await cache.get("e") is None
        assert (len(cache), cache.size_bytes) == (0, 0)

    asyncio.run(scenario())


class FakeRedis:
    """As much of Redis' protocol as a cache needs, on a real socket."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.commands: list[list[bytes]] = []
        self.hangs = False
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(0.01)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while header := await reader.readline():
            command = []
            for _ in range(int(header[1:])):
                size = int((await reader.readline())[1:])
                command.append((await reader.readexactly(size + 2))[:-2])
            self.commands.append(command)
            if not self.hangs:
                writer.write(self.reply(command))

    def reply(self, command: list[bytes]) -> bytes:
        match command[0].upper():
            case b"HELLO":
                return b"-ERR unknown command\r\n"
            case b"GET":
                found = self.kept.get(command[1])
                return b"$-1\r\n" if found is None else b"$%d\r\n%b\r\n" % (len(found), found)
            case b"SET":
                self.kept[command[1]] = command[2]
        return b"+OK\r\n"


def test_redis_is_shared_and_its_failures_are_misses() -> None:
    failures: list[None] = []

    async def scenario() -> None:
        settings = CacheSettings(ttl_s=60, redis_timeout_s=0.5)
        redis = FakeRedis()
        async with redis as url:
            caches = [
                RedisCache(f"{url}?protocol=2", settings, failed=lambda: failures.append(None))
                for _ in range(2)
            ]
            assert await caches[0].get("k") is None
            await caches[0].put("k", {"body": {"n": 1}})
            assert await caches[1].get("k") == {"body": {"n": 1}}
            [kept] = [command for command in redis.commands if command[0].upper() == b"SET"]
            assert kept[-2:] == [b"PX", b"60000"]
            assert failures == []

            redis.kept[b"advisor:answer:k"] = b"{not json"
            assert await caches[0].get("k") is None
            redis.hangs = True
            assert await caches[0].get("k") is None
            await caches[0].put("k", {})
            assert len(failures) == 3
            for cache in caches:
                await cache.close()

    asyncio.run(scenario())


def test_a_router_answers_without_its_redis() -> None:
    async def scenario() -> None:
        from advisor.router.router import Router

        async with both() as models:
            config = models.config(cache={"redis_url_env": "REDIS_URL"})
            environment = {"REDIS_URL": "redis://127.0.0.1:9/0"}
            async with Router(config, environment=environment) as opened:
                assert (await opened.answer(request())).status == 200
                assert counted(opened, "advisor_cache_total", result="error") == 2

    asyncio.run(scenario())


def test_a_redis_url_that_is_none_is_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        RedisCache("https://:secret@x", CacheSettings(), failed=lambda: None)
    assert "secret" not in str(caught.value)


def test_cost_by_hand() -> None:
    """1,000 prompt tokens, 600 of them cached, 50 written, and a cent a request:
    0.01 + (400·2 + 600·0.5 + 50·8)/10⁶ = 0.0115."""
    price = TokenPrice(
        input_usd_per_mtok=2,
        output_usd_per_mtok=8,
        cached_input_usd_per_mtok=0.5,
        usd_per_request=0.01,
    )
    usage = Usage.reported(
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 600},
        }
    )
    assert usage == Usage(input_tokens=1000, cached_tokens=600, output_tokens=50)
    assert cost_usd(price, usage) == pytest.approx(0.0115)


def test_a_bill_with_an_unpriced_model_has_no_sum() -> None:
    bill = Bill()
    assert bill.usd == 0
    bill.charges.append(Charge(tier="slm", usage=Usage(input_tokens=1), usd=0.5))
    assert bill.usd == 0.5
    bill.charges.append(Charge(tier="llm", usage=Usage(input_tokens=1), usd=None))
    assert bill.usd is None


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 1}, [1]])
def test_usage_that_says_nothing(usage: Any) -> None:
    assert Usage.reported(usage) is None


async def in_pieces(raw: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    for size in sizes:
        yield raw[:size]
        raw = raw[size:]
    yield raw


@given(st.lists(st.integers(0, 40), max_size=40), st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_events_do_not_depend_on_how_their_bytes_arrive(sizes: list[int], end: bytes) -> None:
    contents = ["re", "fund — ", "€"]
    chunks = [{"choices": [{"index": 0, "delta": {"content": c}}]} for c in contents]
    lines = [b"data: " + json.dumps(c, ensure_ascii=False).encode() for c in chunks]
    raw = end.join([b": keep-alive", *lines, b"data: [DONE]", b""])

    async def scenario() -> list[Any]:
        return [event async for event in events(in_pieces(raw, sizes))]

    found = asyncio.run(scenario())
    assert [event.data for event in found] == [*chunks, None]
    assert found[-1].done


def test_what_is_no_event_is_refused() -> None:
    async def scenario(raw: bytes) -> None:
        async for _ in events(in_pieces(raw, [])):
            pass

    for raw in (b"data: {\n\n", b"data: []\n\n", b'data: {"choices": 1}\n\n'):
        with pytest.raises(MalformedEventError):
            asyncio.run(scenario(raw))


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_an_answer_survives_being_streamed_and_put_together(endpoint: Any) -> None:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    choice |= (
        {"message": {"role": "assistant", "content": "hello"}}
        if endpoint == "chat"
        else {"text": "hello"}
    )
    kind = "chat.completion" if endpoint == "chat" else "text_completion"
    body = {
        "id": "1", "created": 2, "model": "m", "object": kind, "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }  # fmt: skip

    async def scenario() -> Any:
        collected = Collected(endpoint)
        raw = b"".join(as_events(body, endpoint, with_usage=True))
        async for event in events(in_pieces(raw, [])):
            collected.add(event)
        return collected.body()

    assert asyncio.run(scenario()) == body


def test_a_stream_of_tool_calls_is_not_put_together_as_text() -> None:
    message = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    body = {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}

    async def scenario() -> Any:
        collected = Collected("chat")
        raw = b"".join(as_events(body, "chat", with_usage=False))
        async for event in events(in_pieces(raw, [])):
            collected.add(event)
            if event.data and event.data["choices"][0]["delta"]:
                assert event.data["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
        return collected.body()

    assert asyncio.run(scenario()) is None


def test_requests_that_ask_the_same_are_one() -> None:
    def digest(**fields: Any) -> str:
        return RouterRequest(
            "chat", {"messages": [{"role": "user", "content": "x"}], **fields}
        ).digest

    assert digest(temperature=1, seed=2) == digest(seed=2, temperature=1.0, stream=True, user="u")
    assert digest(temperature=1) != digest(temperature=0)
    assert digest(stop=None) == digest()


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), (None, None), ("soon", None)]
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_retry_after_as_a_date_in_the_past_is_now() -> None:
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_confidence_of_a_record_is_that_of_its_weakest_value_token() -> None:
    """Braces and keys are certain; the amount was a guess at 0.6."""
    pieces = [('{"a": "', 0.0), ("x", -0.1), ('", "n": ', 0.0), ("7", math.log(0.6)), ("}", 0.0)]
    tokens = [{"token": t, "logprob": p, "top_logprobs": []} for t, p in pieces]
    text = "".join(t for t, _ in pieces)
    choice = {"index": 0, "message": {"content": text}, "logprobs": {"content": tokens}}
    step = GateStep(RouterTask(output="json"), PolicySettings(threshold=0.5))

    verdict = step.judge(request(), {"choices": [choice]}, threshold=0.5)
    assert verdict.confidence == pytest.approx(0.6)
    assert step.judge(request(), {"choices": [choice]}, threshold=0.61).cause == "low_confidence"
    silent = {"choices": [{**choice, "logprobs": None}]}
    assert step.judge(request(), silent, threshold=0.5).cause == "no_confidence"


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "token": st.sampled_from(["refund", " ", "\n", "_status", "\ufffd", ""]),
                "logprob": st.floats(-20, 1),
                "bytes": st.sampled_from([None, [], [32], [194, 160], [226, 130], [97, 98]]),
            }
        ),
        max_size=6,
    )
)
def test_the_quick_score_is_the_thorough_one(tokens: list[dict[str, Any]]) -> None:
    logprobs = {"content": tokens}
    try:
        thorough = answer_confidence(logprobs, output="label").weakest_token
    except InputError:
        with pytest.raises(InputError):
            weakest_token(logprobs)
    else:
        assert weakest_token(logprobs) == pytest.approx(thorough, rel=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [None, 7, {}, {"content": None}, {"content": [7]}, {"content": [{"token": "x"}]},
     {"content": [{"token": "x", "logprob": "?"}]}, {"content": [{"token": "x", "logprob": None}]},
     {"content": [{"token": 1, "logprob": 0}]}, {"content": [{"logprob": 0, "bytes": [300]}]},
     {"content": [{"token": "x", "logprob": math.nan}]}],
)  # fmt: skip
def test_log_probabilities_in_another_form_give_no_score(wrong: Any) -> None:
    with pytest.raises(InputError):
        weakest_token(wrong)


def test_opentelemetry_gets_spans_and_genai_metrics() -> None:
    """A collector on a real socket; protobuf holds names as plain bytes."""
    received: dict[str, bytes] = {}
    parents: list[str] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                [size] = [
                    int(line.split(b":")[1])
                    for line in head.lower().splitlines()
                    if line.startswith(b"content-length")
                ]
                body = await reader.readexactly(size)
                if b"content-encoding: gzip" in head.lower():
                    import gzip

                    body = gzip.decompress(body)
                received[path] = received.get(path, b"") + body
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(collect, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        telemetry = {"otlp_endpoint": f"http://127.0.0.1:{port}"}
        async with both() as models:
            models.slm.confidence = 0.1
            async with router(models, telemetry=telemetry) as opened:
                trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
                await opened.answer(request("a private question", headers={"traceparent": trace}))
            parents.extend(h["traceparent"] for h in models.slm.headers + models.llm.headers)
        server.close()

    asyncio.run(scenario())
    spans, measured = received["/v1/traces"], received["/v1/metrics"]
    for name in (b"chat small", b"chat large", b"gen_ai.request.model", b"low_confidence"):
        assert name in spans
    for name in (b"gen_ai.client.operation.duration", b"gen_ai.client.token.usage"):
        assert name in measured
    assert b"private" not in spans + measured
    assert len(parents) == 2
    assert all(parent.startswith("00-" + "1" * 32) for parent in parents)


def test_nothing_of_opentelemetry_is_loaded_unless_configured() -> None:
    import subprocess
    import sys

    program = (
        "import sys, advisor.router.server as s;"
        "from advisor.router.config import RouterConfig as C;"
        "s.build_app(C.from_mapping({'policy': {'name': 'llm_only'},"
        "'llm': {'base_url': 'http://127.0.0.1:1/v1', 'model': 'm'}}));"
        "print([n for n in ('opentelemetry', 'redis', 'scipy.stats', 'pandas', 'transformers')"
        " if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
