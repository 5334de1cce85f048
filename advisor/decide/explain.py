"""Why this answer: its conditions, what fell and why, what it hangs on, what to measure next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from scipy.special import expit, logit, ndtr, ndtri

from advisor.catalog import HostedModel
from advisor.decide.assessment import METRIC_TITLES, budget_probability, rate_shown
from advisor.decide.candidates import Candidate
from advisor.decide.projection import cost_basis, latency_basis, quality_basis
from advisor.decide.recommendation import Condition, Measurement, Rejected, Sensitivity
from advisor.decide.search import Search
from advisor.decide.sizing import bounds_of
from advisor.figures import dollars, likelihood, percent, seconds
from advisor.quality.bounds import rows_to_certify
from advisor.quality.estimate import QualityEstimate
from advisor.task import TaskProfile

REJECTED_SHOWN = 12
PROVEN_BASES = ("measured", "calibrated")
ARCHITECTURE_TITLES = {"slm": "small model", "llm": "large model", "hybrid": "hybrid"}


def conditions_of(search: Search, candidate: Candidate) -> tuple[Condition, ...]:
    """Every requirement with its probability, its grounds and what would settle it."""
    return tuple(_conditions(search, candidate))


def _conditions(search: Search, candidate: Candidate) -> Iterator[Condition]:
    task = search.task
    target = task.quality.threshold
    yield Condition(
        requirement=f"{task.quality.metric} ≥ {percent(target)}",
        probability=candidate.quality.probability_at_least(target),
        basis=quality_basis(candidate.quality),
        settle_by=_labels_needed(search, candidate),
    )
    for metric, bound in bounds_of(task).items():
        yield Condition(
            requirement=f"{METRIC_TITLES[metric]} ≤ {seconds(bound)}",
            probability=candidate.latency[metric].probability,
            basis=latency_basis(candidate),
            settle_by=_benchmarks_needed(candidate),
        )
    budget = task.constraints.budget_usd_per_month
    if budget is not None:
        yield Condition(
            requirement=f"cost ≤ {dollars(budget)} a month",
            probability=budget_probability(candidate.cost, budget),
            basis=cost_basis(candidate),
            settle_by="a provider's quotation, and the benchmark that fixes the replicas",
        )
    yield from _hosted_conditions(search, candidate)


def _labels_needed(search: Search, candidate: Candidate) -> str:
    """Rows that would prove the quality if it is what it typically is where it suffices at all."""
    target, sure = search.task.quality.threshold, search.task.quality.confidence
    typical = typical_where_enough(candidate.quality, target)
    needed = rows_to_certify(typical, target=target, confidence=sure)
    if needed is None:
        return "no number of labels can prove a quality that does not exceed the threshold"
    have = candidate.quality.labels
    kind = "rows labelled for both models" if candidate.hybrid else "labelled rows"
    more = f" ({have:,} are there)" if have else ""
    return (
        f"{needed:,} {kind}{more} prove it at {percent(sure)} confidence if the quality is "
        f"{percent(typical)}, as is typical where it suffices; fewer refute it if it is low"
    )


def typical_where_enough(quality: QualityEstimate, target: float) -> float:
    """Median quality given that it reaches the target.

    With log-odds N(m, s²) and a = (logit(target) − m)/s: expit(m + s·Φ⁻¹(1 − (1 − Φ(a))/2)).
    """
    if quality.logit_sd == 0 or not 0 < target < 1:
        return quality.median
    missing = float(ndtr((float(logit(target)) - quality.logit_mean) / quality.logit_sd))
    score = float(ndtri(1 - (1 - missing) / 2))
    return float(expit(quality.logit_mean + quality.logit_sd * score))


def _benchmarks_needed(candidate: Candidate) -> str:
    hosted = [t for t in candidate.tiers.values() if t.choice.hosted]
    if hosted and len(hosted) == len(candidate.tiers):
        return "200 timed requests to the API from where the service will run"
    deployments = [
        t.choice.option.deployment
        for t in candidate.tiers.values()
        if not isinstance(t.choice.option, HostedModel)
    ]
    places = {f"{own.tensor_parallel} × {own.accelerator.id}" for own in deployments}
    return f"ten minutes of `vllm bench serve` on {' and '.join(sorted(places))}"


def _hosted_conditions(search: Search, candidate: Candidate) -> Iterator[Condition]:
    limit = search.assumptions.hosted_rate_limit_per_s
    for tier in candidate.tiers.values():
        if tier.choice.hosted:
            width = max(math.log(limit.high / limit.low) / 3.29, 1e-9)
            yield Condition(
                requirement=f"the API takes {rate_shown(tier.rate_per_s)} at the peak",
                probability=float(ndtr(math.log(limit.value / tier.rate_per_s) / width)),
                basis=f"assumed rate limit: {limit.why}",
                settle_by="the limits page of the account",
            )


def is_proven(search: Search, candidate: Candidate) -> bool:
    """Whether every requirement holds with the stated confidence on measured grounds."""
    sure = search.task.quality.confidence
    measured = all(
        not isinstance(tier.choice.option, HostedModel)
        and tier.choice.option.calibration.label in PROVEN_BASES
        for tier in candidate.tiers.values()
    )
    if search.task.latency.bounds and not measured:
        return False
    if candidate.quality.basis not in ("labels", "mixed"):
        return False
    if candidate.hybrid is not None and not search.certified:
        return False
    conditions = conditions_of(search, candidate)
    return candidate.feasible and all(c.probability >= sure for c in conditions)


def rejected_of(search: Search, chosen: Candidate | None) -> tuple[Rejected, ...]:
    """What was left out, the nearest first: by constraint, with what would admit it."""
    found: list[Rejected] = []
    if not search.task.constraints.hosted_allowed:
        residency = search.task.constraints.data_residency
        found.append(
            Rejected(
                what=f"hosted APIs ({len(search.catalog.hosted)} models)",
                constraint=f"data residency: {residency}",
                by="requests would leave",
                admitted_if="data_residency is any",
            )
        )
    found += _missed(search.candidates)
    if chosen is not None:
        found += _dearer(search.candidates, chosen)
    seen: set[str] = set()
    for misfit in search.misfits:
        if len(found) < REJECTED_SHOWN and misfit.what.split()[0] not in seen:
            seen.add(misfit.what.split()[0])
            found.append(
                Rejected(
                    what=misfit.what,
                    constraint=misfit.constraint,
                    by=misfit.by,
                    admitted_if=misfit.admitted_if,
                )
            )
    return tuple(found[:REJECTED_SHOWN])


def _missed(candidates: Sequence[Candidate]) -> Iterator[Rejected]:
    """The two nearest misses of each architecture."""
    for architecture in ("slm", "llm", "hybrid"):
        missing = [c for c in candidates if c.architecture == architecture and c.misses]
        missing.sort(key=lambda c: (len(c.misses), -c.probability, c.cost.value))
        for candidate in missing[:2]:
            yield Rejected(
                what=candidate.title,
                constraint="; ".join(miss.requirement for miss in candidate.misses),
                by="; ".join(miss.by for miss in candidate.misses),
                admitted_if=" and ".join(m.admitted_if for m in candidate.misses if m.admitted_if),
            )


def _dearer(candidates: Sequence[Candidate], chosen: Candidate) -> Iterator[Rejected]:
    """The cheapest other architectures that would do."""
    for architecture in ("slm", "llm", "hybrid"):
        able = [c for c in candidates if c.architecture == architecture and c.feasible]
        if not able or architecture == chosen.architecture:
            continue
        best = min(able, key=lambda c: c.cost.value)
        difference = best.cost.value - chosen.cost.value
        if difference > 0:
            yield Rejected(
                what=best.title,
                constraint="least cost",
                by=f"{dollars(difference)} a month more",
                admitted_if=f"{ARCHITECTURE_TITLES[architecture]}s are preferred for other reasons",
            )


def sensitivities_of(
    search: Search, chosen: Candidate, shortlist: Sequence[Candidate]
) -> tuple[Sensitivity, ...]:
    """How the answer moves when one input does, from what is simulated already."""
    found = []
    for label, change, task in _variations(search.task):
        able = [
            candidate
            for original in shortlist
            for candidate in search.resized(original, task)
            if candidate.feasible
        ]
        best = min(able, key=lambda c: c.risk_adjusted_usd, default=None)
        found.append(
            Sensitivity(
                input=label,
                change=change,
                architecture=best.architecture if best else None,
                what=best.title if best else "none of the shortlist",
                cost_usd_per_month=best.cost.value if best else None,
                changes_choice=best is None or _models(best) != _models(chosen),
            )
        )
    return tuple(found)


def _models(candidate: Candidate) -> tuple[object, ...]:
    tiers = candidate.tiers
    return (candidate.architecture, *(tiers[role].choice.identity for role in sorted(tiers)))


def _variations(task: TaskProfile) -> Iterator[tuple[str, str, TaskProfile]]:
    """Inputs worth moving, one at a time."""
    target = task.quality.threshold
    for points in (-0.02, 0.01):
        if 0 < target + points < 1:
            changed = task.quality.model_copy(update={"threshold": target + points})
            yield (
                "quality threshold",
                f"{100 * points:+.0f} points",
                task.model_copy(update={"quality": changed}),
            )
    for name, bound in task.latency.bounds.items():
        for factor in (0.75, 1.5):
            latency = task.latency.model_copy(update={name: bound * factor})
            yield (
                METRIC_TITLES[name.removesuffix("_p95_ms")],
                f"{100 * (factor - 1):+.0f} %",
                task.model_copy(update={"latency": latency}),
            )
    for factor in (0.5, 2.0):
        volume = task.traffic.requests_per_day * factor
        traffic = task.traffic.model_copy(update={"requests_per_day": volume})
        yield "requests per day", f"× {factor:g}", task.model_copy(update={"traffic": traffic})


def next_measurement_of(conditions: Iterable[Condition]) -> Measurement | None:
    """The measurement that settles the requirement whose outcome is least certain."""
    open_ones = [c for c in conditions if 0.01 < c.probability < 0.99]
    if not open_ones:
        return None
    # The variance p(1 − p) of the outcome is what a measurement of it would remove.
    worst = max(open_ones, key=lambda c: c.probability * (1 - c.probability))
    return Measurement(
        what=f"whether {worst.requirement}",
        reduces=f"it holds with probability {likelihood(worst.probability)} today",
        effort=worst.settle_by,
    )


def warnings_of(search: Search, candidate: Candidate) -> tuple[str, ...]:
    """What a reviewer should not overlook."""
    found = []
    limit = search.task.constraints.max_escalation_rate
    if candidate.hybrid and candidate.hybrid.escalation_rate > limit:
        found.append(
            f"{percent(candidate.hybrid.escalation_rate, 0)} of requests escalate, above "
            f"{percent(limit)}: "
            "specialise the small model further or revisit the threshold"
        )
    for role, tier in candidate.tiers.items():
        if tier.replicas == 1:
            found.append(f"the {role} tier has one replica: an outage stops it")
        option = tier.choice.option
        if not isinstance(option, HostedModel) and not option.deployment.model.checked:
            found.append(f"the shape of {option.deployment.model.id} is recalled, not checked")
    return tuple(found)
