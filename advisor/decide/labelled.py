"""A user's log of labelled outputs, as the search takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from advisor.catalog import Catalog
from advisor.decide.recommendation import Role
from advisor.errors import InputError
from advisor.quality.escalation import ConfidencePrior
from advisor.quality.labels import LabelledLog, read_log
from advisor.quality.measured import measured_confidence
from advisor.quality.threshold import certify
from advisor.task import TaskProfile

LEAST_PAIRS = 20
"""Rows labelled for both models from which confidence and joint errors are measured."""

ROLES: tuple[Role, ...] = ("slm", "llm")


@dataclass(frozen=True)
class Evidence:
    """A user's labelled results, as the search takes them; empty without a log."""

    measured: Mapping[tuple[Role, str], tuple[float, int]] = field(default_factory=dict)
    """(right, rows) by role and model id, `*` for any model of the role."""
    confidence: ConfidencePrior | None = None
    """Confidence and joint errors measured on the pair; None: assumed."""
    certified: bool = False
    """Whether the pairs certify a threshold for the task's target."""
    notes: tuple[str, ...] = ()


def evidence_of(task: TaskProfile, catalog: Catalog, path: Path) -> Evidence:
    """Right and labelled rows by model, the measured confidence, and whether a threshold certifies.

    Outputs under a catalogue name count for that model. Those under `slm` and `llm` do not say
    which model they are of: they count for whichever model takes that role.

    Raises:
        InputError: the log cannot be read, or holds no labels.
    """
    log = _scored(task, read_log(path))
    measured: dict[tuple[Role, str], tuple[float, int]] = {}
    notes = []
    for name in log.models:
        correct = log.correct(name)
        if len(correct):
            measured[_whose(name, catalog)] = (float(correct.sum()), len(correct))
            if name in ROLES:
                notes.append(f"{len(correct):,} labels for `{name}` count for any model there")
    if not measured:
        raise InputError(f"log {path.name}: no row is labelled as right or wrong")
    confidence, certified = _paired(task, log)
    return Evidence(
        measured=measured, confidence=confidence, certified=certified, notes=tuple(notes)
    )


def _whose(name: str, catalog: Catalog) -> tuple[Role, str]:
    """(role, model id) that a name in a log means; `*` for any model of a role."""
    for role in ROLES:
        if name == role:
            return role, "*"
    for hosted in catalog.hosted:
        if hosted.id == name:
            return "slm" if hosted.role == "slm" else "llm", hosted.id
    spec = catalog.model(name)
    return spec.role, spec.id


def _scored(task: TaskProfile, log: LabelledLog) -> LabelledLog:
    """The log with answers marked by the task's metric, where their text is enough for that."""
    from advisor.quality.metrics import METRICS
    from advisor.quality.scoring import scored

    metric = task.quality.metric
    return scored(log, metric) if metric in METRICS else log


def _paired(task: TaskProfile, log: LabelledLog) -> tuple[ConfidencePrior | None, bool]:
    """The measured confidence of the pair, and whether a threshold is certified on it."""
    if not {"slm", "llm"} <= set(log.models):
        return None, False
    pairs = log.pairs()
    if len(pairs.slm_correct) < LEAST_PAIRS:
        return None, False
    certificate = certify(
        pairs.confidence,
        pairs.slm_correct,
        pairs.llm_correct,
        pairs.gate_passed,
        target=task.quality.threshold,
        confidence_level=task.quality.confidence,
        # Where only the hybrid clears the target, neither end certifies anything.
        start="pilot",
    )
    assumed = ConfidencePrior.for_task(task.task.type)
    return measured_confidence(pairs, assumed), certificate.certified
