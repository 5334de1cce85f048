"""`advisor recommend` from a profile to text, JSON and a file that other verbs read."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from advisor.catalog.locations import PROFILES
from advisor.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one recommendation of the example profile was written."""
    folder = tmp_path_factory.mktemp("answers") / "intent"
    assert main(["recommend", "intent-classification", "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def answer(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "recommendation.json").read_text("utf-8"))
    return found


def test_the_answer_fits_its_schema(answer: dict[str, Any]) -> None:
    schema = json.loads((PROFILES / "schemas" / "recommendation.json").read_text("utf-8"))

    assert list(Draft202012Validator(schema).iter_errors(answer)) == []


def test_stdout_holds_the_same_document(answer: dict[str, Any], capsys: Capture) -> None:
    assert main(["recommend", "intent-classification", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)

    for found in (printed, answer):
        del found["provenance"]["notes"]
    assert printed == answer


def simulated(capsys: Capture, file: Path, *options: str) -> dict[str, Any]:
    main(["simulate", "intent-classification", "--architecture", str(file), "--json", *options])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_recommended_can_be_simulated(
    folder: Path, answer: dict[str, Any], capsys: Capture
) -> None:
    projection = answer["projection"]
    options = []
    if projection["escalation_rate"]:
        # Recommendations judge latency with a tenth more escalation than they plan for.
        options = ["--escalation-rate", str(1.1 * projection["escalation_rate"]["value"])]
    found = simulated(capsys, folder / "recommendation.json", *options)

    assert found["stable"]
    assert found["e2e_ms"]["p95"] == pytest.approx(projection["e2e_p95_ms"]["value"], rel=0.25)
    assert set(found["tiers"]) == set(answer["chosen"]["tiers"])


def test_the_chosen_object_alone_can_be_simulated(
    folder: Path, answer: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(answer["chosen"]), encoding="utf-8")
    alone = simulated(capsys, chosen)
    whole = simulated(capsys, folder / "recommendation.json")

    assert alone["deployment"] == whole["deployment"]
    if whole["escalation_rate"] is not None:
        assert alone["escalation_rate"] == pytest.approx(whole["escalation_rate"], abs=0.03)


@pytest.mark.parametrize("task", ["intent-classification", "clinical-extraction"])
def test_text_begins_with_the_answer_and_keeps_to_80_columns(task: str, capsys: Capture) -> None:
    code = main(["recommend", task])
    out, err = capsys.readouterr()
    first = out.splitlines()[0]

    assert code == 0
    assert err == ""
    assert first.endswith(("proven", "conditional"))
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    for heading in ("Run", "Beside it", "Why others fell"):
        assert f"\n{heading}\n" in out


def test_what_cannot_be_met_exits_with_1_and_says_why(capsys: Capture) -> None:
    changes = ("--set", "quality.threshold=0.9999", "--set", "latency.e2e_p95_ms=1")
    code = main(["recommend", "clinical-extraction", *changes])
    out = capsys.readouterr().out

    assert code == 1
    assert out.splitlines()[0].endswith("infeasible")
    assert "admitted if" in out
    assert max(map(len, out.splitlines())) <= 80


def test_an_output_that_is_no_folder_is_refused_before_the_search(
    tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "file"
    file.touch()

    assert main(["recommend", "intent-classification", "--output", str(file / "x")]) == 2
    assert "no folder there" in capsys.readouterr().err
