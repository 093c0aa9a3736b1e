"""The loop watch: its lag on the test's own clock, and the name of the task that holds it up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
import trio
import trio.testing
from structlog.typing import EventDict

from broadcasterd.observe import looplag
from broadcasterd.observe.looplag import INTERVAL_S, KEPT, LONG_STEP_S, RECENT, LoopWatch


class Stopwatch:
    """Stands in for ``perf_counter``: time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    """Let steps take as long as the test wants."""
    stopwatch = Stopwatch()
    monkeypatch.setattr(looplag, "perf_counter", stopwatch)
    return stopwatch


@pytest.fixture
def records() -> Iterator[list[EventDict]]:
    """Return what is logged."""
    with structlog.testing.capture_logs() as records:
        yield records


async def pass_interval(clock: trio.testing.MockClock, *, late: float = 0.0) -> None:
    """Let the watch sleep, and wake it so many seconds late."""
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(INTERVAL_S + late)
    await trio.testing.wait_all_tasks_blocked()


# --- lag -------------------------------------------------------------------------------------


def test_before_the_first_measurement_there_is_no_lag() -> None:
    watch = LoopWatch()

    assert (0.0, 0.0, 0) == (watch.lag, watch.max_lag, watch.long_steps)


async def test_a_loop_that_is_free_has_no_lag(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    watch = LoopWatch()
    nursery.start_soon(watch.run)
    for _ in range(3):
        await pass_interval(mock_clock)

    assert (0.0, 0.0) == (watch.lag, watch.max_lag)
    assert [0.0] * 3 == list(watch._lags)


async def test_waking_late_is_lag(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    watch = LoopWatch()
    nursery.start_soon(watch.run)
    await pass_interval(mock_clock, late=0.5)

    assert 0.5 == pytest.approx(watch.lag)

    await pass_interval(mock_clock, late=0.125)

    assert 0.125 == pytest.approx(watch.lag)
    assert 0.5 == pytest.approx(watch.max_lag)


async def test_the_worst_is_forgotten_after_a_minute(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    watch = LoopWatch()
    nursery.start_soon(watch.run)
    await pass_interval(mock_clock, late=9.0)
    for _ in range(KEPT - 1):
        await pass_interval(mock_clock)

    assert 9.0 == pytest.approx(watch.max_lag)

    await pass_interval(mock_clock)

    assert 0.0 == pytest.approx(watch.max_lag)
    assert 60 == KEPT * INTERVAL_S


async def test_the_worst_of_late_is_forgotten_after_ten_seconds(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    watch = LoopWatch()
    nursery.start_soon(watch.run)

    assert 0.0 == watch.recent_lag()

    await pass_interval(mock_clock, late=9.0)
    for _ in range(RECENT - 1):
        await pass_interval(mock_clock)

    assert 9.0 == pytest.approx(watch.recent_lag())

    await pass_interval(mock_clock)

    assert 0.0 == pytest.approx(watch.recent_lag())
    assert 10 == RECENT * INTERVAL_S


# --- long steps ------------------------------------------------------------------------------


async def test_a_task_that_holds_up_the_loop_is_named(
    nursery: trio.Nursery, stopwatch: Stopwatch, records: list[EventDict]
) -> None:
    watch = LoopWatch()
    nursery.start_soon(watch.run)
    await trio.testing.wait_all_tasks_blocked()

    async def compute_for_long() -> None:
        stopwatch.now += 0.25
        await trio.lowlevel.checkpoint()

    nursery.start_soon(compute_for_long)
    await trio.testing.wait_all_tasks_blocked()

    assert 1 == watch.long_steps
    [record] = records
    assert "a task held up the loop" == record["event"]
    assert "warning" == record["log_level"]
    assert record["task"].endswith("compute_for_long")
    assert 250 == record["took_ms"]


async def test_only_a_long_step_is_recorded(
    nursery: trio.Nursery, stopwatch: Stopwatch, records: list[EventDict]
) -> None:
    watch = LoopWatch()
    nursery.start_soon(watch.run)
    await trio.testing.wait_all_tasks_blocked()

    async def step(*took: float) -> None:
        for seconds in took:
            stopwatch.now += seconds
            await trio.lowlevel.checkpoint()

    # Many short steps are no long one, whatever they add up to.
    await step(*[LONG_STEP_S - 0.01] * 50)

    assert 0 == watch.long_steps

    await step(LONG_STEP_S + 0.01, 0.01, LONG_STEP_S + 0.01)

    assert 2 == watch.long_steps == len(records)
    assert LONG_STEP_S + 0.01 == pytest.approx(watch.longest_step)


async def test_what_came_before_the_watch_is_nobodys_step(
    nursery: trio.Nursery, stopwatch: Stopwatch, records: list[EventDict]
) -> None:
    watch = LoopWatch()
    stopwatch.now += 3600
    nursery.start_soon(watch.run)
    await trio.testing.wait_all_tasks_blocked()

    assert 0 == watch.long_steps


async def test_a_watch_that_was_cancelled_watches_no_more(
    stopwatch: Stopwatch, records: list[EventDict]
) -> None:
    watch = LoopWatch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    stopwatch.now += 10
    await trio.lowlevel.checkpoint()

    assert 0 == watch.long_steps
    assert [] == records
    with pytest.raises(KeyError):
        trio.lowlevel.remove_instrument(watch)  # there is none left to remove


async def test_measuring_goes_on_after_a_long_step(
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
    stopwatch: Stopwatch,
    records: list[EventDict],
) -> None:
    watch = LoopWatch()
    nursery.start_soon(watch.run)
    await trio.testing.wait_all_tasks_blocked()
    stopwatch.now += 5
    await pass_interval(mock_clock, late=5)

    assert 1 == watch.long_steps
    assert 5 == pytest.approx(watch.lag)
