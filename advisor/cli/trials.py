"""`advisor trials`: past trials, listed, shown, exported and deleted."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli.arguments import Verbs, add_json
from advisor.cli.output import print_json, print_text, say, table
from advisor.errors import InputError

if TYPE_CHECKING:
    from advisor.trial.store import TrialStore

DESCRIPTION = """\
Past trials and what they recorded: list them, print the report of one again, compare
two, export every request (CSV or Parquet), delete."""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "trials",
        help="past trials: list, show, compare, export, delete",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    does = parser.add_subparsers(dest="does", required=True, metavar="WHAT")
    for name, needs, text in (
        ("list", 0, "the newest first"),
        ("show", 1, "the report of one"),
        ("compare", 2, "two side by side"),
        ("export", 1, "every request of one, to a CSV or Parquet file"),
        ("delete", 1, "one of them"),
    ):
        one = does.add_parser(name, help=text)
        if needs:
            one.add_argument("trials", nargs=needs, metavar="TRIAL")
        if name == "export":
            one.add_argument("output", type=Path, metavar="OUT.csv|OUT.parquet")
        if name == "show":
            add_json(one)
        one.add_argument("--records", type=Path, metavar="FILE", help="trial records")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked.

    Raises:
        InputError: no such trial, or a file that cannot be written.
    """
    from advisor.trial.store import TrialStore, default_path

    with TrialStore(arguments.records or default_path()) as store:
        match arguments.does:
            case "list":
                print_text(_list(store))
            case "show":
                return _show(store, arguments.trials[0], as_json=arguments.json)
            case "compare":
                print_text(_compare(store, *arguments.trials))
            case "export":
                from advisor.trial.exports import export_requests

                count = export_requests(store, arguments.trials[0], arguments.output)
                say(f"written: {arguments.output} ({count:,} requests)")
            case "delete":
                store.delete(arguments.trials[0])
                say(f"deleted: {arguments.trials[0]}")
    return 0


def _list(store: TrialStore) -> str:
    rows = [["trial", "task", "state", "begun (UTC)", "requests", "completed"]]
    for trial in store.trials():
        begun = time.strftime("%Y-%m-%d %H:%M", time.gmtime(trial.created_epoch_s))
        total = sum(arm.requests.total for arm in trial.arms)
        completed = sum(arm.requests.completed for arm in trial.arms)
        rows.append([trial.id, trial.name, trial.state, begun, f"{total:,}", f"{completed:,}"])
    return table(rows, left=4) if len(rows) > 1 else "No trials yet."


def _show(store: TrialStore, trial: str, *, as_json: bool) -> int:
    from advisor.trial.exports import report_of_trial

    summary, report = store.summary(trial), report_of_trial(store, trial)
    if report is None:
        raise InputError(f"trial {trial} has no report: it is {summary.state} ({summary.note})")
    if as_json:
        print_json(report)
    else:
        from advisor.cli.trial_text import trial_text

        print_text(trial_text(report))
    return 0


def _compare(store: TrialStore, first: str, second: str) -> str:
    from advisor.trial.exports import compared_trials
    from advisor.trial.wording import ARM_NAMES, MEASURES, shown

    rows = [["", "", first, second]]
    for arm, measure, one, other in compared_trials(store, first, second):
        cells = ["-" if value is None else shown(measure, value) for value in (one, other)]
        rows.append([ARM_NAMES[arm], MEASURES[measure], *cells])
    return table(rows, left=2)
