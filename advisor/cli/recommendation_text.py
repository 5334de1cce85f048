"""A recommendation as text of at most 80 columns: the answer first, then what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from advisor.cli.output import paragraph, table
from advisor.decide.recommendation import (
    Alternative,
    Chosen,
    Projected,
    Projection,
    Recommendation,
    Rejected,
    SelfHostedTier,
)
from advisor.figures import NONE, dollars, interval, likelihood, milliseconds, percent

ARCHITECTURES = {
    "slm": "small model (SLM)",
    "llm": "large model (LLM)",
    "hybrid": "hybrid (SLM first, escalate to LLM)",
}
ROLES = {"slm": "small model", "llm": "large model"}

Show = Callable[[float | None], str]

FIGURES: tuple[tuple[str, str, Show], ...] = (
    ("quality", "quality", percent),
    ("ttft_p95_ms", "time to first token, p95", milliseconds),
    ("e2e_p95_ms", "end to end, p95", milliseconds),
    ("tpot_p95_ms", "time per output token, p95", milliseconds),
    ("escalation_rate", "escalation rate", percent),
    ("cost_usd_per_month", "cost a month", dollars),
    ("cost_usd_per_million_requests", "cost per million requests", dollars),
    ("cost_usd_per_correct_answer", "cost per correct answer", dollars),
)

MAX_REJECTED = 8


def recommendation_text(found: Recommendation) -> str:
    """The whole answer."""
    return "\n\n".join(_parts(found))


def _parts(found: Recommendation) -> Iterator[str]:
    architecture = ARCHITECTURES[found.architecture] if found.architecture else "none"
    yield f"{found.task}: {architecture}, {found.status}\n{paragraph(found.summary)}"
    if found.chosen is not None:
        yield "\n".join(_deployment(found.chosen))
    if found.projection is not None:
        yield _projection(found.projection)
    if found.conditions:
        yield "\n".join(_conditions(found))
    if found.warnings:
        yield "\n".join(_bullet(f"Warning: {warning}") for warning in found.warnings)
    if found.alternatives:
        yield "\n".join(_alternatives(found.alternatives))
    if found.rejected:
        yield "\n".join(_rejected(found))
    if found.sensitivities:
        yield "\n".join(_sensitivities(found))
    if found.next_measurement is not None:
        step = found.next_measurement
        gain = step.reduces[:1].upper() + step.reduces[1:]
        yield paragraph(f"Measure next: {step.what}. {gain}. Effort: {step.effort}.")
    yield "\n".join(_provenance(found))


def _deployment(chosen: Chosen) -> Iterator[str]:
    yield "Run"
    for role in ("slm", "llm"):
        tier = chosen.tiers.get(role)
        if tier is None:
            continue
        yield _bullet(f"{ROLES[role]}: {tier.title}, {tier.adaptation.replace('_', '-')}")
        if isinstance(tier, SelfHostedTier):
            engine = tier.engine
            yield _bullet(
                f"KV cache {tier.kv_dtype}, max_model_len {engine.max_model_len:,}, max_num_seqs "
                f"{engine.max_num_seqs:,}, max_num_batched_tokens "
                f"{engine.max_num_batched_tokens:,}; {tier.provider} at "
                f"{dollars(tier.usd_per_accelerator_hour)} per accelerator-hour",
                indent="    ",
            )
    if chosen.threshold is not None:
        yield _bullet(f"escalate answers with a confidence under {chosen.threshold:.3g}")


def _projection(projection: Projection) -> str:
    grounds: dict[str, str] = {}
    rows = [("projected", "", "90 % interval", "basis")]
    for field, name, show in FIGURES:
        figure: Projected | None = getattr(projection, field)
        if figure is None:
            continue
        mark = grounds.setdefault(figure.basis, f"[{len(grounds) + 1}]")
        rows.append((name, show(figure.value), interval(figure.low, figure.high, show), mark))
    notes = [paragraph(f"{mark} {basis}", indent="    ") for basis, mark in grounds.items()]
    return "\n".join([table(rows), *notes])


def _conditions(found: Recommendation) -> Iterator[str]:
    yield "Conditions" if found.status != "infeasible" else "Requirements"
    for condition in found.conditions:
        text = f"{likelihood(condition.probability)} likely: {condition.requirement}"
        yield _bullet(f"{text}. Rests on: {condition.basis}. Settled by: {condition.settle_by}.")


def _alternatives(alternatives: tuple[Alternative, ...]) -> Iterator[str]:
    yield "Beside it"
    for other in alternatives:
        figures = other.projection
        verdict = (
            f"all requirements hold with {likelihood(other.probability)}"
            if other.feasible
            else f"misses {', '.join(other.misses)}"
        )
        yield _bullet(
            f"{other.label}: {other.chosen.title}. Quality {_value(figures.quality, percent)}, "
            f"end to end p95 {_value(figures.e2e_p95_ms, milliseconds)}, "
            f"{_value(figures.cost_usd_per_month, dollars)} a month; {verdict}."
        )


def _rejected(found: Recommendation) -> Iterator[str]:
    yield "Why others fell"
    for fallen in found.rejected[:MAX_REJECTED]:
        yield _bullet(f"{fallen.what}: {_constraints(fallen)}; admitted if {fallen.admitted_if}.")
    more = len(found.rejected) - MAX_REJECTED
    if more > 0:
        yield f"  and {more} more: --json lists them all"


def _constraints(fallen: Rejected) -> str:
    """Each constraint with how far off it is: `E2E p95 ≤ 80 ms (35 ms), cost ≤ $900 ($12)`."""
    pairs = zip(fallen.constraint.split("; "), fallen.by.split("; "), strict=True)
    return ", ".join(f"{constraint} ({by})" for constraint, by in pairs)


def _sensitivities(found: Recommendation) -> Iterator[str]:
    yield "What the answer is sensitive to"
    for sensitivity in found.sensitivities:
        mark = "changes the choice: " if sensitivity.changes_choice else ""
        cost = sensitivity.cost_usd_per_month
        money = f" ({dollars(cost)} a month)" if cost is not None else ""
        yield _bullet(f"{sensitivity.input} {sensitivity.change}: {mark}{sensitivity.what}{money}")


def _provenance(found: Recommendation) -> Iterator[str]:
    known = found.provenance
    yield paragraph(
        f"Advisor {known.advisor}; catalogue of {known.catalogue_as_of}, prices of "
        f"{known.prices_as_of}, hosted prices {known.hosted_prices}, calibration "
        f"{known.calibration}."
    )
    for note in known.notes:
        yield _bullet(note)


def _value(figure: Projected | None, show: Show) -> str:
    return NONE if figure is None else show(figure.value)


def _bullet(text: str, indent: str = "  ") -> str:
    return paragraph(f"{indent}{text}", indent=f"{indent}  ")
