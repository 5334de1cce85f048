"""Verbs that read and write files: predict, calibrate, evaluate, and what simulate leaves."""

import csv
import json
from pathlib import Path

import pytest

from advisor.catalog.locations import CALIBRATION, PROFILES
from advisor.cli import main

Capture = pytest.CaptureFixture[str]

PUBLIC = CALIBRATION / "measurements" / "public.csv"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def measured(path: Path, *, every: int, count: int) -> Path:
    """Some rows of the public table."""
    chosen = rows_of(PUBLIC)[::every][:count]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(chosen[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return path


def refusal(capsys: Capture, *arguments: str | Path) -> str:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    return err


def test_predict_answers_every_row_in_order(tmp_path: Path, capsys: Capture) -> None:
    source = measured(tmp_path / "rows.csv", every=150, count=8)
    output = tmp_path / "out.csv"

    assert main(["predict", str(source), "--output", str(output)]) == 0
    out, err = capsys.readouterr()
    found = rows_of(output)
    assert out == ""
    assert "8 of 8 rows predicted" in err
    assert [row["row_id"] for row in found] == [row["row_id"] for row in rows_of(source)]
    for row in found:
        low, value, high = (float(row[f"tpot_mean_ms{end}"]) for end in ("_lo", "", "_hi"))
        assert 0 < low < value < high
        assert row["calibration"] in ("measured", "calibrated", "transferred", "assumed")


def test_predict_keeps_a_row_it_cannot_predict_and_says_why(
    tmp_path: Path, capsys: Capture
) -> None:
    source = measured(tmp_path / "rows.csv", every=150, count=2)
    text = source.read_text(encoding="utf-8")
    model = rows_of(source)[1]["model"]
    source.write_text(text[::-1].replace(model[::-1], "ledom-on", 1)[::-1], encoding="utf-8")
    output = tmp_path / "out.csv"

    assert main(["predict", str(source), "--output", str(output)]) == 0
    assert "1 of 2 rows predicted" in capsys.readouterr().err
    first, second = rows_of(output)
    assert first["error"] == ""
    assert "no-model" in second["error"]


def test_predict_leaves_nothing_where_it_cannot_write(tmp_path: Path, capsys: Capture) -> None:
    source = measured(tmp_path / "rows.csv", every=900, count=1)
    message = refusal(capsys, "predict", source, "--output", tmp_path / "no" / "out.csv")

    assert "--output" in message
    assert "cannot be written: No such file or directory" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "rows.csv"),
        ("", "no column"),
        ("a,b\n1,2\n", "no column"),
        ("\x00\x01", "rows.csv"),
    ],
)
def test_predict_refuses_what_is_no_table(
    text: str | None, message: str, tmp_path: Path, capsys: Capture
) -> None:
    source = tmp_path / "rows.csv"
    if text is not None:
        source.write_text(text, encoding="utf-8")

    assert message in refusal(capsys, "predict", source, "--output", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_calibrate_score_compares_predictions_with_measurements(
    tmp_path: Path, capsys: Capture
) -> None:
    source = measured(tmp_path / "rows.csv", every=60, count=30)
    output = tmp_path / "score.csv"
    code = main(
        ["calibrate", "score", str(source), "--by", "metric,accelerator", "--output", str(output)]
    )
    out = capsys.readouterr().out

    assert code == 0
    assert out.split()[:3] == ["metric", "accelerator", "figures"]
    scores = rows_of(output)
    assert sum(float(row["figures"]) for row in scores) >= 30
    assert all(float(row["median_error"]) >= 0 for row in scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "no.csv"), "no.csv"),
        (("score", "--by", "colour"), "--by colour: one of metric, load"),
        (("score", "--fits", "no.json"), "no.json"),
        (("fit", "--without-public", "--output", "f.json"), "no rows"),
        (("fit", "no.csv", "--output", "f.json"), "no.csv"),
    ],
)
def test_calibrate_refuses_in_one_line(
    arguments: tuple[str, ...], message: str, capsys: Capture
) -> None:
    assert message in refusal(capsys, "calibrate", *arguments)


def log(path: Path, rows: int = 240) -> Path:
    """A log in which the small model is right where it is sure, the large one nearly always."""
    lines = []
    for number in range(rows):
        unsure = number % 6 == 0
        small = {"correct": 0 if unsure and number % 12 else 1, "latency_ms": 40, "cost_usd": 1e-5}
        large = {"correct": 0 if number % 40 == 0 else 1, "latency_ms": 400, "cost_usd": 1e-3}
        outputs = {"slm": small, "llm": large}
        confidence = 0.4 + number % 7 / 100 if unsure else 0.9 + number % 9 / 100
        lines.append(json.dumps({"id": number, "confidence": confidence, "outputs": outputs}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_evaluate_reports_models_confidence_and_routing(tmp_path: Path, capsys: Capture) -> None:
    source = log(tmp_path / "log.jsonl")

    assert main(["evaluate", str(source), "--target", "0.95", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    quality = {score["model"]: score["quality"] for score in found["models"]}
    # 20 of 240 are wrong: every sixth is unsure, every other one of those (12 does not divide it).
    assert quality == {"slm": pytest.approx(220 / 240), "llm": pytest.approx(234 / 240)}
    assert found["confidence"]["auroc"] > 0.9

    assert main(["evaluate", str(source), "--target", "0.95"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("240 rows, scored by exact_match")
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "log.jsonl"), ("", "empty"), ("{", "line 1"), ('{"id": 1, "outputs": 3}\n', "line 1")],
)
def test_evaluate_refuses_in_one_line(
    text: str | None, message: str, tmp_path: Path, capsys: Capture
) -> None:
    source = tmp_path / "log.jsonl"
    if text is not None:
        source.write_text(text, encoding="utf-8")

    assert message in refusal(capsys, "evaluate", source)


def test_simulate_writes_its_series(tmp_path: Path, capsys: Capture) -> None:
    intent = str(PROFILES / "tasks" / "intent-classification.yaml")
    output = tmp_path / "series.csv"
    deployment = ["--model", "Qwen3-8B", "--accelerator", "H100-SXM", "--requests", "1000"]

    main(["simulate", intent, *deployment, "--series", str(output), "--resolution", "0.5"])
    found = rows_of(output)
    assert f"written: {output}" in capsys.readouterr().err
    assert {row["tier"] for row in found} == {"slm"}
    arrived = sum(float(row["arrivals_per_s"]) * 0.5 for row in found)
    assert arrived == pytest.approx(1000)


def test_simulate_refuses_a_bad_trace_in_one_line(tmp_path: Path, capsys: Capture) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("when,how_long\n1,2\n", encoding="utf-8")
    deployment = ("--model", "Qwen3-8B", "--accelerator", "H100-SXM")
    arguments = ("simulate", "intent-classification", *deployment, "--trace", trace)

    assert "no column arrival_s" in refusal(capsys, *arguments)


SERVE = {
    "date": "20261101-120000",
    "backend": "vllm",
    "model_id": "Qwen/Qwen3-8B",
    "num_prompts": 4,
    "request_rate": "inf",
    "max_concurrency": 2,
    "completed": 4,
    "duration": 2.0,
    "total_input_tokens": 4096,
    "total_output_tokens": 512,
    "mean_ttft_ms": 40.0,
    "median_ttft_ms": 39.0,
    "mean_tpot_ms": 7.5,
    "median_tpot_ms": 7.4,
    "mean_itl_ms": 7.5,
    "median_itl_ms": 7.4,
    "request_throughput": 2.0,
    "output_throughput": 256.0,
}
"""What `vllm bench serve --save-result` writes, with made-up figures."""


def test_calibrate_import_reads_what_a_load_tool_wrote(tmp_path: Path, capsys: Capture) -> None:
    result, output = tmp_path / "run.json", tmp_path / "rows.csv"
    result.write_text(json.dumps(SERVE), encoding="utf-8")
    where = ("--set", "accelerator=H100-SXM", "--set", "engine_version=0.19.0")

    assert main(["calibrate", "import", str(result), "--output", str(output), *where]) == 0
    assert "1 rows written" in capsys.readouterr().err
    [row] = rows_of(output)
    assert (row["model"], row["accelerator"]) == ("Qwen/Qwen3-8B", "H100-SXM")
    assert (float(row["tpot_mean_ms"]), row["concurrency"]) == (7.5, "2")
    predicted = tmp_path / "out.csv"
    assert main(["predict", str(output), "--output", str(predicted), "--own", str(output)]) == 0
    assert rows_of(predicted)[0]["calibration"] == "measured"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no.json",), "no file no.json"),
        (("RESULT",), "does not record accelerator: state it"),
        (("RESULT", "--set", "accelerator"), "--set accelerator: column=value is expected"),
        (("RESULT", "--set", "colour=red"), "unknown column colour"),
    ],
)
def test_calibrate_import_refuses_in_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture
) -> None:
    result, output = tmp_path / "run.json", tmp_path / "rows.csv"
    result.write_text(json.dumps(SERVE), encoding="utf-8")
    given = [str(result) if argument == "RESULT" else argument for argument in arguments]

    assert message in refusal(capsys, "calibrate", "import", *given, "--output", output)
    assert not output.exists()
