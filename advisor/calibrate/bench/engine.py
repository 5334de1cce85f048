"""vLLM in a child process: started, asked, and ended, whatever happens to it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from advisor.errors import InputError

PROGRAM = Path(__file__).with_name("program.py")

START_TIMEOUT_S = 900.0
"""A GPU engine with a large checkpoint and a cold compilation cache takes minutes."""

_NO_MEMORY = (
    r"OutOfMemoryError|out of memory|Cannot allocate memory|MemoryError|"
    r"No available memory for the cache blocks|larger than the available KV cache memory|"
    r"[Nn]ot enough memory|less than desired CPU memory"
)

_CAUSES = (
    (
        r"No module named '?(?:vllm|torch)\b",
        "vLLM is not installed there (make vllm-cpu builds one)",
    ),
    (r"Permission denied|not a valid executable", "the interpreter cannot be run"),
    (_NO_MEMORY, "out of memory: a smaller model, max_model_len or KV cache may fit"),
    (r"No space left on device", "no space left on the disk"),
)

_BLAME = re.compile(r"^(?:\(\w+ pid=\d+\) )?(?:ERROR [^\]]*\] )?(\w*(?:Error|Exception)): (.+)$")


def environment(
    *, cores: Sequence[int], kv_cache_gib: int | None, on_gpu: bool, log_folder: Path
) -> dict[str, str]:
    """Variables of a vLLM process that keeps to itself: offline, pinned, quiet."""
    own = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        # vLLM asks itself by `python -m`: a user's profile.py would stand for the library's.
        "PYTHONSAFEPATH": "1",
        "VLLM_CACHE_ROOT": str(log_folder / "vllm-cache"),
    }
    if not on_gpu:
        own |= {
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(str(core) for core in cores),
            "OMP_NUM_THREADS": str(len(cores)),
            "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib or 1),
        }
    kept = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    return kept | own


def pinned(command: list[str], cores: Sequence[int], *, on_gpu: bool) -> list[str]:
    """The command on its cores alone: threads that vLLM does not bind stay there too."""
    if on_gpu or not Path("/usr/bin/taskset").exists():
        return command
    return ["/usr/bin/taskset", "-c", ",".join(str(core) for core in cores), *command]


class Engine:
    """The child that runs `program.py`; a context manager."""

    def __init__(
        self, python: Path, *, variables: Mapping[str, str], cores: Sequence[int], log: Path
    ) -> None:
        """Start the interpreter (vLLM itself starts with the first question).

        Raises:
            InputError: it cannot be run, or the log cannot be written.
        """
        self.log = log
        command = pinned(
            [str(python), str(PROGRAM)], cores, on_gpu="OMP_NUM_THREADS" not in variables
        )
        try:
            with log.open("ab") as file:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    env={**variables, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
                    start_new_session=True,
                    text=True,
                )
        except OSError as error:
            raise InputError(f"--python {python}: cannot be run: {error.strerror}") from None
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, name="engine-answers", daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_process(self.process)
        self._listener.join(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def ask(self, question: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Put a question and wait for its answer.

        Raises:
            InputError: the engine failed, died or did not answer in time; one line with the cause
                and where its log is.
        """
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._failed(question) from None
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise InputError(
                f"vLLM: no answer to {question.get('ask')} in {timeout_s:,.0f} s (log: {self.log})"
            ) from None
        if line is None:
            raise self._failed(question)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            what = "start" if question.get("ask") == "start" else f"measure {question.get('ask')}"
            reason = known_cause(answer["error"]) or " ".join(str(answer["error"]).split())[:300]
            raise InputError(f"vLLM could not {what}: {reason} (log: {self.log})")
        return answer

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _failed(self, question: Mapping[str, Any]) -> InputError:
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = None
        reason = cause_in(self.log)
        if not reason and code == -signal.SIGKILL:
            reason = "the system killed it, most likely for want of memory"
        what = "failed to start" if question.get("ask") == "start" else "ended"
        return InputError(f"vLLM {what}: {reason or f'exit status {code}'} (log: {self.log})")


def known_cause(text: str) -> str | None:
    """What a message of vLLM or Python means to the person who started it."""
    unknown = re.search(r"EngineArgs.*unexpected keyword argument '(\w+)'", text)
    if unknown:
        return f"--engine-args: vLLM has no setting '{unknown[1]}'"
    longer = re.search(r"max_model_len \((\d+)\) is greater than the derived[^(]*\(\w+=(\d+)", text)
    if longer:
        return f"--engine-args: max_model_len={longer[1]} is more than the model's own {longer[2]}"
    for pattern, meaning in _CAUSES:
        if re.search(pattern, text):
            return meaning
    return None


def cause_in(log: Path) -> str | None:
    """Why vLLM ended, from the end of its log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 40_000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    known = known_cause(text)
    if known:
        return known
    blamed = [found for line in text.splitlines() if (found := _BLAME.match(line.strip()))]
    told = [one for one in blamed if "Engine core initialization failed" not in one[2]]
    return f"{told[-1][1]}: {told[-1][2][:240]}" if told else None


def end_process(process: subprocess.Popen[Any], *, patience_s: float = 15.0) -> None:
    """End a process that leads a process group, and everything that it started there."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if _group_is_gone(process):
            break
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and not _group_is_gone(process):
            time.sleep(0.05)
    process.wait()


def _group_is_gone(process: subprocess.Popen[Any]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return True
    return False
