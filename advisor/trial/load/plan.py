"""A plan of load: what is sent where and when, in a file that the sender reads.

The file holds the name of the environment variable with the key, never the key. The sender starts
anew for every arm: this module imports next to nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request of a plan."""

    number: int
    row_id: str
    body: Mapping[str, Any]
    """Of the chat completion; the sender adds `model` and `stream`."""
    scheduled_s: float | None = None
    """Seconds after the start; None in a closed loop."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of this request alone, e.g. its risk."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Requests to one OpenAI-compatible endpoint."""

    base_url: str
    """Up to and including /v1."""
    model: str
    requests: Sequence[PlannedRequest]
    api_key_env: str | None = None
    """Environment variable of the sender that holds the key."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    """For a whole answer."""
    connect_timeout_s: float = 5.0
    stream: bool = True
    keep_logprobs: bool = False
    """Whether log-probabilities are handed on beside the records."""
    concurrency: int | None = None
    """Users of a closed loop; None: an open loop by the schedule."""
    think_s: float = 0.0
    """Pause of each of those users between an answer and the next request."""

    def write(self, path: Path) -> None:
        """Write the plan for the sender."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> LoadPlan:
        """The plan of a file."""
        value = json.loads(path.read_text(encoding="utf-8"))
        requests = [PlannedRequest(**one) for one in value.pop("requests")]
        return cls(requests=requests, **value)

    @property
    def lasts_s(self) -> float:
        """Until the last request is sent; 0 for a closed loop."""
        return max((one.scheduled_s or 0.0 for one in self.requests), default=0.0)
