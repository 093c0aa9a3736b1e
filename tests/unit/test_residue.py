"""Memory that no count explains: the program's, what is in the way, and what is excused."""

from __future__ import annotations

import pytest

from broadcasterd.memory.breaker import MIB
from broadcasterd.memory.residue import MUCH_BYTES, STEADY_BYTES, TRIES, Residue

PROGRAM = 60 * MIB
RECOVER = 180 * MIB
MUCH_MORE = 150 * MIB


def looked_at(*beside_counts: int) -> Residue:
    """Return what so many bytes beside those that are counted make, look by look."""
    residue = Residue()
    for one in beside_counts:
        residue.observe(one + 7 * MIB, counted=7 * MIB)
    return residue


def excused_after(residue: Residue, *, is_spent: bool = False) -> int | None:
    """Return how many releases that bring nothing it takes; ``None`` if it never is."""
    for count in range(1, 20):
        if residue.was_released(RECOVER, is_spent=is_spent):
            return count
    return None


def test_before_the_first_look_there_is_nothing() -> None:
    residue = Residue()

    assert (0, 0, 0) == (residue.bytes, residue.excused, residue.unexplained)


@pytest.mark.parametrize(
    ("looks", "unexplained"),
    [
        ([PROGRAM], 0),
        ([PROGRAM, PROGRAM + 5], 5),
        ([PROGRAM, PROGRAM - 5], 0),
        ([PROGRAM, PROGRAM - 5, PROGRAM], 5),
        ([PROGRAM, PROGRAM - MUCH_BYTES, PROGRAM], MUCH_BYTES),
        ([PROGRAM, PROGRAM - 2 * MUCH_BYTES, PROGRAM], MUCH_BYTES),
    ],
)
def test_the_least_that_there_has_been_is_the_program_but_not_much_less_than_at_first(
    looks: list[int], unexplained: int
) -> None:
    residue = looked_at(*looks)

    assert looks[-1] == residue.bytes
    assert unexplained == residue.unexplained
    assert 0 == residue.excused


@pytest.mark.parametrize(
    ("more", "besides", "recover", "exceeds"),
    [
        (MUCH_BYTES, 0, PROGRAM, True),
        (MUCH_BYTES - 1, 0, PROGRAM, False),
        (MUCH_BYTES - 1, 1, PROGRAM, True),
        (MUCH_BYTES, 0, PROGRAM + MUCH_BYTES, True),
        (MUCH_BYTES, 0, PROGRAM + MUCH_BYTES + 1, False),
        (MUCH_BYTES, 1, PROGRAM + MUCH_BYTES + 1, True),
    ],
)
def test_it_is_in_the_way_where_it_is_much_and_memory_would_not_be_back_without_all_that_is_counted(
    more: int, besides: int, recover: int, *, exceeds: bool
) -> None:
    assert exceeds is looked_at(PROGRAM, PROGRAM + more).exceeds(recover, besides=besides)
    assert (exceeds and not besides) is looked_at(PROGRAM, PROGRAM + more).exceeds(recover)


def test_what_releases_do_not_bring_back_is_excused_after_some_tries() -> None:
    residue = looked_at(PROGRAM, PROGRAM + MUCH_MORE)

    assert not residue.was_released(RECOVER, is_spent=False), "it has grown since the last one"
    assert TRIES == excused_after(residue)
    assert MUCH_MORE == residue.excused
    assert PROGRAM == residue.held_against_us
    assert excused_after(residue) is None, "there is nothing more to excuse"


def test_what_comes_on_top_is_tried_for_as_often() -> None:
    residue = looked_at(PROGRAM, PROGRAM + MUCH_MORE)
    excused_after(residue)
    residue.observe(PROGRAM + 2 * MUCH_MORE, 0)

    assert (MUCH_MORE, PROGRAM + MUCH_MORE) == (residue.excused, residue.held_against_us)
    assert 1 + TRIES == excused_after(residue)


@pytest.mark.parametrize(
    ("growth", "is_excused"), [(STEADY_BYTES, True), (STEADY_BYTES + 1, False)]
)
def test_what_grows_is_in_use_and_never_excused(growth: int, *, is_excused: bool) -> None:
    residue = looked_at(PROGRAM, PROGRAM + MUCH_MORE)
    found = []
    for _ in range(1 + TRIES):
        residue.observe(residue.bytes + growth, 0)
        found.append(residue.was_released(RECOVER, is_spent=False))

    assert found == [False] * TRIES + [is_excused]


def test_no_more_is_excused_than_is_there() -> None:
    residue = looked_at(PROGRAM, PROGRAM + MUCH_MORE)
    excused_after(residue)

    residue.observe(PROGRAM + 10, 0)
    assert 10 == residue.excused
    residue.observe(PROGRAM - 2 * MUCH_BYTES, 0)
    assert 0 == residue.excused


@pytest.mark.parametrize(
    ("more", "is_spent", "takes"),
    [
        (MUCH_BYTES, True, [1 + TRIES, TRIES]),
        (MUCH_BYTES - 1, True, [None, None]),
        (MUCH_BYTES, False, [None, None]),
    ],
)
def test_less_is_excused_too_where_all_is_freed_that_may_be(
    more: int, takes: list[int | None], *, is_spent: bool
) -> None:
    residue = looked_at(PROGRAM, PROGRAM + more)

    assert takes == [excused_after(residue, is_spent=is_spent) for _ in range(2)]
