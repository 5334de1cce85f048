"""Core-seconds a request of every process of a trial, and an arm's pieces on cores they share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from advisor.decide.recommendation import Role
from advisor.trial.projecting.cascade import Pieces, without_stalls
from advisor.trial.projecting.rehearsal import Observed
from advisor.trial.projecting.shared_cores import Machine, SharedCores, available_cores
from advisor.trial.watching.server_metrics import ServerFigures

LEAST_SHARE = 0.05
"""Of a server's core time, the least that is its engine's, or its HTTP's."""


@dataclass(frozen=True)
class Works:
    """Core-seconds a request; of a server, a request that it was asked."""

    client_s: float
    records_s: float
    router_s: float
    """0: not asked."""
    small_http_s: float
    small_s: float
    """Of the small model's engine."""
    large_http_s: float
    large_s: float

    def rest_s(self, seen: Observed) -> tuple[float, float]:
        """What requests took besides these works when they came one at a time: any, and once more
        those that the large model was asked. Waking up; below 0 where some of the work comes after
        the answer, or beside other work on it."""
        e2e_s, _ = without_stalls(seen.e2e_s)
        outside_s = self.client_s + self.router_s
        above_s = self.large_http_s + self.large_s
        if seen.up.all():
            return 0.0, float(e2e_s.mean()) - outside_s - above_s
        rest_s = float(e2e_s[~seen.up].mean()) - outside_s - self.small_http_s - self.small_s
        if not seen.up.any():
            return rest_s, 0.0
        return rest_s, float(e2e_s[seen.up].mean() - e2e_s[~seen.up].mean()) - above_s


def works_of(
    seen: Observed, small: ServerFigures | None, large: ServerFigures | None
) -> Works | None:
    """The works of a load; None: one of them is not known.

    Args:
        small, large: each server's own figures in its calibration: how its core time divides into
            its engine's and its HTTP's, and how much it is where the load did not ask it.
    """
    if seen.client_s is None or seen.records_s is None or seen.router_s is None:
        return None
    below, above = _server(seen, "slm", small), _server(seen, "llm", large)
    if below is None or above is None:
        return None
    return Works(seen.client_s, seen.records_s, seen.router_s, *below, *above)


def _server(seen: Observed, role: Role, alone: ServerFigures | None) -> tuple[float, float] | None:
    """(HTTP, engine) core-seconds a request."""
    if alone is None or not alone.cpu_s or alone.busy_s is None:
        return None
    whole_s = seen.servers_s.get(role, alone.cpu_s)
    engine = min(max(alone.busy_s / alone.cpu_s, LEAST_SHARE), 1 - LEAST_SHARE)
    return whole_s * (1 - engine), whole_s * engine


def on_cores(
    pieces: Pieces, works: Works, *, efficiency: float, rest_s: tuple[float, float]
) -> Pieces:
    """The pieces on the cores of this machine: their rows say how the engines' works differ, the
    works how much they are on average."""
    rows = pieces.rows
    large_s = works.large_s * rows.large_s / rows.large_s.mean()
    return replace(
        pieces,
        rows=replace(
            rows,
            small_s=works.small_s * rows.small_s / rows.small_s.mean(),
            large_first_s=rows.large_first_s * large_s / rows.large_s,
            large_s=large_s,
        ),
        router_hold_s=works.router_s,
        cores=SharedCores(
            machine=Machine.of_cores(available_cores(), efficiency),
            client_s=works.client_s,
            records_s=works.records_s,
            small_http_s=works.small_http_s,
            large_http_s=works.large_http_s,
            rest_s=rest_s[0],
            rest_up_s=rest_s[1],
        ),
    )
