"""The load sender: a process of its own, so that nobody else's work delays what it sends.

    python -m advisor.trial.load.sender PLAN.json

reads a plan (`advisor.trial.load.plan`), sends each request at its time whatever became of the
others (an open loop), or as answers come (a closed one), and writes one JSON line on stdout for
each request as it ends: the fields of a `RequestRecord`. Both the scheduled and the true time of
sending are in it, so that the sender's own lateness is on record. The first line says when second 0
was, and when the load is over a line says how many core-seconds it took of this process. It stops
when a line, or the end of the file, comes on stdin; then every request that has not ended is
reported as cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp

from advisor.trial.load.answers import COST_HEADER, Answer, BadAnswerError, read_answer
from advisor.trial.load.plan import LoadPlan, PlannedRequest

START_DELAY_S = 0.3
"""Between the process being ready and second 0."""

ROUTE_HEADER, REASON_HEADER = "x-advisor-route", "x-advisor-reason"
CONFIDENCE_HEADER = "x-advisor-confidence"

SPIN_S = 0.0003
"""Just before each request's time the event loop turns without sleeping: the system wakes a sleeper
late. Longer, it would take the core from the servers under test."""

NICENESS = -10
WARM_UP_TIMEOUT_S = 2.0

MAX_ERROR_CHARACTERS = 200


class Lines:
    """JSON lines to stdout from a thread of their own: a slow reader delays no request."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def put(self, value: dict[str, Any]) -> None:
        self._queue.put(value)

    def close(self) -> None:
        """Return when everything is written."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        while (value := self._queue.get()) is not None:
            try:
                sys.stdout.write(json.dumps(value) + "\n")
                sys.stdout.flush()
            except OSError:  # the reader is gone, and with it the reason to send
                os._exit(1)


class Sender:
    """One plan being sent."""

    def __init__(self, plan: LoadPlan, lines: Lines) -> None:
        self.plan, self.lines = plan, lines
        self.key = os.environ.get(plan.api_key_env or "", "")
        self.stop = asyncio.Event()
        self.begin_s = 0.0
        self.ended: set[int] = set()

    async def run(self) -> None:
        """Send everything, or until told to stop."""
        plan = self.plan
        timeout = aiohttp.ClientTimeout(total=plan.timeout_s, connect=plan.connect_timeout_s)
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=headers, read_bufsize=2**20
        ) as session:
            await self._warm_up(session)
            self.begin_s = time.monotonic() + START_DELAY_S
            self.lines.put({"began_epoch_s": time.time() + START_DELAY_S})
            # A collection in the middle of a burst would be measured as latency.
            gc.collect()
            gc.freeze()
            gc.disable()
            used_s = time.process_time()
            load = asyncio.create_task(self._load(session))
            stopped = asyncio.create_task(self.stop.wait())
            await asyncio.wait((load, stopped), return_when=asyncio.FIRST_COMPLETED)
            load.cancel()
            stopped.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await load
            self.lines.put({"used_s": time.process_time() - used_s})
        for request in plan.requests:
            if request.number not in self.ended:
                self.report(request, status="cancelled", error="stopped before it was sent")

    async def _warm_up(self, session: aiohttp.ClientSession) -> None:
        """Ask for the list of models, whatever comes: code that runs for the first time takes
        milliseconds, which the first requests would show as lag."""
        timeout = aiohttp.ClientTimeout(total=WARM_UP_TIMEOUT_S)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            async with session.get(
                f"{self.plan.base_url}/models", timeout=timeout, allow_redirects=False
            ) as response:
                await response.content.read(4096)

    async def _load(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as group:
            if self.plan.concurrency is not None:
                waiting = iter(self.plan.requests)
                for _ in range(self.plan.concurrency):
                    group.create_task(self._user(session, waiting))
                return
            for request in self.plan.requests:
                assert request.scheduled_s is not None
                await self._until(request.scheduled_s)
                group.create_task(self.send(session, request))

    async def _user(self, session: aiohttp.ClientSession, waiting: Any) -> None:
        await self._until(0.0)
        for request in waiting:
            await self.send(session, request)
            if self.plan.think_s:
                await asyncio.sleep(self.plan.think_s)

    async def _until(self, moment_s: float) -> None:
        due_s = self.begin_s + moment_s
        if (delay_s := due_s - time.monotonic() - SPIN_S) > 0:
            await asyncio.sleep(delay_s)
        while time.monotonic() < due_s:
            await asyncio.sleep(0)

    def now(self) -> float:
        """Seconds on the clock of the arm."""
        return time.monotonic() - self.begin_s

    async def send(self, session: aiohttp.ClientSession, request: PlannedRequest) -> None:
        """Send one request and report how it ended; it fails alone."""
        plan, found = self.plan, Answer()
        body = {"model": plan.model, **request.body, "stream": plan.stream}
        if plan.stream:
            body["stream_options"] = {"include_usage": True}
        facts: dict[str, Any] = {"sent_s": self.now()}
        try:
            async with session.post(
                f"{plan.base_url}/chat/completions",
                json=body,
                headers=request.headers,
                allow_redirects=False,
            ) as response:
                facts |= self._route(response)
                await read_answer(response, found, self.now)
            facts["status"] = "completed"
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            limit_s = plan.connect_timeout_s if connecting else plan.timeout_s
            what = "no connection" if connecting else "no whole answer"
            facts |= {"status": "timed_out", "error": f"{what} within {limit_s:g} s"}
        except asyncio.CancelledError:
            facts |= {"status": "cancelled", "error": "stopped while it was being answered"}
            self.report(request, **facts, **found.times(), end_s=self.now())
            raise
        except (aiohttp.ClientError, BadAnswerError, OSError, ValueError) as error:
            facts |= {"status": "failed", "error": self.one_line(error)}
        logprobs = found.logprobs if plan.keep_logprobs else None
        facts |= found.facts()
        self.report(request, **facts, end_s=self.now(), logprobs=logprobs)

    def report(self, request: PlannedRequest, **facts: Any) -> None:
        """Hand on how a request ended, once."""
        self.ended.add(request.number)
        facts = {key: value for key, value in facts.items() if value is not None}
        self.lines.put({"number": request.number, **facts})

    def _route(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        headers = response.headers
        return {
            "http_status": response.status,
            "route": headers.get(ROUTE_HEADER),
            "reason": headers.get(REASON_HEADER),
            "confidence": _number(headers.get(CONFIDENCE_HEADER)),
            "cost_usd": _number(headers.get(COST_HEADER)),
        }

    def one_line(self, error: Exception) -> str:
        """What went wrong, short, and without the key that a server may have repeated."""
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            text = f"the name {error.host} cannot be resolved"
        elif isinstance(error, aiohttp.ClientConnectorError):
            text = f"no connection to {error.host}:{error.port}: {error.os_error}"
        elif isinstance(error, aiohttp.ServerDisconnectedError):
            text = "the server closed the connection without an answer"
        elif isinstance(error, aiohttp.ClientPayloadError):
            text = "the connection ended in the middle of the answer"
        else:
            text = str(error) or type(error).__name__
        text = " ".join(text.split())
        if self.key:
            text = text.replace(self.key, "[key]")
        return text[:MAX_ERROR_CHARACTERS]


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _stop_with_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """A line means stop, and so does the end of the file: whoever started this is gone."""
    sys.stdin.readline()
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(stop.set)


def _ask_for_priority() -> None:
    """Run before other processes, where the system lets this one: what delays the sender would be
    measured as the endpoints' latency. Where it does not, the lag is on record all the same."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(NICENESS)


async def _main(path: Path) -> None:
    lines = Lines()
    sender = Sender(LoadPlan.read(path), lines)
    loop = asyncio.get_running_loop()
    threading.Thread(target=_stop_with_stdin, args=(loop, sender.stop), daemon=True).start()
    await sender.run()
    lines.close()


if __name__ == "__main__":
    _ask_for_priority()
    asyncio.run(_main(Path(sys.argv[1])))
    # The thread that waits for stdin would keep the process at its exit.
    sys.stdout.flush()
    os._exit(0)
