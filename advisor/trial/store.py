"""Where trials are kept: one SQLite file, written as things happen.

Write-ahead logging lets screens read while a trial writes, and keeps every record that was
committed when the process, or the machine, is killed. All requests of an arm are written before the
first is sent, so that what never ended is known too: it is closed as cancelled when the file is
opened next. No key is ever written.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, cast

from advisor.errors import InputError
from advisor.trial.records import (
    COLUMNS,
    ArmName,
    ArmSummary,
    Counts,
    RequestRecord,
    TrialState,
    TrialSummary,
)

VERSION = 1
"""Of the tables; a file of another version is refused, not guessed at."""

BUSY_TIMEOUT_S = 10.0

KILLED = "the process that ran it ended before it could say why"

_TABLES = f"""
CREATE TABLE trial (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, note TEXT NOT NULL,
    process INTEGER NOT NULL, created_epoch_s REAL NOT NULL, ended_epoch_s REAL);
CREATE TABLE document (
    trial TEXT NOT NULL REFERENCES trial(id) ON DELETE CASCADE, kind TEXT NOT NULL,
    written_epoch_s REAL NOT NULL, value TEXT NOT NULL, PRIMARY KEY (trial, kind));
CREATE TABLE arm (
    trial TEXT NOT NULL REFERENCES trial(id) ON DELETE CASCADE, name TEXT NOT NULL,
    position INTEGER NOT NULL, began_epoch_s REAL, PRIMARY KEY (trial, name));
CREATE TABLE request (
    trial TEXT NOT NULL REFERENCES trial(id) ON DELETE CASCADE, arm TEXT NOT NULL,
    {", ".join(COLUMNS)}, PRIMARY KEY (trial, arm, number)) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""

_INSERT = (
    f"INSERT INTO request (trial, arm, {', '.join(COLUMNS)}) "
    f"VALUES (?, ?, {', '.join('?' * len(COLUMNS))})"
)
_UPDATE = (
    f"UPDATE request SET {', '.join(f'{name} = ?' for name in COLUMNS)} "
    "WHERE trial = ? AND arm = ? AND number = ? AND status = 'planned'"
)


def default_path() -> Path:
    """`$ADVISOR_TRIALS`, else trials.sqlite in the user's data folder."""
    given = os.environ.get("ADVISOR_TRIALS")
    if given:
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "advisor" / "trials.sqlite"


class TrialStore:
    """Trials in one file; safe to use from several threads and processes.

    Raises:
        InputError: a path that cannot be opened or written, or a file that is no trial store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with _one_line(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None
            )
            try:
                self._open()
            except BaseException:
                self._connection.close()
                raise
        self._close_killed()

    def _open(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        # In WAL mode a lost machine may lose the last commits, a killed process none.
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA foreign_keys = ON")
        run("BEGIN IMMEDIATE")
        try:
            version = run("PRAGMA user_version").fetchone()[0]
            if version == 0 and not run("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES.split(";"):
                    run(statement)
            elif version != VERSION:
                raise InputError(f"trial records {self.path}: not a file of this version")
        finally:
            run("COMMIT")

    def __enter__(self) -> TrialStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything written is in it."""
        self._connection.close()

    # -- writing ----------------------------------------------------------------------------------

    def begin(self, name: str, settings: dict[str, Any]) -> str:
        """A new running trial; returns its id. `settings` must hold no key."""
        trial = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        with self._writing() as run:
            run(
                "INSERT INTO trial VALUES (?, ?, 'running', '', ?, ?, NULL)",
                (trial, name, os.getpid(), time.time()),
            )
        self.put_document(trial, "settings", settings)
        return trial

    def put_document(self, trial: str, kind: str, value: dict[str, Any]) -> None:
        """Keep a JSON document of a trial: settings, projection, report."""
        with self._writing() as run:
            run(
                "INSERT OR REPLACE INTO document VALUES (?, ?, ?, ?)",
                (trial, kind, time.time(), json.dumps(value)),
            )

    def plan(self, trial: str, arm: ArmName, requests: Iterable[RequestRecord]) -> None:
        """Write down every request of an arm before the first is sent."""
        with self._writing() as run:
            position = run("SELECT count(*) FROM arm WHERE trial = ?", (trial,)).fetchone()[0]
            run("INSERT INTO arm VALUES (?, ?, ?, NULL)", (trial, arm, position))
            self._connection.executemany(
                _INSERT, ((trial, arm, *astuple(request)) for request in requests)
            )

    def begin_arm(self, trial: str, arm: ArmName, epoch_s: float) -> None:
        """Say when second 0 of an arm's clock was."""
        with self._writing() as run:
            run(
                "UPDATE arm SET began_epoch_s = ? WHERE trial = ? AND name = ?",
                (epoch_s, trial, arm),
            )

    def record(self, trial: str, arm: ArmName, requests: Sequence[RequestRecord]) -> int:
        """Write how requests ended; one that has ended already stays as it is.

        Returns how many were written.
        """
        with self._writing():
            return self._connection.executemany(
                _UPDATE,
                ((*astuple(one), trial, arm, one.number) for one in requests),
            ).rowcount

    def close_arm(self, trial: str, arm: ArmName, why: str) -> int:
        """Every request of an arm that has not ended was cancelled; returns how many."""
        with self._writing() as run:
            changed: int = run(
                "UPDATE request SET status = 'cancelled', error = ? "
                "WHERE trial = ? AND arm = ? AND status = 'planned'",
                (why, trial, arm),
            ).rowcount
        return changed

    def finish(self, trial: str, state: TrialState, note: str = "") -> None:
        """End a trial; what was still planned is cancelled."""
        for arm in self.arms(trial):
            self.close_arm(trial, arm.name, note or "the trial ended")
        with self._writing() as run:
            run(
                "UPDATE trial SET state = ?, note = ?, ended_epoch_s = ? WHERE id = ?",
                (state, note, time.time(), trial),
            )

    def delete(self, trial: str) -> None:
        """Forget a trial.

        Raises:
            InputError: no such trial, or it is running.
        """
        if self.summary(trial).state == "running":
            raise InputError(f"trial {trial} is running: stop it first")
        with self._writing() as run:
            for table in ("request", "arm", "document"):
                run(f"DELETE FROM {table} WHERE trial = ?", (trial,))
            run("DELETE FROM trial WHERE id = ?", (trial,))

    def reopen_arm(self, trial: str, arm: ArmName) -> int:
        """Plan again what was cancelled before it was sent, in a trial that is resumed."""
        with self._writing() as run:
            run(
                "UPDATE trial SET state = 'running', process = ?, ended_epoch_s = NULL "
                "WHERE id = ?",
                (os.getpid(), trial),
            )
            changed: int = run(
                "UPDATE request SET status = 'planned', error = NULL "
                "WHERE trial = ? AND arm = ? AND status = 'cancelled' AND sent_s IS NULL",
                (trial, arm),
            ).rowcount
        return changed

    # -- reading ----------------------------------------------------------------------------------

    def trials(self) -> tuple[TrialSummary, ...]:
        """Every trial, the newest first."""
        rows = self._rows("SELECT id FROM trial ORDER BY created_epoch_s DESC, id DESC")
        return tuple(self.summary(trial) for (trial,) in rows)

    def summary(self, trial: str) -> TrialSummary:
        """One trial.

        Raises:
            InputError: no such trial.
        """
        rows = self._rows(
            "SELECT id, name, state, note, created_epoch_s, ended_epoch_s FROM trial WHERE id = ?",
            (trial,),
        )
        if not rows:
            raise InputError(f"no trial {trial}: `advisor trials list` shows those there are")
        found = rows[0]
        return TrialSummary(
            id=found[0],
            name=found[1],
            state=found[2],
            note=found[3],
            created_epoch_s=found[4],
            ended_epoch_s=found[5],
            arms=self.arms(trial),
        )

    def arms(self, trial: str) -> tuple[ArmSummary, ...]:
        """The arms of a trial in their order, with how their requests ended."""
        counts: dict[str, dict[str, int]] = {}
        for arm, status, number in self._rows(
            "SELECT arm, status, count(*) FROM request WHERE trial = ? GROUP BY arm, status",
            (trial,),
        ):
            counts.setdefault(arm, {})[status] = number
        return tuple(
            ArmSummary(
                name=name, requests=Counts.of(counts.get(name, {})), began_epoch_s=began_epoch_s
            )
            for name, began_epoch_s in self._rows(
                "SELECT name, began_epoch_s FROM arm WHERE trial = ? ORDER BY position", (trial,)
            )
        )

    def requests(self, trial: str, arm: ArmName) -> tuple[RequestRecord, ...]:
        """Every request of an arm, in the order of the plan."""
        rows = self._rows(
            f"SELECT {', '.join(COLUMNS)} FROM request WHERE trial = ? AND arm = ? ORDER BY number",
            (trial, arm),
        )
        return tuple(RequestRecord(*row) for row in rows)

    def document(self, trial: str, kind: str) -> dict[str, Any] | None:
        """A JSON document of a trial; None: it has none of that kind."""
        rows = self._rows("SELECT value FROM document WHERE trial = ? AND kind = ?", (trial, kind))
        try:
            return cast(dict[str, Any], json.loads(rows[0][0])) if rows else None
        except ValueError:
            raise InputError(
                f"trial records {self.path}: the {kind} of {trial} is damaged"
            ) from None

    def written_epoch_s(self, trial: str, kind: str) -> float | None:
        """When a document was written; None: it never was."""
        rows = self._rows(
            "SELECT written_epoch_s FROM document WHERE trial = ? AND kind = ?", (trial, kind)
        )
        return rows[0][0] if rows else None

    # -- the file itself --------------------------------------------------------------------------

    def _close_killed(self) -> None:
        """Trials marked as running whose process is gone were killed: close them."""
        for trial, process in self._rows("SELECT id, process FROM trial WHERE state = 'running'"):
            if not _is_alive(process):
                self.finish(trial, "interrupted", KILLED)

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _one_line(self.path):
            return self._connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Any]:
        """One transaction."""
        with self._lock, _one_line(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._connection.execute("ROLLBACK")
                raise


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """What SQLite or the system refuses, as an error the user can act on."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise InputError(f"trial records {path}: {' '.join(str(error).split())}") from None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
