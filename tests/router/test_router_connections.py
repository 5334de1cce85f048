"""The router's HTTP client against a server that says byte for byte what a test wants."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.router.connections import ConnectionPool, NoConnectionError
from advisor.router.json_bytes import decoded, decoded_leniently, encoded
from advisor.router.resolution import AddressBook
from advisor.router.responses import (
    BadResponseError,
    ConnectionLostError,
    Response,
    ResponseCutError,
)

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


class Server:
    """Answers each request with the next of its answers; the last one again and again."""

    def __init__(self, *answers: bytes, then_close: bool = False) -> None:
        self.answers, self.then_close = list(answers), then_close
        self.connections = 0
        self.gone = asyncio.Event()
        self.requests: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(size))
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                if self.then_close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        writer.close()


@asynccontextmanager
async def pool_for(
    talk: Talk, *, keepalive_s: float = 5.0, tls: ssl.SSLContext | None = None, path: str = ""
) -> AsyncIterator[ConnectionPool]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    url = f"https://localhost:{port}{path}" if tls else f"http://127.0.0.1:{port}{path}"
    pool = ConnectionPool(
        url, headers={"user-agent": "test"}, connect_timeout_s=5.0, keepalive_s=keepalive_s
    )
    try:
        yield pool
    finally:
        await pool.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


async def ask(pool: ConnectionPool, body: bytes = b"{}", *, limit_bytes: int = 10**6) -> bytes:
    connection = await pool.connection()
    response = connection.send(pool.request("POST", "/x", {}, body))
    try:
        return await response.whole(limit_bytes=limit_bytes)
    finally:
        response.close()


async def streamed(pool: ConnectionPool) -> Response:
    connection = await pool.connection()
    response = connection.send(pool.request("POST", "/x", {}, b""))
    await response.head()
    return response


def test_one_connection_serves_request_after_request() -> None:
    async def scenario() -> None:
        server = Server(OK)
        async with pool_for(server.talk, path="/v1") as pool:
            assert [await ask(pool, b"%d" % i) for i in range(3)] == [b"hello"] * 3
            assert server.connections == 1
            assert server.requests[2].startswith(b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:")
            assert server.requests[2].endswith(b"content-length: 1\r\n\r\n2")
            assert await asyncio.gather(ask(pool), ask(pool)) == [b"hello"] * 2
            assert server.connections == 2, "one request at a time on each"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        OK + OK,
        OK + b"HTTP/1.1 200",
    ],
    ids=["close", "1.0", "a second answer", "half a second answer"],
)
def test_a_connection_that_cannot_be_trusted_is_not_kept(answer: bytes) -> None:
    async def scenario() -> None:
        server = Server(answer, OK)
        async with pool_for(server.talk) as pool:
            assert await ask(pool) == b"hello"
            assert await ask(pool) == b"hello"
            assert server.connections == 2

    asyncio.run(scenario())


def test_what_comes_unasked_is_never_the_next_answer() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK)
        await asyncio.sleep(0.02)
        writer.write(OK.replace(b"hello", b"wrong"))
        await reader.read()
        writer.close()

    async def scenario() -> None:
        async with pool_for(talk) as pool:
            for _ in range(2):
                assert await ask(pool) == b"hello"
                await asyncio.sleep(0.05)

    asyncio.run(scenario())


@given(st.lists(st.integers(1, 30), max_size=20))
def test_an_answer_does_not_depend_on_how_its_bytes_arrive(sizes: list[int]) -> None:
    whole = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nX-One: 1\r\n\r\n"
        b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\ntrailer: x\r\n\r\n"
    )

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = whole
        for size in sizes:
            writer.write(left[:size])
            left = left[size:]
            await asyncio.sleep(0)
        writer.write(left)
        await reader.read()
        writer.close()

    async def scenario() -> None:
        async with pool_for(talk) as pool:
            response = await streamed(pool)
            assert (response.status, response.headers["x-one"]) == (200, "1")
            assert b"".join([piece async for piece in response.pieces()]) == b"hello, world"

    asyncio.run(scenario())


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async def scenario() -> None:
        server = Server(b"HTTP/1.1 200 OK\r\n\r\nhello", then_close=True)
        async with pool_for(server.talk) as pool:
            assert await ask(pool) == b"hello"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\ncont", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", ResponseCutError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", ResponseCutError),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", BadResponseError),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", BadResponseError),
        (b"HTTP/1.1 200 OK\r\n" + b"x-many: headers\r\n" * 10_000, BadResponseError),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 2_000_000,
            BadResponseError,
        ),
    ],
    ids=["nothing", "half a head", "short", "half a chunk", "SSH", "upgrade", "head", "too large"],
)
def test_what_is_no_answer(answer: bytes, error: type[Exception]) -> None:
    async def scenario() -> None:
        server = Server(answer, then_close=True)
        async with pool_for(server.talk) as pool:
            with pytest.raises(error):
                await ask(pool)

    asyncio.run(scenario())


def test_a_slow_reader_holds_up_the_sender() -> None:
    size, sent = 50_000_000, 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 100_000)
            sent += 100_000
            await writer.drain()
        writer.close()

    async def scenario() -> None:
        async with pool_for(talk) as pool:
            response = await streamed(pool)
            pieces = response.pieces()
            received = len(await anext(pieces))
            await asyncio.sleep(0.1)
            assert sent < size / 2, "the rest waits at the sender"
            received += sum([len(piece) async for piece in pieces])
            assert received == size

    asyncio.run(scenario())


def test_closing_a_response_ends_it_at_the_server() -> None:
    async def scenario() -> None:
        server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello")
        async with pool_for(server.talk) as pool:
            response = await streamed(pool)
            response.close()
            await asyncio.wait_for(server.gone.wait(), 5)

    asyncio.run(scenario())


def test_a_connection_that_nobody_uses_is_closed() -> None:
    async def scenario() -> None:
        server = Server(OK)
        async with pool_for(server.talk, keepalive_s=0.02) as pool:
            assert await ask(pool) == b"hello"
            await asyncio.wait_for(server.gone.wait(), 5)
            assert await ask(pool) == b"hello"
            assert server.connections == 2

    asyncio.run(scenario())


def test_where_nobody_listens_everyone_who_waits_is_told_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def scenario() -> None:
        pool = ConnectionPool(
            f"http://127.0.0.1:{port}", headers={}, connect_timeout_s=5, keepalive_s=5
        )
        found = await asyncio.gather(
            *(pool.connection() for _ in range(500)), return_exceptions=True
        )
        assert {type(one) for one in found} == {NoConnectionError}
        await pool.close()

    asyncio.run(scenario())


def test_a_name_is_asked_for_once_and_again_where_it_could_not_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def answer(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        asked.append(host)
        await asyncio.sleep(0)
        return [(2, 1, 6, "", ("169.254.169.254", port)), (2, 1, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", answer)

    async def scenario() -> None:
        book = AddressBook("models.example", 80)
        found = await asyncio.gather(*(book.addresses() for _ in range(20)))
        assert all(one == [(2, 1, 6, "", ("10.0.0.1", 80))] for one in found)
        assert len(asked) == 1
        book.forget()
        await book.addresses()
        assert len(asked) == 2
        for literal in ("127.0.0.1", "::1"):
            assert (await AddressBook(literal, 80).addresses())[0][4][:2] == (literal, 80)
        assert len(asked) == 2

    asyncio.run(scenario())


@pytest.mark.skipif(which("openssl") is None, reason="openssl is needed to make a certificate")
def test_tls_is_checked_against_the_systems_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def scenario() -> bytes:
        async with pool_for(Server(OK).talk, tls=tls) as pool:
            return await ask(pool)

    with pytest.raises(NoConnectionError):
        asyncio.run(scenario())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert asyncio.run(scenario()) == b"hello"


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.text()
        | st.just("\ud83d"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_goes_over_the_wire_and_back(value: Any) -> None:
    assert decoded_leniently(encoded(value)) == value


def test_json_that_is_none() -> None:
    for raw in (b"NaN", b'"\\ud83d"', b"[" * 5000 + b"]" * 5000, b"{", b"\xff"):
        with pytest.raises(ValueError):
            decoded(raw)
    assert decoded_leniently(b'{"logprob": -Infinity}') == {"logprob": float("-inf")}
    assert encoded({"logprob": float("-inf")}) == b'{"logprob":null}'
