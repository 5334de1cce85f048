"""The stretches of load of a trial, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from advisor.decide.recommendation import Role
from advisor.figures import percent
from advisor.serving.arrivals import Arrivals, Gamma, Poisson, Trace
from advisor.trial.choice import PairedRows, choose_threshold
from advisor.trial.data import TrialRow, cycled
from advisor.trial.endpoints import Endpoint
from advisor.trial.load.driver import ArmResult
from advisor.trial.load.schedules import beginning, scheduled
from advisor.trial.projecting.calibration import (
    EndpointCalibration,
    calibrate_endpoint,
    loop_requests,
    throughput,
)
from advisor.trial.projecting.expectation import Expectation, RouterCost, router_cost
from advisor.trial.projecting.projection import LoadProjection
from advisor.trial.projecting.rehearsal import Observed, calm_ones, observed, typical
from advisor.trial.records import ArmName
from advisor.trial.reporting.early import CERTAIN, EarlyStop
from advisor.trial.reporting.report import LoadReport, SplitQuality, TrialSettings
from advisor.trial.router_process import RouterProcess
from advisor.trial.routing import config_of
from advisor.trial.session import Session
from advisor.trial.setup import Setup, with_core_price
from advisor.trial.unseen import unseen_wording
from advisor.trial.watching.arms import Watching
from advisor.trial.watching.disturbance import PERCENT_DISTURBED, wait_for_calm
from advisor.trial.watching.traces import SpanReceiver

DEFAULT_LOAD = 0.5
"""Share of the measured capacity that the sandbox is loaded with, where no rate is stated."""

DEFAULT_REQUESTS = 1200
LEAST_REQUESTS = 200
MOST_REQUESTS = 20_000
"""Of the sandbox, whose requests cost nothing."""

LONGEST_LOAD_S = 30.0
"""The router's arm is cut to about so long where the number of requests is not stated."""

REHEARSAL_S = 10.0
ALONE_REHEARSAL_S = 4.0
REHEARSALS = 3
"""Of each arm, some 20 s apart: a shared machine's pace changes within seconds, and the middle one
is nearest to what the load will meet."""

ALONE_SHARE = 1 / 3
"""Time of each model's own arm, of that of the router's."""

MOST_LOAD_ALONE = 0.6
"""A model alone is not loaded more than to this share of what it sustains: the large one could not
take the rate that the cascade does."""

ROUTER_ROWS = 200
ROUTER_USERS = 8
ROUTER_LOOPS = 3
"""How many times as long as an endpoint's closed loop that of the router is: the rate of the load
hangs on it."""


class Trial:
    """A trial on endpoints that answer."""

    def __init__(
        self,
        session: Session,
        setup: Setup,
        settings: TrialSettings,
        arrivals: Arrivals | None,
        spans: SpanReceiver | None = None,
    ) -> None:
        self.session, self.settings, self.arrivals = session, settings, arrivals
        self.setup = setup.for_requests(settings.requests)
        self.spans = spans
        self.expected: Expectation | None = None
        self.calibrations: dict[Role, EndpointCalibration] = {}
        self.router: RouterCost | None = None
        self.load: LoadReport | None = None
        self.projections: dict[str, LoadProjection] = {}
        self.watching = Watching(self.setup, self.calibrations)
        self.router_hold_s: float | None = None
        self.scheduled_s: list[float] = []
        self.splits: tuple[SplitQuality, ...] = ()
        self.ended_early = False

    @property
    def cascade(self) -> bool:
        """Whether the small model's answers may be handed up."""
        return self.settings.policy == "cascade"

    def everything(self) -> None:
        """Run every arm.

        Raises:
            StoppedError: the trial was told to end; what was measured until then is kept.
            InputError: the endpoints or the records fail.
        """
        self._calibrate()
        assert self.expected is not None
        config = config_of(
            self.session.task,
            self.calibrations["slm"].endpoint,
            self.calibrations["llm"].endpoint,
            policy=self.settings.policy,
            choice=self.expected.choice,
            timeout_s=self.session.timeout_s,
        )
        self.session.store.put_document(
            self.session.trial, "router", config.model_dump(mode="json", by_alias=True)
        )
        if self.spans is not None:
            telemetry = config.telemetry.model_copy(update={"otlp_endpoint": self.spans.root_url})
            config = config.model_copy(update={"telemetry": telemetry})
        with RouterProcess(config, keys=self.session.keys) as router:
            self._measure_router(router)
            self._fix_load()
            self._rehearse(router)
            self._project()
            self._load_router(router)
            self._load_alone()
        self.splits = unseen_wording(self.session, self.setup.unseen_rows, self.calibrations)

    def _calibrate(self) -> None:
        say, setup = self.session.announce, self.setup
        for endpoint, as_small in ((setup.slm, True), (setup.llm, False)):
            rows = setup.calibration_rows
            say(f"calibrating {endpoint.model}: {len(rows):,} rows one at a time, then more users")
            found = self._calibrated(endpoint, as_small=as_small)
            if setup.usd_per_core_hour is not None and found.server is not None:
                priced = with_core_price(endpoint, found.server, setup.usd_per_core_hour)
                found = replace(found, endpoint=priced)
            self.calibrations[endpoint.role] = found
        slm, llm = self.calibrations["slm"], self.calibrations["llm"]
        paired = PairedRows(slm.alone, llm.alone)
        choice = choose_threshold(paired, self.session.task) if self.cascade else None
        if choice is not None:
            say(f"threshold {choice.threshold:.6g}: {choice.basis}")
        direct = setup.high_risk_share if self.cascade else 0.0
        by_time = setup.usd_per_core_hour is not None
        self.expected = Expectation(
            slm, llm, paired, choice, None, direct, self.settings.seed, paid_by_time=by_time
        )

    def _calibrated(self, endpoint: Endpoint, *, as_small: bool) -> EndpointCalibration:
        """One endpoint's calibration, with the core-seconds of a server that runs here: vLLM's page
        counts those of the process that listens, and not of the engine's."""
        role, rows = endpoint.role, self.setup.calibration_rows
        before = self.watching.cpu_s().get(role)
        found = calibrate_endpoint(
            self.session, endpoint, rows, as_small=as_small, requests=self.settings.requests
        )
        used_s = self.watching.cpu_s().get(role)
        if found.server is None or before is None or used_s is None:
            return found
        answered = sum(
            arm.requests.completed
            for arm in self.session.store.arms(self.session.trial)
            if arm.name == f"warm_up_{role}" or arm.name.startswith(f"calibration_{role}")
        )
        a_request_s = (used_s - before) / answered
        return replace(found, server=found.server.model_copy(update={"cpu_s": a_request_s}))

    def _measure_router(self, router: RouterProcess) -> None:
        assert self.expected is not None
        rows = self.setup.calibration_rows
        self.session.announce("calibrating the router in front of both")
        send = self.session.send
        send("warm_up_router", router.base_url, "advisor", rows[:20], concurrency=2)
        arm, rows_alone = "calibration_router", rows[:ROUTER_ROWS]
        with self.watching.during(arm, router):
            alone = send(arm, router.base_url, "advisor", rows_alone, concurrency=1)
        users = ROUTER_USERS
        many = cycled(rows, ROUTER_LOOPS * loop_requests(users, self.settings.requests))
        arm_of_many = f"calibration_router_users_{users}"
        with self.watching.during(arm_of_many, router):
            busy = send(arm_of_many, router.base_url, "advisor", many, concurrency=users)
        answered = [record for record in busy.records if record.status == "completed"]
        used_s = self.watching.router_s.get(arm)
        self.router = router_cost(
            alone.records,
            small=self.expected.slm.alone,
            large=self.expected.llm.alone,
            cpu_s=None if used_s is None else used_s / len(alone.records),
            sustainable_per_s=throughput(answered, users=users),
        )
        seen: dict[ArmName, Observed] = {"router": self.watching.seen(alone, arm)}
        for role, calibration in self.calibrations.items():
            if calibration.asked is not None and calibration.server is not None:
                seen[f"{role}_only"] = observed(
                    calibration.asked,
                    {role: calibration.server},
                    router_s=0.0,
                    speeds={},
                    large_alone=role == "llm",
                )
        self.expected = replace(self.expected, router=self.router, alone=seen)

    def _fix_load(self) -> None:
        """Say what will be sent when."""
        assert self.router is not None
        sustainable = self.router.sustainable_per_s
        rate = self._rate(sustainable)
        most = MOST_REQUESTS if self.settings.sandbox else DEFAULT_REQUESTS
        fitting = max(LEAST_REQUESTS, min(most, round(rate * LONGEST_LOAD_S)))
        count = self.settings.requests or fitting
        self.load = LoadReport(
            requests=count,
            rate_per_s=rate,
            sustainable_rate_per_s=sustainable,
            share=rate / sustainable,
        )
        times = scheduled(self._arrivals(rate), count, seed=self.settings.seed)
        self.scheduled_s = [time for time in times if time is not None]

    def _rehearse(self, router: RouterProcess) -> None:
        """Short loads at each arm's own rate, in turn: machines have moods, which last for seconds
        to minutes."""
        rows = self.setup.rehearsal_rows
        if not rows or not self.scheduled_s:
            return
        assert self.expected is not None
        self.session.announce("rehearsing each load for a few seconds, on other rows")
        seen: dict[ArmName, list[tuple[float, Observed]]] = {}
        for turn in range(1, REHEARSALS + 1):
            for role, calibration in self.calibrations.items():
                times = beginning(self._alone_times(calibration), ALONE_REHEARSAL_S)
                arm = f"rehearsal_{role}_only_{turn}"
                with self.watching.during(arm):
                    result = self._ask(role, arm, cycled(rows, len(times)), times)
                one = self.watching.seen(result, arm, role=role)
                seen.setdefault(f"{role}_only", []).append((self._taken(arm), one))
            wait_for_calm()
            times, arm = beginning(self.scheduled_s, REHEARSAL_S), f"rehearsal_router_{turn}"
            with self.watching.during(arm, router):
                result = self.session.send(
                    arm, router.base_url, "advisor", cycled(rows, len(times)), times_s=times
                )
            one = self.watching.seen(result, arm)
            seen.setdefault("router", []).append((self._taken(arm), one))
        rehearsals = {arm: typical(calm_ones(found)) for arm, found in seen.items()}
        self.expected = replace(self.expected, rehearsals=rehearsals)

    def _taken(self, arm: ArmName) -> float:
        """Percent of the cores that others took during a rehearsal; the user is told of much."""
        taken = self.watching.taken.get(arm, 0.0)
        if taken > PERCENT_DISTURBED:
            self.session.announce(f"others took {taken:.0f} % of the cores meanwhile")
        return taken

    def _project(self) -> None:
        """Write down what the load is expected to show before any of it is sent."""
        assert self.expected is not None
        assert self.load is not None
        for arm, calibration in (("slm_only", self.expected.slm), ("llm_only", self.expected.llm)):
            sent_s = self._alone_times(calibration)
            self.projections[arm] = self.expected.one_model(calibration, sent_s, arm=arm)
        self.projections["router"] = (
            self.expected.cascade(self.scheduled_s)
            if self.cascade
            else self.expected.one_model(self._only(), self.scheduled_s, arm="router")
        )
        document = {name: one.model_dump(mode="json") for name, one in self.projections.items()}
        load = self.load.model_dump(mode="json")
        self.session.store.put_document(
            self.session.trial, "projection", {"load": load, "arms": document}
        )
        self.session.announce(
            f"projection written: {self.load.requests:,} requests at {self.load.rate_per_s:.1f}/s "
            f"({percent(self.load.share)} of the measured "
            f"{self.load.sustainable_rate_per_s:.1f}/s), "
            f"E2E p95 {self.projections['router'].e2e_p95_ms.value:.1f} ms"
        )

    def _rate(self, sustainable_per_s: float) -> float:
        if self.settings.rate_per_s is not None:
            return self.settings.rate_per_s
        if isinstance(self.arrivals, Trace) and self.settings.load is None:
            return self.arrivals.rate_per_s
        if self.settings.load is not None or self.settings.sandbox:
            return (self.settings.load or DEFAULT_LOAD) * sustainable_per_s
        return self.session.task.traffic.peak_rate_per_s

    def _arrivals(self, rate_per_s: float) -> Arrivals:
        if self.arrivals is not None:
            change = getattr(self.arrivals, "at_rate", None)
            found: Arrivals = change(rate_per_s) if change else self.arrivals
            return found
        burstiness = self.session.task.traffic.burstiness
        return Poisson(rate_per_s) if burstiness == 1 else Gamma(rate_per_s, burstiness)

    def _only(self) -> EndpointCalibration:
        return self.calibrations["slm" if self.settings.policy == "slm_only" else "llm"]

    def _alone_times(self, calibration: EndpointCalibration) -> list[float]:
        """The schedule of a model's own arm."""
        assert self.load is not None
        _, whole = calibration.times(calibration.alone)
        sustainable = calibration.service.sustainable_per_s(float(whole.mean()))
        rate = min(self.load.rate_per_s, MOST_LOAD_ALONE * sustainable)
        lasting = ALONE_SHARE * self.load.requests / self.load.rate_per_s
        count = max(round(lasting * rate), 1)
        times = scheduled(self._arrivals(rate), count, seed=self.settings.seed + 1)
        return [time for time in times if time is not None]

    def _load_alone(self) -> None:
        """Each model by itself, as the router would ask it."""
        for role in ("slm", "llm"):
            calibration = self.calibrations[role]
            times = self._alone_times(calibration)
            self.session.announce(f"{calibration.endpoint.model} alone: {len(times):,} requests")
            with self.watching.during(f"{role}_only"):
                self._ask(role, f"{role}_only", self._test_rows(len(times)), times)

    def _ask(
        self, role: Role, arm: ArmName, rows: Sequence[TrialRow], times_s: Sequence[float]
    ) -> ArmResult:
        """Send rows to one endpoint, as the router would."""
        endpoint = self.calibrations[role].endpoint
        return self.session.send(
            arm,
            endpoint.base_url,
            endpoint.model,
            rows,
            times_s=times_s,
            stream=role == "llm",
            logprobs=role == "slm",
            api_key_env=endpoint.api_key_env,
            price=endpoint.price,
            extras=endpoint.request_extras,
        )

    def _load_router(self, router: RouterProcess) -> None:
        assert self.load is not None
        self.session.announce(
            f"the router: {self.load.requests:,} requests at {self.load.rate_per_s:.1f}/s"
        )
        early = None
        if self.settings.early_stop:
            labelled = any(row.expected is not None for row in self.setup.test_rows)
            early = EarlyStop.of_task(self.session.task, labelled=labelled, cascade=self.cascade)
        try:
            with self.watching.during("router", router):
                result = self.session.send(
                    "router",
                    router.base_url,
                    "advisor",
                    self._test_rows(self.load.requests),
                    times_s=self.scheduled_s,
                    watch=early,
                )
            self.ended_early = result.stopped == CERTAIN
        finally:
            if self.setup.cpu_s:
                taken = self.watching.taken.get("router")
                self.load = self.load.model_copy(update={"others_took": taken})
            used_s, done = self.watching.router_s.get("router"), self._answered("router")
            if used_s is not None and done:
                self.router_hold_s = used_s / done

    def _answered(self, arm: str) -> int:
        records = self.session.store.requests(self.session.trial, arm)
        return sum(record.status == "completed" for record in records)

    def _test_rows(self, count: int) -> list[TrialRow]:
        return cycled(self.setup.test_rows, count)
