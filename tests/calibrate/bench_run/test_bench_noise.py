"""One figure from repetitions, on a machine that others share."""

import math

import pytest
from bench_points import point, shape

from advisor.calibrate.bench.noise import (
    DOUBT,
    SHARED_SLOWDOWN,
    Steadiness,
    at_best,
    reading_of,
    times_of,
    usual_pace,
)


def test_quantiles_of_known_times() -> None:
    times = times_of([1.0, 2.0, 3.0, 4.0, 5.0])

    assert (times.count, times.quarter_s, times.median_s) == (5, 2.0, 3.0)
    assert (times.low_s, times.high_s) == pytest.approx((1.4, 4.6))


def test_a_neighbour_stretches_wall_time_and_not_the_figure() -> None:
    cpu = [1.00, 1.01, 1.02, 1.03]
    alone = reading_of(cpu, cpu, on_gpu=False, slowdown=1.0)
    shared = reading_of([4 * one for one in cpu], cpu, on_gpu=False, slowdown=1.0)

    assert shared.value_s == alone.value_s == pytest.approx(1.0075)
    assert alone.notes == ()
    assert "wall time 4.0 × processor time" in shared.notes[0]


def test_a_machine_slower_than_at_its_best_is_corrected_and_doubted() -> None:
    steady = Steadiness()
    assert steady.slowdown([2.0, 2.0, 2.0]) == 1.0
    slowdown = steady.slowdown([3.0, 3.0, 3.0])
    assert slowdown == pytest.approx(1.5)
    assert steady.slowdown([1.0]) == 1.0, "a new best"

    times = [1.5] * 8
    reading = reading_of(times, times, on_gpu=False, slowdown=slowdown)
    assert reading.value_s == pytest.approx(1.5 / 1.5**SHARED_SLOWDOWN)
    assert reading.log_sd == pytest.approx(math.hypot(0.01, math.log(1.5) / DOUBT))
    assert "1.50 × its best" in reading.notes[0]


def test_a_gpu_is_read_by_its_median_wall_time() -> None:
    wall = [1.0, 1.1, 1.2]
    reading = reading_of(wall, [0.1] * 3, on_gpu=True, slowdown=1.0)

    assert (reading.value_s, reading.basis) == (1.1, "wall time")
    assert reading.notes == ()


def test_each_repetition_is_corrected_by_the_probes_around_it() -> None:
    """The machine was twice as slow for half of the repetitions."""
    steady = Steadiness()
    steady.slowdown([1e-4])
    paces = steady.paces([1e-4, 2e-4] * 6)
    cpu = [0.010, 0.010 * 2**SHARED_SLOWDOWN] * 6
    reading = reading_of(cpu, cpu, on_gpu=False, slowdown=1.5, paces=paces)

    assert reading.value_s == pytest.approx(0.010)
    blind = reading_of(cpu, cpu, on_gpu=False, slowdown=1.5)
    assert abs(blind.value_s / 0.010 - 1) > 0.2


def test_points_measured_before_the_machine_was_at_its_best_are_corrected_later() -> None:
    one = shape("decode", 4, 64)
    early, late = (
        point(one, factor=2**SHARED_SLOWDOWN).model_copy(update={"results": {"reference_s": 2e-4}}),
        point(one).model_copy(update={"results": {"reference_s": 1e-4}}),
    )
    first, second = at_best([early, late])

    assert first.value_s == pytest.approx(second.value_s)
    assert (first.slowdown, second.slowdown) == (2.0, 1.0)
    assert at_best([point(one)]) == [point(one)], "nothing is known of its machine"


def test_the_usual_pace_is_that_of_half_of_the_points() -> None:
    assert usual_pace([1.0, 1.5, 2.0]) == pytest.approx(1.5**SHARED_SLOWDOWN)
    assert usual_pace([]) == 1.0


def test_no_timings_are_no_figure() -> None:
    with pytest.raises(ValueError, match="no timings"):
        times_of([])
