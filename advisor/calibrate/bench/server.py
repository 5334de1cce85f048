"""`vllm serve` as a child: the same engine behind HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from advisor.calibrate.bench.engine import cause_in, end_process, pinned
from advisor.errors import InputError

START_TIMEOUT_S = 600.0


class VllmServer:
    """A server of the benchmarks' own; a context manager that waits until it answers."""

    def __init__(
        self,
        python: Path,
        *,
        model: str,
        arguments: Mapping[str, Any],
        variables: Mapping[str, str],
        beside: Sequence[int],
        log: Path,
    ) -> None:
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start_s = 0.0
        command = [
            str(python),
            "-m",
            "vllm.entrypoints.openai.api_server",
            *("--model", model, "--host", "127.0.0.1", "--port", str(self.port)),
            *([] if has_tokenizer(Path(model)) else ["--skip-tokenizer-init"]),
            *command_line(arguments),
        ]
        # vLLM binds the worker's threads itself; what listens and schedules stays beside them.
        self._command = ending_with_this(pinned(command, beside, on_gpu=not beside))
        self._variables = dict(variables)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        begin = time.monotonic()
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._variables,
                # A group to end it by, in this session: vLLM's processes wait for each other with
                # sched_yield, and a Linux that schedules sessions as groups (autogroup, 6.18)
                # lets a client in another session wait beside them for seconds.
                process_group=0,
            )
        try:
            self._wait(begin)
        except BaseException:
            end_process(self.process)
            raise
        self.start_s = time.monotonic() - begin
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None:
            end_process(self.process)

    def cpu_s(self) -> float:
        """Processor seconds that the server and its children have used."""
        if self.process is None:
            return 0.0
        ticks = 0
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                parts = entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2]
            except OSError:
                continue
            fields = parts.split()
            if int(fields[2]) == self.process.pid:  # process group
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _wait(self, begin: float) -> None:
        assert self.process is not None
        while time.monotonic() - begin < START_TIMEOUT_S:
            if self.process.poll() is not None:
                reason = cause_in(self.log) or f"exit status {self.process.returncode}"
                raise InputError(f"vllm serve failed to start: {reason} (log: {self.log})")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise InputError(f"vllm serve did not answer in {START_TIMEOUT_S:,.0f} s (log: {self.log})")


def ending_with_this(command: list[str]) -> list[str]:
    """The command so that the system ends it where this process is killed; on Linux alone."""
    setpriv = Path("/usr/bin/setpriv")
    return [str(setpriv), "--pdeathsig", "TERM", *command] if setpriv.exists() else command


def has_tokenizer(folder: Path) -> bool:
    """Whether a model's folder holds a tokenizer; random weights need none."""
    names = ("tokenizer.json", "tokenizer.model", "vocab.json")
    return any((folder / name).is_file() for name in names)


def command_line(arguments: Mapping[str, Any]) -> list[str]:
    """vLLM settings as options: `max_num_seqs=64` is `--max-num-seqs 64`."""
    options = []
    for name, value in arguments.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            options.append(option)
        elif value is False:
            options.append("--no-" + name.replace("_", "-"))
        elif value is not None:
            options += [option, str(value)]
    return options


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
