"""Testing from both ends at once without paying for both: how δ is shared out.

Accepting everything and escalating everything each get a little less than δ/2. An end whose
observed loss is hopeless (so many wrong rows that a loss within the limit would show them with
probability ρ = δ/50 at most) hands its part to the other one, which is then tested at nearly δ.

Why that is wrong at most δ of the time, whatever the dependence of the two columns. Let k be the
wrong rows of an end with true loss r ≥ α, and

    a(r) = P(k ≤ c)    c: most wrong rows that reject at the small level s = δ/2 − ρ
    A(r) = P(k ≤ C)    C: the same at the large level S
    w(r) = P(k ≥ h)    h: fewest wrong rows that are hopeless, w(α) ≤ ρ.

With true losses r₁ ≤ r₂ the chance of a false rejection is at most
a(r₁) + min(A(r₁) − a(r₁), w(r₂)) + a(r₂) + min(A(r₂) − a(r₂), w(r₁)). Take any r* > α.

    r₂ ≥ r*:  at most A(r₁) + A(r₂) ≤ S + A(r*), so S = δ − A(r*) suffices.
    r₂ < r*:  at most (a + w)(r₁) + (a + w)(r₂). 1 − a − w = P(c < k < h) rises and then falls with
              r, so a + w is largest at α or at r*: it suffices that neither exceeds δ/2.

Where one end is within the limit, its w is at most ρ, and the same two cases give at most S + A(r*)
and δ/2 + ρ + s. The first threshold of a sequence whose loss is above α stands for its end.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from scipy import special

from advisor.quality.bounds import binomial_p_value

HOPELESS_SHARE = 0.02
"""ρ/δ: chance, of all that may go wrong, of calling an end hopeless that is not."""

EACH_SHARE = 0.5 - HOPELESS_SHARE
"""s/δ: what either end may spend."""

TURNING_SHARE = 0.45
"""w(r*)/δ: where the proof passes from one case to the other."""


@dataclass(frozen=True)
class Levels:
    """What two ends may spend of δ."""

    each: float
    """By an end while the other one may still be right."""
    whole: float
    """By an end once the other one is hopeless, or has been rejected all the way."""
    hopeless_from: float
    """Wrong rows from which an end is hopeless; infinite where no number is."""


def levels(rows: int, *, allowed_loss: float, delta: float, binary: bool) -> Levels:
    """Levels for n rows; graded losses have no exact tail, so that each end keeps δ/2 of it."""
    halves = Levels(each=delta / 2, whole=delta, hopeless_from=math.inf)
    if not binary:
        return halves
    spent = HOPELESS_SHARE * delta
    each = EACH_SHARE * delta

    def tail(fewest: int) -> float:
        """P(k ≥ fewest) where the loss is just what is allowed."""
        return float(special.betainc(fewest, rows - fewest + 1, allowed_loss))

    def p_value(wrong: int) -> float:
        return float(binomial_p_value(wrong, rows, allowed_loss=allowed_loss))

    hopeless = 1 + bisect_left(range(1, rows + 1), -spent, key=lambda k: -tail(k))
    if hopeless > rows:
        return halves
    turning = float(special.betaincinv(hopeless, rows - hopeless + 1, TURNING_SHARE * delta))

    def accepted(level: float) -> float:
        """P(k ≤ most wrong rows that reject at a level) where the loss is r*."""
        most = bisect_right(range(rows + 1), level, key=p_value) - 1
        return float(binomial_p_value(most, rows, allowed_loss=turning)) if most >= 0 else 0.0

    whole = delta - accepted(delta)
    if TURNING_SHARE * delta + accepted(each) > delta / 2 or whole <= each:
        return halves
    return Levels(each=each, whole=whole, hopeless_from=hopeless)
