"""The trend: figures a step apart, and the line through them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.trend import KEPT, STEP_S, Trend


def test_without_figures_there_is_no_slope() -> None:
    trend = Trend()

    assert trend.figures == []
    assert trend.per_minute == 0.0


def test_one_figure_makes_no_slope() -> None:
    trend = Trend()
    trend.add(5.0, now=100.0)

    assert trend.figures == [5.0]
    assert trend.per_minute == 0.0


def test_two_figures_make_a_slope() -> None:
    trend = Trend()
    trend.add(5.0, now=100.0)
    trend.add(7.0, now=130.0)

    assert trend.per_minute == pytest.approx(4.0)


def test_a_figure_is_taken_once_a_step() -> None:
    trend = Trend()
    for second in range(31):
        trend.add(float(second), now=1000.0 + second)

    assert trend.figures == [0.0, 10.0, 20.0, 30.0]


def test_a_step_counts_from_the_last_figure_taken() -> None:
    trend = Trend()
    trend.add(1.0, now=0.0)
    trend.add(2.0, now=STEP_S - 0.001)
    trend.add(3.0, now=STEP_S)
    trend.add(4.0, now=2 * STEP_S - 0.001)

    assert trend.figures == [1.0, 3.0]


def test_only_the_last_minutes_are_kept() -> None:
    trend = Trend()
    for step in range(1000):
        trend.add(float(step), now=step * STEP_S)

    assert trend.figures == [float(step) for step in range(1000 - KEPT, 1000)]
    assert 300 == KEPT * STEP_S


@pytest.mark.parametrize("per_minute", [-60.0, -0.5, 0.0, 1.0, 600.0])
def test_the_slope_of_a_line_is_that_of_the_line(per_minute: float) -> None:
    trend = Trend()
    for step in range(KEPT):
        now = 1e6 + step * STEP_S
        trend.add(50.0 + now * per_minute / 60, now=now)

    assert trend.per_minute == pytest.approx(per_minute, abs=1e-6)


def test_a_rise_that_was_long_ago_is_forgotten() -> None:
    trend = Trend()
    for step in range(KEPT):
        trend.add(float(step), now=step * STEP_S)
    for step in range(KEPT, 2 * KEPT):
        trend.add(500.0, now=step * STEP_S)

    assert trend.per_minute == pytest.approx(0.0)


@given(
    st.lists(
        st.tuples(st.floats(STEP_S + 0.001, 100.0), st.floats(0.0, 1e5)),
        min_size=2,
        max_size=2 * KEPT,
    )
)
def test_the_slope_is_the_least_squares_line(steps: list[tuple[float, float]]) -> None:
    trend, now, taken = Trend(), 0.0, []
    for step, figure in steps:
        now += step
        trend.add(figure, now=now)
        taken.append((now, figure))
    taken = taken[-KEPT:]
    slope = trend.per_minute / 60
    mean_t = sum(t for t, _ in taken) / len(taken)
    mean_y = sum(y for _, y in taken) / len(taken)
    residuals = [y - mean_y - slope * (t - mean_t) for t, y in taken]

    # The best line leaves nothing that still leans one way.
    leaning = sum(r * (t - mean_t) for r, (t, _) in zip(residuals, taken, strict=True))
    assert [figure for _, figure in taken] == trend.figures
    assert leaning == pytest.approx(0.0, abs=1e-3 * (1 + max(y for _, y in taken)))
