"""Relief: what is shed in which state, who stays, and that the account is exact all along."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from structlog.typing import EventDict

from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.relief import FEW, LAG_S, MemoryHost, Relief, relieve
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.broadcast.subscriber import LAGGING_S
from broadcasterd.broadcast.supervisor import Supervisor
from broadcasterd.core.history import MAPPING_BYTES
from broadcasterd.core.position import ById
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import SessionEnded, Unavailable
from broadcasterd.memory.breaker import MIB, SETTLED_S, State, Thresholds
from broadcasterd.memory.holdings import STREAM_BYTES
from broadcasterd.memory.policy import (
    MAX_ACTIONS,
    MAX_EVENTS,
    SESSION_BYTES,
    DisconnectLaggards,
    ExpireEarly,
    Forget,
    Trim,
)
from broadcasterd.memory.ration import RATION
from broadcasterd.memory.reclaim import LONGEST_PAUSE_S, RELEASE_INTERVAL_S
from tests.support.broadcast import (
    Recorder,
    ThrottledSocket,
    attach,
    data_of,
    draft,
    drafts,
    events_of,
    in_force,
    make_hub,
    pass_time,
    retained,
    start_hub,
    taken,
)

T = Thresholds(warning=200 * MIB, critical=500 * MIB, recover=180 * MIB)


class Host:
    """What the supervisor needs of a machine: a figure, and a count of what was given back.

    Attributes:
        used: the figure. It stays as it is, unless the test moves it.
        giving_back: what happens when memory is given back.

    """

    def __init__(self) -> None:
        self.used = 0
        self.giving_back: Callable[[], None] = lambda: None
        self.looked = 0
        self.released_at: list[float] = []
        self.thorough: list[bool] = []

    def memory(self, *, sample_interval: float = 1.0) -> MemoryHost:
        return MemoryHost(self._look, lambda: self.used, self._release, sample_interval)

    def _look(self) -> int:
        self.looked += 1
        return self.used

    def _release(self, *, thorough: bool) -> None:
        self.released_at.append(trio.current_time())
        self.thorough.append(thorough)
        self.giving_back()


@pytest.fixture
def host() -> Host:
    """Return a machine that uses nothing."""
    return Host()


async def hub_under(
    nursery: trio.Nursery, thresholds: Thresholds | None = T, **limits: object
) -> Hub:
    """Start a hub with a breaker."""
    return await start_hub(nursery, make_hub(in_force(**limits), thresholds=thresholds))


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub with a breaker and the default settings."""
    return await hub_under(nursery)


def look(hub: Hub, host: Host) -> None:
    """Do what there is to do about memory at this moment."""
    look_again(Relief(hub, host.memory()))


def look_again(relief: Relief) -> None:
    while not relief.look():
        pass


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def filled(hub: Hub, name: str, *, events: int = 10, size: int = 5_000) -> Session:
    """Open a session with some history: its data is numbers."""
    session = hub.open(name)
    await session.publish(drafts(*[f"{n} ".ljust(size, "x") for n in range(events)]))
    return session


def numbers(data: list[str]) -> list[int]:
    return [int(text.split()[0]) for text in data]


def behind(session: Session) -> SocketSubscriber:
    """Attach a reader that has stopped reading."""
    return attach(session, ThrottledSocket(window=100))


# --- when nothing is to be done --------------------------------------------------------------


async def test_a_closed_breaker_touches_nothing(hub: Hub, host: Host) -> None:
    session = await filled(hub, "s")
    before = hub.accounted_bytes
    host.used = T.warning - 1

    look(hub, host)

    assert before == hub.accounted_bytes
    assert 10 == len(session.log)


async def test_without_a_breaker_nothing_is_touched(nursery: trio.Nursery, host: Host) -> None:
    hub = await hub_under(nursery, None)
    session = await filled(hub, "s")
    stuck = behind(session)
    host.used = 10**15

    look(hub, host)

    assert 1 == host.looked, "the trend of /health is made of these"
    assert [] == host.released_at
    assert 10 == len(session.log)
    assert not stuck.closed


# --- warning ---------------------------------------------------------------------------------


async def test_a_warning_trims_the_oldest_of_a_history(hub: Hub, host: Host) -> None:
    session = await filled(hub, "s", events=20)
    host.used = T.warning
    before = session.log.bytes
    look(hub, host)

    assert list(range(20))[-len(session.log) :] == numbers(retained(session))
    assert 0 < session.log.bytes <= before // 4
    assert hub.logs.bytes == session.log.accounted


async def test_a_warning_trims_the_idlest_and_stops_when_it_is_enough(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    sessions = []
    for name in ("idlest", "idle", "busy"):
        sessions.append(await filled(hub, name, events=150))
        await trio.sleep(10)
    hub.pressure.sample(T.warning)
    host.used = T.recover + sessions[0].log.bytes
    look(hub, host)

    assert [True, True, False] == [len(session.log) < 150 for session in sessions]
    assert 150 / 4 > len(sessions[0].log)
    assert 150 / 4 < len(sessions[1].log)


async def test_a_warning_disturbs_nobody_who_listens(hub: Hub, host: Host) -> None:
    session = await filled(hub, "s", events=20)
    live, slow = attach(session), behind(session)
    await settle()
    host.used = T.critical - 1
    look(hub, host)

    assert {} == hub.subscribers.ended_by_reason

    await session.publish(drafts("20"))
    await settle()

    assert list(range(21)) == numbers(data_of(live))
    assert slow.closed, "what it was owed is gone: it is told, and may resume"
    assert {EndReason.SLOW_CONSUMER: 1} == hub.subscribers.ended_by_reason


async def test_a_warning_forgets_what_is_small_and_idle_but_it_may_come_back(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    first = await hub.open("s").publish(drafts("a"))
    await trio.sleep(60)
    host.used = T.warning
    look(hub, host)
    await settle()

    assert {} == hub.sessions
    assert not hub.was_ended("s"), "a reconnect must not be told to stop"

    second = await hub.open("s").publish(drafts("b"))

    assert first.last_id != second.last_id
    assert hub.find("s").resolve(ById(first.last_id or "")).gap is not None


# --- warning, step by step -------------------------------------------------------------------


async def many(hub: Hub, count: int = 20) -> list[Session]:
    """Open so many sessions of 0.8 MB each."""
    return [await filled(hub, f"s{number}", events=150) for number in range(count)]


async def test_what_can_be_given_back_costs_no_history(hub: Hub, host: Host) -> None:
    await many(hub)
    before = hub.logs.bytes

    def give_back() -> None:
        host.used = T.recover - 1

    host.used, host.giving_back = T.warning, give_back
    look(hub, host)

    assert before == hub.logs.bytes


async def test_a_step_waits_until_the_one_before_was_given_back(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await many(hub)
    held = [hub.logs.bytes]
    host.giving_back = lambda: held.append(hub.logs.bytes)
    hub.pressure.sample(T.warning)
    host.used = T.recover + 4 * MIB
    nursery.start_soon(Supervisor(hub, host.memory(sample_interval=0.1)).run)
    await trio.sleep(0.15)
    after_first = hub.logs.bytes
    await trio.sleep(RELEASE_INTERVAL_S - 0.1)  # several looks, and the figure is the same

    assert 10 < host.looked
    assert [held[0]] * 2 == held
    assert 4 * MIB < held[0] - after_first < 5 * MIB
    assert after_first == hub.logs.bytes

    await trio.sleep(0.3)

    assert [*[held[0]] * 2, after_first] == held
    assert after_first > hub.logs.bytes


async def test_an_excess_that_does_not_fall_is_excused_when_its_ration_is_used_up(
    nursery: trio.Nursery,
    host: Host,
    autojump_clock: trio.testing.MockClock,
    records: list[EventDict],
) -> None:
    hub = await hub_under(nursery, event_ttl=10**6)
    await many(hub)
    before = hub.logs.bytes
    hub.pressure.sample(T.warning)
    host.used = T.recover + 4 * MIB
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    await trio.sleep(60)
    freed, released = before - hub.logs.bytes, len(host.released_at)

    assert 4 * MIB < freed <= RATION * 4 * MIB + 5_500, "an event is not freed by halves"
    assert "closed" == hub.pressure.state
    assert freed == hub.pressure.excused
    assert 1 == len([each for each in records if each["event"] == "memory that nothing can free"])

    await trio.sleep(600)

    assert freed == before - hub.logs.bytes
    assert released == len(host.released_at), "there is nothing to give back"


async def test_so_it_is_where_a_little_is_published_all_along(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery, event_ttl=10**6)
    await many(hub)
    hub.pressure.sample(T.warning)
    host.used = T.recover + 4 * MIB
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    for _ in range(120):
        await hub.open("live").publish(drafts("x" * 1000))
        await trio.sleep(1)

    assert "closed" == hub.pressure.state


async def test_no_history_pays_for_what_clients_let_go_of_and_is_not_back(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    session = await filled(hub, "s", events=100)
    before = session.log.bytes
    await under_supervision(nursery, hub, host)
    used = host.used
    held = Held(hub, T.warning - used)
    host.used = T.warning + 1

    def give_back() -> None:
        if not held.held_bytes:
            host.used = T.recover + 100_000

    host.giving_back = give_back
    await trio.sleep(60)

    assert 0 == held.held_bytes
    assert before == session.log.bytes
    assert hub.pressure.state is State.CLOSED


async def test_no_history_pays_for_a_look_at_what_is_on_its_way_down(
    hub: Hub, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    session = await filled(hub, "s", events=400)
    before = session.log.bytes
    host.used = 100 * MIB
    relief = Relief(hub, host.memory())
    look_again(relief)
    for used in (T.warning + 20 * MIB, T.recover + before // 2):  # what no count explains, at first
        host.used = used
        await trio.sleep(0.25)
        look_again(relief)

        assert before == session.log.bytes
        assert hub.pressure.state is State.WARNING

    await trio.sleep(2 * LAG_S)  # but where it stays, it is theirs
    look_again(relief)

    assert before > session.log.bytes


@pytest.mark.parametrize("events", [40, 80, 150])
async def test_a_figure_that_lags_behind_costs_no_more_than_was_needed(
    events: int, nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    """Pages are only ever given back with a delay, and new events fill the room of old ones."""
    hub = await hub_under(nursery)
    for number in range(3000 // events):
        await filled(hub, f"s{number}", events=events)
    held = [hub.logs.bytes]
    mappings = 3000 // events * MAPPING_BYTES  # of which the plan knows nothing
    elsewhere = T.recover + 3 * MIB - hub.logs.bytes

    def give_back() -> None:
        held.append(hub.logs.bytes)
        host.used = elsewhere + held[-2]  # what was freed before the last time

    host.used = T.recover + 3 * MIB
    host.giving_back = give_back
    hub.pressure.sample(T.warning)
    nursery.start_soon(Supervisor(hub, host.memory(sample_interval=0.1)).run)
    await trio.sleep(60)

    assert "closed" == hub.pressure.state
    assert 3 * MIB < held[0] - hub.logs.bytes <= RATION * 3 * MIB + 5_500 + mappings


async def test_a_step_over_many_events_lets_others_run_and_goes_on_at_once(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    each = MAX_EVENTS // 2
    hub = await hub_under(nursery, max_history_events=each, max_history_bytes=10 * MIB)
    for number in range(6):
        await filled(hub, f"s{number}", events=each, size=100)
    before = hub.logs.bytes
    hub.pressure.sample(T.warning)
    host.used = T.recover + before
    relief = Relief(hub, host.memory())

    assert [False, False, False, False, True] == [relief.look() for _ in range(5)]
    assert 1 == len(host.released_at)
    assert hub.logs.bytes < before / 3


# --- open, in many steps -----------------------------------------------------------------------


async def test_what_is_too_much_for_one_step_is_gone_on_with_at_once(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    for number in range(2 * MAX_ACTIONS + 1):
        await hub.open(f"s{number}").publish(drafts("a"))
    host.used = 10 * T.critical
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    await trio.sleep(1.01)  # one tick

    assert {} == hub.sessions


# --- open ------------------------------------------------------------------------------------


async def test_an_open_breaker_keeps_those_who_are_up_to_date(hub: Hub, host: Host) -> None:
    session = await filled(hub, "s")
    live = [attach(session) for _ in range(5)]
    host.used = T.critical
    look(hub, host)

    assert 0 == session.log.bytes

    await session.publish(drafts("10", "11"))
    await settle()

    assert [list(range(12))] * 5 == [numbers(data_of(stream)) for stream in live]
    assert {} == hub.subscribers.ended_by_reason


async def test_an_open_breaker_forgets_where_nobody_listens(hub: Hub, host: Host) -> None:
    await filled(hub, "left")
    followed = await filled(hub, "followed")
    Recorder(followed)
    host.used = T.critical
    look(hub, host)
    await settle()

    assert {"followed": followed} == hub.sessions
    assert 0 == hub.logs.bytes


async def test_an_open_breaker_ends_laggards_and_tells_them_to_come_back(
    hub: Hub, host: Host
) -> None:
    session = await filled(hub, "s")
    slow, live = behind(session), attach(session)
    pass_time(hub, LAGGING_S)
    just_now = behind(session)
    host.used = T.critical
    look(hub, host)
    await settle()

    assert slow.closed
    assert not live.closed
    assert not just_now.closed  # it may only be about to catch up
    assert {EndReason.MEMORY: 1} == hub.subscribers.ended_by_reason
    last = events_of(taken(slow))[-1]
    assert ("broadcaster.end", '{"reason":"memory","reconnect":true}') == (last.type, last.data)
    [retry] = re.findall(rb"retry: ?([0-9]+)", taken(slow))
    assert 3000 <= int(retry) <= 6000


async def test_what_is_past_half_its_lifetime_goes_even_where_little_is_needed(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    little = Thresholds(warning=95_000, critical=T.critical, recover=90_000)
    hub = await hub_under(nursery, little, event_ttl=600)
    sessions = [await filled(hub, name, events=2) for name in ("a", "b")]
    for session in sessions:
        Recorder(session)
    await trio.sleep(301)
    for session in sessions:
        await session.publish(drafts("3"))
    hub.pressure.sample(T.critical)
    host.used = little.recover  # one session is emptied; of the other, what is old goes
    look(hub, host)

    assert [[], ["3"]] == sorted(retained(session) for session in sessions)


async def test_a_publication_that_waits_in_a_forgotten_session_is_settled(
    hub: Hub, host: Host, nursery: trio.Nursery
) -> None:
    session = await filled(hub, "s")
    outcomes: list[object] = []

    async def publish() -> None:
        try:
            outcomes.append((await session.publish(drafts("late"))).accepted)
        except Unavailable:
            outcomes.append(Unavailable)

    async with trio.open_nursery() as publishers:
        for _ in range(40):  # more than the inbox takes
            publishers.start_soon(publish)
        host.used = T.critical
        publishers.start_soon(_relieve, hub, host)
    await settle()

    assert 40 == len(outcomes)
    assert {1, Unavailable} >= set(outcomes)
    assert 0 == hub.logs.bytes
    assert {} == hub.sessions


async def _relieve(hub: Hub, host: Host) -> None:
    look(hub, host)


async def test_again_and_again_finds_less_and_does_no_harm(hub: Hub, host: Host) -> None:
    session = await filled(hub, "s")
    live = attach(session)
    host.used = T.critical
    for _ in range(5):
        look(hub, host)

        assert SESSION_BYTES + STREAM_BYTES == hub.counted_bytes

    assert not live.closed


# --- each action by itself -------------------------------------------------------------------


async def test_a_trim_is_of_the_named_session_alone(hub: Hub) -> None:
    one, other = await filled(hub, "one"), await filled(hub, "other")
    relieve(hub, [Trim("one", 15_000)])

    assert one.log.bytes <= 15_000
    assert [8, 9] == numbers(retained(one))
    assert 10 == len(other.log)


async def test_a_forgotten_session_returns_its_bytes_at_once(hub: Hub) -> None:
    await filled(hub, "s")
    relieve(hub, [Forget("s")])

    assert 0 == hub.counted_bytes
    assert {} == hub.sessions


async def test_early_expiry_reaches_every_session(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery, event_ttl=600)
    sessions = [await filled(hub, f"s{n}") for n in range(3)]
    await trio.sleep(299)
    relieve(hub, [ExpireEarly(0.5)])

    assert [10] * 3 == [len(session.log) for session in sessions]

    await trio.sleep(1)
    relieve(hub, [ExpireEarly(0.5)])

    assert [0] * 3 == [len(session.log) for session in sessions]


async def test_no_laggards_are_cut_where_there_are_none(hub: Hub) -> None:
    live = attach(await filled(hub, "s"))
    relieve(hub, [DisconnectLaggards()])

    assert not live.closed


# --- the record ------------------------------------------------------------------------------


@pytest.fixture
def records() -> Iterator[list[EventDict]]:
    """Return what is logged."""
    with structlog.testing.capture_logs() as records:
        yield records


async def test_each_transition_is_one_record_and_one_count(
    records: list[EventDict],
    nursery: trio.Nursery,
    host: Host,
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = await hub_under(nursery)
    attach(await filled(hub, "s", events=1))
    relief = Relief(hub, host.memory())
    host.used = T.critical
    look_again(relief)
    host.used = 0
    for _ in range(60):
        await trio.sleep(1)
        look_again(relief)
    found = [record for record in records if record["event"] == "memory breaker"]

    assert [
        ("closed", "warning"),
        ("warning", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ] == [(record["before"], record["after"]) for record in found]
    assert {"warning"} == {record["log_level"] for record in found}
    assert [500.0, 500.0, 0.0, 0.0] == [record["used_mb"] for record in found]
    assert [(1, 1)] * 4 == [(record["sessions"], record["streams"]) for record in found]


# --- the supervisor --------------------------------------------------------------------------


async def test_the_supervisor_opens_and_closes_the_breaker(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    host.used = T.critical
    await trio.sleep(1.5)

    assert "open" == hub.pressure.state

    host.used = 0
    await trio.sleep(SETTLED_S + 1.5)

    assert "half-open" == hub.pressure.state

    await trio.sleep(SETTLED_S + 1.5)

    assert "closed" == hub.pressure.state


@pytest.mark.parametrize(("interval", "looks"), [(0.1, 100), (0.5, 20), (1.0, 10), (60.0, 10)])
async def test_it_looks_as_often_as_asked_and_at_least_once_a_second(
    interval: float,
    looks: int,
    nursery: trio.Nursery,
    host: Host,
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = await hub_under(nursery)
    nursery.start_soon(Supervisor(hub, host.memory(sample_interval=interval)).run)
    await trio.sleep(10.05)

    assert looks <= host.looked <= looks + 1  # the first is at once


async def test_it_looks_early_when_much_was_taken_in(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    host.used = T.critical - MIB
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    await trio.sleep(1.5)
    looked = host.looked
    with hub.bodies.holding() as held:
        held.take(MIB // 2)

        assert not hub.pressure.refuses_publish()

        await trio.sleep(0.1)

    assert looked + 1 == host.looked


async def test_memory_is_given_back_after_something_was_freed(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await supervised_and_open(hub, host, nursery)
    before = len(host.released_at)
    for n in range(3):
        await filled(hub, f"s{n}", events=120)
    await trio.sleep(3)

    assert 0 == hub.logs.bytes
    assert before < len(host.released_at)


@pytest.mark.parametrize(("sessions", "thorough"), [(FEW, True), (FEW + 1, False)])
async def test_it_is_given_back_thoroughly_where_that_takes_no_long_step(
    sessions: int,
    thorough: bool,  # noqa: FBT001 (a parameter of the table)
    nursery: trio.Nursery,
    host: Host,
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = await hub_under(nursery)
    for number in range(sessions):
        hub.open(f"s{number}")
    host.used = T.warning
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    await trio.sleep(2.5)

    assert [thorough] == host.thorough


async def test_nothing_is_given_back_while_nothing_is_freed(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    Recorder(await filled(hub, "s", events=5))
    await supervised_and_open(hub, host, nursery)
    before = len(host.released_at)
    await filled(hub, "small", events=5)
    await trio.sleep(100)

    assert 0 == hub.logs.bytes
    assert before == len(host.released_at)


async def supervised_and_open(hub: Hub, host: Host, nursery: trio.Nursery) -> None:
    """Open the breaker, and wait until what that changes is done. Ends between two looks."""
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    host.used = T.critical
    await trio.sleep(20.5)

    assert "open" == hub.pressure.state


async def test_it_is_given_back_no_more_than_once_a_second(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    nursery.start_soon(Supervisor(hub, host.memory(sample_interval=0.1)).run)
    host.used = T.critical
    for n in range(50):
        await filled(hub, f"s{n}", events=20, size=100_000)
        await trio.sleep(0.1)
    apart = [b - a for a, b in zip(host.released_at, host.released_at[1:], strict=False)]

    assert len(apart) > 2
    assert min(apart) > RELEASE_INTERVAL_S - 0.001


async def test_under_pressure_what_was_freed_by_others_is_given_back_too(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    """Else the breaker never closes: nothing is left to shed, and the heap keeps what it had."""
    hub = await hub_under(nursery)
    for n in range(100):
        Recorder(await filled(hub, f"s{n}", events=2))  # too small to be shortened, and followed
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    host.used = T.warning
    await trio.sleep(20.5)
    before = len(host.released_at)
    await trio.sleep(100)

    assert before == len(host.released_at)

    for n in range(100):
        hub.end(f"s{n}")
    await trio.sleep(3)

    assert 0 == hub.logs.bytes
    assert before < len(host.released_at)


async def test_without_pressure_nothing_is_given_back(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    for _ in range(10):
        await filled(hub, "s", events=100)
        await trio.sleep(2)
        hub.end("s")
        await trio.sleep(2)

    assert [] == host.released_at


SPIKE = 400 * MIB
"""Of memory that no count explains."""


async def under_supervision(nursery: trio.Nursery, hub: Hub, host: Host) -> None:
    """Have a supervisor look at a program that takes 50 MB by itself."""
    host.used = 50 * MIB + hub.counted_bytes
    nursery.start_soon(Supervisor(hub, host.memory()).run)
    await trio.sleep(2)


@pytest.mark.parametrize("stays", [0.0, 0.3, 1.0])
async def test_after_a_spike_of_what_is_not_counted_the_breaker_closes_within_a_minute(
    stays: float, nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    """However much of it can be given back in the end."""
    hub = await hub_under(nursery)
    session = await filled(hub, "s", events=100)
    await under_supervision(nursery, hub, host)
    before = host.used
    host.used += int(SPIKE * 1.3)
    await trio.sleep(20)
    host.used = before + SPIKE  # it has ended; what is free is given back by and by

    def give_back() -> None:
        host.used = max(before + int(SPIKE * stays), host.used - SPIKE // 3)

    host.giving_back = give_back
    await trio.sleep(60)

    assert hub.pressure.state is State.CLOSED
    assert len(retained(session)) == 100, "no history was worth anything against it"


async def test_what_stays_is_told_once_and_is_excused_no_longer_than_it_is_there(
    nursery: trio.Nursery,
    host: Host,
    autojump_clock: trio.testing.MockClock,
    records: list[EventDict],
) -> None:
    hub = await hub_under(nursery)
    await under_supervision(nursery, hub, host)
    host.used += SPIKE
    await trio.sleep(300)

    told = [each for each in records if each["event"] == "memory that nothing can free"]
    assert [SPIKE / MIB] == [each["mb"] for each in told]
    assert hub.pressure.excused == SPIKE

    host.used -= SPIKE // 2
    await trio.sleep(2)
    assert hub.pressure.excused == SPIKE // 2
    host.used -= SPIKE // 2
    await trio.sleep(2)
    assert hub.pressure.excused == 0


async def test_much_that_no_count_explains_is_given_back_also_without_pressure(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await under_supervision(nursery, hub, host)
    before = host.used
    host.used += 40 * MIB
    host.giving_back = lambda: setattr(host, "used", max(before, host.used - 10 * MIB))
    await trio.sleep(60)

    assert hub.pressure.state is State.CLOSED
    assert host.used < before + 16 * MIB


async def test_so_is_much_that_was_held_for_a_while(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await under_supervision(nursery, hub, host)
    before = host.used
    held = Held(hub, 40 * MIB, since=inf)
    host.used += 40 * MIB
    await trio.sleep(60)
    assert [] == host.released_at

    held.let_go()
    host.giving_back = lambda: setattr(host, "used", before)
    await trio.sleep(60)

    assert host.used == before


async def test_without_pressure_it_is_looked_for_ever_less_often(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await under_supervision(nursery, hub, host)
    host.used += 40 * MIB  # and stays
    await trio.sleep(3600)

    assert 12 <= len(host.released_at) <= 24
    assert hub.pressure.excused == 0


async def test_what_comes_on_top_of_what_is_excused_counts(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await under_supervision(nursery, hub, host)
    host.used += SPIKE
    await trio.sleep(60)
    assert hub.pressure.excused == SPIKE

    host.used += T.critical
    await trio.sleep(2)

    assert hub.pressure.state is State.OPEN


async def test_what_histories_hold_is_never_excused(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await under_supervision(nursery, hub, host)
    logs = hub.logs
    logs.bytes += T.warning  # by its own account, it is all histories
    host.used += T.warning
    await trio.sleep(120)

    assert hub.pressure.state is State.WARNING
    assert hub.pressure.excused == 0
    logs.bytes -= T.warning


async def test_the_search_for_what_no_count_explains_takes_longer_and_longer_pauses(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await under_supervision(nursery, hub, host)
    host.used += SPIKE
    for _ in range(200):  # it grows, and is excused never
        host.used += 2 * MIB
        await trio.sleep(1)

    pauses = [after - before for before, after in pairwise(host.released_at)]
    assert pauses[-1] >= LONGEST_PAUSE_S
    assert len(pauses) < 20
    assert hub.pressure.excused == 0


async def test_a_failure_to_look_ends_the_supervisor(
    host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    def fail() -> int:
        raise OSError("no /proc")

    hub = make_hub(thresholds=T)
    with pytest.raises(OSError, match="no /proc"):
        await Supervisor(hub, MemoryHost(fail, lambda: 0, lambda *, thorough: None, 1.0)).run()


# --- what clients hold -------------------------------------------------------------------------


class Held:
    """Something that a client makes the hub hold, of no use since ``since``."""

    def __init__(self, hub: Hub, size: int, since: float = -inf) -> None:
        self._hub = hub
        self.holding = hub.holdings.holding()
        self.holding.hold(size)
        self.since = since
        hub.holdings.add(self)

    @property
    def held_bytes(self) -> int:
        return self.holding.bytes

    def unused_since(self, now: float) -> float:
        return self.since

    def let_go(self) -> None:
        self._hub.holdings.discard(self)
        self.holding.hold(0)


@pytest.mark.parametrize("used", [T.warning, T.critical])
async def test_what_is_held_for_nothing_is_let_go_of_before_any_history_is_shortened(
    hub: Hub, host: Host, used: int
) -> None:
    session = await filled(hub, "s", events=20)
    before = session.log.bytes
    host.used = 60 * MIB
    relief = Relief(hub, host.memory())
    look_again(relief)  # so much takes the program itself
    held = Held(hub, used - 100 * MIB)
    host.used = used
    host.giving_back = lambda: setattr(host, "used", 100 * MIB + held.held_bytes)
    look_again(relief)

    assert 0 == held.held_bytes
    assert before == session.log.bytes


async def test_no_history_pays_for_what_will_be_let_go_of_in_a_moment(hub: Hub, host: Host) -> None:
    session = await filled(hub, "s", events=20)
    before = session.log.bytes
    host.used = 60 * MIB
    relief = Relief(hub, host.memory())
    look_again(relief)
    held = Held(hub, 100 * MIB, since=hub.clock.now())
    host.used = T.warning
    look_again(relief)

    assert 100 * MIB == held.held_bytes, "it is too early"
    assert before == session.log.bytes


async def test_a_warning_shortens_no_history_for_what_is_in_use(hub: Hub, host: Host) -> None:
    session = await filled(hub, "s", events=20)
    before = session.log.bytes
    host.used = 60 * MIB
    relief = Relief(hub, host.memory())
    look_again(relief)
    held = Held(hub, T.warning - 60 * MIB, since=inf)
    host.used = T.warning
    look_again(relief)

    assert T.warning - 60 * MIB == held.held_bytes
    assert before == session.log.bytes


async def test_no_history_pays_in_the_moment_when_what_was_in_use_goes(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery, event_ttl=10**6)
    session = await filled(hub, "s", events=100)
    before = session.log.bytes
    await under_supervision(nursery, hub, host)
    program = host.used - hub.counted_bytes
    held = Held(hub, T.warning - host.used, since=inf)
    host.used = T.warning
    await trio.sleep(3)

    held.holding.hold(T.recover - program - hub.history_bytes + 100_000)
    host.used = program + hub.counted_bytes
    await trio.sleep(3)
    assert before == session.log.bytes

    await trio.sleep(30)
    assert before > session.log.bytes
    held.let_go()


async def test_the_little_that_clients_leave_behind_does_not_hold_the_breaker_up(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    left, excess = 400_000, 100_000
    recover = T.warning - MIB + left - excess
    hub = await hub_under(nursery, Thresholds(T.warning, T.critical, recover), event_ttl=10**6)
    session = await filled(hub, "s", events=100)
    before = session.log.bytes
    await under_supervision(nursery, hub, host)
    program = host.used - hub.counted_bytes
    other = T.warning - host.used - MIB
    hub.logs.bytes += other  # other histories, which cannot be shortened
    held = Held(hub, MIB)
    host.used = T.warning

    def give_back() -> None:
        host.used = program + hub.counted_bytes + (0 if held.held_bytes else left)

    host.giving_back = give_back
    await trio.sleep(60)

    assert hub.pressure.state is State.CLOSED
    assert hub.pressure.excused == 0, "so little is never excused"
    assert before - excess > session.log.bytes
    hub.logs.bytes -= other


async def test_what_is_excused_does_not_excuse_histories_too(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery, event_ttl=10**6)
    await many(hub)
    await under_supervision(nursery, hub, host)
    program = host.used - hub.logs.bytes
    hub.logs.bytes += 100 * MIB  # more histories, by their own account
    host.used += 100 * MIB
    held = Held(hub, T.warning - host.used)
    host.used = T.warning + 1
    stays = T.recover - program - hub.logs.bytes  # of what the client had

    def give_back() -> None:
        if not held.held_bytes:
            host.used = program + stays + hub.logs.bytes

    host.giving_back = give_back
    while not hub.pressure.excused:  # noqa: ASYNC110 (nothing tells)
        await trio.sleep(0.1)
    assert abs(stays - hub.pressure.excused) < MIB
    before = hub.logs.bytes
    host.used += stays * 3 // 2
    hub.logs.bytes += stays * 3 // 2
    await trio.sleep(30)

    assert hub.logs.bytes < before + stays * 3 // 2
    hub.logs.bytes -= 100 * MIB + stays * 3 // 2


async def test_what_no_count_explains_beside_what_is_in_use_is_excused(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    session = await filled(hub, "s", events=100)
    before = session.log.bytes
    await under_supervision(nursery, hub, host)
    Held(hub, 100 * MIB, since=inf)
    host.used = T.warning
    await trio.sleep(120)

    assert hub.pressure.state is State.CLOSED
    assert abs(T.warning - 150 * MIB - before - hub.pressure.excused) < MIB
    assert before == session.log.bytes


async def test_a_count_that_was_ahead_of_memory_excuses_nothing(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    await under_supervision(nursery, hub, host)
    ahead = Held(hub, 30 * MIB, since=inf)
    await trio.sleep(2)
    ahead.let_go()
    host.used += SPIKE
    await trio.sleep(60)

    assert SPIKE <= hub.pressure.excused <= SPIKE + 2 * MIB


async def test_where_clients_take_more_than_their_share_the_idle_go_without_a_warning(
    hub: Hub, host: Host
) -> None:
    idle, busy = Held(hub, T.critical // 2), Held(hub, 10 * MIB, since=inf)
    host.used = T.recover - 1

    assert hub.crowd_bytes > 0
    look(hub, host)
    assert (0, 10 * MIB) == (idle.held_bytes, busy.held_bytes)
    assert hub.crowd_bytes < 0


async def test_a_reader_for_whom_bytes_wait_is_ended_before_any_history_is_shortened(
    nursery: trio.Nursery, host: Host, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await hub_under(nursery)
    session = await filled(hub, "s", events=20)
    before = session.log.bytes
    host.used = 60 * MIB
    relief = Relief(hub, host.memory())
    look_again(relief)
    stuck, live = behind(session), attach(session)
    await trio.sleep(LAGGING_S)
    assert stuck.pending_bytes
    host.used = T.warning
    look_again(relief)

    assert stuck.closed
    assert not live.closed
    assert before == session.log.bytes


# --- the account, all along ------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Something that happens: to which session or stream, and how much."""

    what: str
    which: int
    much: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            ["publish", "publish", "publish", "attach", "lag", "close", "end", "relieve", "time"]
        ),
        st.integers(0, 4),
        st.integers(0, 100),
    ),
    max_size=40,
)


class Everything:
    """A hub, all sessions that it ever had, and what the account has to be."""

    def __init__(self, hub: Hub, host: Host, nursery: trio.Nursery) -> None:
        self.hub = hub
        self._host = host
        self._relief = Relief(hub, host.memory())
        self._nursery = nursery
        self._sessions: list[Session] = []
        self._streams: list[SocketSubscriber] = []

    def check(self) -> None:
        hub = self.hub
        for session in self._sessions:
            costs = [entry.cost for entry in session.log.since(0, max_bytes=1 << 40)]
            assert session.log.bytes == sum(costs)
        assert hub.logs.bytes == sum(session.log.accounted for session in self._sessions)
        assert set(hub.subscribers.by_id.values()) == {s for s in self._streams if not s.closed}
        assert hub.poller._polled.keys() == {
            s._socket.fileno() for s in self._streams if not s.closed
        }

    async def take(self, step: Step, clock: trio.testing.MockClock) -> None:
        match step.what:
            case "publish":
                self._nursery.start_soon(self._publish, step)
            case "attach":
                self._streams.append(attach(self._open(step.which)))
            case "lag":
                sock = ThrottledSocket(window=step.much)
                self._streams.append(attach(self._open(step.which), sock))
            case "close" if self._streams:
                self._streams[step.much % len(self._streams)].close(EndReason.CLIENT_GONE)
            case "end" if self._name(step.which) in self.hub.sessions:
                self.hub.end(self._name(step.which))
            case "relieve":
                self._host.used = step.much * 10 * MIB
                look_again(self._relief)
            case "time":
                clock.jump(step.much / 2)
                await self.hub.sweep()

    async def _publish(self, step: Step) -> None:
        session = self._open(step.which)
        some = [
            draft("x" * (100 * n), ttl=n if n % 3 == 0 else None, key=str(n) if n % 2 else None)
            for n in range(1, 1 + step.much // 4)
        ]
        with suppress(SessionEnded, Unavailable):
            await session.publish(some)

    def _open(self, which: int) -> Session:
        session = self.hub.open(self._name(which))
        if session not in self._sessions:
            self._sessions.append(session)
        return session

    def _name(self, which: int) -> str:
        return f"s{which}"


@given(steps, st.booleans())
def test_the_account_is_the_sum_of_the_logs_whatever_happens(
    run: list[Step],
    settles: bool,  # noqa: FBT001 (hypothesis passes positions)
) -> None:
    clock = trio.testing.MockClock()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            hub = await hub_under(nursery, event_ttl=30, session_ttl=60, max_history_events=10)
            async with trio.open_nursery() as publishers:
                everything = Everything(hub, Host(), publishers)
                for step in run:
                    await everything.take(step, clock)
                    everything.check()
                    if settles:
                        await settle()
                        everything.check()
            for name in tuple(hub.sessions):
                hub.end(name)
            await settle()
            clock.jump(60)  # those who are stuck are cut after a while
            await settle()
            everything.check()

            assert 0 == hub.counted_bytes == hub.accounted_bytes == hub.logs.bytes
            assert {} == hub.poller._polled
            nursery.cancel_scope.cancel()

    trio.run(scenario, clock=clock)
