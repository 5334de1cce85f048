"""`advisor recommend`: which architecture to run for a task, on what, and how sure that is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli.arguments import Verbs, add_json, add_task, read_task
from advisor.cli.output import json_text, print_json, print_text, say, writing
from advisor.errors import InputError

if TYPE_CHECKING:
    from advisor.decide.recommendation import Recommendation
    from advisor.task import TaskProfile

DESCRIPTION = """\
Recommend a small model, a large one or a hybrid, with projected quality, p95 latency and
cost. The answer is proven, conditional (it names its conditions and what would settle
them) or infeasible (exit code 1: it names what binds, and what would admit what)."""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "recommend",
        help="the architecture for a task, with its projections",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_task(parser)
    parser.add_argument(
        "--labels", type=Path, metavar="LOG.jsonl", help="labelled outputs of your own models"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="also write recommendation.json and router.yaml there",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Recommend and print.

    Raises:
        InputError: the profile, the log or the output folder cannot be used.
    """
    task = read_task(arguments)
    if arguments.output is not None:
        _require_folder(arguments.output)

    from advisor.decide import recommend
    from advisor.serving.compilation import ensure_compiled

    ensure_compiled(say)
    found = recommend(task, labels=arguments.labels)
    if arguments.output is not None:
        _write(found, task, arguments.output)
    if arguments.json:
        print_json(found)
    else:
        from advisor.cli.recommendation_text import recommendation_text

        print_text(recommendation_text(found))
    return 1 if found.status == "infeasible" else 0


def _require_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written before the work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: no folder there: {error.strerror}") from None


def _write(found: Recommendation, task: TaskProfile, folder: Path) -> None:
    """The recommendation, and the router that runs it where there is something to run."""
    texts = {"recommendation.json": json_text(found) + "\n"}
    if found.chosen is not None:
        from advisor.export.router_configuration import router_file

        texts["router.yaml"] = router_file(found, task)
    for name, text in texts.items():
        with writing(folder / name, option="--output") as file:
            file.write(text)
        say(f"written: {folder / name}")
