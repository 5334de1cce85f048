"""The queue in front of a sandbox model: first come, first served, one request at a time.

This is all the scheduling there is. A request waits until every earlier one is decoded to its end;
nothing is batched, preempted or shared, so the server is a single-server queue (G/G/1, FIFO).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from advisor.trial.sandbox.engine import Decoding, Engine, GeneratedToken, Generation
from advisor.trial.sandbox.metrics import ServerMetrics


@dataclass
class Job:
    """One request to decode. Callbacks run in the decoding thread."""

    prompt: list[str]
    decoding: Decoding
    on_token: Callable[[GeneratedToken], None]
    on_end: Callable[[Generation | Exception], None]
    arrived_s: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the answer any more: decoding stops at the next token."""


class Scheduler:
    """Decodes jobs one after the other in a thread of its own."""

    def __init__(self, engine: Engine, metrics: ServerMetrics) -> None:
        self._engine, self._metrics = engine, metrics
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="decoder", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue."""
        self._metrics.arrived()
        self._jobs.put(job)

    def close(self) -> None:
        """Finish what is queued, then stop."""
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._decode(job)

    def _decode(self, job: Job) -> None:
        begin_s = time.monotonic()
        self._metrics.started(queued_s=begin_s - job.arrived_s)
        first_token_s: list[float] = []

        def on_token(token: GeneratedToken) -> bool:
            if not first_token_s:
                first_token_s.append(time.monotonic() - job.arrived_s)
            job.on_token(token)
            return job.cancelled.is_set()

        result: Generation | Exception
        if job.cancelled.is_set():
            result = Generation((), "", "cancelled", 0)
        else:
            try:
                result = self._engine.generate(job.prompt, job.decoding, on_token)
            except Exception as error:
                result = error
        now_s = time.monotonic()
        self._metrics.ended(
            reason=result.finish_reason if isinstance(result, Generation) else "error",
            prompt_tokens=len(job.prompt),
            steps=result.steps if isinstance(result, Generation) else 0,
            first_token_s=first_token_s[0] if first_token_s else None,
            whole_s=now_s - job.arrived_s,
            busy_s=now_s - begin_s,
        )
        job.on_end(result)
