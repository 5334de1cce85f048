"""What the router adds to a request, beside a direct call, a bare proxy and LiteLLM's.

Every server is up all the time and is asked in turn, a few seconds each, again and again, so that
whatever else the machine does falls on all alike. What is asked has one core to itself; sender and
upstream share another. The sender keeps its connections and sends as a Poisson process, whether or
not earlier answers have come; the upstream answers after a fixed time, with log-probabilities
where they are asked for. The bare proxy passes bytes on and looks at nothing, with the libraries
that one would take (uvicorn, aiohttp): what any router on that stack adds at least.

Latencies mean little on a machine that is busy otherwise: the processor time of each server, and
how long it waited for its core, stand beside them.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.benchmark

RATE_PER_S, ROUNDS, SECONDS, WARM_UP = 200, 5, 4, 100
UPSTREAM_MS = 10.0
KEY = "sk-" + "0123456789abcdef" * 4
"""LiteLLM does not start without one; the router, on this machine only, asks for none."""

SLOW_PER_S = 20
"""A rate at which LiteLLM's proxy keeps up on one core too."""

P50_LIMIT_MS, P99_LIMIT_MS = 2.0, 10.0

UPSTREAM = """
import asyncio, json, sys, uvicorn
def body(tokens):
    return json.dumps({
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "refund_status"},
                     "logprobs": {"content": tokens} if tokens else None}],
        "usage": {"prompt_tokens": 350, "completion_tokens": 5, "total_tokens": 355}}).encode()
RIVAL = {"token": "a", "logprob": -5.0, "bytes": [97]}
TOKENS = [{"token": t, "logprob": -0.01, "bytes": list(t.encode()), "top_logprobs": [RIVAL]}
          for t in ("ref", "und", "_", "stat", "us")]
PLAIN, SURE = body(None), body(TOKENS)
async def app(scope, receive, send):
    asked = b""
    while True:
        message = await receive()
        asked += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = SURE if b'"logprobs":true' in asked else PLAIN
    await asyncio.sleep(float(sys.argv[2]) / 1000)
    head = [(b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": answer})
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="off")
"""

BARE_PROXY = """
import sys, aiohttp, uvicorn
session = None
async def app(scope, receive, send):
    global session
    session = session or aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    asked = b""
    while True:
        message = await receive()
        asked += message.get("body", b"")
        if not message.get("more_body"):
            break
    url, head = sys.argv[2] + scope["path"], {"content-type": "application/json"}
    async with session.post(url, data=asked, headers=head) as response:
        answer = await response.read()
    head = [(b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": response.status, "headers": head})
    await send({"type": "http.response.body", "body": answer})
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="off", access_log=False)
"""

SENDER = """
import asyncio, json, random, sys, time, aiohttp
url, rate, seconds, warm = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
PROMPT = "Classify the message into one of twenty intents. " * 25
HEAD = {"authorization": "Bearer " + sys.argv[5], "content-type": "application/json"}
async def main():
    draw, took, wrong = random.Random(sys.argv[6]), [], 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def one(i, keep):
            nonlocal wrong
            message = {"role": "user", "content": f"{PROMPT} message {i}"}
            body = json.dumps({"model": "m", "messages": [message]}).encode()
            begin = time.perf_counter()
            async with session.post(url, data=body, headers=HEAD) as response:
                answer = await response.read()
            if keep:
                took.append((time.perf_counter() - begin) * 1000)
            wrong += response.status != 200 or b"refund" not in answer
        await asyncio.gather(*(one(i, False) for i in range(8)))
        for i in range(warm):
            await one(i, False)
        tasks, at = [], time.perf_counter()
        end = at + seconds
        while at < end:
            at += draw.expovariate(rate)
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.append(asyncio.create_task(one(len(tasks) + warm, True)))
        await asyncio.gather(*tasks)
    print(json.dumps({"took_ms": took, "wrong": wrong}))
asyncio.run(main())
"""


@dataclass
class Target:
    """A server and what was measured of it."""

    port: int
    pid: int
    rate_per_s: float = RATE_PER_S
    took_ms: list[float] = field(default_factory=list, repr=False)
    medians_ms: list[float] = field(default_factory=list)
    """Of each round."""
    wrong: int = 0
    cpu_ms: float = 0.0
    waited_ms: float = 0.0
    asked: int = 0

    def quantile_ms(self, q: float) -> float:
        ordered = sorted(self.took_ms)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


CORES = sorted(os.sched_getaffinity(0))


@contextmanager
def running(
    command: list[Any], *, port: int, core: int, wait_s: float = 60
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process on one core, from when it listens until it is stopped."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "LITELLM_MASTER_KEY": KEY}
    quiet = subprocess.DEVNULL
    os.sched_setaffinity(0, {core})
    try:
        process = subprocess.Popen(
            [*map(str, command)], stdout=quiet, stderr=quiet, env=environment
        )
    finally:
        os.sched_setaffinity(0, CORES)
    with process:
        try:
            deadline = time.monotonic() + wait_s
            while not listens(port):
                assert process.poll() is None, f"{command} ended"
                assert time.monotonic() < deadline, f"{command} does not listen"
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()


def cpu_ms(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") * 1000


def waited_ms(pid: int) -> float:
    """Time that a process was ready to run and had no core (Linux's scheduler statistics)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e6


def ask(target: Target, *, round_: int) -> None:
    """One round of requests, from the core that the target does not have."""
    url = f"http://127.0.0.1:{target.port}/v1/chat/completions"
    rate = target.rate_per_s
    command = [sys.executable, "-c", SENDER, url, rate, SECONDS, WARM_UP, KEY, round_]
    cpu_before, waited_before = cpu_ms(target.pid), waited_ms(target.pid)
    os.sched_setaffinity(0, {CORES[0]})
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    finally:
        os.sched_setaffinity(0, CORES)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    target.took_ms += found["took_ms"]
    target.medians_ms.append(sorted(found["took_ms"])[len(found["took_ms"]) // 2])
    target.wrong += found["wrong"]
    target.asked += len(found["took_ms"]) + WARM_UP + 8
    target.cpu_ms += cpu_ms(target.pid) - cpu_before
    target.waited_ms += waited_ms(target.pid) - waited_before


def litellm(folder: Path) -> Path | None:
    """LiteLLM's command in an environment of its own; None where it cannot be installed."""
    home = folder / "litellm"
    command = home / "bin" / "litellm"
    if not command.exists():
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "pip"), "install", "--quiet", "litellm[proxy]"]
        if subprocess.run(pip, capture_output=True, timeout=900).returncode:
            return None
    return command


def router_config(port: int) -> dict[str, Any]:
    upstream = {"base_url": f"http://127.0.0.1:{port}/v1", "model": "m"}
    priced = {**upstream, "price": {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.4}}
    labels = [f"intent_{i}" for i in range(19)] + ["refund_status"]
    policy = {"name": "cascade", "threshold": 0.8}
    return {"task": {"labels": labels}, "slm": priced, "llm": priced, "policy": policy}


def litellm_config(port: int) -> dict[str, Any]:
    params = {"model": "openai/m", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "x"}
    return {"model_list": [{"model_name": "m", "litellm_params": params}]}


def report(targets: dict[str, Target]) -> None:
    direct = targets["direct"]
    print(
        f"\n{ROUNDS} rounds of {SECONDS} s each in turn, upstream {UPSTREAM_MS:g} ms; "
        "added to a direct call, in ms:"
    )
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    for name, found in targets.items():
        latency = {p: found.quantile_ms(q) for p, q in quantiles.items()}
        added = {p: latency[p] - direct.quantile_ms(q) for p, q in quantiles.items()}
        rounds = [m - d for m, d in zip(found.medians_ms, direct.medians_ms, strict=True)]
        print(f"  {name}, {found.rate_per_s:g} requests/s")
        print("    latency " + "  ".join(f"{p} {v:.2f}" for p, v in latency.items()))
        print("    added   " + "  ".join(f"{p} {v:+.2f}" for p, v in added.items()), end="")
        print(f"  (p50 by round: {min(rounds):+.2f} to {max(rounds):+.2f})")
        print(
            f"    {found.cpu_ms / found.asked:.2f} of processor time a request, "
            f"{found.waited_ms / found.asked:.2f} of waiting for its core; "
            f"{len(found.took_ms):,} requests, {found.wrong} wrong"
        )


@pytest.mark.timeout(900)
def test_overhead_at_200_requests_a_second(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    upstream, own, bare, other = (free_port() for _ in range(4))
    address = f"http://127.0.0.1:{upstream}"
    (tmp_path / "router.yaml").write_text(yaml.safe_dump(router_config(upstream)))
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(litellm_config(upstream)))
    python = sys.executable
    commands = {
        "direct": (upstream, [python, "-c", UPSTREAM, upstream, UPSTREAM_MS]),
        "bare proxy": (bare, [python, "-c", BARE_PROXY, bare, address]),
        "advisor route": (
            own,
            [python, "-m", "advisor", "route", tmp_path / "router.yaml", "--port", own],
        ),
    }
    command = litellm(pytestconfig.cache.mkdir("router-benchmark"))
    if command is not None:
        config = tmp_path / "litellm.yaml"
        commands["LiteLLM proxy"] = (other, [command, "--config", config, "--port", other])

    with ExitStack() as servers:
        targets = {}
        for name, (port, line) in commands.items():
            core = CORES[0] if name == "direct" else CORES[-1]
            server = servers.enter_context(running(line, port=port, core=core, wait_s=120))
            targets[name] = Target(port, server.pid)
            if port == other:
                targets[f"{name} (slowly)"] = Target(port, server.pid, SLOW_PER_S)
        for round_ in range(ROUNDS):
            for target in targets.values():
                ask(target, round_=round_)
        with urllib.request.urlopen(f"http://127.0.0.1:{own}/metrics") as response:
            metrics = response.read().decode()

    report(targets)
    if command is None:
        print("  LiteLLM could not be installed here")
    routed, direct = targets["advisor route"], targets["direct"]
    assert routed.wrong == 0
    assert 'advisor_requests_total{reason="accepted",route="slm",status="200"}' in metrics
    for q, limit_ms in ((0.5, P50_LIMIT_MS), (0.99, P99_LIMIT_MS)):
        assert routed.quantile_ms(q) - direct.quantile_ms(q) < limit_ms
