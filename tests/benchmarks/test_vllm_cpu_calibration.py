"""How well real vLLM on this processor is predicted: step times between and beyond the points, and
loads through its server. Prints the figures and how restless the machine was.

Everything is measured in three rounds, so that a neighbour of a minute spoils one of them; figures
are medians of the rounds. Step times are processor time at the machine's best. The run times the
model's products alone at every batch; what is predicted beyond the largest batch does without those
beyond it, and what those between are worth is printed beside. What goes over HTTP
is wall time, predicted before it is sent from closed loops so far; those just before and just after
each load say what the machine was like meanwhile.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from advisor.calibrate.bench.behind import round_of, unrest_of
from advisor.calibrate.bench.law import Belief, Steps, updated
from advisor.calibrate.bench.local import LocalRun, find_python, run_local
from advisor.calibrate.bench.noise import at_best
from advisor.calibrate.bench.points import STEPS, Point, Shape
from advisor.calibrate.bench.prior import prior_belief, with_products
from advisor.calibrate.bench.products import STRAIGHT
from advisor.calibrate.bench.session import COMPARED, Session, comparison_of
from advisor.catalog import load_catalog
from advisor.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[1] / "live"))

from tiny_checkpoint import write_checkpoint

pytestmark = [pytest.mark.benchmark, pytest.mark.vllm, pytest.mark.timeout(2400)]

ROUNDS = 3

ARGUMENTS = {
    "enforce_eager": True,
    "max_model_len": 2048,
    "max_num_seqs": 64,
    "max_num_batched_tokens": 2048,
    "dtype": "float32",
}

LARGEST_SEEN = 8
SEEN = [
    *(("decode", batch, context, 0) for batch in (1, 2, 4, LARGEST_SEEN) for context in (64, 512)),
    *(("prefill", 0, 0, tokens) for tokens in (32, 256, 1024)),
    ("mixed", 4, 64, 256),
]
BETWEEN = [("decode", batch, context, 0) for batch in (3, 6) for context in (128, 256)]
BEYOND = [("decode", 4 * LARGEST_SEEN, context, 0) for context in (64, 128)]

BUDGET_S = float(os.environ.get("ADVISOR_VLLM_BENCHMARK_S", "600"))
"""Per model; the points take what they take, the rest goes to the loads."""

FOLDER = os.environ.get("ADVISOR_VLLM_BENCHMARK_DIR")
"""Where results stay, so that what was cut off goes on; a temporary folder by default."""


def shapes(kinds: list[tuple[str, int, int, int]], repeat: int) -> tuple[Shape, ...]:
    return tuple(
        Shape.model_validate(
            {
                "kind": kind,
                "batch": batch,
                "context_tokens": context,
                "prompt_tokens": tokens,
                "repeat": repeat,
            }
        )
        for kind, batch, context, tokens in kinds
    )


def prior_with(session: Session, most: int) -> Belief:
    """The run's prior, had only products of up to so many tokens been timed."""
    plain = prior_belief(replace(session.prior.law, bends=STRAIGHT), session.shipped)
    timed = at_best([one for one in session.points if one.shape.kind in (*STEPS, "products")])
    return with_products(plain, [one for one in timed if one.shape.batch <= most])


def rounds_of(points: list[Point], kinds: list[tuple[str, int, int, int]]) -> list[list[Point]]:
    """For each shape the points of its rounds."""
    return [
        [point for point in points if point.shape.model_copy(update={"repeat": 0}) == one]
        for one in shapes(kinds, 0)
    ]


def errors_of(belief: Belief, groups: list[list[Point]]) -> np.ndarray:
    """predicted/measured − 1, the median of the rounds as measured."""
    predicted = belief.seconds(Steps.of_points([group[0] for group in groups]))
    measured = [np.median([point.value_s for point in group]) for group in groups]
    return np.asarray(predicted / measured - 1)


def difference_of(groups: list[list[Point]]) -> float:
    """Median difference of two rounds of one shape: what a perfect prediction could be off by."""
    pairs = [
        abs(np.log(one.value_s / other.value_s))
        for group in groups
        for one, other in combinations(group, 2)
    ]
    return float(np.median(pairs))


@pytest.mark.parametrize("size", ["5M", "50M"])
def test_steps_and_loads_of_vllm_on_this_processor(size: str, tmp_path: Path) -> None:
    try:
        python = find_python()
    except InputError as missing:
        pytest.skip(str(missing))
    wanted = [
        shape
        for repeat in range(ROUNDS)
        for kinds in (SEEN, BETWEEN, BEYOND)
        for shape in shapes(kinds, repeat)
    ]
    folder = Path(FOLDER) / size if FOLDER else tmp_path
    session = Session(output=folder / "run.jsonl", budget_s=BUDGET_S, precision=0.9)
    run = LocalRun(
        model=str(write_checkpoint(folder / "model", size)),
        python=python,
        arguments=ARGUMENTS,
        shapes=tuple(wanted),
        load_repeats=ROUNDS,
    )
    outcome = run_local(run, session, load_catalog())
    assert outcome is not None
    points = session.step_points
    held_out = {*shapes(BETWEEN, 0), *shapes(BEYOND, 0)}
    seen = [
        point
        for point in points
        if point.shape.model_copy(update={"repeat": 0}) not in held_out
        and point.shape.batch <= LARGEST_SEEN
    ]
    belief = updated(session.prior, seen)
    few = updated(prior_with(session, LARGEST_SEEN), seen)
    none = updated(prior_with(session, 0), seen)
    between, beyond = rounds_of(points, BETWEEN), rounds_of(points, BEYOND)
    inside, outside = errors_of(belief, between), errors_of(few, beyond)
    unrest = difference_of(rounds_of(points, SEEN) + between + beyond)
    slow = np.median([point.slowdown for point in points])
    print(
        f"\n{size}: fitted on {len(seen)} points, median {belief.median_error:.1%}; rounds differ "
        f"by {unrest:.1%}, machine {slow:.2f} x slower than at its best (median)"
    )
    print(f"  between the batches: {_shown(inside)}  (5 % wanted)")
    print(f"    without products timed alone: {_shown(errors_of(none, between))}")
    print(f"  4 x the largest batch: {_shown(outside)}  (15 % wanted)")
    print(f"    with products of that batch timed alone: {_shown(errors_of(belief, beyond))}")
    _print_loads(session)

    # The figures compared with are themselves no better than two rounds agree.
    assert np.median(np.abs(inside)) <= 0.05 + unrest
    assert np.median(np.abs(outside)) <= 0.15 + unrest


def _shown(errors: np.ndarray) -> str:
    each = ", ".join(f"{error:+.1%}" for error in errors)
    return f"median {np.median(np.abs(errors)):.1%} ({each})"


def _print_loads(session: Session) -> None:
    """Medians of the repeats: TTFT, TPOT and E2E, and how restless the machine was."""
    loads = [point for point in session.points if point.shape.kind == "load"]
    rounds = [point for point in session.points if point.shape.kind == "overhead"]
    if not loads:
        print("  no budget was left for loads")
        return
    figures = [name for name in rounds[0].results if name.startswith(("lone_", "loop_"))]
    logs = np.log([[point.results[name] for name in figures] for point in rounds])
    paces = (logs - np.median(logs, axis=0)).mean(axis=1)
    print(
        f"  closed loops, {len(rounds)} rounds: the same requests took "
        f"{np.exp(paces.min()):.2f} to {np.exp(paces.max()):.2f} x the usual; "
        f"two rounds in turn differ by {np.median(np.abs(np.diff(paces))):.0%} (median), the same "
        f"request by {unrest_of([round_of(point) for point in rounds]):.0%} (1-sd)"
    )
    for share in sorted({point.predicted["share_of_capacity"] for point in loads}):
        same = [point for point in loads if point.predicted["share_of_capacity"] == share]
        compared = [comparison_of(point) for point in same]
        around = ", ".join(
            f"{point.results['pace_before']:.2f}/{point.results['pace_after']:.2f}"
            for point in same
        )
        rates = ", ".join(f"{point.shape.rate_per_s:.3g}" for point in same)
        print(
            f"  load {share:.0%} ({rates} requests/s, {compared[0].requests} and more each); "
            f"closed loops before/after {around} x the usual"
        )
        for name in COMPARED:
            measured = [one.measured_ms[name] for one in compared]
            before = [one.errors[name] for one in compared]
            shared = np.median([one.errors_as_shared[name] for one in compared])
            print(
                f"    {name.removesuffix('_ms'):8} measured {np.median(measured):8.1f} ms "
                f"({min(measured):.1f} to {max(measured):.1f}), predicted before "
                f"{np.median(before):+.0%} ({', '.join(f'{one:+.0%}' for one in before)}), "
                f"for the pace of the closed loops around {shared:+.0%}"
            )
