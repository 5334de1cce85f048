"""`advisor evaluate`: what a log of labelled outputs says of models, confidence and routing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli.arguments import Verbs, add_json, profile_path
from advisor.cli.output import paragraph, print_json, print_text, table
from advisor.figures import NONE, dollars, interval, milliseconds, percent

if TYPE_CHECKING:
    from advisor.quality.evaluate import ConfidenceReport, EvaluationReport
    from advisor.quality.policies import PolicyComparison

DESCRIPTION = """\
Evaluate a log of outputs, JSONL or a CSV of labelled pairs: quality of each model with its 90 %
interval, how far the small model's confidence can be trusted, and which routing policy pays."""

RECOVERED = "50%"
"""Share of the gap between the models for which the large calls are shown."""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "evaluate",
        help="metrics, confidence and routing curves of logged outputs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", type=Path, metavar="LOG.jsonl", help="one request a line")
    parser.add_argument(
        "--task", metavar="TASK.yaml", help="its metric, target and gates are applied"
    )
    parser.add_argument("--metric", metavar="NAME", help="how answers are scored (exact_match)")
    parser.add_argument(
        "--database",
        type=Path,
        metavar="FILE",
        help="SQLite or DuckDB file on which execution_match runs the queries, read-only",
    )
    parser.add_argument("--target", type=float, metavar="Q", help="quality to plan labels for")
    parser.add_argument("--slm", default="slm", metavar="NAME", help="small model in the log")
    parser.add_argument("--llm", default="llm", metavar="NAME", help="large model in the log")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print.

    Raises:
        InputError: the log or the profile cannot be read, or the metric cannot score the log.
    """
    from advisor.quality.evaluate import evaluate_log
    from advisor.task import TaskProfile

    task = TaskProfile.load(profile_path(arguments.task)) if arguments.task else None
    report = evaluate_log(
        arguments.log,
        metric=arguments.metric,
        task=task,
        database=arguments.database,
        target=arguments.target,
        slm=arguments.slm,
        llm=arguments.llm,
    )
    if arguments.json:
        print_json(report)
    else:
        print_text("\n\n".join(_parts(report)))
    return 0


def _parts(report: EvaluationReport) -> Iterator[str]:
    yield f"{report.rows:,} rows, scored by {report.metric}"
    rows: list[tuple[str, ...]] = [
        ("model", "labelled", "quality", "90 % interval", "p95", "USD a request")
    ]
    rows += [
        (
            score.model,
            f"{score.labelled:,}",
            percent(score.quality),
            interval(score.low, score.high, percent),
            milliseconds(score.latency_p95_ms),
            dollars(score.cost_usd_mean),
        )
        for score in report.models
    ]
    yield table(rows)
    if report.confidence is not None:
        yield _confidence(report.confidence)
    if report.policies is not None:
        yield _policies(report.policies)
    if report.labels_to_settle:
        yield "\n".join(
            f"{model}: {'no number of' if needed is None else f'{needed:,}'} labels would prove "
            "the target, if this quality is the true one"
            for model, needed in report.labels_to_settle.items()
        )
    if report.notes:
        yield "\n".join(paragraph(note, indent="  ") for note in report.notes)


def _confidence(found: ConfidenceReport) -> str:
    auroc = NONE
    if found.auroc is not None:
        auroc = f"{found.auroc:.3f} ({found.auroc_low or 0:.3f} to {found.auroc_high or 1:.3f})"
    lines = [
        paragraph(f"Confidence from {found.source}, {found.rows:,} rows"),
        f"  AUROC {auroc}; calibration {found.calibration}",
    ]
    if found.ece is not None and found.brier is not None:
        lines.append(f"  expected calibration error {found.ece:.3f}, Brier score {found.brier:.3f}")
    return "\n".join([*lines, *(paragraph(f"  {note}", indent="    ") for note in found.notes)])


def _policies(found: PolicyComparison) -> str:
    rows: list[tuple[str, ...]] = [("policy", "gap recovered", "large calls for half the gap")]
    for policy in found.policies:
        share = policy.cpt.get(RECOVERED)
        rows.append((policy.name, percent(policy.apgr), percent(share)))
    return "\n".join([table(rows), paragraph(found.verdict)])
