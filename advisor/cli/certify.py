"""`advisor certify`: an escalation threshold that labelled pairs prove, and its certificate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli.arguments import Verbs, add_json
from advisor.cli.output import paragraph, print_json, print_text
from advisor.figures import interval, percent

if TYPE_CHECKING:
    from advisor.quality.threshold import Certificate

DESCRIPTION = """\
The least escalation that is certified to reach a target quality, from rows on which both
models are labelled: a CSV file with the columns confidence, slm_correct, llm_correct and
optionally gate_passed, or a JSONL log of outputs. Exits with 1 where nothing can be
certified, and says how many rows would settle it.

The order in which thresholds are tested must be fixed before the rows are seen:
  llm    from "escalate all" down: the large model must clear the target by itself
  slm    "accept all that passes the gates"
  both   the two, sharing the risk: for when it is not known which model is better
  pilot  from the best threshold of every fourth row down, proven on the other rows"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "certify",
        help="an escalation threshold with a finite-sample guarantee",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pairs", type=Path, metavar="PAIRS.csv", help="labelled pairs")
    parser.add_argument(
        "--target", type=float, required=True, metavar="Q", help="quality to reach, 0 to 1"
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, metavar="C", help="of the certificate (0.95)"
    )
    parser.add_argument(
        "--start", choices=("llm", "slm", "both", "pilot"), default="both", help="both"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Certify and print.

    Raises:
        InputError: the rows cannot be read, or levels that are no probabilities.
    """
    from advisor.quality.threshold import certify_file

    certificate = certify_file(
        arguments.pairs,
        target=arguments.target,
        confidence_level=arguments.confidence,
        start=arguments.start,
    )
    if arguments.json:
        print_json(certificate)
    else:
        print_text(_text(certificate))
    return 0 if certificate.certified else 1


def _text(found: Certificate) -> str:
    quality = found.quality
    observed = f"{percent(quality.value)} ({interval(quality.low, quality.high, percent)})"
    sure = percent(found.confidence_level)
    wanted = f"quality of at least {percent(found.target)} with {sure} confidence"
    if found.certified:
        lines = [
            f"Certified: {wanted}",
            f"  threshold         {found.threshold:.6g}: hand up answers with less confidence",
            f"  escalation rate   {percent(found.escalation_rate)}",
        ]
    else:
        needed = "no number of rows" if found.rows_needed is None else f"{found.rows_needed:,} rows"
        lines = [
            f"Not certified: {wanted}",
            f"  would settle it   {needed}, if the observed quality is the true one",
        ]
    lines += [f"  observed quality  {observed}", f"  rows              {found.rows:,}"]
    notes = [paragraph(note) for note in (found.reason, *found.warnings) if note]
    return "\n".join([*lines, *notes])
