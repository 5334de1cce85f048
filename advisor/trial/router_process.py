"""The router of a trial, in a process of its own on a free port of this machine.

    python -m advisor.trial.router_process CONFIG.yaml PARENT_PID

It is the router that `advisor route` serves. It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from advisor.errors import InputError
from advisor.router.config import RouterConfig
from advisor.trial.sandbox.parent import end_with_parent

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
HEALTH_PERIOD_S = 0.05


class RouterProcess:
    """A running router; leaving its context ends it.

    Args:
        config: what it does.
        keys: values of environment variables for the router alone.

    Raises:
        InputError: it did not come up; the message carries its last line.
    """

    def __init__(self, config: RouterConfig, *, keys: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="advisor-router-")
        path = Path(self._folder.name) / "router.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        self._errors = (Path(self._folder.name) / "errors").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "advisor.trial.router_process", str(path), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **(keys or {}), "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            port = self._announced_port()
            self.root_url = f"http://127.0.0.1:{port}"
            self.base_url = f"{self.root_url}/v1"
            self._wait_until_healthy()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RouterProcess:
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
    def cpu_s(self) -> float | None:
        """Core-seconds it has used so far; None where the system does not say (not Linux)."""
        return process_cpu_s(self.pid)

    def close(self) -> None:
        """End it; nothing happens where it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def _announced_port(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise InputError(f"the router did not come up: {self._last_error()}")
        return int(json.loads(line)["port"])

    def _wait_until_healthy(self) -> None:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_s and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.root_url}/healthz", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(HEALTH_PERIOD_S)
        raise InputError(f"the router did not come up: {self._last_error()}")

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1][:200] if lines else "it wrote nothing"


def process_cpu_s(pid: int) -> float | None:
    """Core-seconds that a process has used, from /proc; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1].split()
    except (OSError, IndexError):
        return None
    # utime and stime are the 14th and 15th field; the first two are cut off.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(path: Path) -> None:
    from advisor.router.serving import server_for

    config = RouterConfig.load(path)
    server = server_for(config, host="127.0.0.1", port=0)
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it on, the second
    # part of an answer waits 40 ms for the client's delayed acknowledgement of the first.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        server.run(sockets=[listener])


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    try:
        _serve(Path(sys.argv[1]))
    except InputError as problem:
        sys.exit(f"{problem}")
