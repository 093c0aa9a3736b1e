"""Histograms: the bucket of a duration, the error that is promised, and what a window forgets."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.figures.histogram import (
    BOUNDS,
    ERROR,
    WINDOW_TURNS,
    Histogram,
    Quantiles,
    Window,
    quantile,
)

DURATIONS = st.floats(min_value=BOUNDS[0], max_value=BOUNDS[-1])


def histogram(*durations: float) -> Histogram:
    made = Histogram()
    for seconds in durations:
        made.record(seconds)
    return made


def test_the_bounds_rise_by_a_seventh_at_most() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert (1e-5, 100.0) == (BOUNDS[0], BOUNDS[-1])
    assert all(b / a <= (1 + ERROR) ** 2 for a, b in pairwise(BOUNDS))


@pytest.mark.parametrize("bound", [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10])
def test_the_usual_bounds_of_prometheus_are_among_them(bound: float) -> None:
    assert bound in BOUNDS


@pytest.mark.parametrize("index", [0, 1, 70, len(BOUNDS) - 1])
def test_a_bound_is_within_its_bucket_and_what_is_above_is_not(index: int) -> None:
    counts = histogram(BOUNDS[index], BOUNDS[index] * 1.000001).counts

    assert (1, 1) == (counts[index], counts[index + 1])
    assert 2 == sum(counts)


def test_what_is_shorter_or_longer_than_all_bounds_is_counted() -> None:
    counts = histogram(0.0, 1e-9, 1000.0).counts

    assert (2, 1) == (counts[0], counts[-1])


def test_the_sum_and_the_longest_are_exact() -> None:
    made = histogram(0.25, 0.5, 0.125)

    assert (0.875, 0.5) == (made.total, made.take_longest())
    assert 0.0 == made.take_longest()


# --- quantiles -------------------------------------------------------------------------------


@given(st.lists(DURATIONS, min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_off_by_no_more_than_is_said(durations: list[float], share: float) -> None:
    ordered = sorted(durations)
    exact = next(d for n, d in enumerate(ordered, start=1) if n >= share * len(ordered))

    assert exact == pytest.approx(quantile(histogram(*durations).counts, share), rel=ERROR)


def test_of_nothing_it_is_0() -> None:
    assert 0.0 == quantile(Histogram().counts, 0.99)


def test_what_is_above_all_bounds_counts_as_the_last() -> None:
    assert BOUNDS[-1] == pytest.approx(quantile(histogram(5000.0).counts, 0.5))


# --- windows ---------------------------------------------------------------------------------


def test_a_window_has_the_durations_since_it_was_made() -> None:
    made = histogram(50.0)
    window = Window(made)
    made.take_longest()
    for seconds in random.Random(1).sample([0.001] * 90 + [0.1] * 8 + [2.0] * 2, k=100):  # noqa: S311
        made.record(seconds)
    found = window.quantiles()

    assert (100, 2.0) == (found.count, found.longest)
    assert [0.001, 0.1, 2.0] == pytest.approx([found.p50, found.p95, found.p99], rel=ERROR)


def test_no_quantile_is_above_the_longest() -> None:
    made = Histogram()
    window = Window(made)
    made.record(0.00101)

    assert Quantiles(1, *[0.00101] * 4) == window.quantiles()


def test_a_window_forgets_what_is_older_than_its_turns() -> None:
    made = Histogram()
    window = Window(made)
    made.record(3.0)
    for _ in range(WINDOW_TURNS):
        window.turn()
        made.record(0.5)

    assert (1 + WINDOW_TURNS, 3.0) == (window.quantiles().count, window.quantiles().longest)

    window.turn()

    assert (WINDOW_TURNS, 0.5) == (window.quantiles().count, window.quantiles().longest)

    for _ in range(WINDOW_TURNS):
        window.turn()

    assert Quantiles(0, 0.0, 0.0, 0.0, 0.0) == window.quantiles()


def test_an_idle_histogram_is_kept_once() -> None:
    window = Window(Histogram())
    for _ in range(2 * WINDOW_TURNS):
        window.turn()

    assert 1 == len({id(counts) for counts, _ in window._turns})
