"""What the policy decides: the least missed goes first, and no more of it than is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.breaker import State, Thresholds
from broadcasterd.memory.policy import (
    IDLE_S,
    KEPT_SHARE,
    MAX_ACTIONS,
    SESSION_BYTES,
    SMALL_BYTES,
    TARGET,
    Action,
    CutLaggards,
    ExpireEarly,
    Forget,
    SessionVitals,
    Trim,
    plan,
)

KIB = 1024
MIB = 1024 * KIB

T = Thresholds(warning=200 * MIB, critical=500 * MIB, recover=180 * MIB)
ENOUGH = int(T.recover * TARGET)

STATES_THAT_SHORTEN = (State.WARNING, State.HALF_OPEN)


def not_asked() -> NoReturn:
    raise AssertionError("there may be thousands of sessions: they are not to be asked")


def decide(state: State, *sessions: SessionVitals, excess: int = 400 * MIB) -> list[Action]:
    return plan(state, ENOUGH + excess, T, lambda: sessions)


def quiet(
    name: str, size: int = MIB, *, subscribers: int = 0, idle: float = 100.0
) -> SessionVitals:
    return SessionVitals(name, size, subscribers, idle)


# --- when there is nothing to do -------------------------------------------------------------


@pytest.mark.parametrize("used", [0, T.warning - 1, T.warning, T.critical, 10 * T.critical])
def test_a_closed_breaker_asks_nobody_and_does_nothing(used: int) -> None:
    assert plan(State.CLOSED, used, T, not_asked) == []


@pytest.mark.parametrize("state", State)
def test_memory_that_is_back_asks_nobody_and_does_nothing(state: State) -> None:
    assert plan(state, ENOUGH, T, not_asked) == []


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
def test_where_there_is_no_session_nothing_can_be_done(state: State) -> None:
    assert decide(state) == []


def test_an_open_breaker_goes_for_old_events_and_laggards_even_so() -> None:
    assert [ExpireEarly(share=0.5), CutLaggards()] == decide(State.OPEN)


# --- warning ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
@pytest.mark.parametrize("subscribers", [0, 3])
def test_a_warning_shortens_a_history_to_its_share(state: State, subscribers: int) -> None:
    assert [Trim("s", MIB // KEPT_SHARE)] == decide(state, quiet("s", subscribers=subscribers))


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
def test_a_history_is_not_shortened_to_next_to_nothing(state: State) -> None:
    smallest = KEPT_SHARE * SMALL_BYTES

    assert [Trim("s", SMALL_BYTES)] == decide(state, quiet("s", smallest))
    assert [] == decide(state, quiet("s", smallest - 1, subscribers=1))
    assert [] == decide(state, quiet("s", smallest - 1, idle=IDLE_S - 0.1))


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
def test_what_is_next_to_nothing_is_forgotten_where_nobody_is_there(state: State) -> None:
    session = quiet("s", KEPT_SHARE * SMALL_BYTES - 1, idle=IDLE_S)

    assert [Forget("s")] == decide(state, session)


# --- open ------------------------------------------------------------------------------------


def test_an_open_breaker_forgets_where_nobody_listens_and_empties_the_rest() -> None:
    actions = decide(
        State.OPEN,
        quiet("left", idle=9),
        quiet("followed", subscribers=1, idle=8),
        quiet("busy", idle=0),
    )

    assert actions == [
        ExpireEarly(share=0.5),
        CutLaggards(),
        Forget("left"),
        Trim("followed", 0),
        Forget("busy"),
    ]


def test_an_empty_history_that_is_followed_is_let_be() -> None:
    assert decide(State.OPEN, quiet("s", 0, subscribers=1)) == decide(State.OPEN)


# --- how much, and in what order -------------------------------------------------------------


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
def test_it_begins_with_the_idlest_and_stops_when_that_is_enough(state: State) -> None:
    sessions = [quiet(f"idle-{idle}", 4 * MIB, idle=float(idle)) for idle in (10, 30, 20)]

    assert ["idle-30"] == names(decide(state, *sessions, excess=3 * MIB))
    assert ["idle-30", "idle-20"] == names(decide(state, *sessions, excess=3 * MIB + 1))


def test_an_open_breaker_stops_when_that_is_enough() -> None:
    sessions = [quiet(f"idle-{idle}", 4 * MIB, idle=float(idle)) for idle in (10, 30, 20)]

    one = 4 * MIB + SESSION_BYTES

    assert ["idle-30"] == names(decide(State.OPEN, *sessions, excess=one))
    assert ["idle-30", "idle-20"] == names(decide(State.OPEN, *sessions, excess=one + 1))


@pytest.mark.parametrize("state", [*STATES_THAT_SHORTEN, State.OPEN])
def test_one_plan_has_so_many_actions_and_no_more(state: State) -> None:
    sessions = [quiet(f"s{n}", idle=1e6 - n) for n in range(2 * MAX_ACTIONS)]
    actions = decide(state, *sessions, excess=10**12)

    assert MAX_ACTIONS == len(actions)
    assert [f"s{n}" for n in range(len(names(actions)))] == names(actions)


# --- the whole planner -----------------------------------------------------------------------


def names(actions: Sequence[Action]) -> list[str]:
    return [action.name for action in actions if isinstance(action, Trim | Forget)]


sizes = st.integers(0, 2 * MIB) | st.sampled_from(
    [0, SMALL_BYTES, KEPT_SHARE * SMALL_BYTES, KEPT_SHARE * SMALL_BYTES - 1]
)
idles = st.floats(0, 1e4) | st.sampled_from([0.0, IDLE_S])


@st.composite
def sessions(draw: st.DrawFn) -> list[SessionVitals]:
    figures = draw(st.lists(st.tuples(sizes, st.integers(0, 3), idles), max_size=30))
    return [SessionVitals(f"s{n}", *figure) for n, figure in enumerate(figures)]


states = st.sampled_from(State)
used = st.integers(0, 2 * T.critical) | st.integers(ENOUGH - MIB, ENOUGH + 10 * MIB)


def freed(session: SessionVitals, action: Action) -> int:
    if isinstance(action, Trim):
        return session.bytes - action.to_bytes
    return session.bytes + SESSION_BYTES


@given(states, used, sessions())
def test_each_session_is_touched_once_at_most_and_is_one_that_there_is(
    state: State, used: int, there: list[SessionVitals]
) -> None:
    touched = names(plan(state, used, T, lambda: there))

    assert len(touched) == len(set(touched))
    assert set(touched) <= {session.name for session in there}


@given(states, used, sessions())
def test_no_session_that_somebody_listens_to_is_forgotten(
    state: State, used: int, there: list[SessionVitals]
) -> None:
    followed = {session.name for session in there if session.subscribers}
    forgotten = {a.name for a in plan(state, used, T, lambda: there) if isinstance(a, Forget)}

    assert not followed & forgotten


@given(states, used, sessions())
def test_a_history_is_only_ever_made_shorter(
    state: State, used: int, there: list[SessionVitals]
) -> None:
    size = {session.name: session.bytes for session in there}
    for action in plan(state, used, T, lambda: there):
        if isinstance(action, Trim):
            assert 0 <= action.to_bytes < size[action.name]


@given(st.sampled_from(STATES_THAT_SHORTEN), used, sessions())
def test_a_warning_never_empties_a_history_that_is_in_use(
    state: State, used: int, there: list[SessionVitals]
) -> None:
    by_name = {session.name: session for session in there}
    for action in plan(state, used, T, lambda: there):
        assert isinstance(action, Trim | Forget), "nobody is cut, nothing expires early"
        session = by_name[action.name]
        if isinstance(action, Trim):
            assert action.to_bytes >= SMALL_BYTES
        else:
            assert not session.subscribers
            assert session.idle >= IDLE_S
            assert session.bytes < KEPT_SHARE * SMALL_BYTES


@given(states, used, sessions())
def test_the_idlest_go_first(state: State, used: int, there: list[SessionVitals]) -> None:
    idle = {session.name: session.idle for session in there}
    in_order = [idle[name] for name in names(plan(state, used, T, lambda: there))]

    assert sorted(in_order, reverse=True) == in_order


@given(states, used, sessions())
def test_it_stops_as_soon_as_enough_is_freed_and_not_before(
    state: State, used: int, there: list[SessionVitals]
) -> None:
    by_name = {session.name: session for session in there}
    actions = [a for a in plan(state, used, T, lambda: there) if isinstance(a, Trim | Forget)]
    excess = used - ENOUGH
    for action in actions:
        assert excess > 0, "it was enough before"
        excess -= freed(by_name[action.name], action)
    if state is not State.CLOSED and excess > 0:
        # All were gone through. In what was not touched there is nothing left for this stage.
        untouched = [by_name[name] for name in by_name.keys() - set(names(actions))]
        assert all(not plan_alone(state, session) for session in untouched)


def plan_alone(state: State, session: SessionVitals) -> list[str]:
    return names(decide(state, session))


@given(states, used, sessions())
def test_early_expiry_and_cuts_come_first_and_only_when_open(
    state: State, used: int, there: list[SessionVitals]
) -> None:
    actions = plan(state, used, T, lambda: there)
    general = [action for action in actions if not isinstance(action, Trim | Forget)]
    is_needed = state is State.OPEN and used > ENOUGH

    assert general == ([ExpireEarly(share=0.5), CutLaggards()] if is_needed else [])
    assert general == actions[: len(general)]


@given(states, used, sessions())
def test_the_same_figures_make_the_same_plan_whatever_their_order(
    state: State, used: int, there: list[SessionVitals]
) -> None:
    actions = plan(state, used, T, lambda: there)

    assert actions == plan(state, used, T, lambda: list(there))
    if len({session.idle for session in there}) == len(there):
        assert actions == plan(state, used, T, lambda: there[::-1])
