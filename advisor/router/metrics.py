"""Counters for Prometheus, and the alarm on the escalation rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from advisor.quality.sequential import Alarm, RateWatch
from advisor.router.answers import RouteFacts
from advisor.router.config import TierName
from advisor.router.costs import Charge
from advisor.router.resilience import Breaker, BreakerState
from advisor.router.settings import TelemetrySettings

# One more series for each, with the time of its first sample, tells nobody anything here.
disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS_S = (
    0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8,
    1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0,
)  # fmt: skip
"""5 ms to 60 s, about a third apart: a p95 read off them is within a sixth of the true one."""

Kind = TypeVar("Kind", Counter, Histogram)

BREAKER_VALUES: dict[BreakerState, int] = {"closed": 0, "half_open": 1, "open": 2}


class Family(Generic[Kind]):
    """The series of one metric by the values of its labels; finding one is most of its cost."""

    def __init__(self, metric: Kind) -> None:
        self._metric: Kind = metric
        self._series: dict[tuple[str, ...], Kind] = {}

    def __call__(self, *values: str) -> Kind:
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = self._metric.labels(*values)
        return found


class Metrics:
    """The metrics of one router, in a registry of their own.

    Every request ends up in exactly one series of advisor_requests_total.
    """

    def __init__(self, settings: TelemetrySettings) -> None:
        self.registry = registry = CollectorRegistry()
        self.watch = RateWatch(
            limit=settings.escalation_limit, confidence=settings.escalation_confidence
        )
        self._requests = self._counter(
            "advisor_requests",
            "Requests by who answered, why, and HTTP status (499: client left)",
            ("route", "reason", "status"),
        )
        self._escalations = self._counter(
            "advisor_escalations", "Small answers handed up, by cause", ("cause",)
        )
        self._asked_small = Counter(
            "advisor_small_first", "Requests whose small answer could be handed up",
            registry=registry,
        )  # fmt: skip
        self._seconds = self._histogram(
            "advisor_request_seconds", "From a request's last byte to its answer's last", ("route",)
        )
        self._first_token = self._histogram(
            "advisor_time_to_first_token_seconds", "To the first byte that may be shown", ("route",)
        )
        self._attempts = self._histogram(
            "advisor_upstream_seconds", "Attempts at an upstream, by outcome", ("tier", "outcome")
        )
        self._tokens = self._counter(
            "advisor_tokens",
            "Tokens by tier, direction and purpose",
            ("tier", "type", "purpose"),
        )
        self._cost = self._counter(
            "advisor_cost_usd",
            "USD spent, retries and discarded answers included",
            ("tier", "purpose"),
        )
        self._cache = self._counter("advisor_cache", "Look-ups in the answer cache", ("result",))
        self._shadow = self._counter(
            "advisor_shadow",
            "Requests put to both models, by whether the answers agree",
            ("result",),
        )
        self.in_flight = Gauge(
            "advisor_requests_in_flight", "Requests that are being answered", registry=registry
        )
        self._breakers = Gauge(
            "advisor_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open",
            ["tier"], registry=registry,
        )  # fmt: skip
        self._watch_escalations()

    def _counter(self, name: str, meaning: str, labels: tuple[str, ...]) -> Family[Counter]:
        return Family(Counter(name, meaning, labels, registry=self.registry))

    def _histogram(self, name: str, meaning: str, labels: tuple[str, ...]) -> Family[Histogram]:
        buckets = LATENCY_BUCKETS_S
        return Family(Histogram(name, meaning, labels, registry=self.registry, buckets=buckets))

    def _watch_escalations(self) -> None:
        named: dict[str, tuple[str, Callable[[Alarm], float]]] = {
            "advisor_escalation_rate": (
                "Share of small answers handed up, in the current stretch",
                lambda alarm: alarm.rate,
            ),
            "advisor_escalation_rate_lower_bound": (
                "What the rate exceeds with the configured confidence, however often one looks",
                lambda alarm: alarm.lower_bound,
            ),
            "advisor_escalation_alarm": (
                "1 once the rate is proven to be above its limit",
                lambda alarm: float(alarm.fired),
            ),
        }
        for name, (meaning, value) in named.items():
            gauge = Gauge(name, meaning, registry=self.registry)
            gauge.set_function(partial(self._of_alarm, value))
        limit = Gauge("advisor_escalation_limit", "The limit", registry=self.registry)
        limit.set(self.watch.limit)

    def _of_alarm(self, value: Callable[[Alarm], float]) -> float:
        return value(self.watch.alarm())

    def watch_breaker(self, tier: TierName, breaker: Breaker) -> None:
        """Show a breaker's state."""
        self._breakers.labels(tier).set_function(lambda: BREAKER_VALUES[breaker.state])

    def watch_spending(self, spent_usd: Callable[[], float]) -> None:
        """Show what the day's budget has spent."""
        gauge = Gauge("advisor_spent_today_usd", "Since the UTC day began", registry=self.registry)
        gauge.set_function(spent_usd)

    def attempted(self, tier: TierName, outcome: str, seconds: float) -> None:
        """One attempt at an upstream."""
        self._attempts(tier, outcome).observe(seconds)

    def charged(self, charge: Charge) -> None:
        """One line of a bill."""
        usage, tier, purpose = charge.usage, charge.tier, charge.purpose
        fresh = usage.input_tokens - usage.cached_tokens
        for kind, count in (
            ("input", fresh), ("cached_input", usage.cached_tokens), ("output", usage.output_tokens)
        ):  # fmt: skip
            if count:
                self._tokens(tier, kind, purpose).inc(count)
        if charge.usd:
            self._cost(tier, purpose).inc(charge.usd)

    def looked_up(self, result: str) -> None:
        """One look into the cache: hit, miss or error."""
        self._cache(result).inc()

    def compared(self, result: str) -> None:
        """One shadow comparison: agree, differ or failed."""
        self._shadow(result).inc()

    def finished(
        self, facts: RouteFacts, status: int, *, seconds: float, first_token_s: float | None
    ) -> None:
        """One request has come to its end."""
        self._requests(facts.route, facts.reason, str(status)).inc()
        if status < 400:
            self._seconds(facts.route).observe(seconds)
            if first_token_s is not None:
                self._first_token(facts.route).observe(first_token_s)

    def turned_away(self, reason: str, status: int) -> None:
        """One request that did not get as far as being routed."""
        self._requests("none", reason, str(status)).inc()

    def judged(self, cause: str) -> None:
        """A small answer was accepted (no cause), or handed up."""
        self._asked_small.inc()
        if cause:
            self._escalations(cause).inc()
        self.watch.observe(bool(cause), cause)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
