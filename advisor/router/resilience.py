"""What keeps a failing upstream from taking everything with it: breaker, retry budget, back-off."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from advisor.router.settings import FailureSettings

BreakerState = Literal["closed", "half_open", "open"]
Admission = Literal["usual", "trial"]
Clock = Callable[[], float]


class Breaker:
    """Stops asking an upstream that fails again and again, and tries it with one request.

    closed → open after `failures` in a row; open → half open after `open_s`, when one request may
    try; its success closes, its failure opens again. Requests that were sent before it opened
    have no say in that.
    """

    def __init__(self, *, failures: int, open_s: float, clock: Clock = time.monotonic) -> None:
        self._limit, self._open_s, self._clock = failures, open_s, clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> BreakerState:
        """closed, half_open (a trial is due or under way) or open."""
        if self._opened_at is None:
            return "closed"
        return "open" if self.retry_after_s > 0 else "half_open"

    @property
    def retry_after_s(self) -> float:
        """Until the next trial."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._open_s - self._clock())

    def admit(self) -> Admission | None:
        """How a request may be sent now; None: not at all.

        What comes of it is told with the admission that it had.
        """
        state = self.state
        if state == "half_open" and not self._trying:
            self._trying = True
            return "trial"
        return "usual" if state == "closed" else None

    def succeeded(self, admission: Admission) -> None:
        """The upstream answered."""
        if admission == "trial":
            self._opened_at, self._trying = None, False
        if self._opened_at is None:
            self._failures = 0

    def failed(self, admission: Admission) -> None:
        """The upstream did not."""
        if admission == "trial":
            self._opened_at, self._trying = self._clock(), False
        elif self._opened_at is None:
            self._failures += 1
            if self._failures >= self._limit:
                self._opened_at = self._clock()

    def undecided(self, admission: Admission) -> None:
        """The request ended without saying anything about the upstream, e.g. it was cancelled."""
        if admission == "trial":
            self._trying = False


class RetryBudget:
    """Retries as a share of requests: each request earns `share` of a retry, up to a reserve."""

    RESERVE = 10.0
    """Retries that may come at once: what a quiet router has to spend."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = self.RESERVE

    def earn(self) -> None:
        """A request was sent for the first time."""
        self._left = min(self.RESERVE, self._left + self._share)

    def take(self) -> bool:
        """Whether one more retry may be made; it is then spent."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


def backoff_s(settings: FailureSettings, attempt: int, *, retry_after_s: float | None) -> float:
    """Seconds before retry number `attempt` (0 is the first).

    Uniform in [0, min(max_backoff, backoff·2^attempt)] ("full jitter", AWS Architecture Blog,
    2015), and not before the upstream's Retry-After.
    """
    longest = min(settings.max_backoff_s, settings.backoff_s * 2.0 ** min(attempt, 30))
    return max(random.uniform(0, longest), retry_after_s or 0.0)


@dataclass
class TokenBucket:
    """So many a second, a second's worth (at least one) at once."""

    per_s: float
    clock: Clock = time.monotonic

    def __post_init__(self) -> None:
        self._size = max(1.0, self.per_s)
        self._left, self._at = self._size, self.clock()

    def take(self) -> float:
        """0 where one may pass, which it then has; else seconds until one may."""
        now = self.clock()
        self._left = min(self._size, self._left + (now - self._at) * self.per_s)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.per_s
