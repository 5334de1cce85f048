"""`advisor trial`: real load on real endpoints, and a verdict beside the projection."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.cli.arguments import Verbs, add_json, add_task, read_task
from advisor.cli.output import print_json, print_text, say, writing
from advisor.errors import InputError

if TYPE_CHECKING:
    from advisor.serving.arrivals import Arrivals
    from advisor.task import TaskProfile
    from advisor.trial.endpoints import Endpoint

DESCRIPTION = """\
Calibrate two endpoints, write down what the router in front of them should show, load
it, and judge each requirement of the task beside the projection. --sandbox needs no
GPU, key or download: it serves two small language models that ship with Advisor, one
request at a time. Keys come from ADVISOR_SLM_API_KEY and ADVISOR_LLM_API_KEY (else
OPENAI_API_KEY), and are written nowhere. Exits with 1 where a requirement failed.
Ctrl-C ends the load and judges what there is."""

ARRIVALS = ("poisson", "constant", "gamma", "ramp", "day")


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "trial",
        help="live trial: measured beside projected",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_task(parser)
    _add_endpoints(parser)
    _add_load(parser)
    parser.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="trial records ($ADVISOR_TRIALS, or the user's)",
    )
    parser.add_argument(
        "--otlp",
        metavar="[HOST:]PORT",
        help="receive the endpoints' OpenTelemetry spans there, at /slm/v1/traces and "
        "/llm/v1/traces (vLLM: --otlp-traces-endpoint)",
    )
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="a report of one file")
    add_json(parser)
    parser.set_defaults(run=run)


def _add_endpoints(parser: argparse.ArgumentParser) -> None:
    sandbox = parser.add_argument_group("the sandbox")
    sandbox.add_argument("--sandbox", action="store_true", help="the two models that ship")
    sandbox.add_argument(
        "--engine", choices=("ctranslate2", "vllm"), help="what serves them (ctranslate2)"
    )
    own = parser.add_argument_group("endpoints of your own")
    own.add_argument("--slm", metavar="URL", help="small model: OpenAI-compatible, up to /v1")
    own.add_argument("--slm-model", metavar="M", help="its name there")
    own.add_argument("--slm-price", metavar="IN/OUT", help="USD per million tokens, e.g. 0.1/0.4")
    own.add_argument("--llm", metavar="URL", help="large model")
    own.add_argument("--llm-model", metavar="M", help="its name there")
    own.add_argument("--llm-price", metavar="IN/OUT", help="USD per million tokens")
    own.add_argument(
        "--data", type=Path, metavar="LOG.jsonl", help="rows: input, expected, risk, type; or CSV"
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group("load")
    load.add_argument(
        "--policy", choices=("cascade", "slm_only", "llm_only"), default="cascade", help="cascade"
    )
    load.add_argument("--rate", type=float, metavar="R", help="requests a second")
    load.add_argument(
        "--load", type=float, metavar="SHARE", help="of the measured capacity (sandbox: 0.5)"
    )
    load.add_argument(
        "--requests",
        type=int,
        metavar="N",
        help="of the router's load; a short one is calibrated for briefly",
    )
    load.add_argument("--arrivals", choices=ARRIVALS, default="poisson", help="poisson")
    load.add_argument("--trace", metavar="FILE", help="times of arrival: CSV or JSONL")
    load.add_argument("--budget-usd", type=float, metavar="X", help="spending cap of the trial")
    load.add_argument(
        "--early-stop",
        action=argparse.BooleanOptionalAction,
        help="end the load once the verdict is certain (the default but for the sandbox)",
    )
    load.add_argument("--seed", type=int, default=0, metavar="S", help="of the random draws (0)")


def run(arguments: argparse.Namespace) -> int:
    """Run the trial and print.

    Raises:
        InputError: what was asked for cannot be done.
    """
    if arguments.engine and not arguments.sandbox:
        raise InputError("--engine is for --sandbox; other endpoints are served by their own")
    if arguments.report and not arguments.report.absolute().parent.is_dir():
        raise InputError(f"--report {arguments.report}: no folder {arguments.report.parent}")
    task = read_task(arguments)
    slm, llm = (_endpoint(arguments, role) for role in ("slm", "llm"))

    from advisor.trial.run import run_trial

    with _stopped_by_interrupt() as stop:
        report = run_trial(
            task,
            sandbox=arguments.sandbox,
            engine=arguments.engine or "ctranslate2",
            slm=slm,
            llm=llm,
            data=arguments.data,
            policy=arguments.policy,
            rate_per_s=arguments.rate,
            load=arguments.load,
            requests=arguments.requests,
            arrivals=_arrivals(arguments, task),
            budget_usd=arguments.budget_usd,
            early_stop=arguments.early_stop,
            seed=arguments.seed,
            records=arguments.records,
            announce=say,
            on_begin=lambda trial: say(f"trial {trial}"),
            stop=stop,
            otlp=arguments.otlp,
        )
    if arguments.report:
        from advisor.trial.reporting.html_report import html_report

        with writing(arguments.report, option="--report") as file:
            file.write(html_report(report))
        say(f"written: {arguments.report}")
    if arguments.json:
        print_json(report)
    else:
        from advisor.cli.trial_text import trial_text

        print_text(trial_text(report))
    return 1 if report.failed else 0


@contextmanager
def _stopped_by_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one interrupts as usual."""
    stop = threading.Event()

    def first(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before: Any = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _endpoint(arguments: argparse.Namespace, role: Any) -> Endpoint | None:
    url, model = getattr(arguments, role), getattr(arguments, f"{role}_model")
    price = getattr(arguments, f"{role}_price")
    if url is None and model is None and price is None:
        return None
    if url is None or model is None:
        missing = f"--{role}" if url is None else f"--{role}-model"
        raise InputError(f"{missing} is missing: an endpoint has a URL and a model")
    from advisor.trial.endpoints import Endpoint
    from advisor.trial.judging import Price

    stated = None if price is None else Price.stated(f"--{role}-price", price)
    return Endpoint.at(role, url, model, price=stated)


def _arrivals(arguments: argparse.Namespace, task: TaskProfile) -> Arrivals | None:
    """The process of the arrivals; None: as the task is, Poisson or gamma."""
    if arguments.trace:
        from advisor.serving.arrivals import Trace
        from advisor.serving.traces import read_trace

        return Trace(read_trace(Path(arguments.trace)).arrival_s)
    if arguments.arrivals == "poisson":
        return None
    from advisor.trial.load.schedules import named_arrivals

    return named_arrivals(arguments.arrivals, task)
