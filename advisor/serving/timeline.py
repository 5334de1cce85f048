"""What a simulation saw, request by request and in all."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.records import Record

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class FleetSize(Record):
    """Replicas over time."""

    time_s: tuple[float, ...]
    ready: tuple[int, ...]
    starting: tuple[int, ...]
    inside: tuple[int, ...]
    """Requests inside, waiting or running."""


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """What happened to each request, in seconds on one clock, and to the engines in all."""

    arrival_s: FloatArray
    scheduled_s: FloatArray
    """Begin of the first step that works on the request; NaN where it was cancelled before."""
    first_token_s: FloatArray
    """End of that token's step; NaN where the request was cancelled before."""
    finish_s: FloatArray
    """End of the step that yields the last token; NaN where the request was cancelled."""
    input_tokens: IntArray
    output_tokens: IntArray
    """Tokens asked for; cancelled requests got fewer."""
    preemptions: IntArray
    """How often each request lost its KV blocks."""
    gap_histogram: IntArray = field(repr=False)
    """Times between two tokens of a request, counted in the bins of `advisor.serving.heaps`."""
    replicas: int
    steps: int
    """Engine steps of all replicas together."""
    busy_s: float
    """Seconds that steps took, of all replicas together."""
    decode_time_s: float
    """Integral of the number of decoding requests: sequence-seconds."""
    kv_time_s: float
    """Integral of the tokens in the contexts of decoding requests: token-seconds."""
    kv_peak_share: float
    """Most KV blocks held at a time, as a share of all, on the fullest replica."""
    kv_capacity_tokens: int
    """Tokens that the KV cache of one replica holds."""
    max_num_seqs: int
    cancel_s: FloatArray | None = None
    """When each client would give up, where any does."""
    replica: IntArray | None = None
    """Which replica served each request; None: in turn."""
    replica_seconds: float | None = None
    """Time that replicas were paid for, cold starts included; None: all were there throughout."""
    fleet: FleetSize | None = None
    """Replicas over time, where the fleet scales."""

    def __len__(self) -> int:
        return len(self.arrival_s)
