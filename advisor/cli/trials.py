"""`advisor trials`: past trials, listed, shown, exported and deleted."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli.arguments import Verbs, add_json, add_task, read_task
from advisor.cli.output import print_json, print_text, say, table
from advisor.errors import InputError

if TYPE_CHECKING:
    from advisor.trial.reporting.report import TrialReport
    from advisor.trial.store import TrialStore

DESCRIPTION = """\
Past trials and what they recorded: list them, print the report of one again (one that
was killed is judged as it stands), resume a killed one, compare two, export every
request (CSV or Parquet), delete. Past one machine: write the load for Locust and k6, and
judge the records that Locust wrote."""


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
        ("resume", 1, "send what the router of a killed one never got, and judge it"),
        ("delete", 1, "one of them"),
    ):
        one = does.add_parser(name, help=text)
        if needs:
            one.add_argument("trials", nargs=needs, metavar="TRIAL")
        if name == "export":
            one.add_argument("output", type=Path, metavar="OUT.csv|OUT.parquet")
        if name in ("show", "resume"):
            add_json(one)
        one.add_argument("--records", type=Path, metavar="FILE", help="trial records")
    _add_load_tools(does)
    parser.set_defaults(run=run)


def _add_load_tools(does: Verbs) -> None:
    """The load on other tools: out as a plan with scripts, back in as records."""
    plan = does.add_parser("plan", help="a load for Locust and k6: plan, locustfile, k6 script")
    add_task(plan)
    plan.add_argument("folder", type=Path, metavar="FOLDER", help="where the files go")
    plan.add_argument("--url", required=True, metavar="URL", help="router or endpoint, up to /v1")
    plan.add_argument("--model", default="advisor", metavar="M", help="asked for (advisor)")
    plan.add_argument("--data", type=Path, required=True, metavar="LOG.jsonl", help="rows to send")
    plan.add_argument("--rate", type=float, required=True, metavar="R", help="requests a second")
    plan.add_argument("--requests", type=int, required=True, metavar="N", help="how many")
    plan.add_argument("--key-variable", metavar="NAME", help="environment variable with the key")
    plan.add_argument("--seed", type=int, default=0, metavar="S", help="of the schedule (0)")
    back = does.add_parser("import", help="judge the records that the Locust file wrote")
    add_task(back)
    back.add_argument("folder", type=Path, metavar="FOLDER", help="with plan.json and records")
    back.add_argument("--data", type=Path, required=True, metavar="LOG.jsonl", help="its rows")
    back.add_argument("--records", type=Path, metavar="FILE", help="trial records")
    add_json(back)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked.

    Raises:
        InputError: no such trial, or a file that cannot be written.
    """
    if arguments.does == "plan":
        return _plan(arguments)
    if arguments.does == "resume":
        return _resume(arguments)
    from advisor.trial.store import TrialStore, default_path

    named = arguments.records
    if named is not None and arguments.does != "import" and not named.exists():
        raise InputError(f"trial records: no file {named}")
    with TrialStore(named or default_path()) as store:
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
            case "import":
                return _import(store, arguments)
            case "delete":
                store.delete(arguments.trials[0])
                say(f"deleted: {arguments.trials[0]}")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from advisor.trial.endpoints import Endpoint
    from advisor.trial.load.load_scripts import load_plan, write_load_scripts

    task = read_task(arguments)
    plan = load_plan(
        task,
        Endpoint.at("llm", arguments.url, arguments.model, option="--url"),
        arguments.data,
        rate_per_s=arguments.rate,
        requests=arguments.requests,
        api_key_env=arguments.key_variable,
        seed=arguments.seed,
    )
    for path in write_load_scripts(plan, arguments.folder):
        say(f"written: {path}")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    from advisor.trial.resume import resume_trial

    (trial,) = arguments.trials
    report = resume_trial(trial, records=arguments.records, announce=say)
    return _print(report, as_json=arguments.json)


def _import(store: TrialStore, arguments: argparse.Namespace) -> int:
    from advisor.trial.data import read_rows
    from advisor.trial.importing import import_load

    task = read_task(arguments)
    report = import_load(store, task, read_rows(arguments.data), arguments.folder)
    return _print(report, as_json=arguments.json)


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
    from advisor.trial.standing import judge_as_it_stands

    report = report_of_trial(store, trial) or judge_as_it_stands(store, trial)
    _print(report, as_json=as_json)
    return 0


def _print(report: TrialReport, *, as_json: bool) -> int:
    """Print a report; returns 1 where a requirement failed."""
    if as_json:
        print_json(report)
    else:
        from advisor.cli.trial_text import trial_text

        print_text(trial_text(report))
    return 1 if report.failed else 0


def _compare(store: TrialStore, first: str, second: str) -> str:
    from advisor.trial.exports import compared_trials
    from advisor.trial.reporting.wording import ARM_NAMES, MEASURES, shown

    rows = [["", "", first, second]]
    for arm, measure, one, other in compared_trials(store, first, second):
        cells = ["-" if value is None else shown(measure, value) for value in (one, other)]
        rows.append([ARM_NAMES[arm], MEASURES[measure], *cells])
    return table(rows, left=2)
