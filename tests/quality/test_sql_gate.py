"""Queries that may run, and those that may not."""

from __future__ import annotations

import pytest

from advisor.errors import InputError
from advisor.quality.sql_gate import SqlGate, tables_of_ddl

DDL = """
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE orders (id INTEGER, user_id INTEGER REFERENCES users(id), total REAL);
"""
GATE = SqlGate.of_ddl(DDL, dialect="sqlite")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT name FROM users",
        "select Name from USERS",
        "SELECT u.name, SUM(o.total) AS t FROM users u JOIN orders o ON user_id = u.id GROUP BY 1",
        "WITH big AS (SELECT user_id FROM orders WHERE total > 9) SELECT COUNT(*) FROM big",
        "SELECT (SELECT MAX(total) FROM orders o WHERE o.user_id = u.id) FROM users u",
        "SELECT t FROM (SELECT total AS t FROM orders) UNION SELECT id FROM users",
    ],
)
def test_queries_that_may_run(query: str) -> None:
    assert GATE.problems(query) == ()


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT FROM WHERE", "does not parse"),
        ("SELECT nme FROM users", "nme"),
        ("SELECT x.id FROM users", "'x'"),
        ("SELECT zz FROM (SELECT total AS t FROM orders)", "zz"),
        ("SELECT id FROM users u, orders o", "id"),
        ("SELECT * FROM accounts", "unknown table accounts"),
        ("SELECT 1; SELECT 2", "one query was expected, not 2"),
        ("", "one query was expected, not 0"),
        ("DROP TABLE users", "DROP is not a query"),
        ("INSERT INTO users VALUES (1, 'x')", "INSERT is not a query"),
        ("SELECT * INTO copies FROM users", "must only read"),
        ("WITH d AS (DELETE FROM users RETURNING id) SELECT * FROM d", "must only read"),
        ("PRAGMA table_info(users)", "is not a query"),
        ("ATTACH DATABASE 'x' AS y", "is not a query"),
        ("(" * 5000, "nested too deep"),
        ("SELECT 1 -- " + "x" * 60_000, "characters"),
    ],
)
def test_queries_that_may_not(query: str, problem: str) -> None:
    problems = GATE.problems(query)
    assert problems and problem in problems[0]
    assert "\x1b" not in problems[0] and "\n" not in problems[0]


def test_a_schema_from_its_statements() -> None:
    assert tables_of_ddl(DDL) == {"users": ["id", "name"], "orders": ["id", "user_id", "total"]}
    with pytest.raises(InputError, match="CREATE TABLE statements were expected"):
        tables_of_ddl("SELECT 1")
    with pytest.raises(InputError, match="does not parse"):
        tables_of_ddl("CREATE TABLE (")
