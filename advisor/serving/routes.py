"""What happened to each request of a cascade, and who answered it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor.serving.tiers import FloatArray, IntArray, TierTimeline

Route = Literal["cache", "small", "escalated", "direct"]
ROUTES: tuple[Route, ...] = ("cache", "small", "escalated", "direct")
"""Who answered, in the order of their codes in `CascadeTimeline.route`: `escalated` went to the
small tier first (or beside, in a hedge) and was answered by the large one, `direct` skipped it."""
CACHE, SMALL, ESCALATED, DIRECT = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class CascadeTimeline:
    """What happened to each request of a cascade, seconds on one clock."""

    arrival_s: FloatArray
    first_token_s: FloatArray
    """When the first token may be shown; NaN where the client had gone."""
    finish_s: FloatArray
    output_tokens: IntArray
    """Of the answer that was returned."""
    route: NDArray[np.int8]
    """Index into `ROUTES`."""
    waited_s: FloatArray
    """Time in queues, of all tiers visited."""
    small: TierTimeline
    large: TierTimeline
    wasted_large: int = 0
    """Hedges whose large answer was not needed in the end."""

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def escalation_rate(self) -> float:
        """Requests the large model answered, of those that went to the small one."""
        tried = np.count_nonzero((self.route == SMALL) | (self.route == ESCALATED))
        return float(np.count_nonzero(self.route == ESCALATED) / tried) if tried else 0.0
