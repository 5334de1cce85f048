"""The router behind a real socket: clients, streams, disconnects, limits, keys, draining."""

import asyncio
import json
import shutil
import subprocess
from typing import Any

import openai
import pytest
from fake_upstream import FakeUpstream
from routing import LLM_USD, SLM_USD, Served, both, request, served, streamed_text, total

from advisor.router.config import ConfigurationError, RouterConfig
from advisor.router.server import build_app
from advisor.router.serving import server_for

pytestmark = pytest.mark.live

CHAT = "/v1/chat/completions"


def body(text: str = "where is my money?", **fields: Any) -> dict[str, Any]:
    return dict(request(text, **fields).body)


async def post(to: Served, payload: Any = None, **settings: Any) -> tuple[int, dict[str, str], Any]:
    sent = {"data": payload} if isinstance(payload, bytes) else {"json": payload or body()}
    async with to.session.post(to.url + CHAT, **sent, **settings) as response:
        raw = await response.read()
        return response.status, dict(response.headers), raw


async def metrics(of: Served, name: str, **labels: str) -> float:
    async with of.session.get(of.url + "/metrics") as response:
        return total(await response.text(), name, **labels)


def test_the_openai_client_gets_answers_streams_and_errors() -> None:
    async def scenario() -> None:
        async with (
            both() as models,
            served(models.config()) as to,
            openai.AsyncOpenAI(base_url=to.url + "/v1", api_key="x", max_retries=0) as client,
        ):
            messages: Any = [{"role": "user", "content": "where is my money?"}]
            whole = await client.chat.completions.with_raw_response.create(
                model="advisor", messages=messages
            )
            assert whole.headers["x-advisor-route"] == "slm"
            assert whole.parse().choices[0].message.content == "refund_status"

            models.slm.confidence = 0.1
            models.llm.text = "card_lost"
            for usage in (False, True):
                chunks = [
                    chunk
                    async for chunk in await client.chat.completions.create(
                        model="advisor",
                        messages=messages,
                        stream=True,
                        stream_options={"include_usage": usage},
                    )
                ]
                texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
                assert "".join(texts) == "card_lost"
                assert len(texts) > 3, "token by token"
                assert (chunks[-1].usage is not None) is usage

            older = await client.completions.create(model="advisor", prompt="money?")
            assert older.choices[0].text == "card_lost"
            assert (await anext(aiter(client.models.list()))).id == "advisor"

            models.llm.fault, models.slm.text = "server_error", "no such label"
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(model="advisor", messages=messages)
            assert caught.value.response.headers["x-advisor-reason"] == "llm_failed"
            models.llm.fault = "truncated"
            with pytest.raises(openai.APIError):
                async for _ in await client.chat.completions.create(
                    model="advisor", messages=messages, stream=True
                ):
                    pass

    asyncio.run(scenario())


def test_a_small_answer_streams_once_it_is_validated() -> None:
    async def scenario() -> None:
        async with both() as models, served(models.config()) as to:
            _, headers, raw = await post(to, body(stream=True))
            assert headers["Content-Type"].startswith("text/event-stream")
            assert float(headers["x-advisor-cost-usd"]) == pytest.approx(SLM_USD)
            assert streamed_text(raw) == "refund_status"
            assert raw.endswith(b"data: [DONE]\n\n")
            assert b'"usage"' not in raw

    asyncio.run(scenario())


def test_a_stream_tells_its_whole_cost_in_its_last_comment() -> None:
    async def scenario() -> None:
        async with both() as models, served(models.config()) as to:
            models.slm.confidence = 0.1
            _, headers, raw = await post(to, body(stream=True))
            assert float(headers["x-advisor-cost-usd"]) == pytest.approx(SLM_USD)
            facts = json.loads(raw.split(b"\n\n")[-3][2:])
            assert float(facts["x-advisor-cost-usd"]) == pytest.approx(SLM_USD + LLM_USD)

    asyncio.run(scenario())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl() -> None:
    async def scenario() -> None:
        async with both() as models, served(models.config()) as to:
            command = ["curl", "-sSi", to.url + CHAT, "-H", "Content-Type: application/json"]
            command += ["-d", json.dumps(body())]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
            assert done.stdout.startswith("HTTP/1.1 200")
            assert "x-advisor-route: slm" in done.stdout
            assert '"content":"refund_status"' in done.stdout

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_ends_the_work_upstream(stream: bool) -> None:
    async def scenario() -> None:
        async with both() as models:
            models.llm.delay_s = 0.0 if stream else 30.0
            models.llm.token_delay_s = 30.0
            config = models.config(policy={"name": "llm_only"}, llm={"timeout_s": 60})
            async with served(config) as to:
                asking = asyncio.create_task(post(to, body(stream=stream)))
                while not models.llm.bodies:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.02)
                asking.cancel()
                async with asyncio.timeout(5):
                    while not models.llm.cancelled:
                        await asyncio.sleep(0.005)
                    while await metrics(to, "advisor_requests_in_flight"):
                        await asyncio.sleep(0.005)
                assert await metrics(to, "advisor_requests_total", status="499") == 1
                assert await metrics(to, "advisor_requests_total") == 1

    asyncio.run(scenario())


def test_a_thousand_streams_at_once_lose_nothing() -> None:
    async def scenario() -> None:
        async with both() as models:
            models.llm.text = "0123456789" * 5
            models.llm.stream_tokens = 10
            models.llm.token_delay_s = 0.1
            llm = {"timeout_s": 60, "max_concurrency": 2000}
            async with served(models.config(policy={"name": "llm_only"}, llm=llm)) as to:
                found = await asyncio.gather(
                    *(post(to, body(f"question {i}", stream=True)) for i in range(1000))
                )
                assert {streamed_text(raw) for _, _, raw in found} == {models.llm.text}
                assert all(raw.endswith(b"data: [DONE]\n\n") for _, _, raw in found)
                assert await metrics(to, "advisor_requests_total", status="200") == 1000

    asyncio.run(scenario())


def test_more_requests_than_slots_wait_their_turn() -> None:
    async def scenario() -> None:
        async with both() as models:
            models.slm.delay_s = 0.005
            slm = {"max_concurrency": 2, "timeout_s": 20}
            async with served(models.config(slm=slm)) as to:
                found = await asyncio.gather(*(post(to, body(f"q {i}")) for i in range(20)))
                assert [status for status, _, _ in found] == [200] * 20
                assert models.llm.bodies == []

    asyncio.run(scenario())


def test_slow_clients_and_slow_upstreams_block_nobody() -> None:
    """Forty clients that do not read, forty upstream calls that hang: the next one is answered."""

    async def scenario() -> None:
        async with both() as models:
            models.llm.text = "x" * 4_000_000
            models.llm.stream_tokens = 100
            llm = {"timeout_s": 30}
            config = models.config(llm=llm, high_risk=[{"header": "x-risk"}])
            async with served(config) as to:
                port = int(to.url.rsplit(":", 1)[1])
                payload = json.dumps(body(stream=True)).encode()
                head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-risk: 1\r\n"
                head += f"content-length: {len(payload)}\r\n\r\n"
                deaf = []
                for _ in range(40):
                    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
                    writer.write(head.encode() + payload)
                    deaf.append(writer)
                hanging = []
                models.slm.faults = ["timeout"] * 40
                for i in range(40):
                    hanging.append(asyncio.create_task(post(to, body(f"hangs {i}"))))
                while len(models.slm.bodies) < 40 or len(models.llm.bodies) < 40:
                    await asyncio.sleep(0.005)
                status, headers, _ = await post(to)
                assert (status, headers["x-advisor-route"]) == (200, "slm")
                assert not any(task.done() for task in hanging)
                for writer in deaf:
                    writer.transport.abort()
                for task in hanging:
                    task.cancel()
                await asyncio.gather(*hanging, return_exceptions=True)

    asyncio.run(scenario())


def test_what_is_not_a_request_gets_an_openai_error_and_is_counted() -> None:
    wrong: list[tuple[Any, str]] = [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": ["x"]}', "messages"),
        (b'{"messages": [{}], "stream": "yes"}', "stream"),
        (b'{"messages": [{}], "n": 0}', "'n'"),
        (b'{"messages": [{}], "x": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ]

    async def scenario() -> None:
        async with both() as models, served(models.config()) as to:
            for payload, message in wrong:
                status, headers, raw = await post(to, payload)
                assert status == 400
                assert headers["x-advisor-reason"] == "invalid_request"
                assert message in json.loads(raw)["error"]["message"]
            assert await metrics(to, "advisor_requests_total", status="400") == len(wrong)
            async with to.session.get(to.url + CHAT) as response:
                assert response.status == 405
                assert (await response.json())["error"]["type"] == "invalid_request_error"

    asyncio.run(scenario())


def test_bodies_heads_and_their_time_are_limited() -> None:
    async def scenario() -> None:
        server = {
            "max_body_bytes": 1000,
            "max_header_bytes": 4000,
            "header_timeout_s": 0.05,
            "body_timeout_s": 0.05,
        }
        async with both() as models, served(models.config(server=server)) as to:
            assert (await post(to, b"x" * 1001))[0] == 413

            async def chunks() -> Any:
                for _ in range(20):
                    yield b"x" * 100

            async with to.session.post(to.url + CHAT, data=chunks()) as response:
                assert response.status == 413
            assert (await post(to, headers={"x-long": "x" * 5000}))[0] == 431

            port = int(to.url.rsplit(":", 1)[1])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ")
            assert await asyncio.wait_for(reader.read(), 5) == b"", "the head never ends"
            writer.close()

            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nx-long: " + b"x" * 5000)
            answer = await asyncio.wait_for(reader.read(), 5)
            assert answer.startswith(b"HTTP/1.1 431"), "the head is too large before its end"
            writer.close()

            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            writer.write(head + b"content-length: 9\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 5)
            assert answer.startswith(b"HTTP/1.1 408"), "the body never comes"
            writer.close()

    asyncio.run(scenario())


def test_keep_alive_connections_live_longer_than_a_head_may_take() -> None:
    async def scenario() -> None:
        server = {"header_timeout_s": 0.05}
        async with both() as models, served(models.config(server=server)) as to:
            models.slm.delay_s = 0.1
            assert (await post(to))[0] == 200
            await asyncio.sleep(0.1)
            assert (await post(to))[0] == 200

    asyncio.run(scenario())


def test_clients_need_a_key_where_there_are_keys() -> None:
    async def scenario() -> None:
        async with both() as models:
            config = models.config(server={"api_keys_env": "KEYS"})
            async with served(config, environment={"KEYS": "one, two"}) as to:
                assert (await post(to))[0] == 401
                for key, status in (("one", 200), ("two", 200), ("three", 401), ("", 401)):
                    headers = {"authorization": f"Bearer {key}"}
                    assert (await post(to, headers=headers))[0] == status
                for path, status in (("/v1/models", 401), ("/metrics", 401), ("/healthz", 200)):
                    async with to.session.get(to.url + path) as response:
                        assert response.status == status
                assert "authorization" not in models.slm.headers[-1]

    asyncio.run(scenario())


def test_upstream_keys_come_from_the_environment_and_clients_keys_go_nowhere() -> None:
    async def scenario() -> None:
        async with both() as models:
            config = models.config(slm={"api_key_env": "SLM_KEY"})
            async with served(config, environment={"SLM_KEY": "sk-upstream"}) as to:
                await post(to, headers={"authorization": "Bearer sk-client"})
                assert models.slm.headers[-1]["authorization"] == "Bearer sk-upstream"

    asyncio.run(scenario())


def test_a_loopback_server_answers_to_its_own_names_only() -> None:
    async def scenario() -> None:
        async with both() as models, served(models.config()) as to:
            assert (await post(to, headers={"host": "rebound.example"}))[0] == 421
            assert (await post(to, headers={"host": "localhost:1234"}))[0] == 200
            assert (await post(to, headers={"host": "[::1]:1234"}))[0] == 200

    asyncio.run(scenario())


def test_other_machines_are_served_only_with_keys() -> None:
    config = RouterConfig.from_mapping(
        {"policy": {"name": "llm_only"}, "llm": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    )
    with pytest.raises(ConfigurationError, match="api_keys_env"):
        server_for(config, host="0.0.0.0", port=0, environment={})


def test_readiness_follows_the_upstreams_and_draining() -> None:
    async def scenario() -> None:
        async with both() as models, served(models.config()) as to:

            async def ready() -> tuple[int, str]:
                to.server._app.service._reachable = (-10.0, {})
                async with to.session.get(to.url + "/readyz") as response:
                    return response.status, (await response.json())["status"]

            assert await ready() == (200, "ready")
            to.server._app.service.is_draining = True
            assert await ready() == (503, "draining")
            to.server._app.service.is_draining = False
            models.slm.fault = models.llm.fault = "server_error"
            assert (await ready())[0] == 200, "something listens"
        gone = FakeUpstream(port=9)
        config = RouterConfig.from_mapping(
            {"policy": {"name": "llm_only"}, "llm": {"base_url": gone.base_url, "model": "m"}}
        )
        async with served(config) as to, to.session.get(to.url + "/readyz") as response:
            assert response.status == 503

    asyncio.run(scenario())


def test_overload_is_refused_at_the_door() -> None:
    async def scenario() -> None:
        async with both() as models:
            models.slm.delay_s = 0.2
            async with served(models.config(server={"max_requests_in_flight": 2})) as to:
                found = await asyncio.gather(*(post(to, body(f"q{i}")) for i in range(5)))
                assert sorted(status for status, _, _ in found) == [200, 200, 503, 503, 503]

    asyncio.run(scenario())


def test_the_application_runs_under_any_asgi_server() -> None:
    """In process, without a socket of its own: what a trial does."""
    import httpx2

    async def scenario() -> None:
        async with both() as models:
            app = build_app(models.config(), environment={})
            async with app.router.lifespan_context(app):
                transport = httpx2.ASGITransport(app=app)
                async with httpx2.AsyncClient(
                    transport=transport, base_url="http://router"
                ) as client:
                    response = await client.post(CHAT, json=body())
                    assert response.headers["x-advisor-route"] == "slm"

    asyncio.run(scenario())
