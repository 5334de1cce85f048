"""Runs the sender on one plan, and writes down what it reports as it reports it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advisor.errors import InputError
from advisor.trial.load.plan import LoadPlan
from advisor.trial.records import ArmName, RequestRecord
from advisor.trial.store import TrialStore

GRACE_S = 10.0
"""Beyond its plan and the last request's time limit, before a silent sender is given up."""

STOP_GRACE_S = 5.0

TIMES = ("sent_s", "first_token_s", "last_token_s", "end_s")
"""Of a report, on the clock of its sender."""


@dataclass(frozen=True)
class Outcome:
    """One request that ended, as the sender reported it."""

    record: RequestRecord
    logprobs: Any = None
    """OpenAI form, where the plan keeps them."""


Judge = Callable[[Outcome], RequestRecord]
"""Fills in what the answer is worth: correct, gate, cost."""

Watch = Callable[[Sequence[RequestRecord]], str | None]
"""Told of records as they are written; a reason ends the load."""


@dataclass(frozen=True)
class Used:
    """Core-seconds that a load took besides those of what it was sent to."""

    sender_s: float
    own_s: float
    """Of this process: judging and recording the answers."""


@dataclass(frozen=True)
class ArmResult:
    """An arm that was sent."""

    records: tuple[RequestRecord, ...]
    """In the order of the plan; every one ended."""
    stopped: str | None
    """Why before its end; None: it was sent whole."""
    died: bool = False
    """Whether the sender's process ended before it should."""
    used: Used | None = None
    """None: the sender did not come to say."""


def run_arm(
    store: TrialStore,
    trial: str,
    arm: ArmName,
    plan: LoadPlan,
    *,
    judge: Judge,
    watch: Watch | None = None,
    keys: Mapping[str, str] | None = None,
    keep_answers: bool = True,
    resumed_at_s: float | None = None,
) -> ArmResult:
    """Send a plan, each request on record from before it is sent until it ends.

    Args:
        judge: what an answer is worth.
        watch: sees records as they are written, and about once a second besides; the reason it
            returns ends the load.
        keys: values of environment variables for the sender alone.
        keep_answers: whether the records hold what was answered.
        resumed_at_s: of an arm that goes on where it was cut off: its requests are in the store,
            and the plan's second 0 is this one on the arm's clock. None: an arm that begins.

    Raises:
        InputError: the records cannot be written (a full disk). What was written stays, and the
            sender is stopped.
    """
    shift_s = resumed_at_s or 0.0
    planned_records = [
        RequestRecord(one.number, one.row_id, _later(one.scheduled_s, shift_s))
        for one in plan.requests
    ]
    if resumed_at_s is None:
        store.plan(trial, arm, planned_records)
    by_number = {record.number: record for record in planned_records}
    stopped: str | None = None
    ended_by = "the sender ended before this request did"
    own_before_s, sender_s = time.process_time(), None
    with _Process(plan, keys or {}) as sender:
        for reports in sender.reports():
            written = []
            for report in reports:
                if "used_s" in report:
                    sender_s = float(report["used_s"])
                    continue
                if "began_epoch_s" in report:
                    own_before_s = time.process_time()
                    store.begin_arm(trial, arm, report["began_epoch_s"] - shift_s)
                    continue
                record = judge(_outcome(by_number[report["number"]], report, shift_s))
                written.append(record if keep_answers else replace(record, answer=None))
            if written:
                store.record(trial, arm, written)
            if stopped is None and watch is not None:
                stopped = watch(written)
                if stopped is not None:
                    sender.stop()
        if sender.died is not None:
            ended_by = stopped = sender.died
        own_s = time.process_time() - own_before_s
    store.close_arm(trial, arm, ended_by)
    used = Used(sender_s, own_s) if sender_s is not None else None
    died = sender.died is not None
    return ArmResult(store.requests(trial, arm), stopped, died=died, used=used)


def _outcome(record: RequestRecord, report: dict[str, Any], shift_s: float) -> Outcome:
    logprobs = report.pop("logprobs", None)
    for name in TIMES:
        if name in report:
            report[name] += shift_s
    ended = replace(record, **report)
    return Outcome(ended, {"content": logprobs} if logprobs else None)


def _later(time_s: float | None, by_s: float) -> float | None:
    return None if time_s is None else time_s + by_s


class _Process:
    """The sender's process: started with a plan, heard line by line, and never left behind."""

    def __init__(self, plan: LoadPlan, keys: Mapping[str, str]) -> None:
        self.plan = plan
        self.died: str | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="advisor-trial-")
        try:
            path = Path(self._folder.name) / "plan.json"
            plan.write(path)
            self._errors = (Path(self._folder.name) / "errors").open("w+", encoding="utf-8")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "advisor.trial.load.sender", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={**os.environ, **keys},
            )
        except OSError as error:
            self._folder.cleanup()
            raise InputError(f"the load sender cannot be started: {error.strerror}") from None
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()
            try:
                self._process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            assert file is not None
            with contextlib.suppress(OSError):
                file.close()
        self._folder.cleanup()

    def stop(self) -> None:
        """Ask it to end; what has not ended is then reported as cancelled."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write("stop\n")
            self._process.stdin.flush()

    def reports(self) -> Iterator[list[dict[str, Any]]]:
        """What has come since the last look, until the sender ends; empty about once a second."""
        left_s = self.plan.lasts_s + self.plan.timeout_s + GRACE_S
        silent_s, pause_s = 0.0, 0.5
        while True:
            reports, ended = self._waiting(pause_s)
            silent_s = 0.0 if reports else silent_s + pause_s
            yield reports
            if ended:
                code = self._process.wait()
                if code != 0:
                    self.died = f"the load sender ended with {_exit(code)}{self._last_error()}"
                return
            if silent_s > left_s:
                self.died = f"the load sender was silent for {silent_s:.0f} s"
                self._process.kill()
                return

    def _waiting(self, pause_s: float) -> tuple[list[dict[str, Any]], bool]:
        """Everything that lies in the queue, and whether the end was among it."""
        found: list[dict[str, Any]] = []
        try:
            report = self._lines.get(timeout=pause_s)
            while report is not None:
                found.append(report)
                report = self._lines.get_nowait()
        except queue.Empty:
            return found, False
        return found, True

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # Of a killed process, the last line may be half a line.
            with contextlib.suppress(ValueError):
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f": {lines[-1][:160]}" if lines else ""


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
