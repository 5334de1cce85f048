"""`advisor calibrate run` at the command line, over an engine whose times are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from stand_in_engine import write_interpreter, write_model

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


def test_the_fits_alone_hold_what_the_run_learnt_of_its_deployment(tmp_path: Path) -> None:
    """Steps beyond the coefficients' law among it, and how far to trust them."""
    assert main(arguments(tmp_path, "--precision", "0.3")) == 0
    path, elsewhere = tmp_path / "run.fits.json", tmp_path / "elsewhere" / "other.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    (own,) = document["deployments"].values()
    elsewhere.parent.mkdir()
    elsewhere.write_text(json.dumps(document | {"deployments": {}}), encoding="utf-8")
    rows = read_measurements((tmp_path / "run.rows.csv",))
    measured = np.array([row.measured.get("tpot_mean_ms", np.nan) for row in rows])
    whole, law = (predict(tmp_path / "run.rows.csv", fits=fits) for fits in (path, elsewhere))
    errors, alone = (np.abs(one["tpot_mean_ms"] / measured - 1) for one in (whole, law))

    assert own["served"] is None
    assert [set(table["calibration"]) for table in (whole, law)] == [{"measured"}, {"calibrated"}]
    assert np.nanmax(errors) < 0.05
    assert np.nanmedian(errors) < np.nanmedian(alone)
    widths = [np.log(one["tpot_mean_ms_hi"] / one["tpot_mean_ms_lo"]) for one in (whole, law)]
    assert (widths[0].dropna() < widths[1].dropna()).all()


def test_what_a_server_adds_counts_for_served_loads_alone(tmp_path: Path) -> None:
    assert main(arguments(tmp_path, "--precision", "0.3")) == 0
    path = tmp_path / "run.fits.json"
    row = read_measurements((tmp_path / "run.rows.csv",))[0]
    load = {"load": "poisson", "batch_size": None, "request_rate_per_s": 0.2, "requests": 40}
    load |= {"row_id": "load", "input_tokens": 64.0, "output_tokens": 32.0}
    asked = [
        row.setup.model_dump(exclude_none=True),
        row.setup.model_copy(update=load).model_dump(exclude_none=True),
    ]
    before = predict(asked, fits=path)
    document = json.loads(path.read_text(encoding="utf-8"))
    (own,) = document["deployments"].values()
    own["served"] = {"factor": 2.0, "step_s": 0.001, "request_s": 0.02}
    path.write_text(json.dumps(document), encoding="utf-8")
    after = predict(asked, fits=path)

    assert after["tpot_mean_ms"][0] == before["tpot_mean_ms"][0]
    # A load this thin decodes one request at a time.
    twice = 2 * before["tpot_mean_ms"][1] + 1
    assert after["tpot_mean_ms"][1] == pytest.approx(twice, rel=0.02)
    assert after["ttft_p50_ms"][1] > 20


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
    kept = (tmp_path / "run.jsonl").read_text(encoding="utf-8").count("\n")
    assert f"stopped; {kept} points are kept in {tmp_path / 'run.jsonl'}" in err
    assert kept > 4, "start-up, ceilings, products and a step"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "soon"], "--budget soon: a time such as 90s"),
        (["--budget", "0s"], "--budget 0s"),
        (["--precision", "2"], "--precision 2: a share between 0 and 1"),
        (["--repeats", "0"], "--repeats 0: at least 1"),
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
    twice = shapes_of("prefill:8,decode:1x8,prefill:8,prefill:8")
    assert [shape.repeat for shape in twice] == [0, 0, 1, 2]
    with pytest.raises(InputError, match="prefill:x"):
        shapes_of("prefill:x")
