"""The answer to a task: choose among the candidates, confirm, and explain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from advisor.catalog import Catalog, load_catalog
from advisor.decide.candidates import Candidate
from advisor.decide.confirm import confirm
from advisor.decide.explain import (
    ARCHITECTURE_TITLES,
    conditions_of,
    is_proven,
    next_measurement_of,
    rejected_of,
    sensitivities_of,
    warnings_of,
)
from advisor.decide.labelled import Evidence, evidence_of
from advisor.decide.load import SEED, shape_key
from advisor.decide.options import require_options
from advisor.decide.projection import alternative_of, chosen_of, projection_of
from advisor.decide.recommendation import (
    Alternative,
    Provenance,
    Recommendation,
    Status,
)
from advisor.decide.search import Search
from advisor.figures import dollars, likelihood, percent, seconds
from advisor.quality.escalation import ConfidencePrior
from advisor.quality.prior import QualityModel
from advisor.task import TaskProfile

SAFER = 0.15
"""A `safer choice` is shown where it holds everything with so much more probability."""

PARETO_SHOWN = 24
ARCHITECTURES = ("slm", "llm", "hybrid")


@dataclass(frozen=True, eq=False)
class Exploration:
    """All that was simulated for a task; answers changed questions from it at once."""

    task: TaskProfile
    search: Search
    catalog: Catalog
    evidence: Evidence
    confirmed: Sequence[Candidate]
    """The best of each architecture, simulated as a whole."""

    def covers(self, task: TaskProfile) -> bool:
        """Whether a changed task can be answered from what is simulated.

        Bounds, thresholds, volumes, budgets and assumptions can; other lengths, models, hardware
        or another kind of task cannot.
        """
        same = (
            shape_key(task) == shape_key(self.task),
            task.task == self.task.task,
            task.quality.metric == self.task.quality.metric,
            task.constraints.models == self.task.constraints.models,
            task.constraints.accelerators == self.task.constraints.accelerators,
            task.constraints.adaptations == self.task.constraints.adaptations,
        )
        return all(same)

    def answer(self, task: TaskProfile | None = None) -> Recommendation:
        """The answer to this or a changed task, from what is simulated already.

        Raises:
            InputError: the task names something unknown.
            DoesNotFitError: nothing fits at all.
        """
        if task is None or task == self.task:
            return _answer(self.search, self.confirmed, self.evidence)
        search = _search(
            task, self.catalog, self.evidence, may_simulate=False, previous=self.search
        )
        return _answer(search, _best(search), self.evidence)


def explore(
    task: TaskProfile,
    labels: str | Path | None = None,
    *,
    catalog: Catalog | None = None,
    progress: Callable[[str], None] | None = None,
) -> Exploration:
    """Search everything that may serve a task and simulate what matters.

    Args:
        labels: a log of labelled outputs (JSONL) that updates the published evidence.
        catalog: what to choose from; None: what is shipped.
        progress: told in a few words what is being done.

    Raises:
        InputError: the task, a name in it or the log is wrong.
        DoesNotFitError: nothing fits at all.
    """
    known = catalog or load_catalog()
    evidence = _evidence(task, known, labels)
    search = _search(task, known, evidence, progress=progress)
    if progress:
        progress("simulating the best of each architecture as a whole")
    return Exploration(task, search, known, evidence, _best(search))


def recommend(
    task: TaskProfile,
    labels: str | Path | None = None,
    *,
    catalog: Catalog | None = None,
    progress: Callable[[str], None] | None = None,
) -> Recommendation:
    """Which architecture to run for a task: small, large or hybrid, on what, and how sure.

    Args and errors as `explore`.
    """
    return explore(task, labels, catalog=catalog, progress=progress).answer()


def _search(
    task: TaskProfile,
    catalog: Catalog,
    evidence: Evidence,
    *,
    may_simulate: bool = True,
    progress: Callable[[str], None] | None = None,
    previous: Search | None = None,
) -> Search:
    search = Search(
        task,
        catalog,
        quality_model(catalog),
        evidence.confidence or ConfidencePrior.for_task(task.task.type),
        evidence.measured,
        may_simulate,
        progress,
        certified=evidence.certified,
    )
    if previous is not None:
        search.reuse(previous)
    search.run()
    require_options(len(search.candidates), task)
    return search


_QUALITY_MODELS: dict[int, tuple[Catalog, QualityModel]] = {}


def quality_model(catalog: Catalog) -> QualityModel:
    """The model of published evidence, fitted once for a catalogue."""
    known = _QUALITY_MODELS.get(id(catalog))
    if known is None or known[0] is not catalog:
        known = (catalog, QualityModel.from_evidence(catalog.evidence))
        _QUALITY_MODELS.clear()
        _QUALITY_MODELS[id(catalog)] = known
    return known[1]


def _best(search: Search) -> tuple[Candidate, ...]:
    """The best candidate of each architecture, confirmed by simulating the whole."""
    found = []
    for architecture in ARCHITECTURES:
        own = [c for c in search.candidates if c.architecture == architecture]
        if own:
            found.append(confirm(search, preferred(search, own)))
    return tuple(found)


def preferred(search: Search, candidates: Sequence[Candidate]) -> Candidate:
    """The one to take.

    Proven before conditional; then the least cost per chance that everything holds (USD a month
    over that probability): of two that cost the same the surer, and a cheap gamble only where it is
    cheap enough to be worth a second try. Where none is feasible, the one that misses least: fewest
    requirements, then the likeliest.
    """
    able = [c for c in candidates if c.feasible]
    if not able:
        return min(candidates, key=lambda c: (len(c.misses), -c.probability, c.cost.value))
    return min([c for c in able if is_proven(search, c)] or able, key=lambda c: c.risk_adjusted_usd)


def _answer(search: Search, confirmed: Sequence[Candidate], evidence: Evidence) -> Recommendation:
    best = preferred(search, confirmed)
    status: Status = "infeasible"
    if best.feasible:
        status = "proven" if is_proven(search, best) else "conditional"
    chosen = best if best.feasible else None
    conditions = conditions_of(search, best)
    return Recommendation(
        task=search.task.name,
        status=status,
        architecture=chosen.architecture if chosen else None,
        summary=_summary(search, best, status),
        conditions=conditions if chosen else (),
        chosen=chosen_of(chosen) if chosen else None,
        projection=projection_of(search, chosen) if chosen else None,
        alternatives=_alternatives(search, confirmed, chosen),
        pareto=_pareto(search),
        rejected=rejected_of(search, chosen),
        sensitivities=sensitivities_of(search, best, confirmed),
        warnings=warnings_of(search, chosen) if chosen else (),
        next_measurement=next_measurement_of(conditions),
        provenance=_provenance(search, evidence),
    )


def _alternatives(
    search: Search, confirmed: Sequence[Candidate], chosen: Candidate | None
) -> tuple[Alternative, ...]:
    """The best of each architecture, and a safer one where there is one."""
    shown = [
        alternative_of(search, c, f"best {ARCHITECTURE_TITLES[c.architecture]}") for c in confirmed
    ]
    if chosen is not None:
        surer = [
            c
            for c in search.candidates
            if c.feasible and c.probability > chosen.probability + SAFER
        ]
        if surer:
            safer = min(surer, key=lambda c: c.cost.value)
            shown.append(alternative_of(search, safer, "safer choice"))
    return tuple(shown)


def _pareto(search: Search) -> tuple[Alternative, ...]:
    """Candidates that none beats in cost, quality and latency at once."""

    def figures(c: Candidate) -> tuple[float, float, float]:
        return (c.cost.value, -c.quality.median, c.latency["e2e"].value_s)

    finite = [c for c in search.candidates if math.isfinite(c.latency["e2e"].value_s)]
    finite.sort(key=figures)
    front: list[Candidate] = []
    for candidate in finite:
        own = figures(candidate)
        beaten = any(
            all(a <= b + 1e-12 for a, b in zip(figures(other), own, strict=True)) for other in front
        )
        if not beaten:
            front.append(candidate)
    return tuple(alternative_of(search, c, "Pareto front") for c in front[:PARETO_SHOWN])


def _summary(search: Search, best: Candidate, status: Status) -> str:
    figures = (
        f"quality {percent(best.quality.median)}, "
        f"E2E p95 {seconds(best.latency['e2e'].value_s)}, {dollars(best.cost.value)} a month"
    )
    kind = ARCHITECTURE_TITLES[best.architecture]
    named = chosen_of(best).title
    if status == "infeasible":
        misses = "; ".join(f"{miss.requirement} ({miss.by})" for miss in best.misses)
        return (
            f"Nothing meets every requirement. The nearest is a {kind}, {named}: misses {misses}."
        )
    sure = f"holds with probability {likelihood(best.probability)}"
    grounds = "proven" if status == "proven" else f"conditional: every requirement {sure}"
    return f"Run a {kind}: {named}. {figures[:1].upper()}{figures[1:]}; {grounds}."


def _provenance(search: Search, evidence: Evidence) -> Provenance:
    calibrations = {
        tier.choice.option.calibration.as_of
        for candidate in search.candidates
        for tier in candidate.tiers.values()
        if not tier.choice.hosted and hasattr(tier.choice.option, "calibration")
    }
    hosted = search.catalog.hosted if search.task.constraints.hosted_allowed else ()
    return Provenance(
        advisor=_version("advisor"),
        catalogue_as_of=search.catalog.as_of,
        prices_as_of=search.catalog.prices_as_of,
        hosted_prices=f"genai-prices {_version('genai-prices')}" if hosted else "not used",
        calibration=f"fits of {', '.join(sorted(calibrations))}" if calibrations else "none",
        seed=SEED,
        assumptions=dict(search.task.assumptions),
        notes=(_effort(search), *evidence.notes),
    )


def _effort(search: Search) -> str:
    sized, simulated = len(search.candidates), search.simulated
    ended = "; ended at its limit, a cheaper deployment may exist" if search.truncated else ""
    effort = f"{sized} candidates sized, {simulated} deployments simulated"
    return f"{effort}, {search.wall_s:.2f} s{ended}"


@lru_cache(maxsize=8)
def _version(package: str) -> str:
    return version(package)


def _evidence(task: TaskProfile, catalog: Catalog, labels: str | Path | None) -> Evidence:
    """What a log of labelled outputs says, by model or by role."""
    return Evidence() if labels is None else evidence_of(task, catalog, Path(labels))
