"""Two routers that share their validated answers in a real Redis."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from routing import both, counted, request, said

from advisor.router.router import Router

PROGRAMS = ("redis-server", "valkey-server")
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
PASSWORD = "not-a-secret-of-anyone"

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(PROGRAM is None, reason="neither redis-server nor valkey-server is here"),
]


@contextmanager
def redis(folder: Path, *, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server of this test's own: nothing on disk, gone when the test is."""
    settings = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    settings += ["--dir", folder, "--requirepass", PASSWORD]
    command = [str(PROGRAM), *map(str, settings)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, "Redis ended"
                assert time.monotonic() < deadline, "Redis does not listen"
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def url(port: int, password: str = PASSWORD) -> dict[str, str]:
    return {"REDIS_URL": f"redis://:{password}@127.0.0.1:{port}/0"}


CACHE = {"redis_url_env": "REDIS_URL", "redis_timeout_s": 5.0, "ttl_s": 0.5}


def test_what_one_router_has_validated_another_gives_out(tmp_path: Path) -> None:
    port = free_port()

    async def scenario() -> None:
        async with both() as models:
            config = models.config(cache=CACHE)
            one, other = (Router(config, environment=url(port)) for _ in range(2))
            async with one, other:
                first = await one.answer(request())
                second = await other.answer(request())
                assert (first.facts.route, second.facts.route) == ("slm", "cache")
                assert said(first) == said(second)
                assert len(models.slm.bodies) == 1
                assert second.facts.bill.charges == []
                assert counted(other, "advisor_cache_total", result="hit") == 1

                await asyncio.sleep(0.6)
                third = await other.answer(request())
                assert third.facts.route == "slm", "its time is over"

    with redis(tmp_path, port=port):
        asyncio.run(scenario())


def test_a_router_with_another_policy_does_not_take_it(tmp_path: Path) -> None:
    port = free_port()

    async def scenario() -> None:
        async with both() as models:
            one = Router(models.config(cache=CACHE), environment=url(port))
            stricter = models.config(cache=CACHE, policy={"threshold": 0.995})
            async with one, Router(stricter, environment=url(port)) as other:
                assert (await one.answer(request())).facts.route == "slm"
                assert (await other.answer(request())).facts.route == "llm"

    with redis(tmp_path, port=port):
        asyncio.run(scenario())


def test_answers_go_on_while_redis_is_gone_and_when_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    answered: list[str] = []

    async def scenario() -> None:
        async with (
            both() as models,
            Router(models.config(cache={**CACHE, "ttl_s": 60}), environment=url(port)) as opened,
        ):
            for _ in range(3):
                with redis(tmp_path, port=port) as process:
                    for _ in range(2):
                        answered.append((await opened.answer(request())).facts.route)
                    process.kill()
                    process.wait()
                    answered.append((await opened.answer(request())).facts.route)
            assert counted(opened, "advisor_requests_total", status="200") == 9

    asyncio.run(scenario())
    assert answered == ["slm", "cache", "slm"] * 3


def test_a_wrong_password_is_a_miss_and_is_counted(tmp_path: Path) -> None:
    port = free_port()

    async def scenario() -> None:
        async with both() as models:
            config = models.config(cache=CACHE)
            async with Router(config, environment=url(port, "wrong")) as opened:
                assert (await opened.answer(request())).facts.route == "slm"
                assert counted(opened, "advisor_cache_total", result="error") == 2

    with redis(tmp_path, port=port):
        asyncio.run(scenario())
