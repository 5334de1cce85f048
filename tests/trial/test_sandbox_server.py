"""The sandbox server over real HTTP: OpenAI's forms, streams, errors, and how its process ends."""

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from advisor.errors import InputError
from advisor.quality.confidence import answer_confidence
from advisor.trial.sandbox import SandboxServer, rows, start
from advisor.trial.sandbox.launch import _environment
from advisor.trial.sandbox.parent import PERIOD_S
from advisor.trial.sandbox.prompt import prompt_text
from advisor.trial.sandbox.server import listen

pytestmark = pytest.mark.live

pytest.importorskip("ctranslate2", reason="the light engine is not installed")

REQUEST = "please order three desks by monday"
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with start("small") as running:
        yield running


def call(server: SandboxServer, path: str, body: object | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    try:
        text = body if isinstance(body, str | None) else json.dumps(body)
        connection.request("POST" if text is not None else "GET", path, text)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def chat(server: SandboxServer, text: str = REQUEST, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "ignored"}, {"role": "user", "content": text}]
    body = {"model": server.model, "messages": messages, **more}
    status, answer = call(server, "/v1/chat/completions", body)
    assert status == 200, answer
    document: dict[str, Any] = json.loads(answer)
    return document


def chunks(server: SandboxServer, path: str, body: dict[str, object]) -> list[dict[str, Any]]:
    status, answer = call(server, path, {"model": server.model, "stream": True, **body})
    assert status == 200, answer
    events = [line.removeprefix("data: ") for line in answer.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def test_a_chat_completion_has_openais_form(server: SandboxServer) -> None:
    document = chat(server, logprobs=True, top_logprobs=4)
    choice = document["choices"][0]

    assert document["object"] == "chat.completion"
    assert document["model"] == server.model == "sandbox-small"
    assert choice["finish_reason"] == "stop"
    assert json.loads(choice["message"]["content"])["intent"] == "order"
    tokens = choice["logprobs"]["content"]
    spelt = b"".join(bytes(token["bytes"]) for token in tokens)
    assert spelt.decode() == choice["message"]["content"]
    assert all(len(token["top_logprobs"]) == 4 for token in tokens)
    assert all(token["logprob"] == pytest.approx(token["top_logprobs"][0]["logprob"], abs=1e-5)
               for token in tokens)  # fmt: skip
    usage = document["usage"]
    assert usage["completion_tokens"] == len(tokens) + 1, "the token that ends the answer counts"
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_confidence_can_be_read_from_the_log_probabilities(server: SandboxServer) -> None:
    choice = chat(server, logprobs=True, top_logprobs=5)["choices"][0]
    confidence = answer_confidence(choice["logprobs"], output="json")

    answer = json.loads(choice["message"]["content"])
    assert set(confidence.by_field) == set(answer)
    assert 0 < confidence.weakest_token <= 1


def test_without_log_probabilities_there_are_none(server: SandboxServer) -> None:
    assert chat(server)["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("stop", [None, ',"item', ["no such text"]], ids=str)
def test_a_stream_tells_what_the_whole_answer_tells(
    server: SandboxServer, stop: str | list[str] | None
) -> None:
    more: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "stop": stop}
    whole = chat(server, **more)["choices"][0]
    streamed = chunks(
        server,
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": REQUEST}],
            "stream_options": {"include_usage": True},
            **more,
        },
    )
    *pieces, counts = streamed
    choices = [chunk["choices"][0] for chunk in pieces]

    assert choices[0]["delta"]["role"] == "assistant"
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == whole["message"]["content"]
    tokens = [t for choice in choices for t in (choice["logprobs"] or {}).get("content", ())]
    assert tokens == whole["logprobs"]["content"]
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons[-1] == whole["finish_reason"] == "stop"
    assert set(reasons[:-1]) == {None}
    assert counts["choices"] == []
    assert counts["usage"] == chat(server, **more)["usage"]
    assert len({chunk["id"] for chunk in streamed}) == 1


def test_the_completion_endpoint_agrees_with_the_chat(server: SandboxServer) -> None:
    """The chat's template, written out, is a prompt: same tokens, same total log-probability."""
    spoken = chat(server, logprobs=True)["choices"][0]
    body = {"prompt": prompt_text(REQUEST), "logprobs": 1}
    status, answer = call(server, "/v1/completions", {"model": server.model, **body})
    written = json.loads(answer)["choices"][0]

    assert status == 200
    assert written["text"] == spoken["message"]["content"]
    assert sum(written["logprobs"]["token_logprobs"]) == pytest.approx(
        sum(token["logprob"] for token in spoken["logprobs"]["content"]), abs=1e-4
    )
    offsets = written["logprobs"]["text_offset"]
    ends = [*offsets[1:], len(written["text"])]
    for start_at, end_at, token in zip(offsets, ends, written["logprobs"]["tokens"], strict=True):
        assert written["text"][start_at:end_at] == token
    streamed = chunks(server, "/v1/completions", body)
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == written["text"]


def test_a_response_format_is_checked_and_not_enforced(server: SandboxServer) -> None:
    def outcome(schema: dict[str, object]) -> dict[str, bool]:
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        found: dict[str, bool] = chat(server, response_format=form)["response_format"]
        return found

    assert outcome({"type": "object"}) == {"enforced": False, "conforms": True}
    assert outcome({"type": "array"}) == {"enforced": False, "conforms": False}


def test_models_and_health(server: SandboxServer) -> None:
    status, models = call(server, "/v1/models")
    assert (status, [card["id"] for card in json.loads(models)["data"]]) == (200, [server.model])
    assert call(server, "/health")[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"model": "gpt", "messages": [{"role": "user", "content": "x"}]}, 404, "'gpt' is not"),
        ({"model": "sandbox-small", "messages": []}, 400, "messages"),
        ({"model": "sandbox-small"}, 400, "'messages' is missing"),
        ({"model": "sandbox-small", "messages": [{"role": "user", "content": "x"}], "n": 2},
         400, "n = 2"),
        ({"model": "sandbox-small", "messages": [{"role": "user", "content": "a b " * 300}]},
         400, "tokens; 1 to 255"),
        ({"model": "sandbox-small", "messages": [{"role": "user", "content": "x"}],
          "response_format": {"type": "grammar"}}, 400, "response_format.type 'grammar'"),
        ({"model": "sandbox-small", "messages": [
            {"role": "user", "content": [{"type": "image_url"}]}]}, 400, "only text parts"),
        ("not json", 400, "JSON"),
        ("x" * 1_000_001, 400, "more than 1,000,000 bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_in_one_line(
    server: SandboxServer, body: object, status: int, named: str
) -> None:
    got, answer = call(server, "/v1/chat/completions", body)
    message = json.loads(answer)["error"]["message"]

    assert got == status, answer
    assert named in message
    assert "\n" not in message


def test_many_clients_at_once_get_what_one_gets(server: SandboxServer) -> None:
    asked = [row.input_text for row in rows("held_out", 40, 11)]
    one = [chat(server, text)["choices"][0]["message"]["content"] for text in asked]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda text: chat(server, text), asked))

    assert [document["choices"][0]["message"]["content"] for document in many] == one


def metric(server: SandboxServer, name: str) -> float:
    page = call(server, "/metrics")[1]
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))


def test_metrics_count_requests_tokens_and_cpu_time(server: SandboxServer) -> None:
    names = ("vllm:request_success_total", "vllm:generation_tokens_total")
    before = [metric(server, name) for name in names]
    busy, cpu = metric(server, "sandbox:busy_seconds"), metric(server, "process_cpu_seconds_total")
    tokens = sum(chat(server)["usage"]["completion_tokens"] for _ in range(5))

    assert [metric(server, name) for name in names] == [before[0] + 5, before[1] + tokens]
    assert metric(server, "sandbox:busy_seconds") > busy
    assert metric(server, "process_cpu_seconds_total") > cpu
    assert metric(server, "vllm:num_requests_running") == 0


def test_a_client_that_leaves_frees_the_queue(server: SandboxServer) -> None:
    before = metric(server, 'vllm:request_success_total{finished_reason="cancelled"')
    body = json.dumps({"model": server.model, "prompt": "<s> a", "max_tokens": 250,
                       "temperature": 2.0})  # fmt: skip
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
        connection.request("POST", "/v1/completions", body)
        connection.close()
    chat(server)
    end_s = time.monotonic() + DEADLINE_S
    while metric(server, "vllm:num_requests_waiting") and time.monotonic() < end_s:
        time.sleep(0.05)

    assert metric(server, 'vllm:request_success_total{finished_reason="cancelled"') > before


def test_leaving_the_context_ends_the_process() -> None:
    with start("large") as server:
        assert server.running
        assert server.base_url == f"http://127.0.0.1:{server.port}/v1"
        assert call(server, "/health")[0] == 200
    assert not server.running
    server.close()
    with pytest.raises(ConnectionRefusedError):
        call(server, "/health")


PARENT = """
import sys, time
from advisor.trial.sandbox import start
server = start("small")
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_server_dies_with_its_parent(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(number)
        parent.wait()

    end_s = time.monotonic() + DEADLINE_S
    while alive(pid) and time.monotonic() < end_s:
        time.sleep(PERIOD_S)
    assert not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def test_a_killed_server_is_seen_to_be_down() -> None:
    with start("small") as server:
        os.kill(server.pid, signal.SIGKILL)
        server._process.wait()
        assert not server.running


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(InputError, match=r"'small' \(ctranslate2\) did not come up: cpu 4096: acc"):
        start("small", cpu=4096)
    with pytest.raises(InputError, match="accepted are ctranslate2, vllm"):
        start("small", "llama.cpp")  # type: ignore[arg-type]


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio sends at once on sockets that name TCP, and only on those."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        with pytest.raises(InputError, match=r"cannot listen on 127\.0\.0\.1"):
            listen("127.0.0.1", listener.getsockname()[1])


def test_a_server_is_not_told_any_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    assert "OPENAI_API_KEY" not in _environment()
    assert _environment(HOME="x")["HOME"] == "x"


def test_vllm_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_VLLM_PYTHON", "/nowhere/python")

    with pytest.raises(InputError, match="engine 'vllm' is not installed here; install the extra"):
        start("small", "vllm")
