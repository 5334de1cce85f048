"""The load on other tools: Locust writes the records that the sender writes, judged alike."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from trial_pair import colour_rows, colour_task, exported_load

from advisor.errors import InputError
from advisor.trial.importing import import_load
from advisor.trial.load.load_scripts import LOCUSTFILE, read_records
from advisor.trial.load.plan import LoadPlan
from advisor.trial.store import TrialStore


def test_the_export_is_a_plan_and_two_scripts_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVISOR_LLM_API_KEY", "sk-of-nobody")

    out = exported_load(tmp_path, "http://127.0.0.1:1/v1", 10)

    assert sorted(file.name for file in out.iterdir()) == ["k6.js", "locustfile.py", "plan.json"]
    plan = LoadPlan.read(out / "plan.json")
    assert [one.row_id for one in plan.requests] == [f"row-{n}" for n in range(10)]
    assert plan.api_key_env == "ADVISOR_LLM_API_KEY"
    ast.parse(LOCUSTFILE)
    for file in out.iterdir():
        assert "sk-of-nobody" not in file.read_text()


def test_records_of_another_tool_are_kept_and_judged(tmp_path: Path) -> None:
    """Eight of ten answered, one failed, one without a record: cancelled. One answer is wrong."""
    out = exported_load(tmp_path, "http://127.0.0.1:1/v1", 10)
    rows = colour_rows(10)
    lines = [{"began_epoch_s": 1000.0}]
    for number, row in enumerate(rows[:9]):
        sent_s = number / 10
        ended = {"number": number, "sent_s": sent_s, "end_s": sent_s + 0.1}
        if number == 8:
            lines.append({**ended, "status": "failed", "error": "HTTP 500"})
            continue
        answer = row.expected if number else "blue" if row.expected != "blue" else "red"
        times = {"first_token_s": sent_s + 0.1, "last_token_s": sent_s + 0.1}
        route = {"route": "slm", "reason": "accepted", "confidence": 0.9}
        lines.append({**ended, **times, **route, "status": "completed", "answer": answer})
    (out / "records-0.jsonl").write_text("\n".join(json.dumps(line) for line in lines))

    with TrialStore(tmp_path / "t.sqlite") as store:
        report = import_load(store, colour_task(), rows, out)
        (summary,) = store.trials()

    router = report.measurements["router"]
    assert (router.requests.completed, router.requests.failed) == (8, 1)
    assert router.requests.cancelled == 1
    assert router.quality is not None
    assert router.quality.value == pytest.approx(7 / 9)
    assert summary.state == "finished"
    (out / "records-0.jsonl").write_text('{"number": 99, "status": "completed"}')
    with (
        TrialStore(tmp_path / "t.sqlite") as store,
        pytest.raises(InputError, match="request 99, which the plan does not have"),
    ):
        import_load(store, colour_task(), rows, out)


def test_workers_times_are_put_on_one_clock(tmp_path: Path) -> None:
    """The second worker began half a second later: what it sent at its 0.1 s was sent at 0.6 s."""
    first, second = tmp_path / "records-0.jsonl", tmp_path / "records-1.jsonl"
    first.write_text('{"began_epoch_s": 1000.0}\n{"number": 0, "sent_s": 0.1}\n')
    second.write_text('{"began_epoch_s": 1000.5}\n{"number": 1, "sent_s": 0.1, "end_s": 0.3}\n')

    found, began = read_records([first, second])

    assert began == 1000.0
    assert found == [
        {"number": 0, "sent_s": 0.1},
        {"number": 1, "sent_s": pytest.approx(0.6), "end_s": pytest.approx(0.8)},
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense\n", "no records of a load"),
        ("[1]\n", "an object a line was expected"),
        ('{"status": "completed"}\n', "a line without a request's number"),
        ('{"number": 0}\n{"number": 0}\n', "a second record of request 0"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "records-0.jsonl"
    file.write_text(text)

    with pytest.raises(InputError, match=words):
        read_records([file])


def test_a_line_that_a_killed_tool_left_half_written_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "records-0.jsonl"
    file.write_text('{"began_epoch_s": 1.0}\n{"number": 0, "status": "failed"}\n{"number": 1, "st')

    assert read_records([file]) == ([{"number": 0, "status": "failed"}], 1.0)
