"""What the router adds to a request, beside a direct call and beside LiteLLM's proxy.

Each server is one process with one busy thread, so that it has one core at most; the upstream
answers after a fixed time; the sender is a process of its own and sends as a Poisson process,
whether or not earlier answers have come. Figures mean little on a machine that is busy otherwise:
the processor time of each server stands beside them.
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
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.benchmark

RATE_PER_S, SECONDS, WARM_UP = 200, 10, 200
UPSTREAM_MS = 10.0
KEY = "sk-" + "0123456789abcdef" * 4
"""LiteLLM does not start without one; the router, on this machine only, asks for none."""

P50_LIMIT_MS, P99_LIMIT_MS = 2.0, 10.0

UPSTREAM = """
import asyncio, json, sys, uvicorn
BODY = json.dumps({
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "refund_status"},
                 "logprobs": {"content": [{"token": t, "logprob": -0.01, "bytes": None,
                     "top_logprobs": [{"token": r, "logprob": -5.0} for r in "abcde"]}
                     for t in ("ref", "und", "_", "stat", "us")]}}],
    "usage": {"prompt_tokens": 350, "completion_tokens": 5, "total_tokens": 355}}).encode()
HEAD = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(float(sys.argv[2]) / 1000)
    await send({"type": "http.response.start", "status": 200, "headers": HEAD})
    await send({"type": "http.response.body", "body": BODY})
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="off")
"""

SENDER = """
import asyncio, json, random, sys, time, aiohttp
url, rate, seconds, warm = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
PROMPT = "Classify the message into one of twenty intents. " * 25
async def main():
    draw, took, wrong = random.Random(0), [], 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def one(i, keep):
            nonlocal wrong
            text = f"{PROMPT} message {i}"
            body = {"model": "m", "messages": [{"role": "user", "content": text}]}
            begin = time.perf_counter()
            headers = {"authorization": "Bearer " + sys.argv[5]}
            async with session.post(url, json=body, headers=headers) as response:
                answer = await response.json()
                wrong += response.status != 200 or "refund" not in json.dumps(answer)
            if keep:
                took.append(time.perf_counter() - begin)
        for i in range(warm):
            await one(i, False)
        tasks, at = [], time.perf_counter()
        end = at + seconds
        while at < end:
            at += draw.expovariate(rate)
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.append(asyncio.create_task(one(len(tasks) + warm, True)))
        await asyncio.gather(*tasks)
    took.sort()
    pick = lambda q: took[min(len(took) - 1, int(q * len(took)))] * 1000
    quantiles = {"p50": pick(.5), "p90": pick(.9), "p99": pick(.99)}
    print(json.dumps({"n": len(took), "wrong": wrong, **quantiles}))
asyncio.run(main())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: list[Any], *, port: int, wait_s: float = 60) -> Iterator[int]:
    """A server process, from when it listens until it is stopped: its id."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "LITELLM_MASTER_KEY": KEY}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [*map(str, command)], stdout=quiet, stderr=quiet, env=environment
    ) as process:
        try:
            deadline = time.monotonic() + wait_s
            while not listens(port):
                assert process.poll() is None, f"{command} ended"
                assert time.monotonic() < deadline, f"{command} does not listen"
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()


def cpu_ms(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") * 1000


def waited_ms(pid: int) -> float:
    """Time that a process was ready to run and had no core (Linux's scheduler statistics)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e6


def sent(port: int, pid: int) -> dict[str, float]:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    command = [sys.executable, "-c", SENDER, url, RATE_PER_S, SECONDS, WARM_UP, KEY]
    before, waited_before = cpu_ms(pid), waited_ms(pid)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    count = found["n"] + WARM_UP
    waited = (waited_ms(pid) - waited_before) / count
    return {**found, "cpu": (cpu_ms(pid) - before) / count, "waited": waited}


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


def test_overhead_at_200_requests_a_second(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    upstream, own, other = free_port(), free_port(), free_port()
    (tmp_path / "router.yaml").write_text(yaml.safe_dump(router_config(upstream)))
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(litellm_config(upstream)))
    command = litellm(pytestconfig.cache.mkdir("router-benchmark"))
    advisor = [sys.executable, "-m", "advisor", "route", tmp_path / "router.yaml", "--port", own]
    with ExitStack() as servers:
        fake = [sys.executable, "-c", UPSTREAM, upstream, UPSTREAM_MS]
        fake_id = servers.enter_context(running(fake, port=upstream))
        with running(advisor, port=own) as own_id:
            direct, through = sent(upstream, fake_id), sent(own, own_id)
            with urllib.request.urlopen(f"http://127.0.0.1:{own}/metrics") as response:
                metrics = response.read().decode()
        rows = {"direct": direct, "advisor route": through}
        if command is not None:
            proxy = [command, "--config", tmp_path / "litellm.yaml", "--port", other]
            with running(proxy, port=other, wait_s=120) as other_id:
                rows["LiteLLM proxy"] = sent(other, other_id)

    print(
        f"\n{RATE_PER_S} requests/s for {SECONDS} s, upstream {UPSTREAM_MS:g} ms; added to direct:"
    )
    for name, found in rows.items():
        latency = ", ".join(f"{p} {found[p]:.2f}" for p in ("p50", "p90", "p99"))
        added = ", ".join(f"{p} {found[p] - direct[p]:+.2f}" for p in ("p50", "p90", "p99"))
        print(f"  {name:14} {latency} ms; added {added} ms; {found['cpu']:.2f} ms of CPU each;")
        waited = f"{found['waited']:.2f} ms each of waiting for a core that others had"
        print(f"  {'':14} {found['n']:.0f} requests, {found['wrong']:.0f} wrong; {waited}")
    if command is None:
        print("  LiteLLM could not be installed here")

    assert through["wrong"] == 0
    assert 'advisor_requests_total{reason="accepted",route="slm",status="200"}' in metrics
    assert through["p50"] - direct["p50"] < P50_LIMIT_MS
    assert through["p99"] - direct["p99"] < P99_LIMIT_MS
