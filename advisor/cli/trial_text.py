"""A trial's report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from advisor.cli.output import paragraph, table
from advisor.figures import percent
from advisor.trial.reporting.wording import ARM_NAMES, MEASURES, endpoint_lines, error_text, shown

if TYPE_CHECKING:
    from advisor.trial.reporting.report import Comparison, TrialReport
    from advisor.trial.reporting.verdict import RequirementVerdict


def trial_text(report: TrialReport) -> str:
    """The report: verdicts first, then measured beside projected, then why."""
    return "\n\n".join(_parts(report))


def _parts(report: TrialReport) -> Iterator[str]:
    yield paragraph(f"{report.task}: {report.summary}")
    if report.note:
        yield paragraph(f"Note: {report.note}")
    if report.verdicts:
        yield table([_verdict_row(verdict) for verdict in report.verdicts], left=4)
    if report.load is not None:
        load = report.load
        yield paragraph(
            f"Load: {load.requests:,} requests at {load.rate_per_s:.1f}/s, "
            f"{percent(load.share)} of the {load.sustainable_rate_per_s:.1f}/s that the whole was "
            "measured to take"
        )
    if report.threshold is not None:
        yield paragraph(f"Threshold {report.threshold.threshold:.6g}: {report.threshold.basis}")
    if report.comparisons:
        header = ["", "", "projected", "(90 % interval)", "measured", "error"]
        rows = [header, *(comparison_row(one) for one in report.comparisons)]
        yield table(rows, left=2)
    for split in report.splits:
        yield (
            f"Accuracy on {split.split} ({split.rows:,} rows): small {percent(split.slm)}, "
            f"large {percent(split.llm)}"
        )
    if report.attributions:
        header = ["What was wrong", "projected", "measured", "E2E p95", "change"]
        rows = [
            [
                one.piece,
                one.projected_as,
                one.measured_as,
                f"{one.e2e_p95_ms:.1f} ms",
                f"{one.change_ms:+.1f} ms",
            ]
            for one in report.attributions
        ]
        yield table([header, *rows], left=3)
    own = list(endpoint_lines(report))
    if own:
        yield "\n".join(paragraph(line) for line in own)
    for advice in (report.advice_before, report.advice):
        if advice is not None:
            yield paragraph(f"{advice.because[:1].upper()}{advice.because[1:]}.")
    if report.what_changed:
        yield paragraph(f"{report.what_changed[:1].upper()}{report.what_changed[1:]}.")
    yield paragraph(f"Cost: {report.cost_basis}. Trial {report.trial}, {report.wall_s:.0f} s.")


def _verdict_row(verdict: RequirementVerdict) -> list[str]:
    measured = verdict.measured
    found = "nothing measured" if measured is None else shown(verdict.measure, measured.value)
    if measured is not None:
        low, high = shown(verdict.measure, measured.low), shown(verdict.measure, measured.high)
        found += f" ({low} to {high})"
    more = f"{verdict.more_requests:,} more would decide" if verdict.more_requests else ""
    return [verdict.state.upper(), verdict.requirement, found, more or verdict.basis]


def comparison_row(one: Comparison) -> list[str]:
    """Arm, measure, projected, its interval, measured, error."""
    low, high = shown(one.measure, one.projected_low), shown(one.measure, one.projected_high)
    return [
        ARM_NAMES[one.arm],
        MEASURES[one.measure],
        shown(one.measure, one.projected),
        f"({low} to {high})",
        shown(one.measure, one.measured),
        error_text(one),
    ]
