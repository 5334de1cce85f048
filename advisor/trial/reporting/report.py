"""What a trial says in the end: one document, from the settings to the verdict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advisor.decide.recommendation import Architecture
from advisor.records import Record
from advisor.trial.choice import ThresholdChoice
from advisor.trial.projecting.calibration import EndpointReport
from advisor.trial.projecting.projection import LoadProjection
from advisor.trial.records import TrialState
from advisor.trial.reporting.measured import ArmMeasurement
from advisor.trial.reporting.verdict import RequirementVerdict
from advisor.trial.watching.disturbance import PERCENT_DISTURBED
from advisor.trial.watching.server_metrics import ServerFigures
from advisor.trial.watching.traces import TracedFigures

PolicyChoice = Literal["cascade", "slm_only", "llm_only"]
POLICIES: tuple[PolicyChoice, ...] = ("cascade", "slm_only", "llm_only")


class TrialSettings(Record):
    """What was asked for; holds no key."""

    sandbox: bool
    engine: str | None
    slm: str
    """Model, and where it is served."""
    llm: str
    policy: PolicyChoice
    data: str
    """Where the rows come from."""
    requests: int | None
    rate_per_s: float | None
    load: float | None
    """Share of the measured capacity, where no rate is stated."""
    arrivals: str
    budget_usd: float | None
    early_stop: bool
    seed: int


class EndpointNote(Record):
    """One finding about an endpoint."""

    role: str
    severity: Literal["good", "note", "problem"]
    text: str


class LoadReport(Record):
    """The load that was sent."""

    requests: int
    rate_per_s: float
    sustainable_rate_per_s: float
    """What the whole was measured to take, closed loop."""
    share: float
    """The one over the other."""
    others_took: float | None = None
    """Percent of this machine's cores that other processes and its host took during the router's
    load, where all of the trial runs here; None: not known."""

    @property
    def disturbance(self) -> str:
        """What others took, in a line; empty where it is little, or not known."""
        if self.others_took is None or self.others_took <= PERCENT_DISTURBED:
            return ""
        return (
            f"other work on this machine took {self.others_took:.0f} % of its cores during the load"
        )


class Comparison(Record):
    """One figure as it was projected and as it was measured."""

    arm: str
    measure: str
    unit: str
    projected: float
    projected_low: float
    projected_high: float
    measured: float
    measured_low: float
    measured_high: float
    error: float
    """(projected − measured)/measured; of shares, projected − measured."""
    inside: bool
    """Whether the measured figure lies in the projected interval."""


class Attribution(Record):
    """What one measured piece makes of the projection."""

    piece: str
    projected_as: str
    measured_as: str
    e2e_p95_ms: float
    """Of the projection with this piece as it was measured."""
    change_ms: float


class ArchitectureFigures(Record):
    """One architecture in the comparison of all three; None: not known."""

    architecture: Architecture
    quality: float | None
    e2e_p95_ms: float | None
    cost_usd_per_million_requests: float | None
    meets: bool | None
    """Every stated requirement, by its value alone."""
    misses: tuple[str, ...] = ()


class Advice(Record):
    """Which architecture the figures speak for."""

    architecture: Architecture | None
    """None: none meets every requirement."""
    because: str
    options: tuple[ArchitectureFigures, ...]


class SplitQuality(Record):
    """Test accuracy on one kind of rows."""

    split: str
    rows: int
    slm: float
    llm: float


class TrialReport(Record):
    """A trial, judged."""

    trial: str
    task: str
    state: TrialState
    note: str
    """Why it ended before its end; empty where it did not."""
    valid: bool
    invalid_because: str
    summary: str
    settings: TrialSettings
    endpoints: tuple[EndpointNote, ...]
    calibration: dict[str, EndpointReport]
    threshold: ThresholdChoice | None
    load: LoadReport | None
    projection_written_epoch_s: float | None
    load_began_epoch_s: float | None
    projections: dict[str, LoadProjection]
    measurements: dict[str, ArmMeasurement]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[RequirementVerdict, ...]
    attributions: tuple[Attribution, ...]
    advice_before: Advice | None
    advice: Advice | None
    what_changed: str
    splits: tuple[SplitQuality, ...]
    servers: dict[str, ServerFigures]
    """The endpoints' own figures during the router's arm, by role."""
    traces: dict[str, tuple[TracedFigures, ...]] = Field(default_factory=dict)
    """Endpoints by the spans of each request, by arm; empty where none were received."""
    cost_basis: str
    wall_s: float

    @property
    def failed(self) -> bool:
        """Whether a requirement failed: exit code 1."""
        return any(verdict.state == "failed" for verdict in self.verdicts)
