"""`advisor calibrate run` at the command line, over an engine whose times are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from stand_in_engine import write_interpreter, write_model

from advisor.calibrate.importers import write_measurements
from advisor.calibrate.measurements import read_measurements
from advisor.cli import main
from advisor.cli.calibrate_run import cores_of, seconds_of, shapes_of
from advisor.errors import InputError
from advisor.predict import predict

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "advisor.calibrate.bench.engine.pinned", lambda command, cores, on_gpu: command
    )
    monkeypatch.setattr("advisor.calibrate.bench.hardware._nvidia", dict)


def arguments(folder: Path, *more: str) -> list[str]:
    return [
        *("calibrate", "run", "--model", str(write_model(folder / "model"))),
        *("--python", str(write_interpreter(folder)), "--no-server"),
        *("--output", str(folder / "run.jsonl"), *more),
    ]


def test_one_json_document_on_stdout_and_progress_on_stderr(
    tmp_path: Path, capsys: Capture
) -> None:
    asked = arguments(tmp_path, "--budget", "20s", "--precision", "0.3", "--json")
    assert main(asked) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)

    assert found["ended"] == "narrow enough"
    assert found["after"]["low_ms"] < found["after"]["value_ms"] < found["after"]["high_ms"]
    assert set(found["files"]) == {"points", "fits", "rows", "accelerator"}
    assert all(Path(path).is_file() for path in found["files"].values())
    assert "decode 1 × 64 tokens: " in err
    assert "p95" in err


def test_the_summary_says_what_came_of_it(tmp_path: Path, capsys: Capture) -> None:
    assert main(arguments(tmp_path, "--precision", "0.3", "--points", "decode:3x100")) == 0
    out, err = capsys.readouterr()

    assert "vLLM 0.32.0" in out
    assert "narrow enough" in out
    assert "p95 of 256 tokens in, 64 out" in out
    assert "decode 3 × 100 tokens" in err
    assert str(tmp_path / "run.fits.json") in out


def test_its_files_are_what_predict_and_score_take(tmp_path: Path, capsys: Capture) -> None:
    assert main(arguments(tmp_path, "--precision", "0.3")) == 0
    rows, fits = str(tmp_path / "run.rows.csv"), str(tmp_path / "run.fits.json")
    predicted = tmp_path / "predicted.csv"
    assert main(["predict", rows, "--fits", fits, "--output", str(predicted)]) == 0
    assert main(["calibrate", "score", rows, "--fits", fits]) == 0
    assert "tpot" in capsys.readouterr().out.lower()


def test_the_run_s_own_rows_narrow_what_its_coefficients_predict(tmp_path: Path) -> None:
    """Beside the rows that they were fitted to, coefficients are a measured deployment's."""
    assert main(arguments(tmp_path, "--precision", "0.3")) == 0
    beside, alone = tmp_path / "run.fits.json", tmp_path / "elsewhere" / "run.fits.json"
    alone.parent.mkdir()
    alone.write_bytes(beside.read_bytes())
    tables = [predict(tmp_path / "run.rows.csv", fits=fits) for fits in (beside, alone)]
    widths = [
        np.log(table["tpot_mean_ms_hi"] / table["tpot_mean_ms_lo"]).dropna() for table in tables
    ]

    assert [set(table["calibration"]) for table in tables] == [{"measured"}, {"calibrated"}]
    assert (widths[0] < widths[1]).all()


def test_a_served_load_does_not_take_the_level_of_batches_in_process(tmp_path: Path) -> None:
    """What the server showed is twice the engine's own time: it counts for served loads alone."""
    assert main(arguments(tmp_path, "--precision", "0.3")) == 0
    fits, path = tmp_path / "run.fits.json", tmp_path / "run.rows.csv"
    row = read_measurements((path,))[0]
    setup = row.setup.model_copy(
        update={
            "row_id": "load",
            "load": "poisson",
            "batch_size": None,
            "request_rate_per_s": 2.0,
            "requests": 40,
            "input_tokens": 64.0,
            "output_tokens": 32.0,
            "request_overhead_ms": 5.0,
        }
    )
    batch = row.setup.model_dump(exclude_none=True)
    asked = [batch, setup.model_dump(exclude_none=True)]
    before = predict(asked, fits=fits)["tpot_mean_ms"]
    load = row.model_copy(update={"setup": setup, "measured": {"tpot_mean_ms": 2 * before[1]}})
    write_measurements([*read_measurements((path,)), *[load] * 3], path)
    after = predict(asked, fits=fits)["tpot_mean_ms"]

    assert after[0] == pytest.approx(before[0])
    assert after[1] > 1.6 * before[1]


def test_ctrl_c_says_how_many_points_are_kept(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advisor.calibrate.bench.session import Session

    learn = Session.learn

    def interrupted(session: Session) -> None:
        learn(session)
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "learn", interrupted)
    assert main(arguments(tmp_path)) == 130
    _, err = capsys.readouterr()
    assert f"stopped; 4 points are kept in {tmp_path / 'run.jsonl'}" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "soon"], "--budget soon: a time such as 90s"),
        (["--budget", "0s"], "--budget 0s"),
        (["--precision", "2"], "--precision 2: a share between 0 and 1"),
        (["--cores", "x"], "--cores x: core numbers"),
        (["--cores", "4096"], "--cores 4096: of "),
        (["--points", "decode:0x5"], "--points decode:0x5: decode:BATCHxCONTEXT"),
        (["--engine-args", "eager"], "--engine-args eager: name=value"),
        (["--task", "no-such-task"], "task profile: no file no-such-task"),
        (["--accelerator", "H9000"], "accelerator 'H9000' is not in the catalogue"),
        (["--url", "somewhere"], "--accelerator: name what the server runs on"),
        (["--url", "x", "--accelerator", "H100-SXM"], "--url x: http://host:port"),
        (["--url", "http://127.0.0.1:9", "--accelerator", "H100-SXM"], "nothing answers"),
        (["--url", "http://h", "--requests", "0"], "--requests 0: at least 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: Capture, more: list[str], message: str
) -> None:
    assert main(arguments(tmp_path, *more)) == 2
    out, err = capsys.readouterr()

    assert out == ""
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "--model: a folder, a config.json or a model's name is expected"),
        ("no/such-model", "is not in the catalogue"),
        ("openai/gpt-oss-20b", "name a folder with its config.json"),
    ],
)
def test_models_that_cannot_be_run(
    tmp_path: Path, capsys: Capture, model: str | None, message: str
) -> None:
    asked = arguments(tmp_path)
    place = asked.index("--model")
    asked[place : place + 2] = ["--model", model] if model else []
    assert main(asked) == 2
    assert message in capsys.readouterr().err


def test_times_cores_and_shapes_are_read() -> None:
    assert [seconds_of(text) for text in ("90", "90s", "1.5m", " 2 h ")] == [90, 90, 90, 7200]
    assert cores_of("0") == (0,)
    mixed, decode = shapes_of("mixed:4x64+256, decode:8x128")
    assert (mixed.batch, mixed.context_tokens, mixed.prompt_tokens) == (4, 64, 256)
    assert (decode.kind, decode.batch) == ("decode", 8)
    with pytest.raises(InputError, match="prefill:x"):
        shapes_of("prefill:x")
