"""The child process of `sql_execution`: reads [database, query] lines, writes [rows, error] lines.

It runs by path with nothing but the standard library, so that it starts in some 20 ms and holds
nothing worth protecting.
"""

import json
import resource
import sqlite3
import sys
import time
from urllib.parse import quote

STEPS_BETWEEN_CHECKS = 10_000
"""Virtual-machine instructions between two looks at the clock: well under a millisecond."""

READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
"""All that a query may do; ATTACH, PRAGMA and every write are something else."""


def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite asks this before it compiles anything."""
    allowed = action in READING and second != "load_extension"
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def run(
    database: str, query: str, time_limit_s: float, row_limit: int
) -> tuple[list[tuple[object, ...]], str]:
    """Rows of a query, or what stopped it."""
    connection = sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True)
    deadline = time.monotonic() + time_limit_s
    connection.set_authorizer(authorize)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_CHECKS)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        rows = connection.execute(query).fetchmany(row_limit + 1)
    except sqlite3.OperationalError as error:
        if str(error) == "interrupted":
            return [], f"took longer than {time_limit_s:g} s"
        return [], str(error)
    except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError) as error:
        return [], str(error)
    except MemoryError:
        return [], "out of memory"
    finally:
        connection.close()
    if len(rows) > row_limit:
        return [], f"more than {row_limit:,} rows"
    return rows, ""


def main() -> None:
    """Serve until the input ends."""
    time_limit_s, memory_bytes, row_limit = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        database, query = json.loads(line)
        try:
            reply = json.dumps(run(database, query, time_limit_s, row_limit), default=bytes.hex)
        except MemoryError:
            reply = json.dumps(([], "out of memory"))
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
