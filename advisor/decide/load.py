"""A task's requests as one replica sees them, drawn once for every simulation of the search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from advisor.serving.deployed import context_for
from advisor.serving.workload import Requests, example_tokens, with_examples, workload_of
from advisor.task import TaskProfile

DRAWN_REQUESTS = 1200
"""Requests of one simulation in the search; what is chosen is simulated with more."""

SEED = 20261122


@dataclass(frozen=True, eq=False)
class Load:
    """A task's requests drawn once, at one request per second, as one replica sees them."""

    requests: Requests
    extra_prompt_tokens: int = 0
    """Tokens of worked examples in every prompt."""

    @cached_property
    def computed_tokens(self) -> float:
        """Mean prompt tokens that the prefix cache does not hold."""
        return float((self.requests.input_tokens - self.requests.cached_tokens)[1:].mean())

    @cached_property
    def input_tokens(self) -> float:
        """Mean prompt."""
        return float(self.requests.input_tokens.mean())

    @cached_property
    def output_tokens(self) -> float:
        """Mean answer."""
        return float(self.requests.output_tokens.mean())

    @cached_property
    def longest_tokens(self) -> int:
        """Longest prompt with its answer among those drawn, in whole multiples of 256 tokens."""
        return context_for(self.requests)

    def at_rate(self, rate_per_s: float) -> Requests:
        """The same requests at another mean rate."""
        return replace(self.requests, arrival_s=self.requests.arrival_s / rate_per_s)


def load_of(task: TaskProfile, *, shots: int = 0, count: int = DRAWN_REQUESTS) -> Load:
    """The load of a task, with `shots` worked examples put before every prompt."""
    return _load(_shape_of(task), shots, count)


def shape_key(task: TaskProfile) -> str:
    """What the drawn requests depend on: lengths and burstiness, not how many there are."""
    return _shape_of(task).traffic.model_dump_json()


def _shape_of(task: TaskProfile) -> TaskProfile:
    # Repeats are the cache's business, and a replica behind a balancer sees a random part of the
    # stream: Poisson, unless the stream itself is burstier.
    traffic = task.traffic.model_copy(
        update={
            "repeat_share": 0.0,
            "burstiness": min(task.traffic.burstiness, 1.0),
            "requests_per_day": 86_400.0,
            "peak_to_mean": None,
            "hourly_rates": None,
        }
    )
    return task.model_copy(update={"traffic": traffic, "name": "load", "description": ""})


_LOADS: dict[tuple[str, int, int], Load] = {}


def _load(task: TaskProfile, shots: int, count: int) -> Load:
    key = (task.traffic.model_dump_json(), shots, count)
    if key not in _LOADS:
        if len(_LOADS) > 64:
            _LOADS.clear()
        _LOADS[key] = _draw(task, shots, count)
    return _LOADS[key]


def _draw(task: TaskProfile, shots: int, count: int) -> Load:
    requests = workload_of(task, rate_per_s=1.0).draw(count=count, seed=SEED)
    if not shots:
        return Load(requests)
    extra = example_tokens(task, shots)
    return Load(with_examples(requests, task, tokens=extra), extra)
