"""Which architecture is put under load, and its study, kept for all sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from advisor.catalog import load_catalog
from advisor.decide.recommendation import Alternative, Recommendation, Role
from advisor.screens.formatting import percent, plain
from advisor.simulation.escalation import sized_escalation_rate
from advisor.simulation.load_curve import LoadStudy, study_load
from advisor.simulation.rise import RiseStudy, study_rise
from advisor.simulation.what_if import WhatIf
from advisor.task import TaskProfile

METRICS = {"e2e": "E2E", "ttft": "TTFT", "tpot": "TPOT", "queue": "Queue wait"}
"""Metrics by field, as people read them."""

ROLES = {"slm": "Small model", "llm": "Large model"}

NOTHING = WhatIf()


@dataclass(frozen=True)
class Subject:
    """An architecture of the answer, for its task."""

    one: Alternative
    task: TaskProfile

    @property
    def bounds_ms(self) -> dict[str, float]:
        """Bounds on 95th percentiles by metric."""
        bounds = self.task.latency.bounds.items()
        return {name.removesuffix("_p95_ms"): bound for name, bound in bounds}

    @property
    def escalation_rate(self) -> float | None:
        """Share for the large model that its fleets are sized for; None without two tiers."""
        rate = self.one.projection.escalation_rate
        if rate is None:
            return None
        risky = self.task.constraints.high_risk_share
        return sized_escalation_rate(rate.value, high_risk_share=risky)


def chosen_subject(answer: Recommendation, task: TaskProfile) -> Subject | None:
    """The control for the architecture, the recommended one first; None where there is none."""
    alternatives = list(answer.alternatives)
    if not alternatives:
        return None
    alternatives.sort(key=lambda one: one.chosen != answer.chosen)

    def named(one: Alternative) -> str:
        label = "Recommended" if one.chosen == answer.chosen else one.label.capitalize()
        return f"{label}: {one.chosen.title}"

    names = {named(one): one for one in alternatives}
    name = st.selectbox(
        "Architecture",
        list(names),
        key=f"load.architecture.{task.name}",
        persist_state="session",
        help="The recommendation and the best of each architecture.",
    )
    return Subject(names[str(name)], task)


def studied(
    subject: Subject, what_if: WhatIf = NOTHING, *, escalation_rate: float | None = None
) -> LoadStudy:
    """The study of an architecture, from the store where it is known.

    Raises:
        InputError, DoesNotFitError: as `study_load`.
    """
    rate = subject.escalation_rate if escalation_rate is None else escalation_rate
    parts = (subject.task, subject.one.chosen, what_if)
    key = "\n".join(part.model_dump_json() for part in parts)
    return _studied(key, rate, subject, what_if)


@st.cache_resource(show_spinner="Simulating the load…", max_entries=64)
def _studied(key: str, rate: float | None, _subject: Subject, _what_if: WhatIf) -> LoadStudy:
    return study_load(
        _subject.one.chosen,
        _subject.task,
        catalog=load_catalog(),
        escalation_rate=rate,
        what_if=_what_if,
    )


def risen(subject: Subject, targets: Mapping[Role, int], min_replicas: int) -> RiseStudy:
    """The architecture with fleets that follow the load, from the store where it is known.

    Raises:
        InputError, DoesNotFitError: as `study_rise`.
    """
    key = f"{subject.task.model_dump_json()}\n{subject.one.chosen.model_dump_json()}"
    return _risen(key, tuple(sorted(targets.items())), min_replicas, subject)


@st.cache_resource(show_spinner="Simulating the rise…", max_entries=32)
def _risen(
    key: str, targets: tuple[tuple[Role, int], ...], min_replicas: int, _subject: Subject
) -> RiseStudy:
    return study_rise(
        _subject.one.chosen,
        _subject.task,
        catalog=load_catalog(),
        escalation_rate=_subject.escalation_rate,
        target_in_flight=dict(targets),
        min_replicas=min_replicas,
    )


def escalation_note(subject: Subject) -> str | None:
    """What share is escalated in the simulation, and why it is not the projected one."""
    rate, projected = subject.escalation_rate, subject.one.projection.escalation_rate
    if rate is None or projected is None:
        return None
    return plain(
        f"{percent(rate)} of the requests reach the large model: the projected "
        f"{percent(projected.value)} with the margin that fleets are sized for."
    )
