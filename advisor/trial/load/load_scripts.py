"""The load of a trial for other tools: Locust, past one machine, and k6.

Both read the plan that the sender reads (`advisor.trial.load.plan`). The Locust file writes the
records that the sender writes, one JSON line each; `advisor trials import` judges them. k6 has no
streaming responses, so its script measures whole answers only.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advisor.errors import InputError
from advisor.serving.arrivals import Poisson
from advisor.task import TaskProfile
from advisor.trial.data import read_rows
from advisor.trial.endpoints import Endpoint, body_of, risk_headers
from advisor.trial.load.driver import TIMES
from advisor.trial.load.plan import LoadPlan, PlannedRequest
from advisor.trial.load.schedules import scheduled

LOCUSTFILE = '''\
"""Sends plan.json, in the folder of this file, and writes a record of every request.

    locust -f locustfile.py --headless --users 64 --spawn-rate 64          # one machine
    locust -f locustfile.py --headless --master --expect-workers 4 --users 256 --spawn-rate 256
    locust -f locustfile.py --worker --master-host HOST                    # on each of the four

The master tells each worker its share of the schedule and when second 0 is, on the wall's clock
(run NTP on all); each writes records-N.jsonl beside its plan. Gather them in one folder for
`advisor trials import`. Users only bound how many requests may be under way: where all of them wait
for answers, requests go out late, and the records say so.
"""

import json
import os
import time
from pathlib import Path

import gevent
from locust import HttpUser, constant, events, task
from locust.runners import MasterRunner, WorkerRunner
from requests.exceptions import Timeout

FOLDER = Path(__file__).parent
PLAN = json.loads((FOLDER / "plan.json").read_text(encoding="utf-8"))
KEY = os.environ.get(PLAN["api_key_env"] or "", "")
START_DELAY_S = 3.0
SHARE, DONE = "advisor_share", "advisor_done"
HEADERS = {"x-advisor-route": "route", "x-advisor-reason": "reason"}
NUMBERS = {"x-advisor-confidence": "confidence", "x-advisor-cost-usd": "cost_usd"}


class Share:
    """The requests of this process, and where their records go."""

    given = None
    requests = iter(())
    under_way = 0
    began_s = 0.0
    output = None
    done = False
    workers_left = 0


@events.init.add_listener
def connect(environment, **_):
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        runner.register_message(DONE, worker_done)
    elif isinstance(runner, WorkerRunner):
        runner.register_message(SHARE, take_share)


def take_share(environment, msg, **_):
    Share.given = msg.data


def worker_done(environment, msg, **_):
    Share.workers_left -= 1
    if Share.workers_left == 0:
        gevent.spawn(environment.runner.quit)


@events.test_start.add_listener
def begin(environment, **_):
    runner = environment.runner
    alone = {"index": 0, "workers": 1, "began_epoch_s": time.time() + START_DELAY_S}
    if isinstance(runner, MasterRunner):
        workers = sorted(worker.id for worker in runner.clients.ready)
        Share.workers_left = len(workers)
        for index, worker in enumerate(workers):
            share = {**alone, "index": index, "workers": len(workers)}
            runner.send_message(SHARE, share, client_id=worker)
        return
    share = Share.given or alone
    Share.requests = iter(PLAN["requests"][share["index"] :: share["workers"]])
    Share.output = (FOLDER / f"records-{share['index']}.jsonl").open("w", encoding="utf-8")
    Share.began_s = time.monotonic() + share["began_epoch_s"] - time.time()
    put({"began_epoch_s": share["began_epoch_s"]})


@events.test_stop.add_listener
def end(environment, **_):
    if Share.output is not None:
        for request in Share.requests:
            put({"number": request["number"], "status": "cancelled", "error": "never sent"})
        Share.output.close()
        Share.output = None


def put(value):
    Share.output.write(json.dumps(value) + "\\n")
    Share.output.flush()


def now():
    return time.monotonic() - Share.began_s


class Planned(HttpUser):
    """Takes the next request of the schedule, waits for its time, sends it."""

    host = PLAN["base_url"]
    wait_time = constant(0)

    @task
    def send(self):
        request = next(Share.requests, None)
        if request is None:
            if not Share.under_way and not Share.done:
                Share.done = True
                runner = self.environment.runner
                if isinstance(runner, WorkerRunner):
                    runner.send_message(DONE)
                else:
                    gevent.spawn(runner.quit)  # it ends this user, which cannot wait for itself
            gevent.sleep(1)
            return
        Share.under_way += 1
        try:
            if request["scheduled_s"] is not None:
                gevent.sleep(max(request["scheduled_s"] - now(), 0))
            put({"number": request["number"], **self.facts(request)})
        finally:
            Share.under_way -= 1

    def facts(self, request):
        body = {"model": PLAN["model"], **request["body"], "stream": True}
        body["stream_options"] = {"include_usage": True}
        headers = dict(request["headers"])
        if KEY:
            headers["Authorization"] = f"Bearer {KEY}"
        facts = {"sent_s": now(), "status": "failed"}
        try:
            with self.client.post(
                "/chat/completions", json=body, headers=headers, stream=True,
                timeout=PLAN["timeout_s"], catch_response=True, name="chat",
            ) as response:
                facts["http_status"] = response.status_code
                for name, key in HEADERS.items():
                    if name in response.headers:
                        facts[key] = response.headers[name]
                for name, key in NUMBERS.items():
                    if name in response.headers:
                        facts[key] = float(response.headers[name])
                if response.status_code == 200:
                    facts |= read(response)
                elif response.status_code:
                    facts["error"] = f"HTTP {response.status_code}"
                else:
                    raise response.error
        except Exception as error:
            if isinstance(error, Timeout):
                facts["status"] = "timed_out"
            text = " ".join(str(error).split())[:200]
            facts["error"] = text.replace(KEY, "[key]") if KEY else text
        return {**facts, "end_s": now()}


def read(response):
    """What a stream of answers holds."""
    facts, parts, finished = {}, [], False
    for line in response.iter_lines():
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            finished = True
            continue
        event = json.loads(data)
        usage = event.get("usage") or {}
        if usage:
            facts["input_tokens"] = usage.get("prompt_tokens")
            facts["output_tokens"] = usage.get("completion_tokens")
        for choice in event.get("choices", []):
            content = (choice.get("delta") or {}).get("content")
            if content:
                facts.setdefault("first_token_s", now())
                facts["last_token_s"] = now()
                parts.append(content)
            if choice.get("finish_reason") is not None:
                facts.setdefault("first_token_s", now())
                facts["last_token_s"] = now()
                finished = True
    if not finished:
        return {**facts, "error": "the stream ended before its end"}
    return {**facts, "status": "completed", "answer": "".join(parts)}
'''

K6_SCRIPT = """\
// Sends plan.json with k6: k6 run k6.js (the key in the variable that the plan names).
// k6 reads answers whole, so first tokens are not timed.
import http from "k6/http";
import { check, sleep } from "k6";
import { Counter } from "k6/metrics";
import exec from "k6/execution";
import { SharedArray } from "k6/data";

const plan = new SharedArray("plan", () => [JSON.parse(open("./plan.json"))])[0];
const key = plan.api_key_env ? __ENV[plan.api_key_env] : "";
const escalated = new Counter("escalated");
const begin = Date.now() + 3000;

export const options = {
  scenarios: {
    plan: {
      executor: "shared-iterations",
      vus: Number(__ENV.ADVISOR_USERS || 64),
      iterations: plan.requests.length,
      maxDuration: "24h",
    },
  },
  thresholds: { checks: ["rate>0.99"] },
};

export default function () {
  const request = plan.requests[exec.scenario.iterationInTest];
  if (request.scheduled_s !== null) {
    sleep(Math.max(0, (begin + 1000 * request.scheduled_s - Date.now()) / 1000));
  }
  const headers = Object.assign({ "Content-Type": "application/json" }, request.headers);
  if (key) headers["Authorization"] = `Bearer ${key}`;
  const body = Object.assign({ model: plan.model }, request.body, { stream: false });
  const response = http.post(`${plan.base_url}/chat/completions`, JSON.stringify(body), {
    headers: headers,
    timeout: `${plan.timeout_s}s`,
  });
  check(response, { answered: (r) => r.status === 200 });
  if (response.headers["X-Advisor-Route"] === "llm") escalated.add(1);
}
"""


def load_plan(
    task: TaskProfile,
    endpoint: Endpoint,
    data: Path,
    *,
    rate_per_s: float,
    requests: int,
    api_key_env: str | None,
    seed: int,
) -> LoadPlan:
    """The plan of a load of Poisson arrivals on one endpoint, usually a router.

    Raises:
        InputError: rows that cannot be read, or no rate.
    """
    rows = read_rows(data)
    times = scheduled(Poisson(rate_per_s), requests, seed=seed)
    return LoadPlan(
        base_url=endpoint.base_url,
        model=endpoint.model,
        requests=[
            PlannedRequest(
                number=number,
                row_id=rows[number % len(rows)].id,
                body=body_of(rows[number % len(rows)], task, logprobs=False),
                scheduled_s=time_s,
                headers=risk_headers(rows[number % len(rows)]),
            )
            for number, time_s in enumerate(times)
        ],
        api_key_env=api_key_env,
    )


def write_load_scripts(plan: LoadPlan, folder: Path) -> tuple[Path, ...]:
    """The plan, a Locust file and a k6 script in one folder; returns their paths.

    Raises:
        InputError: the folder cannot be written.
    """
    texts = {"locustfile.py": LOCUSTFILE, "k6.js": K6_SCRIPT}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plan.write(folder / "plan.json")
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    return (folder / "plan.json", *(folder / name for name in texts))


def read_records(files: Sequence[Path]) -> tuple[list[dict[str, object]], float | None]:
    """Records that the Locust file wrote, and when second 0 was.

    Every worker's times are put on the clock of the one that began first. A last line that was cut
    off in the middle is left out.

    Raises:
        InputError: a file that cannot be read or holds something else, or two records of a request.
    """
    by_file = {file: _lines(file) for file in files}
    began = {
        file: float(value["began_epoch_s"])
        for file, values in by_file.items()
        for value in values
        if "began_epoch_s" in value
    }
    first = min(began.values(), default=None)
    found: dict[object, dict[str, object]] = {}
    for file, values in by_file.items():
        later_s = began[file] - first if first is not None and file in began else 0.0
        for value in values:
            if "began_epoch_s" in value:
                continue
            number = value.get("number")
            if number is None:
                raise InputError(f"{file}: a line without a request's number")
            if number in found:
                raise InputError(
                    f"{file}: a second record of request {number}; take the files of other runs "
                    "out of the folder"
                )
            found[number] = {
                name: given + later_s if name in TIMES else given for name, given in value.items()
            }
    return list(found.values()), first


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        *lines, last = file.read_text(encoding="utf-8").split("\n")
        values = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: no records of a load: {error}") from None
    with contextlib.suppress(ValueError):
        values += [json.loads(last)] if last.strip() else []
    if not all(isinstance(value, dict) for value in values):
        raise InputError(f"{file}: no records of a load: an object a line was expected")
    return values
