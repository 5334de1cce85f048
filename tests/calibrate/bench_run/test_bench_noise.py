"""One figure from repetitions, on a machine that others share."""

import math

import pytest

from advisor.calibrate.bench.noise import (
    SHARED_SLOWDOWN,
    Steadiness,
    reading_of,
    times_of,
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
    assert reading.log_sd == pytest.approx(math.hypot(0.01, math.log(1.5) / 3))
    assert "1.50 × its best" in reading.notes[0]


def test_a_gpu_is_read_by_its_median_wall_time() -> None:
    wall = [1.0, 1.1, 1.2]
    reading = reading_of(wall, [0.1] * 3, on_gpu=True, slowdown=1.0)

    assert (reading.value_s, reading.basis) == (1.1, "wall time")
    assert reading.notes == ()


def test_no_timings_are_no_figure() -> None:
    with pytest.raises(ValueError, match="no timings"):
        times_of([])
