"""Every way in which a session, an event or a subscriber is forgotten, and that nothing is left.

There are no thresholds: objects, bytes, tasks, registrations and file descriptors are counted
before and after, and have to be the same. The second half keeps the scenarios of the system that
this one replaces, by its own terms.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Self

import pytest
import trio
import trio.testing
from typing_extensions import override

from broadcasterd.access.grants import EVERYONE
from broadcasterd.api.bodies import ClientDisconnected
from broadcasterd.api.pages import page
from broadcasterd.api.publish import publish
from broadcasterd.api.request import Head
from broadcasterd.api.subscribe import Admission, admit
from broadcasterd.broadcast.batch import Batch
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.inbox import Heartbeat
from broadcasterd.broadcast.publication import Publication
from broadcasterd.broadcast.relief import relieve, vitals
from broadcasterd.broadcast.response_subscriber import ResponseSubscriber
from broadcasterd.broadcast.session import FINISH_TIMEOUT_S, INBOX_PUBLICATIONS, Session
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.broadcast.subscriber import LAGGING_S, Subscriber
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.position import ById
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Position, ReplayLog
from broadcasterd.core.segment import Entry
from broadcasterd.errors import NoSuchSession, Problem, TooLarge
from broadcasterd.memory.policy import DisconnectLaggards, ExpireEarly, Forget, Trim
from broadcasterd.server.body import RequestBody
from tests.support.broadcast import (
    Recorder,
    ThrottledSocket,
    attach,
    data_of,
    draft,
    drafts,
    hub_of,
    in_force,
    pass_time,
    retained,
    start_hub,
)
from tests.support.inprocess import Footprint, Serving, reset, serving, until_back_to

Clock = trio.testing.MockClock

COUNTED = (
    Session,
    Subscriber,
    ReplayLog,
    Entry,
    Publication,
    EncodedEvent,
    Batch,
    Heartbeat,
    RequestBody,
)

LIMITS: dict[str, object] = {
    "event_ttl": 10,
    "session_ttl": 60,
    "heartbeat_interval": 15,
    "max_history_events": 20,
    "max_lag_events": 20,
}


@dataclass(frozen=True)
class Census:
    """All that a hub and this process hold, but for the names of sessions that were closed."""

    objects: Counter[str]
    counted_bytes: int
    accounted_bytes: int
    log_bytes: int
    body_bytes: int
    sessions: frozenset[str]
    streams: frozenset[str]
    polled: int
    until_drain: int
    footprint: Footprint

    @classmethod
    async def of(cls, hub: Hub) -> Census:
        await settle()
        gc.collect()
        return cls(
            objects=Counter(
                {
                    kind.__name__: count
                    for kind, count in Counter(map(type, gc.get_objects())).items()
                    if issubclass(kind, COUNTED)
                }
            ),
            counted_bytes=hub.counted_bytes,
            accounted_bytes=hub.accounted_bytes,
            log_bytes=hub.logs.bytes,
            body_bytes=hub.bodies.bytes,
            sessions=frozenset(hub.sessions),
            streams=frozenset(hub.subscribers.by_id),
            polled=len(hub.poller._polled),
            until_drain=len(hub.interrupts._until_drain),
            footprint=Footprint.now(),
        )


@pytest.fixture(scope="module", autouse=True)
def _few_objects() -> None:
    """Keep the garbage collector, which counts, from all that was made before these tests."""
    gc.collect()
    gc.freeze()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub whose times are short."""
    return await start_hub(nursery, **LIMITS)


@asynccontextmanager
async def leaving_nothing(hub: Hub) -> AsyncIterator[None]:
    """Fail if what happens inside leaves anything behind."""
    before = await Census.of(hub)
    yield
    assert before == await Census.of(hub)


# --- the ways --------------------------------------------------------------------------------

Way = Callable[[Hub], Awaitable[None]]

_ways: list[Way] = []


def way(function: Way) -> Way:
    """Try that nothing is left after it, once and again."""
    _ways.append(function)
    return function


@way
async def events_and_their_session_grow_old(hub: Hub) -> None:
    await hub.open("s").publish(drafts("a", "b", "c"))
    await trio.sleep(60)
    await hub.sweep()


@way
async def events_are_short_lived(hub: Hub) -> None:
    session = hub.open("s")
    await session.publish([draft("a", ttl=1, key="k"), draft("b", ttl=2)])
    await trio.sleep(2)
    await hub.sweep()

    log = session.log
    assert (0, 0, 0) == (log.bytes, len(log._keys), len(log._short_lived))

    hub.end("s")


@way
async def events_are_evicted(hub: Hub) -> None:
    session = hub.open("s")
    for number in range(100):
        await session.publish([draft("x", ttl=9, key=str(number))])

    assert 20 == len(session.log) == len(session.log._keys)

    hub.end("s")


@way
async def a_session_is_deleted(hub: Hub) -> None:
    session = hub.open("s")
    Recorder(session)
    attach(session)
    await session.publish(drafts("a"))
    hub.end("s")


@way
async def a_session_is_deleted_before_it_began(hub: Hub) -> None:
    hub.open("s")
    hub.end("s")


@way
async def a_session_is_deleted_with_readers_that_are_stuck(hub: Hub) -> None:
    session = hub.open("s")
    await session.publish(drafts("x" * 1000))
    for _ in range(3):
        attach(session, ThrottledSocket(window=100))
    hub.end("s")
    await trio.sleep(FINISH_TIMEOUT_S)


@way
async def a_session_expires_with_a_publication_in_its_inbox(hub: Hub) -> None:
    session = hub.open("s")
    await trio.sleep(60)
    async with trio.open_nursery() as publishers:
        publishers.start_soon(_publish, session, "late", "later")
        publishers.start_soon(hub.sweep)


@way
async def a_session_is_shed(hub: Hub) -> None:
    await hub.open("s").publish(drafts("a", "b"))
    relieve(hub, [Forget("s")])


@way
async def a_session_is_shed_with_publishers_in_the_queue(hub: Hub) -> None:
    session = hub.open("s")
    async with trio.open_nursery() as publishers:
        for number in range(2 * INBOX_PUBLICATIONS):
            publishers.start_soon(_publish, session, str(number), "and another")
        publishers.start_soon(_relieve, hub, Forget("s"))


@way
async def a_session_crashes(hub: Hub) -> None:
    def fail(*_: object, **__: object) -> Entry:
        raise RuntimeError("a defect")

    session = hub.open("s")
    await session.publish(drafts("retained"))
    attach(session)
    attach(session, ThrottledSocket(window=10))
    session.log.append = fail  # type: ignore[method-assign]
    async with trio.open_nursery() as publishers:
        for number in range(2 * INBOX_PUBLICATIONS):
            publishers.start_soon(_publish, session, str(number))


@way
async def nobody_came_to_a_session_that_was_opened_for_a_subscriber(hub: Hub) -> None:
    assert isinstance(admit(head(), "s", EVERYONE, hub), Admission)
    await trio.sleep(60)
    await hub.sweep()


@way
async def a_client_hangs_up(hub: Hub) -> None:
    session = hub.open("s")
    await session.publish(drafts("a"))
    sock = ThrottledSocket()
    attach(session, sock)
    sock.hang_up()
    await settle()
    hub.end("s")


@way
async def a_client_hangs_up_while_it_catches_up(hub: Hub) -> None:
    session = hub.open("s")
    sock = ThrottledSocket(window=100)
    attach(session, sock)
    await session.publish(drafts("x" * 1000))
    await settle()

    assert 0 < hub.accounted_bytes - hub.counted_bytes < 2000, "the rest of a frame"

    sock.hang_up()
    await settle()
    hub.end("s")


@way
async def a_client_hangs_up_during_the_fan_out(hub: Hub) -> None:
    session = hub.open("s")
    sock = ThrottledSocket()
    victim = attach(session, sock)

    def hang_up(_: Batch) -> None:
        victim.close(EndReason.CLIENT_GONE)

    first = Recorder(session, on_delivery=hang_up)
    session.subscribers = dict.fromkeys((first, victim))
    await session.publish(drafts("a"))

    assert victim.closed
    hub.end("s")


@way
async def a_reader_is_too_slow(hub: Hub) -> None:
    session = hub.open("s")
    attach(session, ThrottledSocket(window=50))
    for number in range(30):
        await session.publish(drafts(f"{number}" * 100))
    await settle()

    assert {} == session.subscribers
    hub.end("s")


@way
async def a_reader_is_cut_for_its_lag(hub: Hub) -> None:
    session = hub.open("s")
    await session.publish(drafts("x" * 1000))
    attach(session, ThrottledSocket(window=50))
    pass_time(hub, LAGGING_S)
    relieve(hub, [ExpireEarly(0.5), DisconnectLaggards(), Trim("s", 0)])

    assert {} == session.subscribers
    hub.end("s")


@way
async def a_reader_finishes_while_it_catches_up(hub: Hub) -> None:
    session = hub.open("s")
    sock = ThrottledSocket(window=50)
    await session.publish(drafts("x" * 1000))
    attach(session, sock).finish(EndReason.DRAINING, retry_ms=1)
    await settle()
    sock.allow()
    await settle()

    assert {} == session.subscribers
    hub.end("s")


@way
async def a_stream_fails_in_the_fan_out(hub: Hub) -> None:
    def fail(_: Batch) -> None:
        raise ValueError("a defect")

    session = hub.open("s")
    Recorder(session, on_delivery=fail)
    await session.publish(drafts("a"))
    hub.end("s")


@way
async def a_stream_fails_in_the_poller(hub: Hub) -> None:
    class Broken(ThrottledSocket):
        @override
        def recv(self, *_: object) -> bytes:
            raise ValueError("a defect")

    session = hub.open("s")
    sock = Broken()
    attach(session, sock)
    sock.peer.send(b"x")
    await settle()

    assert {} == session.subscribers
    hub.end("s")


@way
async def a_stream_cannot_be_attached(hub: Hub) -> None:
    def fail(*_: object) -> None:
        raise OSError("fs.epoll.max_user_watches")

    session = hub.open("s")
    poller_add, hub.poller.add = hub.poller.add, fail  # type: ignore[method-assign,assignment]
    subscriber = attach(session)
    hub.poller.add = poller_add  # type: ignore[method-assign]

    assert subscriber.closed
    assert {} == session.subscribers
    hub.end("s")


@way
async def a_stream_comes_when_its_session_has_ended(hub: Hub) -> None:
    session = hub.open("s")
    hub.end("s")
    attach(session)
    await settle()
    attach(session)
    await settle()


@way
async def a_stream_comes_when_there_are_too_many(hub: Hub) -> None:
    session = hub.open("s")
    usual = hub.settings.config
    hub.settings.replace(in_force(max_subscribers_per_session=1).config)
    first, second = attach(session), attach(session)
    hub.settings.replace(usual)

    assert (False, True) == (first.closed, second.closed)
    hub.end("s")


@way
async def a_response_body_is_closed(hub: Hub) -> None:
    session = hub.open("s")
    await session.publish(drafts("a"))
    body = pull(session)
    await body.next_bytes()
    body.close(EndReason.CLIENT_GONE)
    hub.end("s")


@way
async def a_response_body_is_cancelled_where_it_waits(hub: Hub) -> None:
    session = hub.open("s")
    body = pull(session)
    with trio.move_on_after(1):
        await body.next_bytes()
    body.close(EndReason.CLIENT_GONE)
    hub.end("s")


@way
async def a_response_body_never_comes_for_its_last_words(hub: Hub) -> None:
    session = hub.open("s")
    await session.publish(drafts("a"))
    with trio.CancelScope() as response:
        body = pull(session, response)
        try:
            await body.next_bytes()
            body.disconnect(EndReason.MEMORY)
            await trio.sleep_forever()  # it is busy sending
        finally:
            body.close(EndReason.CLIENT_GONE)

    assert response.cancelled_caught
    hub.end("s")


@way
async def a_long_poll_finds_nothing(hub: Hub) -> None:
    hub.open("s")  # for it may have been closed before
    found = await page(head(query=(("wait", "30"),)), "s", EVERYONE, hub)

    assert isinstance(found, dict)
    assert [] == found["events"]
    hub.end("s")


@way
async def a_long_poll_is_given_up(hub: Hub) -> None:
    hub.open("s")
    with trio.move_on_after(1):
        await page(head(query=(("wait", "30"),)), "s", EVERYONE, hub)
    hub.end("s")


@way
async def a_publisher_gives_up_in_the_queue(hub: Hub) -> None:
    session = hub.open("s")
    async with trio.open_nursery() as publishers:
        for number in range(3 * INBOX_PUBLICATIONS):
            publishers.start_soon(_publish, session, str(number))
        publishers.cancel_scope.cancel()
    hub.end("s")


@way
async def a_body_is_refused_as_too_large(hub: Hub) -> None:
    with suppress(TooLarge):
        await publish(
            head(content_type=JSON),
            "s",
            Pieces(b"[" * 600_000, b"[" * 600_000),
            grant=EVERYONE,
            hub=hub,
        )


@way
async def a_body_is_refused_for_what_it_is(hub: Hub) -> None:
    for body in (b"{", b"[]]", b'{"data": 1, "event": "\\n"}', b"\xff", b'{"no": 1}'):
        with suppress(Problem):
            await publish(
                head(content_type=JSON),
                "s",
                Pieces(body),
                grant=EVERYONE,
                hub=hub,
            )


@way
async def an_event_is_refused_that_cannot_be_retained(hub: Hub) -> None:
    session = hub.open("s")
    with suppress(TooLarge):
        await session.publish(drafts("x" * (hub.settings.sessions.max_history_bytes + 1)))
    hub.end("s")


@way
async def a_publisher_goes_in_the_middle_of_its_body(hub: Hub) -> None:
    async def cut_short() -> AsyncIterator[bytes]:
        yield b"[1, 2"
        raise ClientDisconnected

    with suppress(ClientDisconnected):
        await publish(
            head(content_type=JSON),
            "s",
            cut_short(),
            grant=EVERYONE,
            hub=hub,
        )


@way
async def a_publisher_is_cancelled_in_the_middle_of_its_body(hub: Hub) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"data": "a"}\n{"da'
        await trio.sleep_forever()

    for content in ("application/json", "application/x-ndjson"):
        with trio.move_on_after(1):
            await publish(
                head(content_type=content),
                "s",
                endless(),
                grant=EVERYONE,
                hub=hub,
            )
    with suppress(NoSuchSession):
        hub.end("s")


@way
async def what_waits_for_a_drain_ends_otherwise(hub: Hub) -> None:
    with hub.interrupts.until_drain():
        pass
    with suppress(ValueError), hub.interrupts.until_drain():
        raise ValueError
    with trio.move_on_after(1), hub.interrupts.until_drain():
        await trio.sleep_forever()


async def _publish(session: Session, *data: str) -> None:
    with suppress(Problem):
        await session.publish(drafts(*data))


async def _relieve(hub: Hub, *actions: Forget) -> None:
    relieve(hub, actions)


JSON = "application/json"


def head(*, content_type: str = "", query: tuple[tuple[str, str], ...] = ()) -> Head:
    return Head("POST", "/", query, {"content-type": content_type}, "127.0.0.1", "1.1")


class Pieces:
    """A request's body, in pieces; unlike a generator it may be left where it is."""

    def __init__(self, *some: bytes) -> None:
        self._some = iter(some)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self._some:
            return piece
        raise StopAsyncIteration


def pull(session: Session, response: trio.CancelScope | None = None) -> ResponseSubscriber:
    body = ResponseSubscriber(
        session,
        response or trio.CancelScope(),
        stream_id=f"pull-{len(hub_of(session).subscribers)}",
        peer="127.0.0.1",
        position=Position(0),
    )
    session.attach(body)
    return body


@pytest.mark.parametrize("ends", _ways, ids=lambda function: function.__name__)
async def test_nothing_is_left_when(ends: Way, hub: Hub, autojump_clock: Clock) -> None:
    await ends(hub)  # whatever is made once only is made now
    async with leaving_nothing(hub):
        for _ in range(3):
            await ends(hub)


@pytest.mark.parametrize("ends", _ways, ids=lambda function: function.__name__)
async def test_others_lose_nothing_when(ends: Way, hub: Hub, autojump_clock: Clock) -> None:
    other = hub.open("other")
    recorder, stream = Recorder(other), attach(other)
    await other.publish(drafts("before"))
    await ends(hub)
    await other.publish(drafts("after"))
    await settle()

    assert ["before", "after"] == recorder.data == data_of(stream)
    assert not recorder.closed
    assert not stream.closed


# --- drain and stop --------------------------------------------------------------------------


async def test_a_drained_hub_holds_no_stream(hub: Hub, autojump_clock: Clock) -> None:
    before = len(hub.poller._polled)
    for number in range(3):
        session = hub.open(f"s{number}")
        await session.publish(drafts("x" * 1000))
        attach(session)
        Recorder(session)
    stuck = ThrottledSocket(window=50)
    attach(hub.open("s0"), stuck)
    with trio.move_on_after(1):
        await hub.drain()

    assert 1 == len(hub.subscribers), "it is still owed something"

    stuck.allow()
    await hub.drain()

    assert {} == hub.subscribers.by_id
    assert before == len(hub.poller._polled)
    assert 7 == hub.subscribers.ended_by_reason[EndReason.DRAINING]


async def test_a_hub_that_stops_leaves_nothing(autojump_clock: Clock) -> None:
    async def run_and_stop() -> tuple[weakref.ref[Hub], weakref.ref[Session]]:
        async with trio.open_nursery() as nursery:
            hub = await start_hub(nursery, **LIMITS)
            session = hub.open("s")
            for window in (10_000, 10):
                attach(session, ThrottledSocket(window=window))
            await session.publish(drafts("x" * 1000))
            pull(session)
            nursery.start_soon(session.publish, drafts("on its way"))
            nursery.cancel_scope.cancel()

        assert [0, 0, 0] == [len(hub.subscribers), len(hub.sessions), len(session.subscribers)]
        assert [0, 0] == [len(hub.quotas.streams_of_client), len(hub.quotas.sessions_of_subject)]
        assert 0 == hub.accounted_bytes
        return weakref.ref(hub), weakref.ref(session)

    await run_and_stop()
    gc.collect()
    before = Footprint.now()
    hub, session = await run_and_stop()
    gc.collect()

    assert (None, None) == (hub(), session())
    assert before == Footprint.now()


# --- what is small, but would add up ---------------------------------------------------------


async def test_a_settled_publication_keeps_no_drafts(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    kept = [Publication(drafts(str(number))) for number in range(3)]
    for publication in kept:
        session._inbox.send_nowait(publication)
    await settle()

    assert [()] * 3 == [publication.events for publication in kept]
    assert all(publication.receipt for publication in kept)


async def test_a_publication_that_is_turned_away_keeps_no_drafts(
    hub: Hub, autojump_clock: Clock
) -> None:
    session = hub.open("s")
    publication = Publication(drafts("a"))
    session._inbox.send_nowait(publication)
    session.close()
    await settle()

    assert () == publication.events
    assert publication.problem is not None


async def test_a_receipt_refers_to_nothing_but_text(hub: Hub, autojump_clock: Clock) -> None:
    receipt = await hub.open("s").publish(drafts("a", "b"))

    assert [] == [found for found in gc.get_referents(receipt) if isinstance(found, COUNTED)]


async def test_the_names_of_closed_sessions_go_with_time_and_are_bounded(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    hub = await start_hub(nursery, session_ttl=60, max_sessions=100)
    for number in range(1000):
        hub.open(f"s{number}")
        hub.end(f"s{number}")
        await trio.lowlevel.checkpoint()

    assert [f"s{number}" for number in range(900, 1000)] == [name for name, _ in hub.absent.ended()]

    await trio.sleep(60)
    await hub.sweep()

    assert () == hub.absent.ended()


async def test_a_session_that_comes_back_is_no_closed_one_any_more(
    hub: Hub, autojump_clock: Clock
) -> None:
    hub.open("s")
    hub.end("s")
    hub.open("s")

    assert () == hub.absent.ended()


@pytest.mark.parametrize("kind", ["evicted", "expired", "trimmed", "shed early"])
def test_an_empty_log_gives_its_tables_back(kind: str) -> None:
    log = ReplayLog(incarnation="i", max_events=500, max_bytes=10**9, max_age=100)
    for number in range(500):
        log.append(b"data:x\n\n", now=0.0, ttl=50 + number % 40, key=str(number))
    match kind:
        case "evicted":
            log.trim(1)
        case "expired":
            log.expire(100.0)
        case "trimmed":
            log.trim(0)
        case "shed early":
            log.expire(45.0, share=0.25)

    assert 0 == log.bytes == len(log) == len(log.segments)
    assert [0, 0] == [table.size_bytes for table in (log._keys, log._short_lived)]


def test_a_trimmed_log_forgets_when_what_is_gone_would_have_expired() -> None:
    log = ReplayLog(incarnation="i", max_events=500, max_bytes=10**9, max_age=100)
    for _ in range(500):
        log.append(b"data:x\n\n", now=0.0, ttl=50)
    log.trim(log.bytes // 10)

    assert 49 == len(log) == len(log._short_lived)


def test_the_heap_of_short_lived_events_is_bounded_whatever_is_evicted() -> None:
    log = ReplayLog(incarnation="i", max_events=10, max_bytes=10**9, max_age=100)
    for number in range(10_000):
        log.append(b"data:x\n\n", now=0.0, ttl=50, key=str(number))

        assert len(log._short_lived) <= 20
        assert len(log) == len(log._keys) <= 10


async def test_streams_end_for_known_reasons_only(hub: Hub, autojump_clock: Clock) -> None:
    for ends in _ways:
        await ends(hub)

    assert set(hub.subscribers.ended_by_reason) <= set(EndReason)


async def test_a_reader_that_is_up_to_date_holds_no_event(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    subscriber = attach(session)
    for number in range(10):
        await session.publish(drafts(f"{number}" * 1000))
    await settle()

    assert 0 == subscriber.pending_bytes
    assert not any(isinstance(found, Entry | Batch) for found in referents(subscriber))


def referents(subscriber: SocketSubscriber) -> list[object]:
    """Return what it refers to, by itself and through a memoryview."""
    direct: list[object] = list(gc.get_referents(subscriber))
    return direct + [found.obj for found in direct if isinstance(found, memoryview)]


async def test_beats_do_not_pile_up_before_a_busy_session(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    Recorder(session)
    for _ in range(100):
        session.heartbeat_if_due(hub.clock.now() + 1000)

    assert INBOX_PUBLICATIONS == session._inbox.statistics().current_buffer_used


# --- through HTTP: clients that leave at any stage -------------------------------------------


async def leave_in_the_head(connection: trio.SocketStream, _: Serving) -> None:
    await connection.send_all(b"GET /v1/sessions/s/events HT")


async def leave_after_the_head(connection: trio.SocketStream, _: Serving) -> None:
    await connection.send_all(b"GET /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\n\r\n")


async def leave_in_the_opening(connection: trio.SocketStream, _: Serving) -> None:
    await connection.send_all(b"GET /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await connection.receive_some(1)


async def leave_the_stream(connection: trio.SocketStream, daemon: Serving) -> None:
    await connection.send_all(b"GET /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while not daemon.hub.subscribers.by_id:
        await trio.testing.wait_all_tasks_blocked(0.001)
    await daemon.session("s").publish(drafts("a"))


async def leave_in_a_body(connection: trio.SocketStream, _: Serving) -> None:
    await connection.send_all(
        b"POST /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\n"
        b'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"data": '
    )


async def leave_in_a_stream_of_events(connection: trio.SocketStream, _: Serving) -> None:
    await connection.send_all(
        b"POST /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'12\r\n{"data": "a"}\n{"da\r\n'
    )


@pytest.mark.parametrize("how", ["politely", "abruptly"])
@pytest.mark.parametrize(
    "leave",
    [
        leave_in_the_head,
        leave_after_the_head,
        leave_in_the_opening,
        leave_the_stream,
        leave_in_a_body,
        leave_in_a_stream_of_events,
    ],
    ids=lambda function: function.__name__,
)
async def test_no_client_leaves_anything_behind(
    leave: Callable[[trio.SocketStream, Serving], Awaitable[None]], how: str
) -> None:
    async def come_and_leave(daemon: Serving) -> None:
        connection = await daemon.connect()
        await leave(connection, daemon)
        if how == "politely":
            await connection.aclose()
        else:
            reset(connection)

    async with serving() as daemon:
        daemon.hub.open("s")
        before = await Footprint.settled()
        for _ in range(3):
            await come_and_leave(daemon)
            await until_back_to(before)

        assert [0, 0] == [len(daemon.hub.subscribers), len(daemon.hub.poller._polled)]
        assert 0 == daemon.hub.bodies.bytes
        assert set() == daemon.hub.interrupts._until_drain


# --- the scenarios of the system that this one replaces --------------------------------------
# Events: "5 s is fresh, 1 ms expires, none never". Here none is as long as the log retains.


async def test_an_event_of_five_seconds_is_fresh_one_of_a_millisecond_is_not(
    hub: Hub, autojump_clock: Clock
) -> None:
    session = hub.open("s")
    await session.publish([draft("5 s", ttl=5), draft("1 ms", ttl=0.001), draft("none")])
    await trio.sleep(0.01)
    await hub.sweep()

    assert ["5 s", "none"] == retained(session)

    await trio.sleep(9.98)
    await hub.sweep()

    assert ["none"] == retained(session)

    await trio.sleep(0.01)
    await hub.sweep()

    assert [] == retained(session)


# Queues: "an empty one yields a keepalive; a stale one is found; a closed one refuses; one of
# five takes five of ten". Here nobody has one: a stream has a cursor, a session one inbox.


async def test_a_silent_stream_is_kept_alive(hub: Hub, autojump_clock: Clock) -> None:
    live = Recorder(hub.open("s"))
    await hub.heartbeat()

    assert 0 == live.beats

    await trio.sleep(15)
    await hub.heartbeat()
    await settle()

    assert 1 == live.beats


async def test_a_stale_stream_is_found_by_its_heartbeat(hub: Hub, autojump_clock: Clock) -> None:
    class Gone(ThrottledSocket):
        @override
        def send(self, *_: object) -> int:
            raise BrokenPipeError

    session = hub.open("s")
    stale = attach(session, Gone())
    await trio.sleep(15)
    await hub.heartbeat()
    await settle()

    assert stale.closed
    assert {EndReason.CLIENT_GONE: 1} == hub.subscribers.ended_by_reason


async def test_a_closed_session_refuses_what_comes(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    hub.end("s")
    await settle()

    with pytest.raises(Problem):
        await session.publish(drafts("late"))
    assert 0 == session.log.bytes


async def test_an_inbox_takes_so_many_and_the_rest_wait(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    accepted: list[str] = []

    async def publish_one(data: str) -> None:
        await session.publish(drafts(data, "and another"))
        accepted.append(data)

    async with trio.open_nursery() as publishers:
        for number in range(2 * INBOX_PUBLICATIONS):
            publishers.start_soon(publish_one, str(number))

    assert 2 * INBOX_PUBLICATIONS == len(accepted), "nothing is dropped"


# Sessions: "created and tracked; subscribers block expiry; expiry after 1.1 s of 1; touched, not".


@pytest.fixture
async def brief(nursery: trio.Nursery) -> Hub:
    """Start a hub whose sessions live a second."""
    return await start_hub(nursery, session_ttl=1, event_ttl=0.5, max_history_events=10)


async def test_a_session_is_tracked_until_it_expires(brief: Hub, autojump_clock: Clock) -> None:
    session = weakref.ref(brief.open("s"))

    assert {"s": session()} == brief.sessions

    await trio.sleep(1.1)
    await brief.sweep()
    await settle()
    gc.collect()

    assert {} == brief.sessions
    assert session() is None


async def test_a_subscriber_keeps_its_session(brief: Hub, autojump_clock: Clock) -> None:
    live = Recorder(brief.open("s"))
    await trio.sleep(100)
    await brief.sweep()

    assert ["s"] == list(brief.sessions)

    live.close(EndReason.CLIENT_GONE)
    await trio.sleep(0.9)
    await brief.sweep()

    assert ["s"] == list(brief.sessions), "it has just left"

    await trio.sleep(0.2)
    await brief.sweep()

    assert {} == brief.sessions


async def test_what_touches_a_session_keeps_it(brief: Hub, autojump_clock: Clock) -> None:
    session = brief.open("s")
    for touch in range(10):
        await trio.sleep(0.9)
        if touch % 2:
            await session.publish(drafts("a"))
        else:
            attach(session).close(EndReason.CLIENT_GONE)
        await brief.sweep()

        assert ["s"] == list(brief.sessions)


# The whole: rings, TTLs, dead readers, figures.


async def test_a_ring_of_twenty_keeps_the_newest_of_thirty(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    for index in range(30):
        await session.publish(drafts(str(index)))

    assert [str(index) for index in range(10, 30)] == retained(session)
    assert "29" == retained(session)[-1]


async def test_half_a_second_of_lifetime_empties_a_history(
    brief: Hub, autojump_clock: Clock
) -> None:
    session = brief.open("s")
    await session.publish(drafts(*"abcde"))
    await trio.sleep(0.5)
    await brief.sweep()

    assert [] == retained(session)
    assert 0 == brief.logs.bytes


async def test_a_ring_of_ten_with_a_tenth_of_a_second_never_has_more(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    hub = await start_hub(nursery, max_history_events=10, event_ttl=0.1)
    session = hub.open("s")
    for index in range(100):
        await session.publish(drafts(str(index)))

        assert len(session.log) == min(10, index + 1)

    await trio.sleep(0.1)
    await hub.sweep()

    assert 0 == len(session.log) == hub.logs.bytes


async def test_a_dead_reader_is_cleaned_up_the_others_stay(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    sock = ThrottledSocket()
    dead, alive = attach(session, sock), attach(session)
    sock.hang_up()
    await settle()

    assert [alive] == list(session.subscribers) == list(hub.subscribers.by_id.values())
    assert dead.closed


async def test_a_session_is_gone_from_the_figures_after_its_time(
    brief: Hub, autojump_clock: Clock
) -> None:
    await brief.open("s").publish(drafts("a"))

    assert ["s"] == [session.name for session in vitals(brief)]

    await trio.sleep(2)
    await brief.sweep()

    assert [] == vitals(brief)
    assert 0 == brief.counted_bytes


async def test_the_figures_rise_with_what_happens(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    attach(session)
    await session.publish(drafts("a", "b"))
    hub.end("s")
    await settle()

    assert {EndReason.SESSION_CLOSED: 1} == hub.subscribers.ended_by_reason


async def test_ten_sessions_of_a_hundred_events_take_what_is_counted(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    hub = await start_hub(nursery, session_ttl=60)
    before = await Census.of(hub)
    for number in range(10):
        await hub.open(f"s{number}").publish(drafts(*["x" * 200] * 100))
    entries = [e for s in hub.sessions.values() for e in s.log.since(0, max_bytes=10**9)]

    assert 1000 == len(entries)
    assert sum(s.log.bytes for s in hub.sessions.values()) == sum(e.cost for e in entries)
    assert hub.logs.bytes == sum(s.log.accounted for s in hub.sessions.values())
    assert 10 * 100 * 200 < hub.logs.bytes < 10 * 100 * (200 + 150)

    del entries
    await trio.sleep(60)
    await hub.sweep()

    assert before == await Census.of(hub)


async def test_to_ask_for_the_figures_takes_nothing(hub: Hub, autojump_clock: Clock) -> None:
    session = hub.open("s")
    Recorder(session)
    await session.publish(drafts("a", "b"))
    expected = session.statistics()
    async with leaving_nothing(hub):
        for _ in range(100):
            assert expected == session.statistics()
            vitals(hub)

    assert ("s", 1, 2) == (expected.name, expected.subscribers, expected.log.events)


async def test_history_that_was_asked_for_and_is_gone_is_told(
    hub: Hub, autojump_clock: Clock
) -> None:
    session = hub.open("s")
    first = await session.publish(drafts("a"))
    await trio.sleep(10)
    late = attach(session, start=ById(first.last_id or ""))
    await session.publish(drafts("b"))
    await settle()

    assert "b" == data_of(late)[-1]
    assert not late.closed


async def test_waves_of_everything_end_where_they_began(hub: Hub, autojump_clock: Clock) -> None:
    async def wave() -> None:
        for ends in _ways:
            await ends(hub)

    await wave()
    async with leaving_nothing(hub):
        await wave()


async def test_a_session_does_not_keep_the_request_that_opened_it(hub: Hub) -> None:
    """A task runs in the context of whoever starts it, and that has the request in it."""

    class Request:
        pass

    current: ContextVar[Request] = ContextVar("current")

    def open_in_a_request() -> weakref.ref[Request]:
        request = Request()
        current.set(request)
        hub.open("s")
        return weakref.ref(request)

    reference = Context().run(open_in_a_request)
    await settle()
    gc.collect()

    assert ["s"] == list(hub.sessions)
    assert reference() is None
