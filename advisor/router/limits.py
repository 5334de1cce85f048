"""Caps on money and rates, and what is said when one is hit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from advisor.router.refusals import RefusedError
from advisor.router.resilience import TokenBucket
from advisor.router.settings import BudgetSettings

SECONDS_PER_DAY = 86_400.0


class Limits:
    """The caps of one instance, and how much of them is used."""

    def __init__(
        self,
        settings: BudgetSettings,
        *,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._wall_clock = settings, wall_clock
        self._all = _bucket(settings.requests_per_s, clock)
        self._large = _bucket(settings.llm_requests_per_s, clock)
        self._day = self._today()
        self._spent_usd = 0.0

    @property
    def spent_usd(self) -> float:
        """Since the UTC day began, or this instance."""
        if self._today() != self._day:
            self._day, self._spent_usd = self._today(), 0.0
        return self._spent_usd

    def spend(self, usd: float) -> None:
        """Count money that is gone."""
        self._spent_usd = self.spent_usd + usd

    def admit(self) -> None:
        """Let a request in.

        Raises:
            RefusedError: too many a second.
        """
        wait_s = self._all.take() if self._all else 0.0
        if wait_s:
            raise _limited("too many requests", "rate_cap", wait_s)

    def admit_large(self) -> None:
        """Let a request through to the large model.

        Raises:
            RefusedError: the day's budget is spent, or too many a second.
        """
        budget = self._settings.usd_per_day
        if budget is not None and self.spent_usd >= budget:
            left_s = SECONDS_PER_DAY - self._wall_clock() % SECONDS_PER_DAY
            raise _limited("the budget of the day is spent", "budget", left_s)
        wait_s = self._large.take() if self._large else 0.0
        if wait_s:
            raise _limited("too many requests for the large model", "rate_cap", wait_s)

    def _today(self) -> int:
        return math.floor(self._wall_clock() / SECONDS_PER_DAY)


def _bucket(per_s: float | None, clock: Callable[[], float]) -> TokenBucket | None:
    return None if per_s is None else TokenBucket(per_s, clock)


def _limited(message: str, reason: str, wait_s: float) -> RefusedError:
    kind = "insufficient_quota" if reason == "budget" else "rate_limit_error"
    code = "budget_exceeded" if reason == "budget" else "rate_limit_exceeded"
    return RefusedError(
        message, status=429, kind=kind, code=code, reason=reason, retry_after_s=wait_s
    )
