"""The router itself, independent of HTTP: a request in, an answer and its facts out."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from advisor.router.answers import CLIENT_CLOSED, Answer, RelayedStream
from advisor.router.asking import Models
from advisor.router.cache import open_cache
from advisor.router.config import RouterConfig, TierName
from advisor.router.failures import UpstreamError
from advisor.router.gating import with_logprobs, without_logprobs
from advisor.router.jobs import (
    Job,
    SmallAnswer,
    internal_error,
    log_request,
    refused,
    to_client,
    too_late,
)
from advisor.router.limits import Limits
from advisor.router.metrics import Metrics
from advisor.router.policy import Plan, Policy
from advisor.router.refusals import RefusedError
from advisor.router.requests import RouterRequest
from advisor.router.shadow import ShadowSampler
from advisor.router.tracing import open_tracing
from advisor.router.upstreams import Reply

logger = logging.getLogger("advisor.router")


class Router:
    """Answers requests by a configuration. An async context manager.

    Args:
        config: what to do.
        environment: where keys are looked up.

    Raises:
        InputError: what the configuration refers to is not there.
    """

    def __init__(
        self, config: RouterConfig, *, environment: Mapping[str, str] = os.environ
    ) -> None:
        config.check_environment(environment)
        self.config = config
        self.metrics = Metrics(config.telemetry)
        self._policy = Policy(config)
        self._limits = Limits(config.budget)
        self._models = Models(config, environment, metrics=self.metrics, limits=self._limits)
        self._fingerprint = config.fingerprint
        self._cache = (
            open_cache(config.cache, environment, failed=lambda: self.metrics.looked_up("error"))
            if config.cache
            else None
        )
        shadow = config.policy.shadow
        self._shadow = ShadowSampler(shadow, compared=self.metrics.compared) if shadow else None
        self._tracing = open_tracing(config.telemetry)
        self._background: set[asyncio.Task[None]] = set()
        self.metrics.watch_spending(lambda: self._limits.spent_usd)

    async def __aenter__(self) -> Router:
        self._models.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shadow is not None:
            await self._shadow.close()
        if self._background:
            await asyncio.wait(self._background, timeout=1.0)
        await self._models.close()
        if self._cache is not None:
            await self._cache.close()
        await asyncio.to_thread(self._tracing.close)

    async def reachable(self) -> dict[TierName, bool]:
        """Which upstreams can be reached now."""
        return await self._models.reachable()

    async def answer(self, request: RouterRequest) -> Answer:
        """Answer a request; whatever goes wrong is an answer too, with an OpenAI-shaped error.

        An answer with a stream must be closed. Cancelling cancels the work upstream.
        """
        deadline_s = asyncio.get_running_loop().time() + self.config.server.request_timeout_s
        job = Job(request, self._tracing.begin(request), deadline_s)
        self.metrics.in_flight.inc()
        try:
            async with asyncio.timeout_at(deadline_s):
                answer = await self._answered(job)
        except RefusedError as refusal:
            answer = refused(job, refusal)
        except TimeoutError:
            answer = refused(job, too_late())
        except asyncio.CancelledError:
            job.facts.reason = job.facts.reason or "cancelled"
            self._finish(job, CLIENT_CLOSED)
            raise
        except Exception:
            # A traceback names lines of code and not the values in them.
            logger.exception("a request failed inside the router")
            answer = refused(job, internal_error())
        if answer.stream is None:
            self._finish(job, answer.status, answer.body)
        return answer

    async def _answered(self, job: Job) -> Answer:
        job.request.check()
        self._limits.admit()
        plan = self._policy.plan(job.request)
        plan.gates.check_request(job.request)
        kept = await self._kept(job, plan)
        if kept is not None:
            return kept
        match plan.start:
            case "cascade":
                return await self._cascade(job, plan)
            case "llm":
                return await self._large(job, plan, reason=plan.reason, seen=None)
        try:
            found = await self._ask(job, plan, "slm")
        except UpstreamError as error:
            raise to_client(error, "slm_failed") from None
        return await self._given(job, plan, "slm", plan.reason, found)

    async def _cascade(self, job: Job, plan: Plan) -> Answer:
        """The small model's answer where it is good enough, else the large one's."""
        if plan.hedge_after_s is not None:
            return await self._hedged(job, plan, plan.hedge_after_s)
        seen = await self._small(job, plan)
        self._judged(job, seen)
        if seen.accepted:
            return await self._given_small(job, plan, seen)
        return await self._large(job, plan, reason=seen.cause, seen=seen)

    async def _hedged(self, job: Job, plan: Plan, after_s: float) -> Answer:
        """As a cascade, with the large model asked too where the small one is slow.

        Whichever has an answer that may be given out first, gives it; the other is cancelled.
        """
        small = asyncio.create_task(self._small(job, plan))
        large: asyncio.Task[Reply | RelayedStream] | None = None
        try:
            await asyncio.wait({small}, timeout=after_s)
            if not small.done() and self._large_is_admitted():
                large = asyncio.create_task(self._ask(job, plan, "llm"))
                await asyncio.wait({small, large}, return_when=asyncio.FIRST_COMPLETED)
                if not small.done() and large.exception() is None:
                    job.facts.escalated = "hedge"
                    self.metrics.judged("hedge")
                    found, large = large.result(), None
                    return await self._given(job, plan, "llm", "hedge", found)
            seen = await small
            self._judged(job, seen)
            if seen.accepted:
                return await self._given_small(job, plan, seen)
            if large is None:
                return await self._large(job, plan, reason=seen.cause, seen=seen)
            try:
                found = await large
            except UpstreamError as error:
                return self._without_large(job, error, seen)
            large = None
            return await self._given(job, plan, "llm", seen.cause, found)
        finally:
            await _discard(small)
            await _discard(large)

    def _large_is_admitted(self) -> bool:
        try:
            self._limits.admit_large()
        except RefusedError:
            return False
        return True

    async def _small(self, job: Job, plan: Plan) -> SmallAnswer:
        """Ask the small model once, and judge what it says."""
        scored = plan.threshold is not None
        body = _whole(job.request)
        if scored:
            body = with_logprobs(job.request, self.config.policy)
        try:
            reply = await self._models.complete(job, "slm", body)
        except UpstreamError as error:
            return SmallAnswer(failure=error)
        verdict = plan.gates.judge(job.request, reply.body, threshold=plan.threshold)
        shown = without_logprobs(reply.body, job.request) if scored else reply.body
        return SmallAnswer(body=shown, verdict=verdict)

    async def _large(
        self, job: Job, plan: Plan, *, reason: str, seen: SmallAnswer | None
    ) -> Answer:
        """The large model's answer, or what stands in for it."""
        try:
            self._limits.admit_large()
        except RefusedError as hit:
            return await self._capped(job, plan, hit, seen)
        try:
            found = await self._ask(job, plan, "llm")
        except UpstreamError as error:
            return self._without_large(job, error, seen)
        return await self._given(job, plan, "llm", reason, found)

    async def _capped(
        self, job: Job, plan: Plan, hit: RefusedError, seen: SmallAnswer | None
    ) -> Answer:
        """A cap on the large model is hit: the small answer, flagged, or a refusal."""
        if self.config.budget.when_hit == "refuse" or plan.is_high_risk:
            raise hit
        if seen is None and "slm" in self._models:
            seen = await self._small(job, plan)
        if seen is None or seen.verdict is None or not seen.verdict.passed_gates:
            raise hit
        return _stood_in(job, seen, hit.reason)

    def _without_large(self, job: Job, error: UpstreamError, seen: SmallAnswer | None) -> Answer:
        """The large model failed: the best answer seen, or an error."""
        wanted = self.config.failure.on_llm_failure
        if error.cause == "rejected" or wanted == "error" or seen is None or seen.verdict is None:
            raise to_client(error, "llm_failed")
        if wanted == "best_answer" and not seen.verdict.passed_gates:
            raise to_client(error, "llm_failed")
        return _stood_in(job, seen, "llm_failed")

    async def _given_small(self, job: Job, plan: Plan, seen: SmallAnswer) -> Answer:
        assert seen.body is not None and seen.verdict is not None
        if seen.verdict.checked:
            await self._keep(job, plan, seen.body)
        return _stood_in(job, seen, "accepted")

    async def _given(
        self, job: Job, plan: Plan, tier: TierName, reason: str, found: Reply | RelayedStream
    ) -> Answer:
        """What a model said, given out as it is."""
        job.facts.route, job.facts.reason = tier, reason
        if isinstance(found, RelayedStream):
            job.first_byte_s = job.elapsed_s
            return Answer(status=200, facts=job.facts, stream=found)
        await self._keep_if_valid(job, plan, found.body)
        return Answer(status=200, facts=job.facts, body=found.body)

    async def _ask(self, job: Job, plan: Plan, tier: TierName) -> Reply | RelayedStream:
        def ended(status: int, body: dict[str, Any] | None) -> None:
            self._finish(job, status, body)
            if body is not None and self._cache is not None:
                keeping = asyncio.ensure_future(self._keep_if_valid(job, plan, body))
                self._background.add(keeping)
                keeping.add_done_callback(self._background.discard)

        collect = self._cache is not None or self._shadow is not None
        return await self._models.ask(job, tier, ended=ended, collect=collect)

    def _judged(self, job: Job, seen: SmallAnswer) -> None:
        job.facts.confidence = seen.verdict.confidence if seen.verdict else None
        job.facts.escalated = "" if seen.accepted else seen.cause
        self.metrics.judged(job.facts.escalated)

    def _key(self, job: Job, plan: Plan) -> str:
        return f"{self._fingerprint}:{plan.key}:{job.request.digest}"

    async def _kept(self, job: Job, plan: Plan) -> Answer | None:
        """The answer that the cache has."""
        if self._cache is None or not job.request.may_be_cached:
            return None
        kept = await self._cache.get(self._key(job, plan))
        body = kept.get("body") if kept else None
        self.metrics.looked_up("miss" if body is None else "hit")
        if not isinstance(body, dict):
            return None
        job.facts.route, job.facts.reason = "cache", "cached"
        return Answer(status=200, facts=job.facts, body=body)

    async def _keep(self, job: Job, plan: Plan, body: Mapping[str, Any]) -> None:
        cut = any(choice.get("finish_reason") == "length" for choice in body["choices"])
        if self._cache is not None and job.request.may_be_cached and not cut:
            await self._cache.put(self._key(job, plan), {"body": body})

    async def _keep_if_valid(self, job: Job, plan: Plan, body: Mapping[str, Any]) -> None:
        """Keep an answer that nothing has judged yet, if there are gates and it passes them."""
        if self._cache is None or not job.request.may_be_cached:
            return
        verdict = plan.gates.judge(job.request, body, threshold=None)
        if verdict.accepted and verdict.checked:
            await self._keep(job, plan, body)

    def _finish(self, job: Job, status: int, body: dict[str, Any] | None = None) -> None:
        """Count a request, once, and put it to the other model where it is drawn for that."""
        if job.is_finished:
            return
        job.is_finished = True
        facts, seconds = job.facts, job.elapsed_s
        first_token_s = seconds if job.first_byte_s is None else job.first_byte_s
        self.metrics.in_flight.dec()
        self.metrics.finished(facts, status, seconds=seconds, first_token_s=first_token_s)
        job.trace.finished(facts, status, seconds=seconds, first_token_s=first_token_s)
        telemetry = self.config.telemetry
        if telemetry.log_requests:
            shown = body if telemetry.log_texts else None
            log_request(job, status, seconds=seconds, body=shown)
        if self._shadow is None or status != 200 or body is None or facts.route == "cache":
            return
        self._shadow.maybe(
            job.request,
            body,
            answered_by="slm" if facts.route == "slm" else "llm",
            latency_s=time.perf_counter() - job.started_s,
            ask=lambda tier: self._models.complete(
                job, tier, _whole(job.request), purpose="shadow"
            ),
        )


def _stood_in(job: Job, seen: SmallAnswer, reason: str) -> Answer:
    """The small model's answer, given out."""
    assert seen.body is not None and seen.verdict is not None
    job.facts.route, job.facts.reason = "slm", reason
    job.facts.confidence = seen.verdict.confidence
    return Answer(status=200, facts=job.facts, body=seen.body)


def _whole(request: RouterRequest) -> dict[str, Any]:
    """The body of a request for a whole answer."""
    return {k: v for k, v in request.body.items() if k not in ("stream", "stream_options")}


async def _discard(task: asyncio.Task[Any] | None) -> None:
    """End a task whose result is not needed; a stream that it opened is closed."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        result = task.result()
        if isinstance(result, RelayedStream):
            await result.abandon()
