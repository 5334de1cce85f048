"""How results leave: one JSON document, or text that any terminal can show."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from advisor.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

WIDTH = 80

_PLAIN = str.maketrans(
    {"×": "x", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "→": "->", "…": "...", "·": "-", "±": "+-"}
)
"""What stands for signs that a terminal's encoding lacks."""


def json_text(result: BaseModel, *, ascii_only: bool = False) -> str:
    """One JSON document; numbers that JSON lacks (infinite, undefined) are null."""
    document = json.loads(result.model_dump_json(by_alias=True))
    return json.dumps(document, indent=2, ensure_ascii=ascii_only)


def print_json(result: BaseModel) -> None:
    """One JSON document on stdout."""
    print(json_text(result, ascii_only=not _speaks_unicode()))


def print_text(text: str) -> None:
    """Text, in the signs that stdout can show."""
    if not _speaks_unicode():
        encoding = sys.stdout.encoding or "ascii"
        text = text.translate(_PLAIN).encode(encoding, errors="replace").decode(encoding)
    print(text)


def say(message: str) -> None:
    """Progress and notices: never on stdout."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def writing(path: Path, *, option: str) -> Iterator[TextIO]:
    """A text file that is there whole, or as it was before.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        try:
            with partial.open("w", encoding="utf-8", newline="") as file:
                yield file
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written: {error.strerror}") from None


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns two spaces apart: the first `left` flush left, the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def paragraph(text: str, *, indent: str = "") -> str:
    """Text in lines of at most 80 columns; `indent` before all but the first."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")
