"""The clock: durations are monotonic, and Unix times are understood by what the wall shows now."""

from __future__ import annotations

from math import inf

import pytest

from broadcasterd.broadcast.clock import SET_S, Clock

NOON = 1_764_000_000.0


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still: 100 s after its start, at noon."""
    return Clock(monotonic=lambda: 100.0, wall=lambda: NOON)


@pytest.mark.parametrize(("unix_time", "moment"), [(NOON + 60, 160.0), (NOON - 60, 40.0)])
def test_a_unix_time_is_a_moment_and_back(clock: Clock, unix_time: float, moment: float) -> None:
    assert moment == clock.moment(unix_time)
    assert unix_time == clock.unix_time(moment)


def test_never_is_infinitely_far_away(clock: Clock) -> None:
    assert inf == clock.moment(None)
    assert clock.unix_time(inf) is None


def test_a_wall_clock_that_is_set_back_moves_no_moment_that_is_known() -> None:
    wall = NOON
    clock = Clock(monotonic=lambda: 100.0, wall=lambda: wall)
    expires_at = clock.moment(NOON + 60)
    wall -= 3600

    assert expires_at == 160.0
    assert clock.now() < expires_at


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 1.0])
def test_that_the_wall_clock_was_set_is_told_once(seconds: float) -> None:
    wall = NOON
    clock = Clock(monotonic=lambda: wall - NOON, wall=lambda: wall)

    assert 0 == clock.was_set_by()

    wall += 10
    assert 0 == clock.was_set_by(), "both went on"

    clock.now = lambda: 10.0
    wall += seconds
    assert [seconds, 0] == [clock.was_set_by(), clock.was_set_by()]


def test_a_clock_that_is_slewed_counts_in_the_end() -> None:
    wall = NOON
    clock = Clock(monotonic=lambda: 0.0, wall=lambda: wall)
    told = []
    for _ in range(20):
        told.append(clock.was_set_by())
        wall += SET_S / 4

    assert sum(told) == pytest.approx(4 * SET_S, abs=SET_S)
