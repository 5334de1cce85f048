"""Asking the models: with retries, at a price, as a whole answer or a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from advisor.router.answers import RelayedStream
from advisor.router.config import RouterConfig, TierName
from advisor.router.costs import Charge, Purpose, Usage, cost_usd, prices
from advisor.router.failures import RETRIED, UpstreamError
from advisor.router.jobs import Job
from advisor.router.limits import Limits
from advisor.router.metrics import Metrics
from advisor.router.resilience import RetryBudget, backoff_s
from advisor.router.upstreams import Charger, Reply, Upstream

Found = TypeVar("Found")
StreamEnded = Callable[[int, dict[str, Any] | None], None]

TIERS: tuple[TierName, ...] = ("slm", "llm")


class Models:
    """The configured upstreams.

    Args:
        config: which they are, and how failures are met.
        environment: where their keys are looked up.
        metrics: told of attempts and charges.
        limits: told of money.

    Raises:
        InputError: a price that the catalogue does not know.
    """

    def __init__(
        self,
        config: RouterConfig,
        environment: Mapping[str, str],
        *,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._config, self._environment = config, environment
        self._metrics, self._limits = metrics, limits
        self._prices = prices(config)
        share = config.failure.retry_share
        self._budgets = {tier: RetryBudget(share) for tier in TIERS}
        self._upstreams: dict[TierName, Upstream] = {}

    def __contains__(self, tier: TierName) -> bool:
        return tier in self._upstreams

    def open(self) -> None:
        """Get ready to connect; needs a running event loop."""
        for tier, settings in self._config.tiers.items():
            name = settings.api_key_env
            self._upstreams[tier] = upstream = Upstream(
                tier,
                settings,
                self._config.failure,
                key=self._environment[name].strip() if name else None,
                observed=self._metrics.attempted,
            )
            self._metrics.watch_breaker(tier, upstream.breaker)

    async def close(self) -> None:
        """Close every connection."""
        for upstream in self._upstreams.values():
            await upstream.close()

    async def reachable(self) -> dict[TierName, bool]:
        """Which can be reached now."""
        found = await asyncio.gather(*(one.is_reachable() for one in self._upstreams.values()))
        return dict(zip(self._upstreams, found, strict=True))

    async def ask(
        self, job: Job, tier: TierName, *, ended: StreamEnded, collect: bool
    ) -> Reply | RelayedStream:
        """The answer in the form that the client wants, after as many attempts as are due.

        Args:
            job: the request.
            tier: whom.
            ended: told of the end of a stream.
            collect: whether a stream is put together again.

        Raises:
            UpstreamError: of the last attempt.
        """
        if not job.request.stream:
            return await self._with_retries(
                job, tier, lambda: self.complete(job, tier, job.request.body)
            )
        stream = await self._with_retries(job, tier, lambda: self._open_stream(job, tier))
        return RelayedStream(
            stream,
            job.request,
            job.facts,
            ended=ended,
            collect=collect,
            deadline_s=job.deadline_s,
        )

    async def complete(
        self, job: Job, tier: TierName, body: Mapping[str, Any], *, purpose: Purpose = "answer"
    ) -> Reply:
        """A whole answer, in one attempt.

        Raises:
            UpstreamError: there is none.
        """
        upstream = self._upstreams[tier]
        deadline_s = job.deadline_s
        if purpose == "shadow":
            # The client has its answer: what is left of its time does not matter.
            deadline_s = asyncio.get_running_loop().time() + upstream.settings.timeout_s
        return await self._traced(
            job,
            tier,
            upstream.complete(
                job.request.endpoint,
                body,
                charge=self._charger(job, tier, purpose),
                deadline_s=deadline_s,
                headers=job.trace.headers(),
            ),
        )

    async def _open_stream(self, job: Job, tier: TierName) -> Any:
        upstream = self._upstreams[tier]
        return await self._traced(
            job,
            tier,
            upstream.open_stream(
                job.request.endpoint,
                job.request.body,
                charge=self._charger(job, tier, "answer"),
                deadline_s=job.deadline_s,
                headers=job.trace.headers(),
            ),
        )

    async def _traced(self, job: Job, tier: TierName, attempt: Awaitable[Found]) -> Found:
        """An attempt with its span; of a stream, until its first event."""
        begin, outcome = time.perf_counter(), "cancelled"
        try:
            found = await attempt
            outcome = "ok"
        except UpstreamError as error:
            outcome = error.cause
            raise
        finally:
            seconds = time.perf_counter() - begin
            job.trace.attempted(tier, self._upstreams[tier].settings.model, outcome, seconds)
        return found

    async def _with_retries(
        self, job: Job, tier: TierName, attempt: Callable[[], Awaitable[Found]]
    ) -> Found:
        """Attempts, as far as the configuration, the retry budget and the deadline go."""
        settings, budget, number = self._config.failure, self._budgets[tier], 0
        budget.earn()
        while True:
            try:
                return await attempt()
            except UpstreamError as error:
                wait_s = backoff_s(settings, number, retry_after_s=error.retry_after_s)
                too_long = (error.retry_after_s or 0.0) > settings.max_retry_after_s
                late = asyncio.get_running_loop().time() + wait_s >= job.deadline_s
                number += 1
                curable = error.cause in RETRIED and not too_long and not late
                if not curable or number > settings.retries or not budget.take():
                    raise
            await asyncio.sleep(wait_s)

    def _charger(self, job: Job, tier: TierName, purpose: Purpose) -> Charger:
        def charge(usage: Usage) -> None:
            price = self._prices[tier]
            usd = None if price is None else cost_usd(price, usage)
            line = Charge(tier=tier, usage=usage, usd=usd, purpose=purpose)
            if purpose == "answer":
                job.facts.bill.charges.append(line)
            self._limits.spend(usd or 0.0)
            self._metrics.charged(line)

        return charge
