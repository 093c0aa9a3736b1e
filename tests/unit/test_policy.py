"""What the policy decides: the least missed goes first, and no more of it than is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.breaker import State
from broadcasterd.memory.policy import (
    IDLE_S,
    KEPT_SHARE,
    MAX_ACTIONS,
    MAX_EVENTS,
    SESSION_BYTES,
    SMALL_BYTES,
    DisconnectLaggards,
    ExpireEarly,
    Forget,
    Plan,
    ReliefAction,
    SessionVitals,
    Trim,
    plan,
)
from broadcasterd.memory.shares import dues

KIB = 1024
MIB = 1024 * KIB

ALL = 400 * MIB
"""More than any of these sessions have."""

EVENTS = 16
"""In a history, where that does not matter."""

STATES_THAT_SHORTEN = (State.WARNING, State.HALF_OPEN)


def not_asked() -> NoReturn:
    raise AssertionError("there may be thousands of sessions: they are not to be asked")


def decide(state: State, *sessions: SessionVitals, to_free: int = ALL) -> Sequence[ReliefAction]:
    return plan(state, to_free, lambda: sessions).actions


def quiet(
    name: str,
    size: int = MIB,
    *,
    subscribers: int = 0,
    idle: float = 100.0,
    subject: str | None = None,
) -> SessionVitals:
    return SessionVitals(name, EVENTS, size, subscribers, idle, subject)


# --- when there is nothing to do -------------------------------------------------------------


@pytest.mark.parametrize("to_free", [-MIB, 0, 1, ALL])
def test_a_closed_breaker_asks_nobody_and_does_nothing(to_free: int) -> None:
    assert plan(State.CLOSED, to_free, not_asked) == Plan((), is_whole=True)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("to_free", [-MIB, 0])
def test_where_nothing_is_to_be_freed_nobody_is_asked(state: State, to_free: int) -> None:
    assert plan(state, to_free, not_asked) == Plan()


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
def test_where_there_is_no_session_nothing_can_be_done(state: State) -> None:
    assert decide(state) == []


def test_an_open_breaker_goes_for_old_events_and_laggards_even_so() -> None:
    assert [ExpireEarly(share=0.5), DisconnectLaggards()] == decide(State.OPEN)


# --- warning ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
@pytest.mark.parametrize("subscribers", [0, 3])
def test_a_warning_shortens_a_history_to_its_share_at_the_most(
    state: State, subscribers: int
) -> None:
    assert [Trim("s", MIB // KEPT_SHARE)] == decide(state, quiet("s", subscribers=subscribers))


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
def test_a_history_is_shortened_by_no_more_than_is_needed(state: State) -> None:
    first, second = quiet("first", idle=2), quiet("second", idle=1)
    quarter = MIB // KEPT_SHARE
    at_the_most = MIB - quarter + MIB // EVENTS  # only whole events are dropped

    assert [Trim("first", MIB - 1)] == decide(state, first, second, to_free=1)
    assert [Trim("first", quarter)] == decide(state, first, second, to_free=at_the_most)
    assert [Trim("first", quarter), Trim("second", MIB - 1)] == decide(
        state, first, second, to_free=at_the_most + 1
    )


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
        DisconnectLaggards(),
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

    one = 3 * MIB + 4 * MIB // EVENTS

    assert ["idle-30"] == names(decide(state, *sessions, to_free=one))
    assert ["idle-30", "idle-20"] == names(decide(state, *sessions, to_free=one + 1))


def test_an_open_breaker_stops_when_that_is_enough() -> None:
    sessions = [quiet(f"idle-{idle}", 4 * MIB, idle=float(idle)) for idle in (10, 30, 20)]

    one = 4 * MIB + SESSION_BYTES

    assert ["idle-30"] == names(decide(State.OPEN, *sessions, to_free=one))
    assert ["idle-30", "idle-20"] == names(decide(State.OPEN, *sessions, to_free=one + 1))


@pytest.mark.parametrize("state", [*STATES_THAT_SHORTEN, State.OPEN])
def test_one_plan_has_so_many_actions_and_no_more(state: State) -> None:
    sessions = [quiet(f"s{n}", idle=1e6 - n) for n in range(2 * MAX_ACTIONS)]
    todo = plan(state, 10**12, lambda: sessions)

    assert MAX_ACTIONS == len(names(todo.actions))
    assert not todo.is_whole
    assert [f"s{n}" for n in range(len(names(todo.actions)))] == names(todo.actions)


@pytest.mark.parametrize("state", [*STATES_THAT_SHORTEN, State.OPEN])
@pytest.mark.parametrize("lacking", [0, 1])
def test_one_plan_drops_so_many_events_and_hardly_more(state: State, lacking: int) -> None:
    each = MAX_EVENTS // 4
    sessions = [
        SessionVitals(f"s{n}", each - (0 if n else lacking), MIB, 0, 1e6 - n) for n in range(10)
    ]
    todo = plan(state, 10**12, lambda: sessions)

    assert ["s0", "s1", "s2", "s3", "s4"][: 4 + lacking] == names(todo.actions)
    assert not todo.is_whole


@pytest.mark.parametrize("state", [*STATES_THAT_SHORTEN, State.OPEN])
def test_a_plan_that_is_enough_or_has_nothing_left_is_whole(state: State) -> None:
    sessions = [quiet(f"s{n}") for n in range(3)]

    assert plan(state, MIB // 2, lambda: sessions).is_whole
    assert plan(state, 10**12, lambda: sessions).is_whole


# --- who holds more than its share pays first ------------------------------------------------


def of_two_subjects(*, hoards: int) -> list[SessionVitals]:
    """Return the sessions of alice, which are the idlest, and many more of mallory."""
    return [quiet(f"alice-{n}", idle=1e6 - n, subject="alice") for n in range(2)] + [
        quiet(f"mallory-{n}", idle=100 - n, subject="mallory") for n in range(hoards)
    ]


@pytest.mark.parametrize("state", [*STATES_THAT_SHORTEN, State.OPEN])
@pytest.mark.parametrize("to_free", [1, MIB, 5 * MIB, 30 * MIB])
def test_nobody_else_pays_while_somebody_is_over_its_fair_share(state: State, to_free: int) -> None:
    touched = names(decide(state, *of_two_subjects(hoards=40), to_free=to_free))

    assert touched
    assert [name for name in touched if name.startswith("alice")] == []
    assert touched == [f"mallory-{n}" for n in range(len(touched))], "its idlest first"


@pytest.mark.parametrize("state", STATES_THAT_SHORTEN)
def test_in_a_warning_it_gives_up_the_last_quarter_before_others_give_anything(
    state: State,
) -> None:
    for_all_quarters = 40 * MIB - 40 * MIB // KEPT_SHARE + 40 * MIB // EVENTS
    actions = decide(state, *of_two_subjects(hoards=40), to_free=for_all_quarters + MIB)
    kept = {action.name: action.to_bytes for action in actions if isinstance(action, Trim)}

    assert {f"mallory-{n}" for n in range(40)} == kept.keys() | set(names(actions))
    assert kept["mallory-39"] == MIB // KEPT_SHARE
    assert kept.get("mallory-0", 0) < MIB // KEPT_SHARE


@pytest.mark.parametrize("state", [*STATES_THAT_SHORTEN, State.OPEN])
def test_among_equals_the_idlest_pays(state: State) -> None:
    equals = [quiet(name, idle=idle, subject=name) for name, idle in (("a", 1), ("b", 9), ("c", 5))]

    assert ["b"] == names(decide(state, *equals, to_free=MIB // 2))


def test_an_open_breaker_lets_no_event_expire_early_while_those_over_their_share_can_pay() -> None:
    sessions = of_two_subjects(hoards=10)

    assert ExpireEarly(share=0.5) not in decide(State.OPEN, *sessions, to_free=5 * MIB)
    assert ExpireEarly(share=0.5) in decide(State.OPEN, *sessions, to_free=12 * MIB)


def test_sessions_that_nobody_listens_to_count_as_held() -> None:
    empty = [quiet(f"mallory-{n}", 0, subject="mallory") for n in range(300)]
    large = quiet("alice", 200 * SESSION_BYTES, subscribers=1, idle=1e6, subject="alice")

    assert ["mallory-0", "mallory-1"] == names(
        decide(State.WARNING, *empty, large, to_free=2 * SESSION_BYTES)
    )


def test_what_it_cannot_give_yet_nobody_gives_in_its_place() -> None:
    in_use = [quiet(f"mallory-{n}", 0, idle=1, subject="mallory") for n in range(300)]
    large = quiet("alice", 200 * SESSION_BYTES, subscribers=1, idle=1e6, subject="alice")

    assert [] == decide(State.WARNING, *in_use, large, to_free=SESSION_BYTES)


ONE = MIB - SESSION_BYTES
"""The history of a session that takes 1 MiB altogether."""


def test_it_gives_what_it_owes_and_all_give_the_rest() -> None:
    there = [
        quiet(f"{name}-{n}", ONE, idle=idle - n, subject=name)
        for name, count, idle in (("mallory", 10, 100), ("alice", 5, 300), ("bob", 5, 200))
        for n in range(count)
    ]
    owed = 7  # in 10 of 20 MiB each has 3.3

    assert [*(f"mallory-{n}" for n in range(owed)), "alice-0", "alice-1", "alice-2"] == names(
        decide(State.OPEN, *there, to_free=10 * MIB)
    )


def test_where_it_gives_exactly_what_is_needed_no_event_expires_early() -> None:
    there = [quiet(f"mallory-{n}", ONE, idle=100 - n, subject="mallory") for n in range(10)]
    alice = quiet("alice", ONE, idle=1e6, subject="alice")

    assert [DisconnectLaggards(), Forget("mallory-0"), Forget("mallory-1")] == decide(
        State.OPEN, *there, alice, to_free=2 * MIB
    )


def test_where_others_have_to_give_a_single_byte_events_expire_early() -> None:
    mallory = quiet("mallory", ONE, subject="mallory")
    alice = quiet("alice", 1, subscribers=1, subject="alice")

    assert [ExpireEarly(share=0.5), DisconnectLaggards(), Forget("mallory"), Trim("alice", 0)] == (
        decide(State.OPEN, mallory, alice, to_free=MIB + 1)
    )


def test_each_of_its_sessions_gives_the_last_quarter_until_that_is_enough() -> None:
    hoard = [
        quiet(f"mallory-{n}", 8 * MIB, subscribers=1, idle=100 - n, subject="mallory")
        for n in range(2)
    ]
    alice = quiet("alice", subscribers=1, idle=1e6, subject="alice")

    assert [Trim("mallory-0", 0), Trim("mallory-1", MIB // 2)] == decide(
        State.WARNING, *hoard, alice, to_free=16 * MIB
    )


@pytest.mark.parametrize(
    ("to_free", "subscribers", "idle", "expected"),
    [
        (9 * MIB, 0, IDLE_S, Forget("mallory")),
        (9 * MIB, 0, IDLE_S - 0.1, Trim("mallory", 0)),
        (9 * MIB, 1, IDLE_S, Trim("mallory", 0)),
        (7 * MIB, 0, IDLE_S, Trim("mallory", MIB)),
    ],
)
def test_one_that_has_nothing_left_is_forgotten_if_nobody_is_there(
    to_free: int, subscribers: int, idle: float, expected: ReliefAction
) -> None:
    hoard = quiet("mallory", 8 * MIB, subscribers=subscribers, idle=idle, subject="mallory")
    alice = quiet("alice", subscribers=1, idle=0, subject="alice")

    assert expected == decide(State.WARNING, hoard, alice, to_free=to_free)[0]


def test_of_its_sessions_one_that_has_nothing_to_give_leaves_all_to_the_next() -> None:
    mallory = [
        quiet("empty", 0, subscribers=1, idle=200, subject="mallory"),
        quiet("large", 8 * MIB, subscribers=1, idle=100, subject="mallory"),
    ]
    others = [
        quiet(name, 5 * MIB, subscribers=1, idle=1e6, subject=name) for name in ("alice", "bob")
    ]
    owed = 5 * MIB  # in 9 of 18 MiB each has 3

    assert (
        Trim("large", 8 * MIB - owed)
        == decide(State.WARNING, *mallory, *others, to_free=9 * MIB)[0]
    )


def test_what_would_free_nothing_more_is_not_done() -> None:
    an_event = SessionVitals("mallory", 1, MIB, 0, idle=1, subject="mallory")
    alice = quiet("alice", 0, subscribers=1, subject="alice")

    assert [Trim("mallory", MIB // KEPT_SHARE)] == decide(
        State.WARNING, an_event, alice, to_free=MIB + SESSION_BYTES
    )


# --- the whole planner -----------------------------------------------------------------------


def names(actions: Sequence[ReliefAction]) -> list[str]:
    return [action.name for action in actions if isinstance(action, Trim | Forget)]


sizes = st.integers(0, 2 * MIB) | st.sampled_from(
    [0, SMALL_BYTES, KEPT_SHARE * SMALL_BYTES, KEPT_SHARE * SMALL_BYTES - 1]
)
counts = st.integers(1, 500) | st.integers(1, 5)
idles = st.floats(0, 1e4) | st.sampled_from([0.0, IDLE_S])


subjects = st.sampled_from([None, "alice", "bob", "carol"])


@st.composite
def sessions(
    draw: st.DrawFn, owners: st.SearchStrategy[str | None] = subjects
) -> list[SessionVitals]:
    """Return sessions whose events are all of one size."""
    figures = st.tuples(counts, sizes, st.integers(0, 3), idles, owners)
    return [
        SessionVitals(f"s{n}", count if size else 0, size - size % count, subscribers, idle, owner)
        for n, (count, size, subscribers, idle, owner) in enumerate(
            draw(st.lists(figures, max_size=30))
        )
    ]


of_one = sessions(st.just("alice"))
states = st.sampled_from(State)
amounts = st.integers(-MIB, ALL) | st.integers(-MIB, 10 * MIB)


def freed(session: SessionVitals, action: ReliefAction) -> int:
    """Return what that frees in a session whose events are all of one size."""
    if isinstance(action, Forget):
        return session.bytes + SESSION_BYTES
    assert isinstance(action, Trim)
    size = session.bytes // session.events
    return -(-(session.bytes - action.to_bytes) // size) * size


@given(states, amounts, sessions())
def test_each_session_is_touched_once_at_most_and_is_one_that_there_is(
    state: State, to_free: int, there: list[SessionVitals]
) -> None:
    touched = names(plan(state, to_free, lambda: there).actions)

    assert len(touched) == len(set(touched))
    assert set(touched) <= {session.name for session in there}


@given(states, amounts, sessions())
def test_no_session_that_somebody_listens_to_is_forgotten(
    state: State, to_free: int, there: list[SessionVitals]
) -> None:
    followed = {session.name for session in there if session.subscribers}
    forgotten = {
        a.name for a in plan(state, to_free, lambda: there).actions if isinstance(a, Forget)
    }

    assert not followed & forgotten


@given(states, amounts, sessions())
def test_a_history_is_only_ever_made_shorter(
    state: State, to_free: int, there: list[SessionVitals]
) -> None:
    size = {session.name: session.bytes for session in there}
    for action in plan(state, to_free, lambda: there).actions:
        if isinstance(action, Trim):
            assert 0 <= action.to_bytes < size[action.name]


@given(st.sampled_from(STATES_THAT_SHORTEN), amounts, of_one)
def test_a_warning_never_empties_a_history_that_is_in_use(
    state: State, to_free: int, there: list[SessionVitals]
) -> None:
    by_name = {session.name: session for session in there}
    for action in plan(state, to_free, lambda: there).actions:
        assert isinstance(action, Trim | Forget), "nobody is cut, nothing expires early"
        session = by_name[action.name]
        if isinstance(action, Trim):
            assert action.to_bytes >= SMALL_BYTES
        else:
            assert not session.subscribers
            assert session.idle >= IDLE_S
            assert session.bytes < KEPT_SHARE * SMALL_BYTES


@given(states, amounts, of_one)
def test_the_idlest_go_first(state: State, to_free: int, there: list[SessionVitals]) -> None:
    idle = {session.name: session.idle for session in there}
    in_order = [idle[name] for name in names(plan(state, to_free, lambda: there).actions)]

    assert sorted(in_order, reverse=True) == in_order


@given(states, amounts, sessions())
def test_it_frees_what_is_needed_and_no_more_than_one_event_or_session_beyond(
    state: State, to_free: int, there: list[SessionVitals]
) -> None:
    by_name = {session.name: session for session in there}
    todo = plan(state, to_free, lambda: there)
    actions = [action for action in todo.actions if isinstance(action, Trim | Forget)]
    total = 0
    for action in actions:
        assert total < to_free, "it was enough before"
        session = by_name[action.name]
        total += freed(session, action)
    if actions:
        last = by_name[actions[-1].name]
        is_shortened = state is not State.OPEN and isinstance(actions[-1], Trim)
        unit = last.bytes // last.events if is_shortened else last.bytes + SESSION_BYTES
        assert total < to_free + unit
    if state is not State.CLOSED and todo.is_whole and total < to_free:
        # All were gone through. In what was not touched there is nothing left for this stage.
        untouched = [by_name[name] for name in by_name.keys() - set(names(actions))]
        spared = sum(s.bytes // max(s.events, 1) for s in map(by_name.get, names(actions)) if s)
        assert total + spared >= to_free or all(not plan_alone(state, s) for s in untouched)


@given(states, amounts, sessions())
def test_who_has_no_more_than_its_fair_share_keeps_all_of_it_while_others_can_pay(
    state: State, to_free: int, there: list[SessionVitals]
) -> None:
    by_name = {session.name: session for session in there}
    held = Counter({s.subject: 0 for s in there})
    for session in there:
        held[session.subject] += holds(session)
    owed = dues({subject: size for subject, size in held.items() if size}, max(to_free, 1))
    todo = plan(state, to_free, lambda: there)
    lost: Counter[str | None] = Counter()
    for action in todo.actions:
        if isinstance(action, Trim | Forget):
            session = by_name[action.name]
            lost[session.subject] += min(freed(session, action), holds(session))
    if sum(lost[subject] for subject in lost if subject not in owed):
        for subject, due in owed.items():
            spared = sum(spares(state, s) for s in there if s.subject == subject)
            assert lost[subject] + spared >= due, "it still had something to give"


def holds(session: SessionVitals) -> int:
    """Return what a subject answers for: its history, and a session that nobody listens to."""
    return session.bytes + (0 if session.subscribers else SESSION_BYTES)


def spares(state: State, session: SessionVitals) -> int:
    """Return what a session may keep of that, though it is asked for: an event is never halved."""
    an_event = session.bytes // max(session.events, 1)
    is_in_use = state is not State.OPEN and session.idle < IDLE_S and not session.subscribers
    return an_event + (SESSION_BYTES if is_in_use else 0)


def plan_alone(state: State, session: SessionVitals) -> list[str]:
    return names(decide(state, session))


@given(states, amounts, of_one)
def test_early_expiry_and_cuts_come_first_and_only_when_open(
    state: State, to_free: int, there: list[SessionVitals]
) -> None:
    actions = plan(state, to_free, lambda: there).actions
    general = [action for action in actions if not isinstance(action, Trim | Forget)]
    is_needed = state is State.OPEN and to_free > 0

    assert general == ([ExpireEarly(share=0.5), DisconnectLaggards()] if is_needed else [])
    assert general == list(actions)[: len(general)]


@given(states, amounts, sessions())
def test_the_same_figures_make_the_same_plan_whatever_their_order(
    state: State, to_free: int, there: list[SessionVitals]
) -> None:
    actions = plan(state, to_free, lambda: there).actions

    assert actions == plan(state, to_free, lambda: list(there)).actions
    if len({session.idle for session in there}) == len(there):
        assert actions == plan(state, to_free, lambda: there[::-1]).actions
