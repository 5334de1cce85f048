"""Paired rows: the small model's confidence, and whether each model was right."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError

FloatArray = NDArray[np.float64]

REQUIRED = ("confidence", "slm_correct", "llm_correct")
OPTIONAL = ("gate_passed",)

MAX_PAIRS = 20_000_000
BLOCK_ROWS = 100_000

_WORDS = {"true": "1", "false": "0", "yes": "1", "no": "0", "": "nan", "none": "nan", "null": "nan"}
_MISSING_ALLOWED = frozenset({"confidence"})


@dataclass(frozen=True)
class Pairs:
    """Columns of n rows on which both models are labelled."""

    confidence: FloatArray
    """NaN where there is none."""
    slm_correct: FloatArray
    llm_correct: FloatArray
    gate_passed: FloatArray


def read_pairs(path: Path) -> Pairs:
    """Read a CSV with columns confidence, slm_correct, llm_correct and optionally gate_passed.

    Right and wrong may be written 1/0, true/false or yes/no; an empty confidence is a missing one.

    Raises:
        InputError: one line naming the file, the row and the column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _columns(file, path.name)
    except FileNotFoundError:
        raise InputError(f"pairs: no file {path}") from None
    except IsADirectoryError:
        raise InputError(f"pairs: {path} is a folder; a CSV file was expected") from None
    except UnicodeDecodeError:
        raise InputError(f"pairs: {path} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"pairs: cannot read {path}: {error.strerror}") from None
    except csv.Error as error:
        raise InputError(f"pairs {path.name}: not CSV: {error}") from None


def _columns(file: TextIO, name: str) -> Pairs:
    reader = csv.reader(file)
    header = [title.strip().lower() for title in next(reader, [])]
    if not header:
        raise InputError(f"pairs: {name} is empty")
    for title in REQUIRED:
        if title not in header:
            raise InputError(
                f"pairs {name}: column '{title}' is missing; expected: "
                f"{', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}"
            )
    wanted = [title for title in (*REQUIRED, *OPTIONAL) if title in header]
    blocks = list(_blocks(reader, [header.index(title) for title in wanted], wanted, name))
    if not blocks:
        raise InputError(f"pairs {name}: a header but no rows")
    columns = dict(zip(wanted, np.concatenate(blocks, axis=1), strict=True))
    gate = columns.get("gate_passed")
    return Pairs(
        confidence=columns["confidence"],
        slm_correct=columns["slm_correct"],
        llm_correct=columns["llm_correct"],
        gate_passed=np.ones_like(columns["confidence"]) if gate is None else gate,
    )


def _blocks(
    reader: Iterator[list[str]], indices: Sequence[int], titles: Sequence[str], name: str
) -> Iterator[FloatArray]:
    """Blocks of (columns, rows): converting many cells at once is ten times faster than one."""
    first = 2
    while lines := list(islice(reader, BLOCK_ROWS)):
        if first > MAX_PAIRS:
            raise InputError(f"pairs {name}: more than {MAX_PAIRS:,} rows")
        try:
            cells = [[line[index] for line in lines if line] for index in indices]
        except IndexError:
            short = next(k for k, line in enumerate(lines) if line and len(line) <= max(indices))
            raise InputError(f"pairs {name} line {first + short}: too few columns") from None
        yield np.stack(
            [_numbers(c, t, f"pairs {name}", first) for c, t in zip(cells, titles, strict=True)]
        )
        first += len(lines)


def _numbers(cells: list[str], title: str, where: str, first: int) -> FloatArray:
    try:
        values = np.array(cells, dtype=float)
    except ValueError:
        values = np.array([_number(c, title, where, first + k) for k, c in enumerate(cells)])
    if title not in _MISSING_ALLOWED and np.isnan(values).any():
        row = first + int(np.flatnonzero(np.isnan(values))[0])
        raise InputError(f"{where} line {row}: {title} is missing")
    return values


def _number(cell: str, title: str, where: str, line: int) -> float:
    text = cell.strip().lower()
    try:
        return float(_WORDS.get(text, text))
    except ValueError:
        raise InputError(f"{where} line {line}: {title} = '{cell[:40]}' is not a number") from None
