"""`advisor trial` and `advisor trials` with what a newcomer gets wrong: one line and exit 2."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from trial_pair import write_data

from advisor.cli import main
from advisor.trial.store import TrialStore

NOBODY = "http://127.0.0.1:9/v1"
PAIR = ("--slm", NOBODY, "--slm-model", "a", "--llm", NOBODY, "--llm-model", "b")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with task.yaml, rows.jsonl and some wrong files."""
    write_data(tmp_path, 4)
    (tmp_path / "columns.csv").write_text("text,label\na,b\n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "noise.sqlite").write_bytes(bytes(range(256)) * 16)
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE a (b)")
    connection.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVISOR_TRIALS", str(tmp_path / "trials.sqlite"))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("trial",), "TASK.yaml"),
        (("trial", "task.yaml"), "a trial needs the sandbox, or a small and a large endpoint"),
        (("trial", "nothing.yaml", "--sandbox"), "task profile: no file nothing.yaml"),
        (("trial", "task.yaml", *PAIR), "needs rows to send: --data LOG.jsonl"),
        (("trial", "task.yaml", *PAIR, "--data", "no.jsonl"), "trial data: no file no.jsonl"),
        (("trial", "task.yaml", *PAIR, "--data", "columns.csv"), "a column 'input' is missing"),
        (("trial", "task.yaml", *PAIR, "--data", "empty.jsonl"), "empty.jsonl is empty"),
        (("trial", "task.yaml", *PAIR, "--data", "rows.jsonl"), "cannot be reached"),
        (("trial", "task.yaml", *PAIR[:2]), "--slm-model is missing"),
        (("trial", "task.yaml", "--slm", "x", "--slm-model", "a"), "--slm: a URL such as"),
        (("trial", "task.yaml", "--sandbox", "--rate", "-3"), "rate = -3"),
        (("trial", "task.yaml", "--sandbox", "--rate", "nan"), "rate = nan"),
        (("trial", "task.yaml", "--sandbox", "--seed", "-1"), "seed = -1"),
        (("trial", "task.yaml", "--sandbox", "--otlp", "abc"), "--otlp abc: [HOST:]PORT"),
        (("trial", "task.yaml", "--sandbox", "--report", "no/x.html"), "--report no/x.html: no"),
        (("trial", "task.yaml", "--sandbox", "--records", "."), "trial records .: "),
        (("trial", "task.yaml", "--engine", "vllm"), "--engine is for --sandbox"),
        (("trials", "show", "nothing"), "no trial nothing: `advisor trials list`"),
        (("trials", "delete", "nothing"), "no trial nothing"),
        (("trials", "resume", "nothing"), "no trial nothing"),
        (("trials", "export", "nothing", "out.csv"), "no trial nothing"),
        (("trials", "list", "--records", "typo.sqlite"), "trial records: no file typo.sqlite"),
        (("trials", "list", "--records", "noise.sqlite"), "noise.sqlite: file is not a database"),
        (("trials", "list", "--records", "other.sqlite"), "not a file of this version"),
        (("trials", "import", "task.yaml", "no", "--data", "rows.jsonl"), "no: no plan.json"),
        (("trials", "plan", "task.yaml", "out", "--url", "x", "--data", "rows.jsonl",
          "--rate", "5", "--requests", "5"), "--url: a URL such as"),
        (("trials", "plan", "task.yaml", "out", "--url", NOBODY, "--data", "rows.jsonl",
          "--rate", "-5", "--requests", "5"), "rate = -5"),
    ],
)  # fmt: skip
def test_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], line: str
) -> None:
    before = {file.name for file in folder.iterdir()}
    try:
        code = main(list(words))
    except SystemExit as end:  # argparse's own
        code = int(end.code or 0)

    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    last = captured.err.strip().splitlines()[-1]
    assert line in last
    assert "Traceback" not in captured.err
    left = {file.name for file in folder.iterdir()} - before
    assert all(name.startswith("trials.sqlite") for name in left), left


def test_a_damaged_document_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that was half written, as by a disk that failed."""
    with TrialStore(folder / "trials.sqlite") as store:
        trial = store.begin("colours", {})
        store.put_document(trial, "report", {"trial": trial})
        store.finish(trial, "finished")
        store._connection.execute(
            "UPDATE document SET value = ? WHERE kind = 'report'", ('{"trial": "2',)
        )

    assert main(["trials", "show", trial]) == 2
    assert f"the report of {trial} is damaged" in capsys.readouterr().err
    with TrialStore(folder / "trials.sqlite") as store:
        store.put_document(trial, "report", {"trial": trial})
    assert main(["trials", "show", trial]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    assert json.dumps(trial)[1:-1] in error
