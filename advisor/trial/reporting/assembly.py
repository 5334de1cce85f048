"""From a trial's records to its report: measured, judged, compared, explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.decide.recommendation import Role
from advisor.trial.arms import Trial
from advisor.trial.projecting.calibration import report_of
from advisor.trial.records import ARMS, ArmName, RequestRecord, TrialState
from advisor.trial.reporting.comparing import (
    UnderLoad,
    advise,
    attributions,
    comparisons,
    mean_output_tokens,
)
from advisor.trial.reporting.measured import ArmMeasurement, Measured, measure, why_invalid
from advisor.trial.reporting.report import Advice, Attribution, SplitQuality, TrialReport
from advisor.trial.reporting.verdict import RequirementVerdict, summary_of, verdicts
from advisor.trial.setup import core_s
from advisor.trial.watching.traces import TracedFigures, traced


class Reporting:
    """Judges a trial that was run, or as much of one as there is."""

    def __init__(self, run: Trial) -> None:
        self.run = run

    def report(self, *, note: str, wall_s: float) -> TrialReport:
        """Judge what there is, be it whole or not."""
        run = self.run
        store, trial = run.session.store, run.session.trial
        records = {arm: store.requests(trial, arm) for arm in ARMS}
        measurements = self._measurements(records)
        judged = self._verdicts(records["router"], measurements.get("router"))
        began = {arm.name: arm.began_epoch_s for arm in store.arms(trial)}
        before, after = self._advice(measurements)
        invalid = why_invalid(measurements)
        state: TrialState = "stopped" if note else "finished"
        if self.run.ended_early:
            note = "ended early: every requirement is decided"
        return TrialReport(
            trial=trial,
            task=self.run.session.task.name,
            state=state,
            note=note,
            valid=not invalid,
            invalid_because=invalid,
            summary=summary_of(
                judged, invalid=invalid, disturbed=run.load.disturbance if run.load else ""
            ),
            settings=self.run.settings,
            endpoints=self.run.setup.notes,
            calibration={role: report_of(one) for role, one in self.run.calibrations.items()},
            threshold=self.run.expected.choice if self.run.expected else None,
            load=self.run.load,
            projection_written_epoch_s=store.written_epoch_s(trial, "projection"),
            load_began_epoch_s=began.get("router"),
            projections=self.run.projections,
            measurements=measurements,
            comparisons=comparisons(self.run.projections, measurements),
            verdicts=judged,
            attributions=self._attributions(records["router"], measurements.get("router")),
            advice_before=before,
            advice=after,
            what_changed=_what_changed(before, after),
            splits=(*self._held_out(measurements), *self.run.splits),
            servers=self.run.watching.servers.get("router", {}),
            traces=self._traces(records, began),
            cost_basis=self.run.setup.cost_basis,
            wall_s=wall_s,
        )

    def _measurements(
        self, records: dict[str, tuple[RequestRecord, ...]]
    ) -> dict[str, ArmMeasurement]:
        found = {}
        for arm in self.run.session.store.arms(self.run.session.trial):
            if arm.name in ARMS and arm.requests.completed:
                cascade = arm.name == "router" and self.run.cascade
                one = measure(arm.name, records[arm.name], arm.requests, cascade=cascade)
                found[arm.name] = self._at_core_cost(one)
        return found

    def _traces(
        self, records: dict[str, tuple[RequestRecord, ...]], began: Mapping[str, float | None]
    ) -> dict[str, tuple[TracedFigures, ...]]:
        """The endpoints by the spans that began during each arm."""
        if self.run.spans is None:
            return {}
        self.run.spans.settle()
        spans, found = self.run.spans.spans(), {}
        for arm in ARMS:
            begin_s = began.get(arm)
            ends = [record.end_s for record in records[arm] if record.end_s is not None]
            if begin_s is not None and ends:
                found[arm] = traced(spans, begin_epoch_s=begin_s, end_epoch_s=begin_s + max(ends))
        return {arm: figures for arm, figures in found.items() if figures}

    def _at_core_cost(self, measurement: ArmMeasurement) -> ArmMeasurement:
        """An arm at the core-seconds that its requests took of the servers.

        What a request takes of an engine of one thread is the mean over all judged arms: they are
        sent one after the other, and a machine that was busy with something else during one of them
        would make that architecture look dear. Other servers wait by spinning, so that a request
        takes the more of a core the rarer it is: of those each arm's own counts.
        """
        rate, cost = self.run.setup.usd_per_core_hour, measurement.cost_usd_per_request
        asked = self.run.watching.servers.get(measurement.arm, {})
        used_s = sum(
            figures.requests * self._core_s(role, measurement.arm)
            for role, figures in asked.items()
        )
        if rate is None or cost is None or not cost.value or not used_s:
            return measurement
        a_request = used_s * rate / 3600 / measurement.requests.completed
        factor = a_request / cost.value
        changes: dict[str, object] = {
            "cost_usd_per_request": Measured(
                value=a_request, low=cost.low * factor, high=cost.high * factor
            )
        }
        for name in ("cost_usd_per_correct_answer", "spent_usd"):
            before = getattr(measurement, name)
            changes[name] = None if before is None else before * factor
        return measurement.model_copy(update=changes)

    def _core_s(self, role: Role, arm: ArmName) -> float:
        """Core-seconds that a request of an arm took of a server."""
        endpoint = self.run.calibrations[role].endpoint
        arms = ARMS if endpoint.queue == "fifo" else (arm,)
        found = [
            (figures.requests, core_s(endpoint, figures) or 0.0)
            for arm in arms
            if (figures := self.run.watching.servers.get(arm, {}).get(role)) is not None
        ]
        requests = sum(count for count, _ in found)
        return sum(count * used_s for count, used_s in found) / requests if requests else 0.0

    def _verdicts(
        self, records: Sequence[RequestRecord], measurement: ArmMeasurement | None
    ) -> tuple[RequirementVerdict, ...]:
        cost = measurement.cost_usd_per_request if measurement else None
        return verdicts(self.run.session.task, records, cost=cost, cascade=self.run.cascade)

    def _attributions(
        self, records: Sequence[RequestRecord], measurement: ArmMeasurement | None
    ) -> tuple[Attribution, ...]:
        if measurement is None or not self.run.cascade or self.run.expected is None:
            return ()
        sent = [record.sent_s for record in records if record.sent_s is not None]
        rate = measurement.escalation_rate
        seen = UnderLoad(
            small_speed=self._engine_speed("slm"),
            large_speed=self._engine_speed("llm"),
            router_hold_s=self.run.router_hold_s,
            sent_s=sent,
            escalation_rate=rate.value if rate else None,
            output_tokens=mean_output_tokens(records),
            pace=self.run.watching.pace.get("router"),
        )
        return attributions(self.run.expected, self.run.scheduled_s, seen)

    def _engine_speed(self, role: Role) -> float | None:
        """None where a server works on several requests at once."""
        alone = self.run.calibrations[role].service.queue == "fifo"
        return self.run.watching.speed(role, "router") if alone else None

    def _advice(
        self, measurements: dict[str, ArmMeasurement]
    ) -> tuple[Advice | None, Advice | None]:
        task = self.run.session.task
        before = (
            advise(task, self.run.projections, basis="as projected")
            if self.run.projections
            else None
        )
        whole = measurements.keys() == self.run.projections.keys() and measurements
        after = advise(task, measurements, basis="with what we measured") if whole else None
        return before, after

    def _held_out(self, measurements: dict[str, ArmMeasurement]) -> tuple[SplitQuality, ...]:
        """Accuracy of both models alone on the rows of the load."""
        small, large = measurements.get("slm_only"), measurements.get("llm_only")
        if small is None or large is None or small.quality is None or large.quality is None:
            return ()
        split = "held-out combinations" if self.run.settings.sandbox else "rows of the trial"
        rows = min(small.labelled, large.labelled)
        return (
            SplitQuality(split=split, rows=rows, slm=small.quality.value, llm=large.quality.value),
        )


def _what_changed(before: Advice | None, after: Advice | None) -> str:
    if before is None or after is None:
        return ""
    if before.architecture == after.architecture:
        return "the recommendation stays as it was projected"
    return (
        f"the recommendation changes from {before.architecture or 'none'} to "
        f"{after.architecture or 'none'}"
    )
