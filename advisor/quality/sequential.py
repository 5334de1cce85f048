"""Alarms on a rate that may be looked at after every request, for ever.

The e-value of "the rate is at most p₀" after k of n is a likelihood ratio, averaged over rates
above p₀ with a Beta density (a mixture martingale):

    e(k, n; p₀) = ∫_{p₀}^1 p^k (1−p)^{n−k} dBeta(p) / (mass of Beta above p₀) / (p₀^k (1−p₀)^{n−k}).

Under any rate ≤ p₀ it is a non-negative supermartingale that starts at 1, so the chance that it
ever reaches 1/δ is at most δ (Ville 1939; Howard et al., arXiv 1810.08240). The fixed-n bound of
`advisor.quality.bounds`, looked at every 25 requests up to 2,000, fires in a quarter of the runs
at a true 20 %.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from advisor.errors import InputError
from advisor.quality.bounds import lower_bound

FloatArray = NDArray[np.float64]

PRIOR_ROWS = 20.0
"""Weight of the mixture's Beta density, centred on the limit: rates a tenth or two above it are
what an alarm is for. Detection of 25 % against 20 % takes 450 requests in the median; 2 to 100
rows change that by less than a third."""

DEFAULT_LIMIT = 0.20
"""Escalation rate above which a hybrid is no longer what was planned."""


def log_e_value(events: ArrayLike, trials: ArrayLike, *, limit: float) -> FloatArray:
    """ln e(k, n; limit), elementwise."""
    k, n = np.asarray(events, dtype=float), np.asarray(trials, dtype=float)
    a, b = PRIOR_ROWS * limit, PRIOR_ROWS * (1 - limit)
    with np.errstate(divide="ignore"):
        tail = np.log(special.betaincc(a + k, b + n - k, limit))
    mixture = special.betaln(a + k, b + n - k) + tail
    normal = special.betaln(a, b) + np.log(special.betaincc(a, b, limit))
    null = k * math.log(limit) + (n - k) * math.log1p(-limit)
    return np.asarray(mixture - normal - null, dtype=float)


def anytime_lower_bound(events: int, trials: int, *, confidence: float) -> float:
    """Largest rate that is ruled out as "at most this", however often one has looked.

    All p₀ with e(k, n; p₀) ≥ 1/δ are ruled out together with confidence 1 − δ; the bound is the
    largest such p₀, found by bisection below the observed rate.
    """
    if not 0 <= events <= trials:
        raise InputError(f"events = {events} of {trials}: between 0 and the number of trials")
    bar = -math.log1p(-confidence)
    low, high = 1e-9, max(events / max(trials, 1), 2e-9) * (1 - 1e-9)
    if log_e_value(events, trials, limit=low) < bar:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        if log_e_value(events, trials, limit=middle) >= bar:
            low = middle
        else:
            high = middle
    return low


def fixed_alarm_count(trials: int, *, limit: float, confidence: float) -> int | None:
    """Fewest events of `trials`, looked at once, whose lower bound exceeds the limit.

    Clopper–Pearson, one-sided; None where not even all would do.
    """
    return _fewest(trials, lambda k: lower_bound(k, trials, confidence=confidence) > limit)


def anytime_alarm_count(trials: int, *, limit: float, confidence: float) -> int | None:
    """The same for a watch that is looked at after every request."""
    bar = -math.log1p(-confidence)
    return _fewest(
        trials,
        lambda k: k > limit * trials and bool(log_e_value(k, trials, limit=limit) >= bar),
    )


def _fewest(trials: int, enough: Callable[[int], bool]) -> int | None:
    """Smallest count up to `trials` that is enough, where more always is."""
    found = bisect_left(range(1, trials + 1), True, key=enough) + 1
    return found if found <= trials else None


@dataclass(frozen=True)
class Alarm:
    """The state of a watch."""

    fired: bool
    """Whether it has fired at any look."""
    rate: float
    """Observed in the current stretch; NaN before the first request."""
    lower_bound: float
    """What the rate exceeds with the stated confidence, whenever one looks."""
    events: int
    trials: int
    causes: Mapping[str, int]
    """Events of the current stretch by cause, the most frequent first."""


@dataclass
class RateWatch:
    """Watches a rate against a limit: escalations, or wrong answers on a labelled trickle.

    A martingale that has seen a month of calm reacts slowly to a change, so the watch starts
    afresh after every `stretch` requests. The j-th stretch spends δ·6/(π²j²) of the error, which
    over all stretches adds up to δ.
    """

    limit: float = DEFAULT_LIMIT
    confidence: float = 0.95
    stretch: int = 5000
    _events: int = 0
    _trials: int = 0
    _stretches: int = 1
    _fired: bool = False
    _causes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("limit", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name):g}: between 0 and 1")
        if self.stretch < 1:
            raise InputError(f"stretch = {self.stretch}: at least one request")

    def observe(self, happened: bool, cause: str = "") -> None:
        """One request; `cause` says why, e.g. schema, rule, low_confidence, timeout."""
        if self._trials == self.stretch:
            self._events = self._trials = 0
            self._causes = {}
            self._stretches += 1
        self._trials += 1
        if happened:
            self._events += 1
            self._causes[cause] = self._causes.get(cause, 0) + 1
            # Only an event can raise the e-value.
            bar = -math.log(self._error)
            self._fired |= bool(log_e_value(self._events, self._trials, limit=self.limit) >= bar)

    def alarm(self) -> Alarm:
        """Whether it has fired, and on what."""
        return Alarm(
            fired=self._fired,
            rate=self._events / self._trials if self._trials else math.nan,
            lower_bound=anytime_lower_bound(self._events, self._trials, confidence=1 - self._error),
            events=self._events,
            trials=self._trials,
            causes=dict(sorted(self._causes.items(), key=lambda item: -item[1])),
        )

    @property
    def _error(self) -> float:
        """δ of the current stretch."""
        return (1 - self.confidence) * 6 / (math.pi**2 * self._stretches**2)
