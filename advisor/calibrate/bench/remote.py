"""A run against a server that is already there: measured from outside, within so many requests."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from advisor.calibrate.bench.hardware import accelerator_for, this_machine
from advisor.calibrate.bench.law import Steps
from advisor.calibrate.bench.loads import (
    OVERHEAD_LOG_SD,
    RATES,
    predict_load,
    requests_at,
)
from advisor.calibrate.bench.noise import times_of
from advisor.calibrate.bench.points import EngineFacts, Point, Shape
from advisor.calibrate.bench.served import Sent, Server, statistics
from advisor.calibrate.bench.session import End, Outcome, Session, utc_now
from advisor.calibrate.bench.target import sustainable_per_s
from advisor.catalog import Catalog
from advisor.catalog.models import ModelSpec
from advisor.errors import InputError
from advisor.serving.engine import vllm_defaults

LONE_PROMPTS = (16, 128, 512, 2048)
STREAMS = (1, 4, 16, 64)
STREAM_PROMPT, STREAM_ANSWER = 64, 32
LOADS_SHARE = 0.5
"""Share of the requests that is kept for the open loops."""


@dataclass(frozen=True)
class RemoteRun:
    """What to measure."""

    url: str
    model: str
    """Its shape: a name of the catalogue, or the path of its config.json."""
    accelerator: str | None
    requests: int
    """Most requests that are sent."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Settings that it was started with, where they are not vLLM's own."""
    api_key: str | None = None


def run_remote(run: RemoteRun, session: Session, catalog: Catalog) -> Outcome | None:
    """Measure a server: lone requests, streams side by side, then open loops predicted first.

    Raises:
        InputError: unknown names, nothing answers there, a full disk.
    """
    machine = this_machine()
    accelerator = accelerator_for(machine, catalog, run.accelerator)
    if accelerator is None:
        raise InputError("--accelerator: name what the server runs on (an id or a YAML file)")
    spec = catalog.known_model(run.model)
    server = Server(run.url, api_key=run.api_key, vocabulary=min(1000, spec.vocab_size))
    told = server.describe()
    defaults = vllm_defaults(accelerator, engine_version=told.version or None)
    asked = dict(run.arguments)
    facts = EngineFacts(
        model=run.model,
        model_digest=hashlib.sha256(told.model.encode()).hexdigest()[:12],
        arguments=asked,
        url=server.base,
        accelerator=accelerator.id,
        vllm_version=told.version,
        device="over HTTP",
        dtype="bfloat16" if spec.published_precision == "bf16" else spec.published_precision,
        max_num_seqs=int(asked.get("max_num_seqs", defaults.max_num_seqs)),
        max_num_batched_tokens=int(
            asked.get("max_num_batched_tokens", defaults.max_num_batched_tokens)
        ),
        max_model_len=min(told.max_model_len, spec.context_window),
        async_scheduling=defaults.async_scheduling,
        prefix_caching=bool(asked.get("enable_prefix_caching", True)),
        machine=machine,
    )
    session.begin(
        facts, model=spec, accelerator=accelerator, weights_dtype=spec.published_precision
    )
    own = run.accelerator is not None and run.accelerator.endswith((".yaml", ".yml"))
    try:
        ended = _Remote(run, session, server, spec).measure()
    except BaseException:
        session.finish("stopped", own_accelerator=False)
        raise
    return session.finish(ended, own_accelerator=own)


class _Remote:
    """The steps of a remote run."""

    def __init__(self, run: RemoteRun, session: Session, server: Server, spec: ModelSpec) -> None:
        self.session, self.server, self.spec = session, server, spec
        self.left = run.requests
        self.for_steps = run.requests - int(LOADS_SHARE * run.requests)

    def measure(self) -> End:
        session = self.session
        facts = session.facts
        assert facts is not None
        self._send([32] * 2, [4] * 2, concurrency=1)
        for streams in (one for one in STREAMS if one <= facts.max_num_seqs):
            shape = Shape(kind="decode", batch=streams, context_tokens=STREAM_PROMPT)
            if not session.has(shape) and not self._over(streams):
                self._streams(shape)
        room = facts.max_model_len - 2
        overhead_s = self._prefills([tokens for tokens in LONE_PROMPTS if tokens <= room])
        session.aim(overhead_s, OVERHEAD_LOG_SD)
        for share in RATES:
            if session.stop.is_set():
                return "stopped"
            if session.left_s() <= 0 or self.left < 8:
                return "budget spent"
            self._load(share, overhead_s, min(self.left, int(LOADS_SHARE * self.left) + 8))
        return "narrow enough" if session.narrow else "budget spent"

    def _over(self, count: int) -> bool:
        """Whether no requests are left for steps, or no time, or it was stopped."""
        session = self.session
        return self.for_steps < count or session.left_s() <= 0 or session.stop.is_set()

    def _send(self, prompts: list[int], outputs: list[int], *, concurrency: int) -> list[Sent]:
        self.left -= len(prompts)
        self.for_steps -= len(prompts)
        return self.server.load(
            due_s=[0.0] * len(prompts),
            prompt_tokens=prompts,
            output_tokens=outputs,
            concurrency=concurrency,
        )

    def _streams(self, shape: Shape) -> None:
        """TPOT of requests that start together: a decode step with all of them."""
        count = shape.batch
        begin = time.monotonic()
        sent = self._send([STREAM_PROMPT] * count, [STREAM_ANSWER] * count, concurrency=count)
        # All decode between the last one's first token and the first one's last.
        good = [one for one in sent if not one.error and one.tokens > 1]
        each = [(one.last_s - one.first_s) / (one.tokens - 1) for one in good]
        if each:
            self._point(shape, each, STREAM_PROMPT + STREAM_ANSWER / 2, begin, 0.0)

    def _prefills(self, lengths: list[int]) -> float:
        """TTFT of lone requests: prefill, after the overhead that the shortest one tells."""
        session = self.session
        assert session.belief is not None and session.facts is not None
        overhead = Shape(kind="overhead", prompt_tokens=lengths[0])
        known = [point.value_s for point in session.points if point.shape == overhead]
        overhead_s = known[0] if known else None
        for tokens in lengths:
            shape = Shape(kind="prefill", prompt_tokens=tokens)
            if session.has(shape) or self._over(3):
                continue
            begin = time.monotonic()
            sent = self._send([tokens] * 3, [1] * 3, concurrency=1)
            first = [one.first_s - one.sent_s for one in sent if not one.error]
            if not first:
                continue
            if overhead_s is None:
                # A decode step of as many sequences moves the same weights and tokens.
                step = Shape(kind="prefill", prompt_tokens=tokens)
                fitted = float(session.belief.seconds(Steps.of_shapes([step]))[0])
                overhead_s = max(0.0002, min(first) - fitted)
                self._overhead(overhead, overhead_s, begin)
            if tokens == lengths[0]:
                continue
            self._point(shape, first, 0.0, begin, overhead_s)
        return overhead_s if overhead_s is not None else 0.0

    def _overhead(self, shape: Shape, seconds: float, begin: float) -> None:
        assert self.session.facts is not None
        self.session.add(
            Point(
                shape=shape,
                facts=self.session.facts,
                at=utc_now(),
                value_s=seconds,
                basis="wall time",
                spent_s=time.monotonic() - begin,
            )
        )

    def _point(
        self, shape: Shape, seconds: list[float], context: float, begin: float, less_s: float
    ) -> None:
        assert self.session.facts is not None
        times = times_of(seconds)
        spread = float(np.log(times.high_s / times.low_s)) / 2.56
        self.session.add(
            Point(
                shape=shape,
                facts=self.session.facts,
                at=utc_now(),
                wall=times,
                mean_context=context,
                value_s=max(1e-5, times.median_s - less_s),
                basis="wall time",
                log_sd=float(np.hypot(0.03, spread / 2)),
                spent_s=time.monotonic() - begin,
                series={"wall_s": seconds},
            )
        )

    def _load(self, share: float, overhead_s: float, count: int) -> None:
        session = self.session
        assert session.target is not None and session.belief is not None
        assert session.facts is not None
        target = session.target
        cost = session.belief.step_cost(
            max_tokens=target.settings.max_num_batched_tokens,
            max_seqs=target.settings.max_num_seqs,
        )
        sustained = sustainable_per_s(target.requests, cost, target.settings, target.kv_blocks)
        rate = float(f"{share * sustained:.3g}")
        requests = requests_at(target, rate, count)
        shape = Shape(
            kind="load",
            prompt_tokens=round(float(requests.input_tokens.mean())),
            output_tokens=round(float(requests.output_tokens.mean())),
            rate_per_s=rate,
        )
        predicted = {
            "share_of_capacity": share,
            "request_overhead_ms": 1e3 * overhead_s,
            **predict_load(target, cost, requests, overhead_s),
        }
        begin, before = time.monotonic(), self.server.metrics()
        sent = self.server.load(
            due_s=(requests.arrival_s - requests.arrival_s[0]).tolist(),
            prompt_tokens=requests.input_tokens.tolist(),
            output_tokens=requests.output_tokens.tolist(),
        )
        self.left -= count
        after = self.server.metrics()
        session.add(
            Point(
                shape=shape,
                facts=session.facts,
                at=utc_now(),
                basis="wall time",
                spent_s=time.monotonic() - begin,
                results=statistics(sent)
                | {f"server_{name}": after[name] - before.get(name, 0.0) for name in after},
                predicted=predicted,
            )
        )
