"""When memory is given back: under pressure, where that is worth it, and where it puzzles."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.breaker import State
from broadcasterd.memory.reclaim import (
    LONGEST_PAUSE_S,
    LONGEST_PAUSE_WITHOUT_PRESSURE_S,
    RELEASE_INTERVAL_S,
    WORTH_RELEASING_BYTES,
    ReleaseRule,
)

MUCH = 10 * WORTH_RELEASING_BYTES

UNDER_PRESSURE = (State.WARNING, State.OPEN, State.HALF_OPEN)


class Rule(ReleaseRule):
    """A rule that is asked once a second, and has settled in a state."""

    def __init__(self, state: State | None) -> None:
        super().__init__()
        self.now = 0.0
        self.state = state
        for _ in range(5):
            self.ask(MUCH)

    def ask(self, counted: int, *, is_puzzling: bool = False) -> bool:
        self.now += RELEASE_INTERVAL_S
        return self.is_due(counted=counted, state=self.state, now=self.now, is_puzzling=is_puzzling)

    def pauses(self, count: int) -> list[float]:
        """Return so many pauses between two releases for what no count explains."""
        done: list[float] = []
        while len(done) <= count:
            if self.ask(MUCH, is_puzzling=True):
                done.append(self.now)
        return [b - a for a, b in pairwise(done)]


@pytest.mark.parametrize("is_puzzling", [False, True])
def test_at_first_nothing_was_freed_and_nothing_is_due_unless_something_puzzles(
    *, is_puzzling: bool
) -> None:
    rule = ReleaseRule()

    assert 0 == rule.freed(0)
    due = rule.is_due(counted=0, state=State.CLOSED, now=0, is_puzzling=is_puzzling)
    assert due is is_puzzling


@pytest.mark.parametrize("state", [State.CLOSED, None])
def test_without_pressure_nothing_is_given_back(state: State | None) -> None:
    rule = Rule(state)

    assert [False] * 3 == [rule.ask(0), rule.ask(MUCH), rule.ask(0)]


@pytest.mark.parametrize("state", UNDER_PRESSURE)
def test_under_pressure_what_was_freed_is_given_back_and_once_more(state: State) -> None:
    rule = Rule(state)

    assert [True, True, False, False] == [rule.ask(0) for _ in range(4)]


@pytest.mark.parametrize("state", UNDER_PRESSURE)
def test_it_has_to_be_worth_it(state: State) -> None:
    rule = Rule(state)

    assert not rule.ask(MUCH - WORTH_RELEASING_BYTES + 1)
    assert rule.ask(MUCH - WORTH_RELEASING_BYTES)


def test_what_is_freed_bit_by_bit_adds_up() -> None:
    rule = Rule(State.OPEN)
    bit = WORTH_RELEASING_BYTES // 4

    assert [False] * 3 + [True] == [rule.ask(MUCH - n * bit) for n in range(1, 5)]


def test_what_was_freed_is_known_until_it_is_given_back() -> None:
    rule = Rule(State.OPEN)

    assert [0, 7, 7, 0] == [
        rule.freed(MUCH),
        rule.freed(MUCH - 7),
        rule.freed(MUCH - 7),
        rule.freed(2 * MUCH),
    ]

    assert rule.ask(0)
    assert rule.freed(0) == 0


def test_what_is_freed_and_used_again_is_not() -> None:
    rule = Rule(State.OPEN)
    bit = WORTH_RELEASING_BYTES // 4

    assert not any(rule.ask(MUCH - bit * (n % 2)) for n in range(100))


def test_what_was_freed_before_the_pressure_counts() -> None:
    rule = Rule(State.CLOSED)
    rule.ask(0)
    rule.state = State.WARNING

    assert rule.ask(0)


@pytest.mark.parametrize("state", UNDER_PRESSURE)
def test_after_a_step_it_is_done_once_however_little_was_freed(state: State) -> None:
    rule = Rule(state)
    rule.is_wanted = True

    assert [True, False, False] == [rule.ask(MUCH - 1) for _ in range(3)]
    assert not rule.is_wanted


def test_from_a_change_of_state_it_is_wanted_until_it_is_done() -> None:
    rule = Rule(State.WARNING)
    rule.is_wanted = True
    assert rule.ask(MUCH)
    too_soon = rule.now + RELEASE_INTERVAL_S / 2

    assert not rule.is_due(counted=MUCH, state=State.HALF_OPEN, now=too_soon, is_puzzling=False)
    assert rule.is_wanted

    rule.state = State.HALF_OPEN
    assert rule.ask(MUCH)
    assert not rule.is_wanted


def test_each_change_of_state_is_a_reason() -> None:
    rule = Rule(State.CLOSED)
    found = []
    for rule.state in (State.WARNING, State.OPEN, State.HALF_OPEN, State.CLOSED):
        found.append([rule.ask(MUCH) for _ in range(3)])

    assert [[True, False, False]] * 4 == found


def test_it_waits_between_two() -> None:
    rule = Rule(State.OPEN)
    now = rule.now + 1

    assert rule.is_due(counted=0, state=State.OPEN, now=now, is_puzzling=False)
    early = now + RELEASE_INTERVAL_S - 0.001
    assert not rule.is_due(counted=0, state=State.OPEN, now=early, is_puzzling=False)
    assert rule.is_due(counted=0, state=State.OPEN, now=now + RELEASE_INTERVAL_S, is_puzzling=False)


UNTIL_LONGEST = {
    State.OPEN: [1, 2, 4, 8, 16, *[LONGEST_PAUSE_S] * 3],
    State.CLOSED: [1, 2, 4, 8, 16, 32, 64, 128, 256, *[LONGEST_PAUSE_WITHOUT_PRESSURE_S] * 3],
}
"""Pauses between two that look for what no count explains, in intervals of a second."""


@pytest.mark.parametrize("state", UNTIL_LONGEST)
def test_what_no_count_explains_is_looked_for_after_pauses_that_grow(state: State) -> None:
    pauses = UNTIL_LONGEST[state]

    assert pauses == Rule(state).pauses(len(pauses))


def test_the_pauses_begin_anew_when_the_state_changes() -> None:
    rule = Rule(State.WARNING)
    rule.pauses(8)
    rule.state = State.OPEN

    assert rule.ask(MUCH, is_puzzling=True)
    assert [2, 4, 8] == rule.pauses(3)


def test_the_pauses_begin_anew_when_all_was_explained_for_a_moment() -> None:
    rule = Rule(State.OPEN)
    rule.pauses(8)
    assert not rule.ask(MUCH)

    assert [1, 2, 4] == rule.pauses(3)


def test_what_no_count_explains_is_not_looked_for_more_often_than_anything() -> None:
    rule = Rule(State.OPEN)
    assert rule.ask(MUCH, is_puzzling=True)
    soon = rule.now + RELEASE_INTERVAL_S / 2

    assert not rule.is_due(counted=MUCH, state=State.OPEN, now=soon, is_puzzling=True)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * WORTH_RELEASING_BYTES),
            st.sampled_from([*State, None]),
            st.floats(0, 3),
        )
    )
)
def test_it_is_never_done_more_often_than_allowed_nor_without_a_breaker(
    run: list[tuple[int, State | None, float]],
) -> None:
    rule, now = ReleaseRule(), 0.0
    done: list[float] = []
    for counted, state, passing in run:
        now += passing
        if rule.is_due(counted=counted, state=state, now=now, is_puzzling=False):
            assert state is not None
            done.append(now)

    assert all(b - a >= RELEASE_INTERVAL_S - 1e-9 for a, b in pairwise(done))
