"""SQL as a gate: one query that parses, reads only, and refers only to what exists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advisor.errors import InputError

MAX_SQL_CHARACTERS = 50_000


class SqlGate:
    """Checks a query without running it.

    Args:
        tables: columns by table; None where the schema is not known, and then names go unchecked.
        dialect: sqlglot's name (sqlite, duckdb, postgres, snowflake …); empty for its superset.
    """

    def __init__(self, tables: Mapping[str, Sequence[str]] | None, *, dialect: str = "") -> None:
        self._dialect = dialect
        self._tables = (
            None
            if tables is None
            else {name.lower(): [c.lower() for c in columns] for name, columns in tables.items()}
        )

    @classmethod
    def of_ddl(cls, ddl: str, *, dialect: str = "") -> SqlGate:
        """The gate for a schema given as CREATE TABLE statements.

        Raises:
            InputError: statements that do not parse, or no CREATE TABLE among them.
        """
        return cls(tables_of_ddl(ddl, dialect=dialect), dialect=dialect)

    def problems(self, query: str) -> tuple[str, ...]:
        """What is wrong with a query; empty where it may run."""
        import sqlglot
        from sqlglot.errors import SqlglotError

        if len(query) > MAX_SQL_CHARACTERS:
            return (f"more than {MAX_SQL_CHARACTERS:,} characters",)
        try:
            statements = [s for s in sqlglot.parse(query, read=self._dialect or None) if s]
        except SqlglotError as error:
            return (f"does not parse: {_one_line(error)}",)
        except RecursionError:
            return ("nested too deep",)
        if len(statements) != 1:
            return (f"one query was expected, not {len(statements)} statements",)
        return tuple(self._statement_problems(statements[0]))

    def _statement_problems(self, statement: Any) -> Iterator[str]:
        from sqlglot import exp

        if not isinstance(statement, exp.Query):
            yield f"{statement.key.upper()} is not a query"
            return
        writes = statement.find(
            exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Into,
            exp.Command, exp.Lock,
        )  # fmt: skip
        if writes is not None:
            yield f"{writes.key.upper()} inside a query: it must only read"
            return
        if self._tables is not None:
            yield from self._unknown_names(statement)

    def _unknown_names(self, statement: Any) -> Iterator[str]:
        from sqlglot import exp
        from sqlglot.errors import SqlglotError
        from sqlglot.optimizer.qualify import qualify
        from sqlglot.optimizer.scope import traverse_scope

        assert self._tables is not None
        try:
            sources = [
                source
                for scope in traverse_scope(statement)
                for source in scope.sources.values()
                if isinstance(source, exp.Table)
            ]
            unknown = sorted({s.name for s in sources if s.name.lower() not in self._tables})
            if unknown:
                yield f"unknown table {', '.join(unknown)}"
                return
            qualify(
                statement.copy(),
                schema={t: dict.fromkeys(c, "unknown") for t, c in self._tables.items()},
                dialect=self._dialect or None,
                validate_qualify_columns=True,
                identify=False,
            )
        except SqlglotError as error:
            yield _one_line(error)
        except RecursionError:
            yield "nested too deep"


def tables_of_ddl(ddl: str, *, dialect: str = "") -> dict[str, list[str]]:
    """Columns by table of CREATE TABLE statements.

    Raises:
        InputError: statements that do not parse, or no CREATE TABLE among them.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        statements = sqlglot.parse(ddl, read=dialect or None)
    except SqlglotError as error:
        raise InputError(f"database schema: does not parse: {_one_line(error)}") from None
    tables = {
        created.this.find(exp.Table).name: [c.name for c in created.find_all(exp.ColumnDef)]
        for created in statements
        if isinstance(created, exp.Create) and created.kind == "TABLE"
    }
    if not tables:
        raise InputError("database schema: CREATE TABLE statements were expected")
    return tables


def _one_line(error: Exception) -> str:
    """The description alone: sqlglot's message repeats the query with terminal colours."""
    details: list[dict[str, Any]] = getattr(error, "errors", [])
    description = details[0].get("description") if details else None
    return " ".join(str(description or error).split())[:200]
