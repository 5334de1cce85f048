"""The stretches of load of a trial, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from advisor.decide.recommendation import Role
from advisor.router.config import RouterConfig
from advisor.router.settings import (
    HighRiskRule,
    PolicySettings,
    RouterTask,
    TokenPrice,
    UpstreamSettings,
)
from advisor.serving.arrivals import Arrivals, Gamma, Poisson, Trace
from advisor.trial.calibration import EndpointCalibration, calibrate_endpoint, throughput
from advisor.trial.choice import PairedRows, choose_threshold
from advisor.trial.data import TrialRow
from advisor.trial.early import CERTAIN, EarlyStop
from advisor.trial.endpoints import RISK_HEADER, Endpoint
from advisor.trial.expectation import Expectation, RouterCost, router_cost
from advisor.trial.projection import LoadProjection
from advisor.trial.report import LoadReport, SplitQuality, TrialSettings
from advisor.trial.router_process import RouterProcess
from advisor.trial.schedules import scheduled
from advisor.trial.server_metrics import ServerFigures, figures_between, read_page
from advisor.trial.session import Session
from advisor.trial.setup import Setup, with_core_price
from advisor.trial.traces import SpanReceiver

DEFAULT_LOAD = 0.5
"""Share of the measured capacity that the sandbox is loaded with, where no rate is stated."""

DEFAULT_REQUESTS = 1200
LEAST_REQUESTS = 200
LONGEST_LOAD_S = 30.0
"""The router's arm is cut to about so long where the number of requests is not stated."""

ALONE_SHARE = 1 / 3
"""Requests of each model's own arm, of those of the router's."""

MOST_LOAD_ALONE = 0.6
"""A model alone is not loaded more than to this share of what it sustains: the large one could not
take the rate that the cascade does."""

LEAST_ANSWERED = 0.95
"""Share of a set of rows that must be answered for an accuracy to be stated."""

ROUTER_ROWS = 200
ROUTER_USERS = 8


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
        self.session, self.setup, self.settings, self.arrivals = session, setup, settings, arrivals
        self.spans = spans
        self.expected: Expectation | None = None
        self.calibrations: dict[Role, EndpointCalibration] = {}
        self.router: RouterCost | None = None
        self.load: LoadReport | None = None
        self.projections: dict[str, LoadProjection] = {}
        self.servers: dict[str, dict[Role, ServerFigures]] = {}
        """The endpoints' own figures during each arm, by arm and role."""
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
        config = self._router_config()
        self.session.store.put_document(
            self.session.trial, "router", config.model_dump(mode="json", by_alias=True)
        )
        if self.spans is not None:
            telemetry = config.telemetry.model_copy(update={"otlp_endpoint": self.spans.root_url})
            config = config.model_copy(update={"telemetry": telemetry})
        with RouterProcess(config, keys=self.session.keys) as router:
            self._measure_router(router)
            self._project()
            self._load_router(router)
            self._load_alone()
        self._try_unseen_wording()

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
        before = self._cpu_s().get(role)
        found = calibrate_endpoint(self.session, endpoint, rows, as_small=as_small)
        used_s = self._cpu_s().get(role)
        if found.server is None or before is None or used_s is None:
            return found
        answered = sum(
            arm.requests.completed
            for arm in self.session.store.arms(self.session.trial)
            if arm.name == f"warm_up_{role}" or arm.name.startswith(f"calibration_{role}")
        )
        a_request_s = (used_s - before) / answered
        return replace(found, server=found.server.model_copy(update={"cpu_s": a_request_s}))

    def _cpu_s(self) -> dict[Role, float]:
        """Core-seconds that the servers which run here have used so far."""
        read = {role: used() for role, used in self.setup.cpu_s.items()}
        return {role: used_s for role, used_s in read.items() if used_s is not None}

    def _router_config(self) -> RouterConfig:
        assert self.expected is not None
        choice = self.expected.choice
        policy = (
            PolicySettings(name="cascade", threshold=choice.threshold)
            if choice is not None
            else PolicySettings(name=self.settings.policy)
        )
        return RouterConfig(
            task=RouterTask.of_task(self.session.task.task),
            slm=self._upstream(self.calibrations["slm"].endpoint),
            llm=self._upstream(self.calibrations["llm"].endpoint),
            policy=policy,
            high_risk=(HighRiskRule(header=RISK_HEADER),) if self.cascade else (),
        )

    def _upstream(self, endpoint: Endpoint) -> UpstreamSettings:
        price = endpoint.price
        return UpstreamSettings(
            base_url=endpoint.base_url,
            model=endpoint.model,
            api_key_env=endpoint.api_key_env,
            timeout_s=self.session.timeout_s,
            price=None if price is None else TokenPrice(
                input_usd_per_mtok=1e6 * price.usd_per_input_token,
                output_usd_per_mtok=1e6 * price.usd_per_output_token,
                usd_per_request=price.usd_per_request,
            ),
            extra_body=dict(endpoint.request_extras),
        )  # fmt: skip

    def _measure_router(self, router: RouterProcess) -> None:
        assert self.expected is not None
        rows = self.setup.calibration_rows
        self.session.announce("calibrating the router in front of both")
        send = self.session.send
        send("warm_up_router", router.base_url, "advisor", rows[:20], concurrency=2)
        before = router.cpu_s
        arm_alone = "calibration_router"
        with self._servers_watched(arm_alone):
            alone = send(arm_alone, router.base_url, "advisor", rows[:ROUTER_ROWS], concurrency=1)
        after = router.cpu_s
        count = len(alone.records)
        cpu_s = None if before is None or after is None else (after - before) / count
        many = [rows[i % len(rows)] for i in range(2 * ROUTER_ROWS)]
        users = ROUTER_USERS
        arm = f"calibration_router_users_{users}"
        with self._servers_watched(arm):
            busy = send(arm, router.base_url, "advisor", many, concurrency=users)
        answered = [record for record in busy.records if record.status == "completed"]
        self.router = router_cost(
            alone.records,
            small=self.expected.slm.alone,
            large=self.expected.llm.alone,
            cpu_s=cpu_s,
            sustainable_per_s=throughput(answered, users=users),
        )
        company: dict[str, tuple[float, float]] = {
            role: (self.speed(role, arm_alone) or 1.0, self.speed(role, arm) or 1.0)
            for role in self.calibrations
        }
        self.expected = replace(self.expected, router=self.router, company=company)

    def speed(self, role: Role, arm: str) -> float | None:
        """Engine time a request in an arm over that alone; None where queues share the engine, or
        where the server does not say."""
        calibration = self.calibrations[role]
        alone, then = calibration.server, self.servers.get(arm, {}).get(role)
        if calibration.service.queue != "fifo" or alone is None or then is None:
            return None
        return then.busy_s / alone.busy_s if alone.busy_s and then.busy_s else None

    def _project(self) -> None:
        """Fix the load, and write down what it is expected to show before any of it is sent."""
        assert self.expected is not None
        assert self.router is not None
        sustainable = self.router.sustainable_per_s
        rate = self._rate(sustainable)
        count = self.settings.requests or max(
            LEAST_REQUESTS, min(DEFAULT_REQUESTS, round(rate * LONGEST_LOAD_S))
        )
        self.load = LoadReport(
            requests=count,
            rate_per_s=rate,
            sustainable_rate_per_s=sustainable,
            share=rate / sustainable,
        )
        times = scheduled(self._arrivals(rate), count, seed=self.settings.seed)
        self.scheduled_s = [time for time in times if time is not None]
        for arm, calibration in (("slm_only", self.expected.slm), ("llm_only", self.expected.llm)):
            sent_s = self._alone_times(calibration)
            self.projections[arm] = self.expected.alone(calibration, sent_s)
        self.projections["router"] = (
            self.expected.cascade(self.scheduled_s, share=self.load.share)
            if self.cascade
            else self.expected.alone(self._only(), self.scheduled_s)
        )
        document = {name: one.model_dump(mode="json") for name, one in self.projections.items()}
        load = self.load.model_dump(mode="json")
        self.session.store.put_document(
            self.session.trial, "projection", {"load": load, "arms": document}
        )
        self.session.announce(
            f"projection written: {count:,} requests at {rate:.1f}/s "
            f"({self.load.share:.0%} of the measured {sustainable:.1f}/s), "
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
        count = max(round(ALONE_SHARE * self.load.requests), 1)
        times = scheduled(self._arrivals(rate), count, seed=self.settings.seed + 1)
        return [time for time in times if time is not None]

    def _load_alone(self) -> None:
        """Each model by itself, as the router would ask it."""
        for role in ("slm", "llm"):
            calibration = self.calibrations[role]
            endpoint = calibration.endpoint
            times = self._alone_times(calibration)
            self.session.announce(f"{endpoint.model} alone: {len(times):,} requests")
            with self._servers_watched(f"{role}_only"):
                self.session.send(
                    f"{role}_only",
                    endpoint.base_url,
                    endpoint.model,
                    self._test_rows(len(times)),
                    times_s=times,
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
        before = router.cpu_s
        try:
            with self._servers_watched("router"):
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
            after, done = router.cpu_s, self._answered("router")
            if before is not None and after is not None and done:
                self.router_hold_s = (after - before) / done

    @contextmanager
    def _servers_watched(self, arm: str) -> Iterator[None]:
        """Read the endpoints' own figures before and after an arm, however it ends."""
        urls = {role: one.endpoint.metrics_url for role, one in self.calibrations.items()}
        pages, used_s = {role: read_page(url) for role, url in urls.items()}, self._cpu_s()
        try:
            yield
        finally:
            after_s = self._cpu_s()
            self.servers[arm] = {}
            for role, url in urls.items():
                one = figures_between(pages[role], read_page(url))
                if one is None:
                    continue
                if role in used_s and role in after_s:
                    a_request_s = (after_s[role] - used_s[role]) / one.requests
                    one = one.model_copy(update={"cpu_s": a_request_s})
                self.servers[arm][role] = one

    def _answered(self, arm: str) -> int:
        records = self.session.store.requests(self.session.trial, arm)
        return sum(record.status == "completed" for record in records)

    def _test_rows(self, count: int) -> list[TrialRow]:
        rows = self.setup.test_rows
        return [rows[i % len(rows)] for i in range(count)]

    def _try_unseen_wording(self) -> None:
        """Accuracy on rows whose wording the sandbox's models never saw, beside the others."""
        rows = self.setup.unseen_rows
        if not rows:
            return
        say = self.session.announce
        say(f"unseen wording: {len(rows):,} rows to each model")
        found = {}
        for role, calibration in self.calibrations.items():
            endpoint = calibration.endpoint
            result = self.session.send(
                f"unseen_wording_{role}",
                endpoint.base_url,
                endpoint.model,
                rows,
                concurrency=2,
                stream=False,
                price=endpoint.price,
            )
            answered = [one.correct or 0.0 for one in result.records if one.status == "completed"]
            if len(answered) < LEAST_ANSWERED * len(rows):
                say(f"{role} answered {len(answered):,} of {len(rows):,} of them: no accuracy")
                return
            found[role] = float(np.mean(answered))
        unseen = SplitQuality(
            split="unseen wording", rows=len(rows), slm=found["slm"], llm=found["llm"]
        )
        self.splits = (unseen,)
