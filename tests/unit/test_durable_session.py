"""A session whose events an engine keeps: nobody sees what the engine does not have.

The engine here does what the test tells it to; the real ones are in test_engine_contract.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broadcasterd.broadcast.durable_session import DurableSession
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.publication import Receipt
from broadcasterd.broadcast.take_up import take_up
from broadcasterd.broadcast.telling import Telling
from broadcasterd.config import Config, EngineSettings, Sessions, Settings
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.wire import HEARTBEAT, chunk
from broadcasterd.engine.port import (
    Dropped,
    Ended,
    EngineDown,
    HandedOver,
    Health,
    KeptEvent,
    KeptSession,
    Note,
    Opened,
    Placed,
    Revoked,
    Taker,
    Trimmed,
)
from broadcasterd.errors import SessionEnded, TooLarge, Unavailable
from broadcasterd.memory.breaker import Thresholds
from tests.support.broadcast import (
    attach,
    data_of,
    draft,
    drafts,
    make_hub,
    numbers,
    pass_time,
    retained,
    taken,
)

INCARNATION = "1234abcd"


class Scripted:
    """An engine in memory that can be held up, and can fail."""

    keeps = True

    def __init__(self, *, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        self.generation = 0
        self.health = Health("scripted")
        self.appended: list[tuple[str, int, list[EncodedEvent]]] = []
        self.notes: list[Note] = []
        self.go = trio.Event()
        self.go.set()
        self.fails = False
        self.placed: Placed | None = None
        self.left: list[tuple[KeptSession, list[KeptEvent]]] = []
        self.names: list[Ended | Revoked | HandedOver] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()

    async def load(self, taker: Taker) -> None:
        for note in self.names:
            taker.take_note(note)
        for session, events in self.left:
            if taker.take_session(session):
                taker.take_events(session.name, events)

    async def append(
        self, name: str, incarnation: str, first: int, at: float, events: Sequence[EncodedEvent]
    ) -> Placed:
        await self.go.wait()
        if self.fails:
            raise EngineDown("as the test wants it")
        self.appended.append((name, first, [*events]))
        return self.placed or Placed(incarnation, range(first, first + len(events)))

    def note(self, *notes: Note) -> None:
        self.notes += notes

    async def settled(self) -> None:
        await trio.lowlevel.checkpoint()

    def hold(self) -> trio.Event:
        """Hold up what is appended from now on; return what lets it go on."""
        self.go = trio.Event()
        return self.go


@pytest.fixture
def engine() -> Scripted:
    return Scripted()


async def start(nursery: trio.Nursery, engine: Scripted, durability: str = "commit") -> Hub:
    """Start a hub with an engine."""
    section = EngineSettings(durability=durability)  # type: ignore[arg-type] # the test's words
    hub = make_hub(Settings(Config(engine=section)), engine=engine)
    await nursery.start(hub.run)
    return hub


@pytest.fixture
async def hub(nursery: trio.Nursery, engine: Scripted) -> Hub:
    return await start(nursery, engine)


@pytest.fixture
async def session(hub: Hub) -> DurableSession:
    return opened(hub)


def opened(hub: Hub) -> DurableSession:
    """Open a session."""
    session = hub.open("s")
    assert isinstance(session, DurableSession)
    return session


class Publishing:
    """A publication that is under way, and how it ends."""

    def __init__(
        self, nursery: trio.Nursery, session: DurableSession, events: list[EncodedEvent]
    ) -> None:
        self.receipt: Receipt | None = None
        self.problem: Exception | None = None
        self.done = trio.Event()
        nursery.start_soon(self._publish, session, events)

    async def _publish(self, session: DurableSession, events: list[EncodedEvent]) -> None:
        try:
            self.receipt = await session.publish(events)
        except Unavailable as problem:
            self.problem = problem
        except SessionEnded as problem:
            self.problem = problem
        self.done.set()


# --- order -----------------------------------------------------------------------------------


async def test_nobody_sees_an_event_before_the_engine_has_it(
    nursery: trio.Nursery, engine: Scripted, session: DurableSession
) -> None:
    live, go_on = attach(session), engine.hold()
    publishing = Publishing(nursery, session, drafts("a"))
    await wait_all_tasks_blocked()

    assert not publishing.done.is_set()
    assert (data_of(live), retained(session), session.log.last) == ([], [], 0)

    go_on.set()
    await publishing.done.wait()
    await wait_all_tasks_blocked()

    assert publishing.receipt == Receipt(1, 0, session.log.id_of(1), session.log.id_of(1))
    assert (data_of(live), retained(session)) == (["a"], ["a"])


async def test_what_comes_meanwhile_goes_to_the_engine_together(
    nursery: trio.Nursery, engine: Scripted, session: DurableSession
) -> None:
    go_on = engine.hold()
    first = Publishing(nursery, session, drafts("a"))
    await wait_all_tasks_blocked()
    others = [Publishing(nursery, session, drafts(data, data * 2)) for data in "bcd"]
    await wait_all_tasks_blocked()
    go_on.set()
    await first.done.wait()
    for each in others:
        await each.done.wait()

    assert [(seq, len(events)) for _, seq, events in engine.appended] == [(1, 1), (2, 6)]
    told = [numbers([each.receipt.first_id or ""]) for each in others if each.receipt]
    assert sorted(told) == [[2], [4], [6]]
    assert len(retained(session)) == 7


async def test_relaxed_answers_first_and_shows_it_later(
    nursery: trio.Nursery, engine: Scripted
) -> None:
    session = opened(await start(nursery, engine, "relaxed"))
    live, go_on = attach(session), engine.hold()
    receipt = await session.publish(drafts("a"))
    await wait_all_tasks_blocked()

    assert receipt.first_id == session.log.id_of(1)
    assert data_of(live) == []

    go_on.set()
    await wait_all_tasks_blocked()

    assert data_of(live) == ["a"]


async def test_a_duplicate_is_found_in_the_log_and_among_what_is_staged(
    nursery: trio.Nursery, engine: Scripted, session: DurableSession
) -> None:
    await session.publish([draft("a", key="a")])
    go_on = engine.hold()
    held = Publishing(nursery, session, [draft("b", key="b")])
    await wait_all_tasks_blocked()
    once = Publishing(nursery, session, [draft("c", key="c"), draft("a", key="a")])
    await wait_all_tasks_blocked()
    again = Publishing(nursery, session, [draft("c", key="c"), draft("d")])
    await wait_all_tasks_blocked()
    go_on.set()
    for each in (held, once, again):
        await each.done.wait()
    id_of = session.log.id_of

    assert once.receipt == Receipt(1, 1, id_of(3), id_of(1))
    assert again.receipt == Receipt(1, 1, id_of(3), id_of(4))
    assert retained(session) == ["a", "b", "c", "d"]


async def test_only_duplicates_do_not_trouble_the_engine(
    engine: Scripted, session: DurableSession
) -> None:
    await session.publish([draft("a", key="a")])
    engine.fails = True

    assert (await session.publish([draft("a", key="a")])).duplicates == 1


async def test_one_publication_that_does_not_fit_leaves_the_others_alone(
    session: DurableSession, engine: Scripted
) -> None:
    with pytest.raises(TooLarge):
        await session.publish([draft("a"), draft("x" * 2_000_000)])
    await session.publish(drafts("b"))

    assert retained(session) == ["b"]
    assert [first for _, first, _ in engine.appended] == [1]


async def test_a_history_that_shrinks_meanwhile_does_not_shift_the_numbers(
    nursery: trio.Nursery, engine: Scripted, hub: Hub, session: DurableSession
) -> None:
    go_on = engine.hold()
    publishing = Publishing(nursery, session, drafts("x" * 5000, "b"))
    await wait_all_tasks_blocked()
    session.log.resize(max_events=10, max_bytes=1000, max_age=600.0)
    go_on.set()
    await publishing.done.wait()

    assert session.log.last == 2
    assert retained(session) == ["b"]
    assert session.log.floor == 1


# --- failures --------------------------------------------------------------------------------


async def test_while_the_engine_is_down_publishers_get_503_and_streams_stay(
    engine: Scripted, session: DurableSession
) -> None:
    live = attach(session)
    await session.publish(drafts("a"))
    engine.fails = True
    with pytest.raises(EngineDown) as caught:
        await session.publish(drafts("b"))
    engine.fails = False
    receipt = await session.publish(drafts("c"))

    assert caught.value.status == 503
    assert int(caught.value.headers["Retry-After"]) > 0
    assert receipt.first_id == session.log.id_of(2)
    assert data_of(live) == ["a", "c"]
    assert not live.closed


async def test_streams_get_heartbeats_while_the_engine_hangs(
    nursery: trio.Nursery, engine: Scripted, hub: Hub, session: DurableSession
) -> None:
    live, go_on = attach(session), engine.hold()
    publishing = Publishing(nursery, session, drafts("a"))
    await wait_all_tasks_blocked()
    pass_time(hub, hub.settings.sessions.heartbeat_interval)
    await hub.heartbeat()

    assert chunk(HEARTBEAT) in taken(live)

    go_on.set()
    await publishing.done.wait()


async def test_relaxed_counts_what_was_answered_and_is_lost(
    nursery: trio.Nursery, engine: Scripted
) -> None:
    session = opened(await start(nursery, engine, "relaxed"))
    engine.fails = True
    await session.publish(drafts("a", "b"))
    await wait_all_tasks_blocked()

    assert engine.health.lost == 2
    assert retained(session) == []


async def test_relaxed_answers_503_once_the_engine_is_known_to_be_down(
    nursery: trio.Nursery, engine: Scripted
) -> None:
    session = opened(await start(nursery, engine, "relaxed"))
    engine.fails, engine.health.why = True, "as the test wants it"

    with pytest.raises(EngineDown):
        await session.publish(drafts("a"))
    assert engine.health.lost == 0


async def test_a_session_with_something_under_way_does_not_make_room(
    nursery: trio.Nursery, engine: Scripted, hub: Hub, session: DurableSession
) -> None:
    go_on = engine.hold()
    publishing = Publishing(nursery, session, drafts("a"))
    await wait_all_tasks_blocked()

    assert not hub.make_room()

    go_on.set()
    await publishing.done.wait()

    assert hub.find("s") is session


async def test_what_a_handover_does_not_have_is_not_answered_200(
    nursery: trio.Nursery, engine: Scripted, hub: Hub, session: DurableSession
) -> None:
    go_on = engine.hold()
    publishing = Publishing(nursery, session, drafts("a"))
    await wait_all_tasks_blocked()
    hub.drop(session, EndReason.DRAINING)
    go_on.set()
    await publishing.done.wait()

    assert isinstance(publishing.problem, Unavailable)
    assert not any(isinstance(note, Dropped) for note in engine.notes)


# --- what the engine is told -----------------------------------------------------------------


async def test_the_engine_is_told_of_a_session_before_its_events(
    engine: Scripted, session: DurableSession
) -> None:
    [note] = engine.notes

    assert isinstance(note, Opened)
    assert (note.session.name, note.session.incarnation) == ("s", session.log.incarnation)


async def test_the_engine_is_told_of_endings(
    engine: Scripted, hub: Hub, session: DurableSession
) -> None:
    engine.notes.clear()
    hub.end("s")

    assert engine.notes[0] == Dropped("s")
    assert isinstance(engine.notes[1], Ended)
    assert engine.notes[1].name == "s"


async def test_what_left_the_log_is_let_go_of_once_it_is_much(
    nursery: trio.Nursery, engine: Scripted
) -> None:
    limits = Sessions(max_history_events=10)
    hub = make_hub(Settings(Config(sessions=limits)), engine=engine)
    await nursery.start(hub.run)
    session = hub.open("s")
    for _ in range(100):
        await session.publish(drafts("x" * 5000))
    trimmed = [note for note in engine.notes if isinstance(note, Trimmed)]

    assert 0 < len(trimmed) <= 10
    assert trimmed[-1].oldest == trimmed[-1].session.floor + 1
    assert session.log.floor - trimmed[-1].session.floor <= 30


async def test_an_engine_that_lost_everything_is_told_anew_before_more_is_appended(
    engine: Scripted, session: DurableSession
) -> None:
    await session.publish([draft("a", ttl=5.0, key="k"), draft("b")])
    engine.notes.clear()
    engine.generation += 1
    await session.publish(drafts("c"))
    [note] = engine.notes

    assert isinstance(note, Opened)
    assert [kept.seq for kept in note.events] == [1, 2]
    assert [kept.event for kept in note.events] == [draft("a", ttl=5.0, key="k"), draft("b")]


async def test_sessions_that_nobody_publishes_to_are_told_of_as_well(
    engine: Scripted, hub: Hub, session: DurableSession
) -> None:
    await session.publish(drafts("a"))
    hub.end(hub.open("t").name)
    telling = Telling(hub)
    telling.go_on()
    engine.notes.clear()
    engine.generation += 1
    telling.go_on()
    told, count = {type(note) for note in engine.notes}, len(engine.notes)
    telling.go_on()

    assert told == {Opened, Ended}
    assert len(engine.notes) == count


# --- taking up -------------------------------------------------------------------------------


def left_by_another(name: str = "s", *events: str) -> tuple[KeptSession, list[KeptEvent]]:
    """Return a session as an engine has it, with its events."""
    session = KeptSession(name, INCARNATION, 1000.0, "somebody", 0, None, len(events))
    kept = [
        KeptEvent(seq, 1e10, draft(data)) for seq, data in enumerate(events, start=1)
    ]  # the wall clock was ahead then
    return session, kept


async def test_sessions_and_events_are_taken_up(engine: Scripted, hub: Hub) -> None:
    engine.left = [left_by_another("s", "a", "b")]
    await take_up(hub)
    session = hub.find("s")
    receipt = await session.publish(drafts("c"))

    assert (session.log.incarnation, session.subject) == (INCARNATION, "somebody")
    assert receipt.first_id == f"{INCARNATION}-3"
    assert retained(session) == ["a", "b", "c"]
    assert engine.notes == [HandedOver(is_so=False)]


async def test_what_a_process_of_before_may_have_gone_on_with_begins_another_incarnation(
    engine: Scripted, hub: Hub
) -> None:
    engine.names = [HandedOver(is_so=True)]
    engine.left = [left_by_another("s", "a", "b")]
    await take_up(hub)
    session = hub.find("s")
    [opened, over] = engine.notes

    assert session.log.incarnation != INCARNATION
    assert retained(session) == ["a", "b"]
    assert isinstance(opened, Opened)
    assert opened.session.incarnation == session.log.incarnation
    assert over == HandedOver(is_so=False)


async def test_ended_names_and_revocations_are_taken_up(engine: Scripted, hub: Hub) -> None:
    engine.names = [Ended("gone", hub.clock.unix_now()), Revoked("somebody", 1000.0)]
    await take_up(hub)

    assert hub.was_ended("gone")
    assert [*hub.revocations] == [("somebody", 1000.0)]
    assert engine.notes == [HandedOver(is_so=False)]


async def test_events_of_a_ttl_that_is_over_are_not_taken_up(engine: Scripted, hub: Hub) -> None:
    now = hub.clock.unix_now()
    session = KeptSession("s", INCARNATION, 1000.0, last=3)
    engine.left = [
        (
            session,
            [
                KeptEvent(1, now - 700, draft("old")),
                KeptEvent(2, now - 10, draft("short-lived", ttl=5.0)),
                KeptEvent(3, now - 10, draft("c")),
            ],
        )
    ]
    await take_up(hub)
    log = hub.find("s").log

    assert retained(hub.find("s")) == ["c"]
    assert (log.floor, log.last) == (1, 3)


async def test_a_session_of_a_handover_wins_and_what_it_differs_from_is_forgotten(
    engine: Scripted, hub: Hub
) -> None:
    here = hub.put(hub.new_session("s", INCARNATION, None))
    here.log.append(draft("a").block, now=hub.clock.now())
    same = hub.put(hub.new_session("t", INCARNATION, None))
    same.log.append(draft("b").block, now=hub.clock.now())
    engine.left = [left_by_another("s", "a", "b"), left_by_another("t", "b")]
    await take_up(hub)
    Telling(hub).go_on()

    assert hub.find("s") is here
    assert engine.notes[:2] == [Dropped("s"), HandedOver(is_so=False)]
    assert [note.session.name for note in engine.notes[2:] if isinstance(note, Opened)] == ["s"]


async def test_what_memory_has_no_room_for_is_as_lost_as_if_it_had_been_evicted(
    nursery: trio.Nursery, engine: Scripted
) -> None:
    hub = make_hub(engine=engine, thresholds=Thresholds(warning=1, critical=2, recover=1))
    await nursery.start(hub.run)
    engine.left = [left_by_another("s", "a"), left_by_another("t", "b", "c")]
    await take_up(hub)
    log = hub.find("t").log

    assert (log.last, log.floor, len(log)) == (2, 2, 0)
