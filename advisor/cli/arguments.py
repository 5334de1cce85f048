"""Arguments that several verbs share: the task profile, changes to it, and --json."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.errors import InputError

if TYPE_CHECKING:
    from advisor.task import TaskProfile

Verbs = Any
"""What `add_subparsers` returns; argparse keeps its type private."""


def add_task(parser: argparse.ArgumentParser) -> None:
    """The task profile and --set."""
    parser.add_argument(
        "task",
        metavar="TASK.yaml",
        help="a task profile: a file, or the name of a shipped one such as intent-classification",
    )
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one value of the profile, e.g. latency.e2e_p95_ms=120; may be repeated",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def read_task(arguments: argparse.Namespace) -> TaskProfile:
    """The task profile that the arguments name, with their changes.

    Raises:
        InputError: no such file or shipped profile, or a profile that is wrong.
    """
    from advisor.task import TaskProfile

    return TaskProfile.load(profile_path(arguments.task), overrides=changes(arguments.changes))


def profile_path(name: str) -> Path:
    """The file of a profile: the one of that path, or the shipped one of that name.

    Raises:
        InputError: neither exists.
    """
    from advisor.catalog.locations import PROFILES

    path = Path(name)
    if path.exists():
        return path
    shipped = {file.stem: file for file in sorted((PROFILES / "tasks").glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    raise InputError(f"task profile: no file {name}; shipped profiles: {', '.join(shipped)}")


def changes(settings: list[str]) -> dict[str, Any]:
    """`key=value` arguments as values by dotted key; values are read as YAML.

    Raises:
        InputError: no key, or a value that is not YAML.
    """
    from advisor.documents import parse_yaml

    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise InputError(f"--set {setting}: key=value is expected, with a dotted key")
        found[key] = parse_yaml(value, what=f"--set {key}")
    return found


def engine_arguments(text: str) -> dict[str, Any]:
    """`max_num_seqs=64,…` as vLLM settings by name; values are read as YAML.

    Raises:
        InputError: not of that form.
    """
    from advisor.documents import parse_yaml

    found = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--engine-args {text}: name=value,name=value is expected")
        found[name.strip()] = parse_yaml(value, what=f"--engine-args {name.strip()}")
    return found
