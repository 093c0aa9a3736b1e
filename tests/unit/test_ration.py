"""The ration of a warning: what brings memory back is freed, step by step, and never much more."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.ration import RATION, SMALLEST_STEP_BYTES, Ration

MIB = 1024 * 1024


@dataclass
class Daemon:
    """What a rule without witnesses has to go by: two figures, one of which may hardly move.

    Attributes:
        excess: bytes that are used too many.
        counted: bytes that are held, by its own account.
        shows: the share of what is freed by which the excess falls.
        unit: what cannot be freed by halves.

    """

    excess: int
    counted: int
    shows: float = 1.0
    unit: int = 1
    freed: int = 0

    def step(self, ration: Ration) -> int:
        """Take a step, give it back, and measure; return what the step was to free."""
        wanted = ration.step(self.excess, self.counted)
        freed = min(-(-wanted // self.unit) * self.unit, self.counted)
        ration.spend(freed)
        self.freed += freed
        self.counted -= freed
        self.excess -= int(self.shows * freed)
        return wanted

    def steps(self, ration: Ration, *, most: int = 100) -> int:
        """Go on until nothing more is to be freed; return how many steps that took."""
        for count in range(most):
            if not self.step(ration):
                return count
        return most

    def grow(self, size: int) -> None:
        """Publish so much."""
        self.excess += size
        self.counted += size


# --- memory that comes back --------------------------------------------------------------------


@pytest.mark.parametrize("excess", [-MIB, -1])
def test_where_there_is_no_excess_nothing_is_freed(excess: int) -> None:
    assert Ration().step(excess, 100 * MIB) == 0


@pytest.mark.parametrize("excess", [0, 1, MIB, 100 * MIB])
def test_one_step_is_enough_where_what_is_freed_shows(excess: int) -> None:
    daemon = Daemon(excess, counted=400 * MIB)

    assert daemon.steps(Ration()) == 1
    assert daemon.excess < 0
    assert daemon.freed <= max(1.25 * excess, SMALLEST_STEP_BYTES)


@pytest.mark.parametrize("shows", [0.7, 0.8, 0.9])
def test_a_few_steps_are_enough_where_it_shows_in_part(shows: float) -> None:
    daemon = Daemon(20 * MIB, counted=400 * MIB, shows=shows)

    assert daemon.steps(Ration()) < 6
    assert daemon.excess < 0
    assert daemon.freed <= RATION * 20 * MIB


def test_an_excess_that_comes_back_is_another_one() -> None:
    ration, daemon = Ration(), Daemon(10 * MIB, counted=400 * MIB)
    for _ in range(3):
        daemon.steps(ration)
        assert daemon.excess < 0
        daemon.excess = 10 * MIB
    daemon.steps(ration)

    assert daemon.freed == 4 * (10 * MIB + 10 * MIB // 8)


# --- memory that does not ----------------------------------------------------------------------


def test_what_does_not_show_is_freed_once_and_half_and_no_further() -> None:
    ration, daemon = Ration(), Daemon(10 * MIB, counted=400 * MIB, shows=0)

    assert daemon.steps(ration) == 2
    assert daemon.freed == RATION * 10 * MIB
    assert daemon.steps(ration) == 0


def test_an_excess_that_the_account_does_not_explain_costs_no_more_when_it_grows() -> None:
    ration, daemon = Ration(), Daemon(10 * MIB, counted=400 * MIB, shows=0)
    daemon.steps(ration)
    for _ in range(10):
        daemon.excess += 10 * MIB
        daemon.steps(ration)

    assert daemon.freed == RATION * 10 * MIB


def test_more_may_be_freed_when_more_is_published() -> None:
    ration, daemon = Ration(), Daemon(10 * MIB, counted=400 * MIB, shows=0)
    daemon.steps(ration)
    daemon.grow(4 * MIB)
    daemon.steps(ration)

    assert daemon.freed == RATION * 14 * MIB


def test_what_expires_and_is_published_anew_is_not_more() -> None:
    ration, daemon = Ration(), Daemon(10 * MIB, counted=400 * MIB, shows=0)
    daemon.steps(ration)
    for _ in range(10):
        daemon.counted -= 4 * MIB
        daemon.steps(ration)
        daemon.counted += 4 * MIB
        daemon.steps(ration)

    assert daemon.freed == RATION * 10 * MIB


def test_while_more_is_published_than_was_too_much_steps_keep_up() -> None:
    ration, daemon = Ration(), Daemon(4 * MIB, counted=400 * MIB, shows=0.8)
    for _ in range(100):
        daemon.step(ration)
        daemon.grow(2 * MIB)
    daemon.steps(ration)

    assert daemon.excess < 0
    assert daemon.freed <= RATION * (4 + 200) * MIB


def test_after_a_step_that_freed_more_than_it_was_to_there_is_nothing_to_free() -> None:
    ration = Ration()
    ration.step(MIB, 100 * MIB)
    ration.spend(50 * MIB)

    assert 0 == ration.step(MIB, 50 * MIB)


# --- whatever happens --------------------------------------------------------------------------

sizes = st.integers(0, 100 * MIB) | st.integers(0, MIB)
shares = st.floats(0, 1)
units = st.integers(1, MIB)


@given(sizes, sizes, shares, units)
def test_no_excess_costs_more_than_its_ration_or_one_smallest_step(
    excess: int, counted: int, shows: float, unit: int
) -> None:
    daemon = Daemon(excess, counted, shows, unit)
    daemon.steps(Ration())

    assert daemon.freed <= max(int(RATION * excess), SMALLEST_STEP_BYTES) + unit


@given(sizes, sizes, shares, units, st.lists(st.tuples(st.integers(0, 2), sizes)))
def test_nor_do_all_of_them_together_whatever_grows_and_shrinks(
    excess: int, counted: int, shows: float, unit: int, run: list[tuple[int, int]]
) -> None:
    ration, daemon = Ration(), Daemon(excess, counted, shows, unit)
    allowed = max(RATION * excess, SMALLEST_STEP_BYTES) + unit
    daemon.steps(ration)
    for what, size in run:
        was_back = daemon.excess < 0
        match what:
            case 0:
                daemon.grow(size)
                allowed += RATION * size
            case 1:
                daemon.counted = max(0, daemon.counted - size)
                daemon.excess -= size
            case 2:
                daemon.excess += size  # by what nobody counts
        if was_back and daemon.excess >= 0:
            allowed += max(RATION * daemon.excess, SMALLEST_STEP_BYTES)
        daemon.steps(ration)
        allowed += unit

        assert daemon.freed <= allowed


@given(sizes, sizes, shares)
def test_it_goes_on_until_memory_is_back_or_the_ration_is_used_up_or_nothing_is_left(
    excess: int, counted: int, shows: float
) -> None:
    daemon = Daemon(excess, counted, shows)
    ration = Ration()
    steps = 0
    while daemon.counted and daemon.step(ration):
        steps += 1
        assert steps < 100

    assert (
        daemon.excess < 0
        or daemon.counted == 0
        or daemon.freed >= max(int(RATION * excess), SMALLEST_STEP_BYTES)
    )
