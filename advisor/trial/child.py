"""A server in a child process: started, waited for until it answers, and ended, whatever happens.

The router of a trial and the sandbox's servers are both such children.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from advisor.errors import InputError

HEALTH_PERIOD_S = 0.05
HEALTH_TIMEOUT_S = 2.0

MAX_LOG_BYTES = 40_000
"""Of the end of a log, what is read for the reason of a failure."""


class ServingChild:
    """A running server; leaving its context ends it.

    Args:
        command: prints `{"port": N}` as its first line where `port` is None.
        named: what it is called in errors, e.g. "the router".
        health: path that answers with 200 once requests are taken.
        start_timeout_s: for that, from the start of the process on.
        environment: all of its variables.
        folder: of the child's own; holds its log, and goes with it.
        port: where it listens; None: it chooses and says so.
        why: finds the reason of a failure in the log; None: its last line.

    Raises:
        InputError: the command cannot be run.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        named: str,
        health: str,
        environment: Mapping[str, str],
        folder: TemporaryDirectory[str],
        port: int | None = None,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 5.0,
        why: Callable[[Path], str | None] | None = None,
    ) -> None:
        self._named, self._health, self._why = named, health, why
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s
        self._give_up_s = time.monotonic() + start_timeout_s
        self._folder = folder
        self._log = Path(folder.name) / "log"
        self.port = port or 0
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log if port else subprocess.PIPE,
                    stderr=log,
                    env=environment,
                )
        except OSError as error:
            folder.cleanup()
            raise InputError(f"{named} cannot be started: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def root_url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What OpenAI clients call the base URL."""
        return f"{self.root_url}/v1"

    @property
    def cpu_s(self) -> float | None:
        """Core-seconds that it and its own children have used so far; None where the system does
        not say (not Linux)."""
        return tree_cpu_s(self.pid)

    def log_tail(self, characters: int = 2000) -> str:
        """The end of what it wrote to its error output."""
        return end_of(self._log)[-characters:]

    def wait(self) -> Self:
        """Return once it answers.

        Raises:
            InputError: it did not come up, with the reason that its log gives; it has ended then.
        """
        try:
            if not self.port:
                self.port = self._announced_port()
            while self.port and self.running:
                if self._is_healthy():
                    return self
                if time.monotonic() > self._give_up_s:
                    break
                time.sleep(HEALTH_PERIOD_S)
            raise InputError(f"{self._named} did not come up: {self._reason()}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it; nothing happens where it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def _announced_port(self) -> int:
        """The port that it prints once it listens; 0 where it ended or kept silent."""
        assert self._process.stdout is not None
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        output = self._process.stdout
        threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=max(self._give_up_s - time.monotonic(), 0.0))
        except queue.Empty:
            return 0
        if line:
            return int(json.loads(line)["port"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            # It has closed its output: it is about to end.
            self._process.wait(self._stop_timeout_s)
        return 0

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.root_url + self._health, timeout=HEALTH_TIMEOUT_S):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _reason(self) -> str:
        if self.running:
            return f"it did not answer within {self._start_timeout_s:.0f} s"
        self._process.wait()
        found = self._why(self._log) if self._why is not None else None
        lines = self.log_tail().strip().splitlines()
        last = lines[-1].removeprefix("error: ")[:200] if lines else "it wrote nothing"
        return found or last


def end_of(log: Path) -> str:
    """The last `MAX_LOG_BYTES` of a log; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - MAX_LOG_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def tree_cpu_s(pid: int) -> float | None:
    """Core-seconds that a process and its descendants have used, from /proc; None without one."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        # Parent, utime and stime are the 4th, 14th and 15th field; the first two are cut off.
        used[int(entry.parent.name)] = int(fields[11]) + int(fields[12])
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    if pid not in used:
        return None
    found, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        found += used[one]
        waiting += children.get(one, [])
    return found / os.sysconf("SC_CLK_TCK")
