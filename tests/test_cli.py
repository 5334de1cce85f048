"""The command as a person and a script meet it: exit codes, one-line errors, clean stdout."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.catalog.locations import PROFILES
from advisor.cli import main
from advisor.cli.arguments import changes, engine_arguments, profile_path
from advisor.errors import InputError

INTENT = PROFILES / "tasks" / "intent-classification.yaml"
DEPLOYMENT = ("--model", "Qwen3-8B", "--accelerator", "H100-SXM")
FEW = ("--requests", "400")

Capture = pytest.CaptureFixture[str]


def refusal(capsys: Capture, *arguments: str) -> str:
    """The one line that bad input gets, with exit code 2 and nothing on stdout."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def edited(path: Path, old: str, new: str) -> str:
    """A copy of the example profile with one thing changed."""
    text = INTENT.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return str(path)


def bomb(path: Path) -> str:
    """Nine aliases of nine aliases of …: a billion values from 400 bytes."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def large(path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(50_000_000)
    return str(path)


HOSTILE: dict[str, tuple[Callable[[Path], str], str]] = {
    "unknown key": (
        lambda p: edited(p, "latency:", "latencyy:"),
        "unknown key 'latencyy'; accepted: name, description, task",
    ),
    "negative volume": (
        lambda p: edited(p, "10_000_000", "-5"),
        "traffic.requests_per_day = -5",
    ),
    "p95 of fast": (
        lambda p: edited(p, "e2e_p95_ms: 80", "e2e_p95_ms: fast"),
        "latency.e2e_p95_ms = 'fast'",
    ),
    "percent for fraction": (
        lambda p: edited(p, "threshold: 0.95", "threshold: 95"),
        "for 95 % write 0.95",
    ),
    "remote reference": (
        lambda p: edited(p, "quality:", '  schema: {$ref: "https://example.org/s.json"}\nquality:'),
        "remote reference 'https://example.org/s.json'",
    ),
    "empty file": (lambda p: written(p, ""), "is empty"),
    "50 MB file": (large, "has 50,000,000 bytes; at most"),
    "YAML bomb": (bomb, "YAML aliases"),
    "not YAML": (lambda p: written(p, "name: [unclosed"), "not valid YAML"),
    "a list": (lambda p: written(p, "- one\n- two\n"), "a mapping of keys to values was expected"),
    "binary": (lambda p: (p.write_bytes(b"\xff\xfe\x00\x01"), str(p))[1], "is not UTF-8 text"),
}


@pytest.mark.parametrize("verb", ["recommend", "simulate"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_profile_gets_one_line(verb: str, case: str, tmp_path: Path, capsys: Capture) -> None:
    make, message = HOSTILE[case]
    rest = DEPLOYMENT if verb == "simulate" else ("--json",)

    assert message in refusal(capsys, verb, make(tmp_path / "task.yaml"), *rest)


def test_a_missing_profile_names_the_shipped_ones(capsys: Capture) -> None:
    message = refusal(capsys, "recommend", "no-such-task")

    assert "no file no-such-task; shipped profiles: batch-tagging" in message


def test_a_folder_is_no_profile(tmp_path: Path, capsys: Capture) -> None:
    assert "is a folder" in refusal(capsys, "recommend", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "or --architecture FILE.json, is expected"),
        (("--model", "Qwen3-9B", "--accelerator", "L4"), "did you mean Qwen/Qwen3-8B"),
        (("--model", "Qwen3-8B", "--accelerator", "H1000"), "accelerator 'H1000'"),
        (("--model", "no/config.json", "--accelerator", "L4"), "no/config.json"),
        (("--model", "Qwen3-8B", "--accelerator", "my.yaml"), "no file my.yaml"),
        ((*DEPLOYMENT, "--tensor-parallel", "3"), "3 does not divide the 32 heads"),
        ((*DEPLOYMENT, "--tensor-parallel", "16"), "at most 8 H100-SXM"),
        ((*DEPLOYMENT, "--tensor-parallel", "0"), "tensor_parallel = 0"),
        ((*DEPLOYMENT, "--replicas", "0"), "replicas = 0: at least 1"),
        ((*DEPLOYMENT, "--weights-dtype", "q4"), "weights_dtype = q4: one of bf16, fp16, fp8"),
        ((*DEPLOYMENT, "--kv-dtype", "fp4"), "kv_dtype fp4: bf16, fp16, fp8 or int8"),
        ((*DEPLOYMENT, "--requests", "0"), "requests = 0: 1 to"),
        ((*DEPLOYMENT, "--requests", "999999999999"), "requests = 999999999999"),
        ((*DEPLOYMENT, "--seed", "-1"), "seed = -1"),
        ((*DEPLOYMENT, "--engine-args", "max_num_seqs"), "name=value,name=value is expected"),
        ((*DEPLOYMENT, "--engine-args", "max_num_sequences=4"), "'max_num_sequences'"),
        ((*DEPLOYMENT, "--engine-args", "max_num_seqs=0"), "max_num_seqs = 0"),
        ((*DEPLOYMENT, "--set", "latency.e2e_p95_ms"), "key=value is expected"),
        ((*DEPLOYMENT, "--set", "=3"), "key=value is expected"),
        ((*DEPLOYMENT, "--set", "latency..x=3"), "key=value is expected"),
        ((*DEPLOYMENT, "--set", "latency.p99=3"), "unknown key 'latency.p99'"),
        ((*DEPLOYMENT, "--set", "name.first=x"), "'name' is not a mapping"),
        ((*DEPLOYMENT, "--set", "latency.e2e_p95_ms=[1"), "--set latency.e2e_p95_ms: not valid"),
        ((*DEPLOYMENT, "--set", "assumptions.luck=1"), "assumption 'luck' is unknown"),
        ((*DEPLOYMENT, "--escalation-rate", "0.1"), "--escalation-rate is for an architecture"),
        ((*DEPLOYMENT, "--resolution", "2"), "--resolution is of the time series"),
        ((*DEPLOYMENT, "--series", "no-folder/x.csv"), "there is no folder of that name"),
        (("--model", "Qwen3-8B"), "--model M with --accelerator A"),
        (("--architecture", "none.json"), "no file none.json"),
        (("--architecture", "x.json", "--replicas", "2"), "--replicas is for one deployment"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_deployment_that_makes_no_sense_gets_one_line(
    arguments: tuple[str, ...], message: str, capsys: Capture
) -> None:
    assert message in refusal(capsys, "simulate", str(INTENT), *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tiers":', "not valid JSON"),
        ("[]", "a mapping of keys to values was expected"),
        ("{}", "'tiers' is missing"),
        ('{"tiers": {}, "policy": "slm_only"}', "at least one of slm and llm"),
        ('{"tiers": {"vlm": {}}, "policy": "slm_only"}', "tiers.vlm"),
        ('{"status": "proven"}', "is missing"),
    ],
)
def test_a_file_that_is_no_architecture_gets_one_line(
    text: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    file = written(tmp_path / "chosen.json", text)

    assert message in refusal(capsys, "simulate", str(INTENT), "--architecture", file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("advise",), "invalid choice: 'advise'"),
        (("recommend",), "the following arguments are required: TASK.yaml"),
        (("simulate", "t", "--requests", "many"), "invalid int value: 'many'"),
        (("simulate", "t", "--req", "5"), "unrecognized arguments: --req"),
        (("certify", "pairs.csv"), "required: --target"),
        (("certify", "pairs.csv", "--target", "high"), "invalid float value: 'high'"),
    ],
)
def test_bad_usage_gets_one_line(arguments: tuple[str, ...], message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    out, err = capsys.readouterr()

    assert (stop.value.code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_help_lists_what_works(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    out = capsys.readouterr().out

    assert stop.value.code == 0
    assert {"recommend", "simulate", "predict", "certify", "app"} <= set(out.split())
    assert max(map(len, out.splitlines())) <= 90


def simulated(capsys: Capture, *arguments: str) -> dict[str, Any]:
    main(["simulate", str(INTENT), *FEW, "--json", *arguments])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_simulate_prints_one_json_document(capsys: Capture) -> None:
    found = simulated(capsys, *DEPLOYMENT)

    assert found["requests"] == 400
    assert found["stable"]
    assert 0 < found["wall_s"] < 60
    assert found["sustainable_rate_per_s"] > found["offered_rate_per_s"]
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "queue_ms"):
        figures = found[name]
        assert list(figures) == ["mean", "p50", "p90", "p95", "p99"]
        assert 0 <= figures["p50"] <= figures["p90"] <= figures["p95"] <= figures["p99"]
        known = found["intervals_ms"][name]["p95"]
        assert known["low"] <= figures["p95"]
        assert known["high"] is None or figures["p95"] <= known["high"]


def test_the_same_seed_gives_the_same_answer(capsys: Capture) -> None:
    runs = [simulated(capsys, *DEPLOYMENT, "--seed", seed) for seed in ("7", "7", "8")]
    first, again, other = ({**run, "wall_s": 0.0, "seed": 0} for run in runs)

    assert first == again
    assert first != other


def test_overload_has_no_percentiles(capsys: Capture) -> None:
    arguments = ["simulate", str(INTENT), "--model", "Qwen3-8B", "--accelerator", "L4"]
    code = main([*arguments, "--json", "--requests", "3000"])
    found = json.loads(capsys.readouterr().out)

    assert code == 1
    assert not found["stable"]
    assert 0 < found["sustainable_rate_per_s"] < found["offered_rate_per_s"]
    assert found["e2e_ms"] == dict.fromkeys(("mean", "p50", "p90", "p95", "p99"))
    assert main([*arguments, "--requests", "3000"]) == 1
    assert "OVERLOADED" in capsys.readouterr().out


@pytest.mark.parametrize(("bound", "code"), [("5000", 0), ("0.01", 1), ("null", 0)])
def test_the_exit_code_says_whether_a_latency_bound_holds(
    bound: str, code: int, capsys: Capture
) -> None:
    change = f"latency.e2e_p95_ms={bound}"

    assert main(["simulate", str(INTENT), *FEW, *DEPLOYMENT, "--set", change]) == code
    assert ("MISSED" in capsys.readouterr().out) == (code == 1)


def test_a_deployment_that_does_not_fit_says_what_would(capsys: Capture) -> None:
    rest = ("--model", "Llama-3.1-70B-Instruct", "--accelerator", "L4")
    code = main(["simulate", str(INTENT), *rest])
    out, err = capsys.readouterr()

    assert (code, out) == (1, "")
    assert "GB short on each accelerator" in err
    assert "it fits with" in err
    assert err.count("\n") == 1


def test_a_context_shorter_than_the_requests_is_refused(capsys: Capture) -> None:
    code = main(["simulate", str(INTENT), *DEPLOYMENT, "--engine-args", "max_model_len=64"])

    assert code == 1
    assert "100 % of the requests are longer than a context of 64" in capsys.readouterr().err


def test_text_for_people_keeps_to_80_columns(capsys: Capture) -> None:
    main(["simulate", str(INTENT), *FEW, *DEPLOYMENT, "--replicas", "2"])
    out = capsys.readouterr().out

    assert out.startswith("Qwen3-8B bf16 on 2 × H100-SXM")
    assert max(map(len, out.splitlines())) <= 80


def test_profiles_are_found_by_path_first_and_by_name_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert profile_path("text-to-sql") == PROFILES / "tasks" / "text-to-sql.yaml"

    monkeypatch.chdir(tmp_path)
    Path("text-to-sql").touch()

    assert profile_path("text-to-sql") == Path("text-to-sql")
    with pytest.raises(InputError, match=r"no file text-to-sql\.yaml"):
        profile_path("text-to-sql.yaml")


def test_values_of_set_are_yaml() -> None:
    assert changes(["a.b=3", "c=[1, x]", "d={mean: 2}", "e=", "f= text = more"]) == {
        "a.b": 3,
        "c": [1, "x"],
        "d": {"mean": 2},
        "e": None,
        "f": "text = more",
    }


def test_engine_arguments_take_vllms_spelling_or_ours() -> None:
    assert engine_arguments("--max-num-seqs=64,enable_prefix_caching=false") == {
        "--max-num-seqs": 64,
        "enable_prefix_caching": False,
    }


PAIRS = "confidence,slm_correct,llm_correct\n" + "0.9,1,1\n" * 300 + "0.2,0,1\n" * 20


def test_certify_says_what_it_certifies(tmp_path: Path, capsys: Capture) -> None:
    file = written(tmp_path / "pairs.csv", PAIRS)
    code = main(["certify", file, "--target", "0.97", "--confidence", "0.95", "--json"])
    found = json.loads(capsys.readouterr().out)

    assert code == 0
    assert found["certified"]
    assert 0.2 < found["threshold"] <= 0.9
    assert found["escalation_rate"] == pytest.approx(20 / 320)
    assert found["rows"] == 320
    assert main(["certify", file, "--target", "0.97"]) == 0
    assert "Certified: quality of at least 97 %" in capsys.readouterr().out


def test_certify_exits_with_1_where_nothing_is_certified(tmp_path: Path, capsys: Capture) -> None:
    rows = "confidence,slm_correct,llm_correct\n" + "0.9,1,1\n" * 30
    file = written(tmp_path / "pairs.csv", rows)

    assert main(["certify", file, "--target", "0.95", "--start", "llm", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    # 59 rows without an error are the fewest that prove 95 % at 95 %: 0.95^59 < 0.05.
    assert (found["certified"], found["rows_needed"]) == (False, 59)
    assert main(["certify", file, "--target", "0.95", "--start", "llm"]) == 1
    assert "Not certified" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no.csv", "--target", "0.9"), "no file no.csv"),
        (("no.jsonl", "--target", "0.9"), "no.jsonl"),
        (("PAIRS", "--target", "95"), "target"),
        (("PAIRS", "--target", "0.9", "--confidence", "95"), "confidence"),
    ],
)
def test_certify_refuses_in_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture
) -> None:
    file = written(tmp_path / "pairs.csv", PAIRS)
    given = [file if argument == "PAIRS" else argument for argument in arguments]

    assert message in refusal(capsys, "certify", *given)


def advisor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "advisor", *arguments],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_an_ascii_terminal_gets_ascii() -> None:
    done = advisor("simulate", str(INTENT), *FEW, *DEPLOYMENT, PYTHONIOENCODING="ascii")

    assert done.returncode in (0, 1)
    assert done.stdout.startswith(b"Qwen3-8B bf16 on 1 x H100-SXM")


def test_a_closed_pipe_is_quiet() -> None:
    command = [sys.executable, "-m", "advisor", "simulate", str(INTENT), *FEW, *DEPLOYMENT]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=120)
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("advisor.simulation.simulate", interrupted)

    assert main(["simulate", str(INTENT), *DEPLOYMENT]) == 130
    assert capsys.readouterr() == ("", "")
