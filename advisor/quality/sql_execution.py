"""Execution match: does a query return what the expected query returns?

Queries run in a child process on a database file opened read-only, with a limit on time (SQLite's
progress handler), on memory (the operating system's) and on rows. DuckDB files, recognised by their
content, run in a child of their own where the `duckdb` package is installed. A child that dies
takes one query with it, not the evaluation.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from advisor.errors import InputError

TIME_LIMIT_S = 5.0
GRACE_S = 1.0
"""Beyond the time limit, until the process itself is ended."""

START_S = 15.0
"""For a new child to start and to load its engine, beside the limit of its first query."""

MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
ROW_LIMIT = 100_000
"""Rows after which a result counts as too large to compare."""

SIGNIFICANT_DIGITS = 9
"""To which numbers must agree."""


@dataclass(frozen=True)
class QueryResult:
    """Rows of a query, or why there are none."""

    rows: tuple[tuple[Any, ...], ...]
    error: str = ""


class SqlRunner:
    """Runs queries on SQLite or DuckDB files in a child process; use it as a context manager."""

    def __init__(
        self,
        *,
        time_limit_s: float = TIME_LIMIT_S,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        row_limit: int = ROW_LIMIT,
    ) -> None:
        self._patience_s = time_limit_s + GRACE_S
        self._limits = (str(time_limit_s), str(memory_limit_bytes), str(row_limit))
        self._child: subprocess.Popen[str] | None = None
        self._engine = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def run(self, database: Path, query: str) -> QueryResult:
        """The rows of a query.

        Raises:
            InputError: there is no such database, or its engine is not installed.
        """
        if not database.is_file():
            raise InputError(f"database: no file {database}")
        before = self._child
        child = self._started(engine_of(database))
        patience_s = self._patience_s + (0.0 if child is before else START_S)
        assert child.stdin is not None and child.stdout is not None
        # SQLite looks at the clock between instructions; one of them can take long by itself.
        watchdog = threading.Timer(patience_s, child.kill)
        watchdog.start()
        try:
            child.stdin.write(json.dumps([str(database.resolve()), query]) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            self._stop()
            return QueryResult((), "the query ended its process: too long, or out of memory")
        rows, error = json.loads(line)
        return QueryResult(tuple(tuple(row) for row in rows), error)

    def matches(self, database: Path, answer: str, expected: str) -> float:
        """1 where both queries return the same rows.

        The order counts only where the expected query states one; column names never do.

        Raises:
            InputError: the expected query itself fails.
        """
        wanted = self.run(database, expected)
        if wanted.error:
            raise InputError(f"expected query '{expected[:80]}': {wanted.error}")
        given = self.run(database, answer)
        if given.error:
            return 0.0
        ordered = _is_ordered(expected, dialect=engine_of(database))
        return float(same_rows(given.rows, wanted.rows, ordered=ordered))

    def _started(self, engine: str) -> subprocess.Popen[str]:
        if self._child is not None and (self._child.poll() is not None or engine != self._engine):
            self._stop()
        if self._child is None:
            self._engine = engine
            self._child = subprocess.Popen(
                [*_command(engine), *self._limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={},
            )
        return self._child

    def _stop(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.communicate()
        self._child = None


def engine_of(database: Path) -> str:
    """`duckdb` or `sqlite`, by the file's first bytes."""
    with database.open("rb") as file:
        return "duckdb" if file.read(12)[8:] == b"DUCK" else "sqlite"


def _command(engine: str) -> list[str]:
    """How to start the child of an engine.

    Raises:
        InputError: the engine is not installed.
    """
    folder = Path(__file__).parent
    if engine == "sqlite":
        return [sys.executable, "-I", "-S", str(folder / "sql_worker.py")]
    found = importlib.util.find_spec("duckdb")
    if found is None or found.origin is None:
        raise InputError("database: a DuckDB file needs the duckdb package: pip install duckdb")
    # Isolated, with the folder of this one package instead of all that the environment names.
    packages = Path(found.origin).parent.parent
    start = (
        f"import runpy, sys; sys.path.insert(0, {str(packages)!r}); "
        f"runpy.run_path({str(folder / 'duckdb_worker.py')!r}, run_name='__main__')"
    )
    return [sys.executable, "-I", "-S", "-c", start]


def same_rows(
    given: Sequence[Sequence[Any]], wanted: Sequence[Sequence[Any]], *, ordered: bool
) -> bool:
    """Whether two results are equal, as sequences or as multisets of rows."""
    first, second = [_rounded(row) for row in given], [_rounded(row) for row in wanted]
    return first == second if ordered else Counter(first) == Counter(second)


def _rounded(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(_rounded_value(value) for value in row)


def _rounded_value(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, int) and abs(value) < 10**SIGNIFICANT_DIGITS:
        return float(value)
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else value


def _is_ordered(query: str, *, dialect: str) -> bool:
    """Whether the outermost query has an ORDER BY."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(query, read=dialect)
    except SqlglotError:
        return False
    return tree.args.get("order") is not None
