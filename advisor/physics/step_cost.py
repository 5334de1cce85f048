"""What an engine step of a deployment costs, tabulated: the seam of physics and simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class StepCost:
    """Seconds an engine step takes, as tables over its size and rates per unit of attention.

    A step schedules n tokens, of which d belong to decoding sequences (one each) and q = n − d to
    prefill chunks, and samples m tokens (every decoding sequence, every prefill that finishes):

        T = token_s[n] + sample_s[m] + [q > 0]·mixed_s
            + kv_s·S + window_kv_s·W + prefill_s·Q + window_prefill_s·Q_w

    S    Σ context over decoding sequences (tokens in the cache, the one being computed included)
    W    Σ min(context, window) over the same
    Q    Σ over prefill chunks of the token pairs attended: q·past + q(q + 1)/2
    Q_w  the same with each token's context capped at the window

    S, W, Q and Q_w count tokens; layers, heads and bytes are inside the rates.
    """

    token_s: NDArray[np.float64]
    """Shape (largest token budget + 1,), seconds; entry 0 is not used."""
    sample_s: NDArray[np.float64]
    """Shape (largest number of sequences + 1,), seconds: LM head and host work per sequence."""
    kv_s: float
    """Seconds per context token of a decoding sequence, full-attention layers."""
    prefill_s: float
    """Seconds per attended token pair of a prefill, full-attention layers."""
    mixed_s: float = 0.0
    """Seconds added to a step that contains prefill tokens."""
    window: int = 0
    """Tokens that sliding-window layers see; 0: there are none."""
    window_kv_s: float = 0.0
    window_prefill_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("token_s", "sample_s"):
            table = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            if table.ndim != 1 or len(table) < 2 or not np.all(np.isfinite(table)):
                raise ValueError(f"{name} must be a finite 1-d table of at least two entries")
            table.setflags(write=False)
            object.__setattr__(self, name, table)

    def scaled(self, factor: float) -> StepCost:
        """The same deployment with every step `factor` times as long."""
        return StepCost(
            token_s=self.token_s * factor,
            sample_s=self.sample_s * factor,
            kv_s=self.kv_s * factor,
            prefill_s=self.prefill_s * factor,
            mixed_s=self.mixed_s * factor,
            window=self.window,
            window_kv_s=self.window_kv_s * factor,
            window_prefill_s=self.window_prefill_s * factor,
        )
