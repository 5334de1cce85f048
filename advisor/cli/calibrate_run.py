"""`advisor calibrate run`: micro-benchmarks of vLLM on this machine, or of a running server."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.cli.arguments import add_json, engine_arguments, profile_path
from advisor.cli.output import print_json, print_text, say, table
from advisor.errors import InputError
from advisor.figures import percent

if TYPE_CHECKING:
    from advisor.calibrate.bench.points import Shape
    from advisor.calibrate.bench.session import Comparison, Outcome, Update

DESCRIPTION = """\
Measure real vLLM until a task's p95 is known closely enough: engine steps (decode by batch
and context, prefill by tokens, both together), the ceilings of copy and product, start-up,
what HTTP adds to a request, then open loops that are predicted before they are sent. Each
point is on disk before the next begins; the same command goes on where it was stopped.

Beside FILE.jsonl lie FILE.fits.json (coefficients for `advisor predict --fits`),
FILE.rows.csv (measurement rows for `predict --own`, `calibrate fit` and `calibrate score`)
and, on a processor, FILE.accelerator.yaml, which any --accelerator takes."""


def add_to(steps: Any) -> None:
    """Add the verb below `advisor calibrate`."""
    parser = steps.add_parser(
        "run",
        help="micro-benchmarks of vLLM on this machine, or of a server",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="a folder or config.json (random weights where there are none), or a name",
    )
    parser.add_argument("--output", type=Path, default=Path("calibration.jsonl"), metavar="FILE")
    parser.add_argument(
        "--engine-args", metavar="NAME=VALUE,…", help="vLLM settings, e.g. max_model_len=4096"
    )
    parser.add_argument("--budget", default="10m", metavar="TIME", help="e.g. 90s, 10m, 1h (10m)")
    parser.add_argument("--task", metavar="TASK.yaml", help="whose p95 is to be known")
    parser.add_argument(
        "--precision",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="half-width of the p95's 90%% interval that is narrow enough (0.1)",
    )
    parser.add_argument("--python", type=Path, metavar="PATH", help="interpreter that has vLLM")
    parser.add_argument(
        "--accelerator", metavar="A", help="name or YAML file (this machine's GPU or processor)"
    )
    parser.add_argument("--cores", metavar="LIST", help="for a processor's engine, e.g. 1 or 0-3")
    parser.add_argument(
        "--max-batch", type=int, metavar="N", help="largest batch to measure (the engine's)"
    )
    parser.add_argument(
        "--points",
        metavar="LIST",
        default="",
        help="measure these too: decode:8x128,prefill:512,mixed:4x64+256; a point that is named "
        "again is measured again",
    )
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="N", help="how often each open loop is sent (1)"
    )
    parser.add_argument("--no-server", action="store_true", help="engine steps only, no HTTP")
    parser.add_argument("--url", metavar="URL", help="measure this running server from outside")
    parser.add_argument(
        "--requests", type=int, default=200, metavar="N", help="most requests sent to --url (200)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print a summary.

    Raises:
        InputError: wrong arguments, vLLM missing or failing, a dead server, a full disk.
        KeyboardInterrupt: the points so far are kept.
    """
    from advisor.calibrate.bench.session import Session
    from advisor.catalog import load_catalog
    from advisor.serving.compilation import ensure_compiled
    from advisor.task import TaskProfile

    if not arguments.model:
        raise InputError("--model: a folder, a config.json or a model's name is expected")
    if not 0 < arguments.precision < 1:
        raise InputError(f"--precision {arguments.precision:g}: a share between 0 and 1")
    if arguments.repeats < 1:
        raise InputError(f"--repeats {arguments.repeats}: at least 1 is expected")
    budget_s = seconds_of(arguments.budget)
    task = TaskProfile.load(profile_path(arguments.task)) if arguments.task else None
    ensure_compiled(say)
    session = Session(
        output=arguments.output,
        budget_s=budget_s,
        task=task,
        precision=arguments.precision,
        tell=_tell,
    )
    try:
        outcome = _measure(arguments, session, load_catalog())
    except KeyboardInterrupt:
        say(f"stopped; {len(session.store):,} points are kept in {arguments.output}")
        raise
    if outcome is None:
        return 0
    if arguments.json:
        print_json(outcome)
    else:
        print_text(text_of(outcome))
    return 0


def _measure(arguments: argparse.Namespace, session: Any, catalog: Any) -> Outcome | None:
    settings = engine_arguments(arguments.engine_args) if arguments.engine_args else {}
    if arguments.url:
        from advisor.calibrate.bench.remote import RemoteRun, run_remote

        if arguments.requests < 1:
            raise InputError(f"--requests {arguments.requests}: at least 1 is expected")
        remote = RemoteRun(
            url=arguments.url,
            model=arguments.model,
            accelerator=arguments.accelerator,
            requests=arguments.requests,
            arguments=settings,
            api_key=os.environ.get("ADVISOR_VLLM_API_KEY") or os.environ.get("OPENAI_API_KEY"),
        )
        return run_remote(remote, session, catalog)
    from advisor.calibrate.bench.local import LocalRun, run_local

    local = LocalRun(
        model=arguments.model,
        python=arguments.python,
        arguments=settings,
        accelerator=arguments.accelerator,
        cores=cores_of(arguments.cores) if arguments.cores else (),
        max_batch=arguments.max_batch,
        shapes=shapes_of(arguments.points),
        serve=not arguments.no_server,
        load_repeats=arguments.repeats,
    )
    return run_local(local, session, catalog)


def seconds_of(text: str) -> float:
    """`90s`, `10m`, `1.5h`, or seconds alone.

    Raises:
        InputError: something else, or nothing to spend.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h)?\s*", text)
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"] if found else 0.0
    if seconds <= 0:
        raise InputError(f"--budget {text}: a time such as 90s, 10m or 1h is expected")
    return seconds


def cores_of(text: str) -> tuple[int, ...]:
    """`0,2-3` as core numbers.

    Raises:
        InputError: not such a list, or a core that this process may not use.
    """
    from advisor.calibrate.bench.hardware import usable_cores

    cores: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise InputError(f"--cores {text}: core numbers such as 1 or 0,2-3 are expected")
        cores |= set(range(int(found[1]), int(found[2] or found[1]) + 1))
    usable = usable_cores()
    if not cores or not cores <= set(usable):
        raise InputError(f"--cores {text}: of {', '.join(map(str, usable))} at least one")
    return tuple(sorted(cores))


def shapes_of(text: str) -> tuple[Shape, ...]:
    """`decode:8x128,prefill:512,mixed:4x64+256` as shapes; one that comes again is a repetition.

    Raises:
        InputError: not of that form.
    """
    from advisor.calibrate.bench.points import Shape

    shapes: list[Shape] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        if found := re.fullmatch(r"decode:([1-9]\d*)x([1-9]\d*)", part):
            shapes.append(Shape(kind="decode", batch=int(found[1]), context_tokens=int(found[2])))
        elif found := re.fullmatch(r"prefill:([1-9]\d*)", part):
            shapes.append(Shape(kind="prefill", prompt_tokens=int(found[1])))
        elif found := re.fullmatch(r"mixed:([1-9]\d*)x([1-9]\d*)\+([1-9]\d*)", part):
            batch, context, tokens = (int(group) for group in found.groups())
            shapes.append(
                Shape(kind="mixed", batch=batch, context_tokens=context, prompt_tokens=tokens)
            )
        else:
            raise InputError(
                f"--points {part}: decode:BATCHxCONTEXT, prefill:TOKENS or "
                "mixed:BATCHxCONTEXT+TOKENS is expected"
            )
    return tuple(
        shape.model_copy(update={"repeat": shapes[:place].count(shape)})
        for place, shape in enumerate(shapes)
    )


def _tell(update: Update) -> None:
    minutes, seconds = divmod(int(update.spent_s), 60)
    say(f"[{minutes}:{seconds:02d}] {update.message}")


def text_of(outcome: Outcome) -> str:
    """The summary in words."""
    engine = f"{outcome.model} on {outcome.accelerator}, vLLM {outcome.vllm_version or 'unknown'}"
    counted = f"{outcome.points} points ({outcome.new_points} new) in {outcome.spent_s:,.0f} s"
    lines = [
        f"{engine}: {counted}, {outcome.ended}.",
        f"Step times within {percent(outcome.median_error)} of the fitted law (median).",
    ]
    if outcome.after and outcome.before:
        a, b = outcome.after, outcome.before
        lines.append(
            f"p95 of {outcome.target}: {a.value_ms:,.0f} ms ({a.low_ms:,.0f} to {a.high_ms:,.0f}); "
            f"before: {b.value_ms:,.0f} ms ({b.low_ms:,.0f} to {b.high_ms:,.0f})."
        )
    if outcome.disturbed:
        lines.append(
            f"{outcome.disturbed} points were disturbed (machine up to "
            f"{outcome.worst_slowdown:.2f} × slower than at its best); their intervals say so."
        )
    if outcome.loads:
        lines += ["", table([_HEAD, *(row for one in outcome.loads for row in _rows(one))])]
        lines.append("as shared: at the pace that closed loops found just before and after")
    lines += ["", *(f"{name}: {path}" for name, path in outcome.files.items())]
    return "\n".join(lines)


_HEAD = ("load", "figure", "measured", "predicted", "error", "as shared", "error")


def _rows(load: Comparison) -> list[tuple[str, ...]]:
    title = f"{load.rate_per_s:.3g}/s ({percent(load.share_of_capacity)})"
    return [
        (
            title,
            name.removesuffix("_ms").replace("_", " "),
            f"{measured:,.1f} ms",
            f"{load.predicted_ms[name]:,.1f} ms",
            f"{100 * load.errors[name]:+.0f} %",
            f"{load.as_shared_ms[name]:,.1f} ms" if name in load.as_shared_ms else "",
            f"{100 * load.errors_as_shared[name]:+.0f} %" if name in load.errors_as_shared else "",
        )
        for name, measured in load.measured_ms.items()
        if name in load.predicted_ms
    ]
