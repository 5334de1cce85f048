"""What the servers and the router's process say of themselves, arm by arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from advisor.decide.recommendation import Role
from advisor.trial.load.driver import ArmResult
from advisor.trial.projecting.calibration import EndpointCalibration
from advisor.trial.projecting.rehearsal import Observed, observed
from advisor.trial.records import ArmName
from advisor.trial.router_process import RouterProcess
from advisor.trial.setup import Setup, core_s
from advisor.trial.watching.disturbance import CoreTime
from advisor.trial.watching.server_metrics import ServerFigures, figures_between, read_page


@dataclass
class Watching:
    """Reads every server's page, and the core time of what runs here, around each arm."""

    setup: Setup
    calibrations: Mapping[Role, EndpointCalibration]
    servers: dict[ArmName, dict[Role, ServerFigures]] = field(default_factory=dict)
    """The endpoints' own figures during each arm."""
    router_s: dict[ArmName, float] = field(default_factory=dict)
    """Core-seconds of the router's process during each arm that asked it."""
    taken: dict[ArmName, float] = field(default_factory=dict)
    """Percent of this machine's cores that others took during each arm."""
    pace: dict[ArmName, float] = field(default_factory=dict)
    """Of the core time that each arm wanted here, the share that it got."""

    @contextmanager
    def during(self, arm: ArmName, router: RouterProcess | None = None) -> Iterator[None]:
        """Read before and after an arm, however it ends.

        Args:
            router: where the arm asks it.
        """
        urls = {role: one.endpoint.metrics_url for role, one in self.calibrations.items()}
        pages, used_s = {role: read_page(url) for role, url in urls.items()}, self.cpu_s()
        router_s, cores = router.cpu_s if router else None, CoreTime.now()
        try:
            yield
        finally:
            after_s, cores_after = self.cpu_s(), CoreTime.now()
            router_after_s = router.cpu_s if router else None
            if router_s is not None and router_after_s is not None:
                self.router_s[arm] = router_after_s - router_s
            if cores is not None and cores_after is not None:
                self.taken[arm] = cores_after.taken_since(cores)
                self.pace[arm] = cores_after.pace_since(cores)
            self.servers[arm] = {}
            for role, url in urls.items():
                one = figures_between(pages[role], read_page(url))
                if one is None:
                    continue
                if role in used_s and role in after_s:
                    a_request_s = (after_s[role] - used_s[role]) / one.requests
                    one = one.model_copy(update={"cpu_s": a_request_s})
                self.servers[arm][role] = one

    def cpu_s(self) -> dict[Role, float]:
        """Core-seconds that the servers which run here have used so far."""
        read = {role: used() for role, used in self.setup.cpu_s.items()}
        return {role: used_s for role, used_s in read.items() if used_s is not None}

    def speed(self, role: Role, arm: ArmName) -> float | None:
        """What a request took of an engine in an arm over that in its calibration; None: the server
        does not say."""
        calibration = self.calibrations[role]
        alone, then = calibration.server, self.servers.get(arm, {}).get(role)
        if alone is None or then is None:
            return None
        before_s, after_s = (core_s(calibration.endpoint, one) for one in (alone, then))
        return after_s / before_s if before_s and after_s else None

    def seen(self, result: ArmResult, arm: ArmName, *, role: Role | None = None) -> Observed:
        """An arm as something to learn from; of one endpoint asked directly, with its role."""
        servers = self.servers.get(arm, {})
        speeds = {one: self.speed(one, arm) for one in servers}
        return observed(
            result,
            servers,
            router_s=self.router_s.get(arm) if role is None else 0.0,
            speeds={one: speed for one, speed in speeds.items() if speed is not None},
            large_alone=role == "llm",
            pace=self.pace.get(arm),
        )
