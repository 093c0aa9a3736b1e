"""When memory is given back: under pressure, when it is worth it, and once more after that."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.breaker import State
from broadcasterd.memory.reclaim import RELEASE_INTERVAL_S, WORTH_RELEASING_BYTES, ReleaseRule

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

    def ask(self, counted: int) -> bool:
        self.now += RELEASE_INTERVAL_S
        return self.is_due(counted=counted, state=self.state, now=self.now)


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

    assert not rule.is_due(counted=MUCH, state=State.HALF_OPEN, now=too_soon)
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

    assert rule.is_due(counted=0, state=State.OPEN, now=now)
    early = now + RELEASE_INTERVAL_S - 0.001
    assert not rule.is_due(counted=0, state=State.OPEN, now=early)
    assert rule.is_due(counted=0, state=State.OPEN, now=now + RELEASE_INTERVAL_S)


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
        if rule.is_due(counted=counted, state=state, now=now):
            assert state is not None
            done.append(now)

    assert all(b - a >= RELEASE_INTERVAL_S - 1e-9 for a, b in pairwise(done))
