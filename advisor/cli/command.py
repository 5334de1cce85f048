"""The command's frame: verbs, exit codes, and errors as one line.

Exit codes: 0 done; 1 a stated requirement is not met or nothing is feasible; 2 bad input;
130 interrupted.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from advisor.cli import (
    app,
    calibrate,
    certify,
    evaluate,
    predict,
    recommend,
    route,
    simulate,
    trial,
    trials,
)
from advisor.errors import DoesNotFitError, InputError

VERBS = (recommend, simulate, predict, calibrate, certify, evaluate, route, trial, trials, app)

REQUIREMENT_MISSED = 1
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

DESCRIPTION = """\
Small language model, large one, or a hybrid of both? Describe a task, and Advisor says
what to run on what, with projected quality, p95 latency and cost, each with an interval."""

EPILOG = """\
exit codes: 0 done, 1 a stated requirement is not met or nothing is feasible,
2 bad input. With --json, stdout holds one JSON document and nothing else."""


class _Layout(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions, and verbs beside what they do."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class _Parser(argparse.ArgumentParser):
    """Takes options as they are spelt, and reports bad usage in one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = _Parser(
        prog="advisor",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=_Layout,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for verb in VERBS:
        verb.add_to(verbs)
    return parser


class _Version(argparse.Action):
    """Reads the installed version only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"advisor {version('advisor')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # The matrices here are small: threads of the linear-algebra library would wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A command is short: looking for cycles as often as a server would costs a tenth of its time.
    gc.set_threshold(200_000, 20, 20)
    try:
        arguments = build_parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(error, BAD_INPUT)
    except DoesNotFitError as error:
        return _fail(error, REQUIREMENT_MISSED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whatever is still buffered would raise again when the interpreter closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _fail(error: Exception, code: int) -> int:
    print("advisor: " + " ".join(str(error).split()), file=sys.stderr)
    return code
