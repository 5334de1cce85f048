"""Execution match on a real DuckDB file, in a real child process; needs the duckdb package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.errors import InputError
from advisor.quality.sql_execution import SqlRunner, engine_of

needs_duckdb = pytest.mark.skipif(
    importlib.util.find_spec("duckdb") is None, reason="needs the duckdb package"
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    duckdb = pytest.importorskip("duckdb")
    path: Path = tmp_path_factory.mktemp("duck") / "shop.duckdb"
    connection = duckdb.connect(str(path))
    connection.execute(
        "CREATE TABLE sales AS SELECT i AS id, 'city ' || (i % 3) AS city, "
        "CAST(i / 3.0 AS DECIMAL(9, 2)) AS amount, DATE '2024-01-01' AS day FROM range(300) t(i)"
    )
    connection.close()
    return path


@pytest.fixture(scope="module")
def runner() -> Iterator[SqlRunner]:
    with SqlRunner(time_limit_s=2.0, memory_limit_bytes=128 * 2**20, row_limit=1000) as running:
        yield running


@needs_duckdb
def test_the_same_question_asked_differently(runner: SqlRunner, database: Path) -> None:
    assert engine_of(database) == "duckdb"
    expected = "SELECT city, SUM(amount) FROM sales GROUP BY city"
    assert runner.matches(database, "SELECT city c, SUM(amount) FROM sales GROUP BY ALL", expected)
    assert not runner.matches(database, "SELECT city, COUNT(*) FROM sales GROUP BY 1", expected)
    result = runner.run(database, "SELECT amount, day FROM sales WHERE id = 3")
    assert result.rows == ((1.0, "2024-01-01"),)


@needs_duckdb
@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("INSERT INTO sales VALUES (1, 'x', 1, NULL)", "not authorized"),
        ("CREATE TEMP TABLE x AS SELECT 1", "not authorized"),
        ("ATTACH 'other.db'", "not authorized"),
        ("COPY sales TO 'out.csv'", "not authorized"),
        ("INSTALL httpfs", "not authorized"),
        ("SET memory_limit = '10GB'", "not authorized"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM sales a, sales b", "more than 1,000 rows"),
        ("SELECT SUM(a.i * b.j) FROM range(1000000) a(i), range(1000000) b(j)", "took longer"),
        ("SELECT list(i) FROM range(900000000) t(i)", "out of memory"),
        ("SELECT nowhere", "not found"),
    ],
)
def test_a_query_that_must_not_or_cannot_run(
    runner: SqlRunner, database: Path, query: str, error: str
) -> None:
    result = runner.run(database, query)
    assert result.rows == ()
    assert error in result.error
    assert runner.run(database, "SELECT COUNT(*) FROM sales").rows == ((300,),)


def test_without_the_package_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.db"
    path.write_bytes(b"\x00" * 8 + b"DUCK" + b"\x00" * 100)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with SqlRunner() as runner, pytest.raises(InputError, match="needs the duckdb package"):
        runner.run(path, "SELECT 1")
