"""The child process of `sql_execution` for DuckDB files, as `sql_worker` is for SQLite ones.

The database is opened read-only, its settings are locked, and nothing outside it can be reached:
no files, no extensions. Only SELECT runs. DuckDB keeps its own memory limit; the operating system's
lies above it, for what the limit does not count.
"""

# The package is optional, and so are its types.
# mypy: disable-error-code="import-not-found"

import json
import resource
import sys
import threading
from pathlib import Path

import duckdb

ADDRESS_SPACE_FACTOR = 16
"""Address space over the memory limit: DuckDB maps far more than it uses, and dies with a
segmentation fault where it may not (at 4 times it does)."""


def connected(database: str, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    """A connection that can read this one file and nothing else."""
    return duckdb.connect(
        database,
        read_only=True,
        config={
            "access_mode": "READ_ONLY",
            "enable_external_access": "false",
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "threads": "1",
            "memory_limit": f"{memory_bytes}B",
            "max_temp_directory_size": "0B",
            "lock_configuration": "true",
        },
    )


def run(
    database: str, query: str, time_limit_s: float, memory_bytes: int, row_limit: int
) -> tuple[list[tuple[object, ...]], str]:
    """Rows of a query, or what stopped it."""
    connection = connected(database, memory_bytes)
    stop = threading.Timer(time_limit_s, connection.interrupt)
    try:
        statements = duckdb.extract_statements(query)
        if len(statements) != 1:
            return [], "You can only execute one statement at a time."
        if statements[0].type != duckdb.StatementType.SELECT:
            return [], "not authorized"
        stop.start()
        rows = connection.execute(statements[0]).fetchmany(row_limit + 1)
    except duckdb.InterruptException:
        return [], f"took longer than {time_limit_s:g} s"
    except (duckdb.OutOfMemoryException, MemoryError):
        return [], "out of memory"
    except (duckdb.Error, ValueError, RuntimeError) as error:
        return [], str(error).splitlines()[0] if str(error) else type(error).__name__
    finally:
        stop.cancel()
        connection.close()
    if len(rows) > row_limit:
        return [], f"more than {row_limit:,} rows"
    return rows, ""


def plain(value: object) -> object:
    """What JSON has no type for: decimals as numbers, times and the like as text."""
    if isinstance(value, bytes):
        return value.hex()
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)


def main() -> None:
    """Serve until the input ends."""
    time_limit_s, memory_bytes, row_limit = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = mapped + ADDRESS_SPACE_FACTOR * memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        database, query = json.loads(line)
        try:
            found = run(database, query, time_limit_s, memory_bytes, row_limit)
            reply = json.dumps(found, default=plain)
        except MemoryError:
            reply = json.dumps(([], "out of memory"))
        except duckdb.Error as error:
            reply = json.dumps(([], f"cannot open: {str(error).splitlines()[0]}"))
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
