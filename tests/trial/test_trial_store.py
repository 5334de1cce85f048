"""The trial records: counts add up, killed trials are closed, nothing is overwritten."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.trial.records import ENDS, RequestRecord, Status
from advisor.trial.store import TrialStore, default_path


def requests(count: int) -> list[RequestRecord]:
    return [RequestRecord(number, f"row-{number}", number / 10) for number in range(count)]


def ended(record: RequestRecord, status: Status = "completed") -> RequestRecord:
    sent_s = (record.scheduled_s or 0) + 0.001
    return replace(
        record,
        status=status,
        sent_s=sent_s,
        first_token_s=sent_s + 0.050,
        last_token_s=sent_s + 0.110,
        output_tokens=4,
    )


def test_times_of_a_request() -> None:
    """Planned at 0.3 s, sent 1 ms late, first token after 50 ms, 3 more in 60 ms."""
    record = ended(requests(4)[3])

    assert record.send_lag_s == pytest.approx(0.001)
    assert record.ttft_s == pytest.approx(0.050)
    assert record.e2e_s == pytest.approx(0.110)
    assert record.tpot_s == pytest.approx(0.020)
    assert replace(record, output_tokens=1).tpot_s is None
    assert RequestRecord(0, "a", None).send_lag_s is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.lists(st.sampled_from([None, *ENDS]), min_size=1, max_size=30))
def test_counts_add_up_however_requests_end(endings: list[Status | None]) -> None:
    with TrialStore(Path(":memory:")) as store:
        trial = store.begin("task", {})
        planned = requests(len(endings))
        store.plan(trial, "router", planned)
        for record, status in zip(planned, endings, strict=True):
            if status is not None:
                store.record(trial, "router", [ended(record, status)])
        before = store.summary(trial).arms[0].requests
        store.finish(trial, "finished")
        after = store.summary(trial).arms[0].requests

    assert before.total == after.total == len(endings)
    assert before.planned == sum(status is None for status in endings)
    assert (after.planned, after.cancelled) == (0, before.planned + before.cancelled)


def test_a_request_that_has_ended_stays_as_it_is(tmp_path: Path) -> None:
    with TrialStore(tmp_path / "t.sqlite") as store:
        trial = store.begin("task", {})
        (record,) = requests(1)
        store.plan(trial, "router", [record])
        assert store.record(trial, "router", [ended(record)]) == 1
        assert store.record(trial, "router", [ended(record, "failed")]) == 0
        assert store.requests(trial, "router") == (ended(record),)


def test_a_trial_whose_process_is_gone_is_closed_when_the_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with TrialStore(path) as store:
        trial = store.begin("task", {"rate_per_s": 5})
        store.plan(trial, "router", requests(3))
        store.record(trial, "router", [ended(requests(3)[0])])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trial SET process = 4194305")  # above any process id
    connection.close()

    with TrialStore(path) as store:
        summary = store.summary(trial)
        assert summary.state == "interrupted"
        assert (summary.arms[0].requests.completed, summary.arms[0].requests.cancelled) == (1, 2)
        assert store.document(trial, "settings") == {"rate_per_s": 5}
        assert store.reopen_arm(trial, "router") == 2
        assert store.summary(trial).state == "running"


def test_trials_are_listed_newest_first_and_deleted_whole(tmp_path: Path) -> None:
    with TrialStore(tmp_path / "t.sqlite") as store:
        first, second = store.begin("a", {}), store.begin("b", {})
        store.plan(first, "router", requests(2))
        assert {trial.id for trial in store.trials()} == {first, second}
        with pytest.raises(InputError, match="running: stop it first"):
            store.delete(first)
        store.finish(first, "stopped", "by the user")
        assert store.summary(first).note == "by the user"
        store.delete(first)
        assert [trial.id for trial in store.trials()] == [second]
        assert store.requests(first, "router") == ()
        with pytest.raises(InputError, match=f"no trial {first}"):
            store.summary(first)


def test_files_that_are_no_trial_records_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, whatever its name says" * 100)
    with pytest.raises(InputError, match="not a database"):
        TrialStore(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE something (a)")
    connection.close()
    with pytest.raises(InputError, match="not a file of this version"):
        TrialStore(tmp_path / "other.sqlite")
    with pytest.raises(InputError, match="trial records /proc/nowhere"):
        TrialStore(Path("/proc/nowhere/t.sqlite"))


def test_where_the_records_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ADVISOR_TRIALS", str(tmp_path / "mine.sqlite"))
    assert default_path() == tmp_path / "mine.sqlite"
    monkeypatch.delenv("ADVISOR_TRIALS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "advisor" / "trials.sqlite"
