"""Execution match on a real SQLite file, in a real child process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.errors import InputError
from advisor.quality.sql_execution import SqlRunner, same_rows


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "shop & co.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE sales (id INTEGER, city TEXT, amount REAL)")
    connection.executemany(
        "INSERT INTO sales VALUES (?, ?, ?)",
        [(k, f"city {k % 3}", k / 3) for k in range(300)],
    )
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def runner() -> Iterator[SqlRunner]:
    with SqlRunner(time_limit_s=0.3, memory_limit_bytes=128 * 2**20, row_limit=1000) as running:
        yield running


def test_the_same_question_asked_differently(runner: SqlRunner, database: Path) -> None:
    expected = "SELECT city, SUM(amount) FROM sales GROUP BY city"
    other = "SELECT city AS c, AVG(amount) * COUNT(*) AS s FROM sales GROUP BY 1 ORDER BY 2"
    assert runner.matches(database, other, expected) == 1
    assert runner.matches(database, "SELECT city, COUNT(*) FROM sales GROUP BY 1", expected) == 0
    assert runner.matches(database, "SELECT nothing", expected) == 0


def test_order_counts_only_where_it_is_asked_for(runner: SqlRunner, database: Path) -> None:
    rising = "SELECT id FROM sales WHERE id < 5 ORDER BY id"
    falling = "SELECT id FROM sales WHERE id < 5 ORDER BY id DESC"
    unordered = "SELECT id FROM sales WHERE id < 5"
    assert runner.matches(database, falling, rising) == 0
    assert runner.matches(database, falling, unordered) == 1


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("INSERT INTO sales VALUES (1, 'x', 1)", "not authorized"),
        ("DROP TABLE sales", "not authorized"),
        ("ATTACH 'other.db' AS other", "not authorized"),
        ("PRAGMA journal_mode = wal", "not authorized"),
        ("SELECT load_extension('evil')", "not authorized"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT * FROM sales a, sales b", "more than 1,000 rows"),
        (
            "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT SUM(i) FROM r",
            "took longer than 0.3 s",
        ),
        ("SELECT zeroblob(900000000)", "out of memory"),
        ("SELECT replace(hex(zeroblob(60000000)), '0', 'abcdefgh')", "out of memory"),
        ("SELECT nowhere", "no such column"),
    ],
)
def test_a_query_that_must_not_or_cannot_run(
    runner: SqlRunner, database: Path, query: str, error: str
) -> None:
    result = runner.run(database, query)
    assert result.rows == ()
    assert error in result.error
    assert runner.run(database, "SELECT COUNT(*) FROM sales").rows == ((300,),)


def test_a_child_that_dies_is_replaced(runner: SqlRunner, database: Path) -> None:
    assert runner.run(database, "SELECT 1").rows == ((1,),)
    child = runner._child
    assert child is not None
    child.kill()
    child.wait()
    assert runner.run(database, "SELECT 2").rows == ((2,),)


def test_what_cannot_be_judged_is_an_error_and_not_a_zero(
    runner: SqlRunner, database: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="expected query 'SELECT x'"):
        runner.matches(database, "SELECT 1", "SELECT x")
    with pytest.raises(InputError, match="no file"):
        runner.run(tmp_path / "none.db", "SELECT 1")


def test_rows_compare_as_multisets_with_rounded_numbers() -> None:
    assert same_rows([(1, 0.1 + 0.2)], [(1.0, 0.3)], ordered=True)
    assert not same_rows([(1,), (1,)], [(1,)], ordered=False)
    assert not same_rows([("1",)], [(1,)], ordered=False)
    assert same_rows([(None,), ("x",)], [("x",), (None,)], ordered=False)
    assert not same_rows([(10**18,)], [(10**18 + 10**12,)], ordered=False)
