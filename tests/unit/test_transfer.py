"""From one hub to the next: streams go on, whatever they were in the middle of.

Real sockets, and a keeper in memory where a service has systemd. The two hubs are one after another
in the same Trio run, with nothing in common.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from math import inf

import msgspec
import pytest
import trio
import trio.testing

from broadcasterd.access.grants import Grant
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.unchunked_subscriber import UnchunkedSubscriber
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.position import ById, Now
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.wire import encode_frame
from broadcasterd.errors import NoSuchSession
from broadcasterd.handover.format import (
    MAGIC,
    EventLeft,
    HandoverError,
    SessionLeft,
    StreamLeft,
    unpack,
)
from broadcasterd.handover.transfer import hand_over, restore
from tests.support.broadcast import (
    Arrivals,
    attach,
    dechunk,
    draft,
    drafts,
    events_of,
    retained,
    start_hub,
)
from tests.support.shelf import Shelf
from tests.support.sse import parse


@pytest.fixture
def shelf() -> Shelf:
    """Return an empty one."""
    return Shelf()


class Client:
    """The other end of a stream, and the bytes that came."""

    def __init__(self, *, room: int | None = None) -> None:
        self.ours = socket.socket()
        with socket.create_server(("127.0.0.1", 0)) as server:
            if room is not None:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
                self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            self.ours.connect(server.getsockname())
            self.theirs, _ = server.accept()
        self.theirs.settimeout(0)
        self.ours.settimeout(0)
        self.raw = b""

    def read(self) -> bytes:
        """Read what there is."""
        try:
            while data := self.ours.recv(65536):
                self.raw += data
        except BlockingIOError:
            pass
        return self.raw

    @property
    def data(self) -> list[str]:
        """The data of all events so far."""
        return [event.data for event in events_of(self.read())]

    @property
    def hung_up_on(self) -> bool:
        """Whether the daemon's side is closed."""
        self.read()
        try:
            return self.ours.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


Connect = Callable[..., Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return what makes clients; they hang up at the end."""
    clients: list[Client] = []

    def make(*, room: int | None = None) -> Client:
        clients.append(Client(room=room))
        return clients[-1]

    yield make
    for client in clients:
        client.theirs.close()
        client.ours.close()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def moved(hub: Hub, shelf: Shelf, nursery: trio.Nursery, **limits: object) -> Hub:
    """Hand everything over to another hub."""
    await hand_over(hub, shelf)
    await settle()
    following = await start_hub(nursery, **limits)
    await restore(following, shelf, Arrivals())
    await settle()
    return following


# --- streams -------------------------------------------------------------------------------------


async def test_a_live_stream_goes_on(nursery: trio.Nursery, shelf: Shelf, connect: Connect) -> None:
    hub = await start_hub(nursery)
    client = connect()
    await hub.open("s").publish(drafts("a", "b"))
    before = attach(hub.open("s"), client.theirs)
    hub = await moved(hub, shelf, nursery)
    await hub.open("s").publish(drafts("c"))
    await settle()

    assert ["a", "b", "c"] == client.data
    assert not client.hung_up_on
    assert [before.stream_id] == list(hub.subscribers.by_id)


async def test_a_stream_that_was_cut_off_in_the_middle_of_a_frame_gets_the_rest(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    client = connect(room=4096)
    attach(hub.open("s"), client.theirs)
    data = [f"{number} ".ljust(3000, "x") for number in range(40)]
    await hub.open("s").publish(drafts(*data))
    await settle()
    client.read()
    [stream] = hub.subscribers.by_id.values()

    assert 0 < stream.cursor < 40, "it was to be in the middle"
    assert stream.pending_bytes > 0

    hub = await moved(hub, shelf, nursery)
    while len(client.read()) < 40 * 3000:
        await settle()

    assert data == client.data


async def test_streams_of_many_sessions_keep_their_own(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    clients = {f"s{number}": [connect(), connect()] for number in range(50)}
    for name, ends in clients.items():
        await hub.open(name).publish(drafts(f"{name} before"))
        for client in ends:
            attach(hub.open(name), client.theirs)
    hub = await moved(hub, shelf, nursery)
    for name in clients:
        await hub.open(name).publish(drafts(f"{name} after"))
    await settle()

    for name, ends in clients.items():
        assert [[f"{name} before", f"{name} after"]] * 2 == [client.data for client in ends]


async def test_what_a_stream_has_been_through_is_kept(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start_hub(nursery)
    client = connect()
    before = attach(hub.open("s"), client.theirs)
    await hub.open("s").publish(drafts("a"))
    await trio.sleep(100)
    sent = before.sent_bytes
    hub = await moved(hub, shelf, nursery)
    [after] = hub.subscribers.by_id.values()

    assert (sent, before.peer, before.sent_events) == (after.sent_bytes, after.peer, 1)
    assert hub.clock.now() - after.opened_at == pytest.approx(100, abs=1)


async def test_a_stream_that_is_too_slow_is_told_so_afterwards_as_it_would_have_been(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery, max_lag_events=20)
    client = connect(room=4096)
    attach(hub.open("s"), client.theirs)
    big = "x" * 5000
    await hub.open("s").publish(drafts(*[big] * 15))
    await settle()
    hub = await moved(hub, shelf, nursery, max_lag_events=20)
    await hub.open("s").publish(drafts(*[big] * 15))
    await hub.open("s").publish(drafts("by now it could have had them"))
    await settle()

    assert {EndReason.SLOW_CONSUMER: 1} == hub.subscribers.ended_by_reason


async def test_a_grant_ends_when_it_would_have_ended(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start_hub(nursery)
    until = hub.clock.unix_now() + 60
    for expires_at in (until, None):
        grant = Grant("someone", expires_at=expires_at)
        attach(hub.open("s"), connect().theirs, grant=grant)
    hub = await moved(hub, shelf, nursery)
    limited, unlimited = hub.subscribers.by_id.values()

    assert limited.expires_at - hub.clock.now() == pytest.approx(60, abs=1)
    assert unlimited.expires_at == inf
    assert 2 == hub.quotas.streams_of_subject["someone"]


async def test_a_client_that_hung_up_in_between_is_nobodys_loss(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    client, gone = connect(), connect()
    for each in (client, gone):
        attach(hub.open("s"), each.theirs)
    await hand_over(hub, shelf)
    for sock in shelf.sockets[1:]:
        sock.close()  # as systemd does
    del shelf.sockets[1:]
    hub = await start_hub(nursery)
    result = await restore(hub, shelf, Arrivals())

    assert (1, 1) == (result.streams, result.lost_streams)
    assert 1 == len(hub.subscribers)


async def test_a_stream_without_chunks_goes_on_where_it_was_cut_off(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    client = connect(room=4096)
    attach(hub.open("s"), client.theirs, kind=UnchunkedSubscriber)
    data = [f"{number} ".ljust(3000, "x") for number in range(40)]
    await hub.open("s").publish(drafts(*data))
    await settle()
    client.read()
    [stream] = hub.subscribers.by_id.values()

    assert stream.pending_bytes > 0, "it was to be in the middle"

    hub = await moved(hub, shelf, nursery)
    while len(client.read()) < 40 * 3000:
        await settle()
    await hub.open("s").publish(drafts("live"))
    await settle()

    assert [*data, "live"] == [event.data for event in parse(client.read().decode().split("\n"))]


async def test_a_release_that_knows_no_stream_without_chunks_closes_it(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    client = connect()
    attach(hub.open("s"), client.theirs, kind=UnchunkedSubscriber)
    await hand_over(hub, shelf)
    [left] = [r for r in unpack(shelf.kept[0]) if isinstance(r, StreamLeft)]

    assert 0 == left.inode, "no socket has it"
    assert os.fstat(shelf.sockets[0].fileno()).st_ino == left.unchunked_inode
    for sock in shelf.sockets:
        sock.close()


# --- connections ---------------------------------------------------------------------------------


async def test_idle_connections_are_left_too_with_what_has_come_on_them(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    client = connect()
    client.ours.sendall(b"GET / HTTP/1.1")
    await hand_over(hub, shelf, [client.theirs])
    arrivals = Arrivals()
    result = await restore(await start_hub(nursery), shelf, arrivals)

    assert 1 == result.connections
    assert [b"GET / HTTP/1.1"] == [sock.recv(100) for sock in arrivals.idle]
    for sock in arrivals.idle:
        sock.close()


async def test_a_keeper_that_fails_costs_idle_connections(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub, client = await start_hub(nursery), connect()
    shelf.breaks_down = True
    with pytest.raises(TimeoutError):
        await hand_over(hub, shelf, [client.theirs])

    assert client.hung_up_on


# --- sessions and their logs ---------------------------------------------------------------------


async def test_ids_go_on_and_the_old_ones_are_known(nursery: trio.Nursery, shelf: Shelf) -> None:
    hub = await start_hub(nursery)
    first = await hub.open("s").publish(drafts("a", "b", "c"))
    hub = await moved(hub, shelf, nursery)
    session = hub.find("s")
    position = session.resolve(ById(first.first_id or ""))

    assert position.gap is None
    assert 1 == position.cursor

    following = await session.publish(drafts("d"))

    assert f"{session.log.incarnation}-4" == following.first_id
    assert ["a", "b", "c", "d"] == retained(session)


async def test_what_had_left_the_log_is_still_a_gap(nursery: trio.Nursery, shelf: Shelf) -> None:
    hub = await start_hub(nursery, max_history_events=2)
    receipt = await hub.open("s").publish(drafts("a", "b", "c", "d"))
    hub = await moved(hub, shelf, nursery, max_history_events=2)

    assert hub.find("s").resolve(ById(receipt.first_id or "")).gap is not None
    assert ["c", "d"] == retained(hub.find("s"))


async def test_a_key_that_was_used_is_still_used(nursery: trio.Nursery, shelf: Shelf) -> None:
    hub = await start_hub(nursery)
    await hub.open("s").publish([draft("a", key="once")])
    hub = await moved(hub, shelf, nursery)
    receipt = await hub.open("s").publish([draft("a", key="once")])

    assert (0, 1) == (receipt.accepted, receipt.duplicates)


async def test_events_and_sessions_live_as_long_as_they_would_have_lived(
    nursery: trio.Nursery, shelf: Shelf, autojump_clock: trio.testing.MockClock
) -> None:
    limits = {"event_ttl": 600, "session_ttl": 3600}
    hub = await start_hub(nursery, **limits)
    await hub.open("s").publish([draft("short", ttl=300), draft("long")])
    await trio.sleep(200)
    hub = await moved(hub, shelf, nursery, **limits)
    session = hub.find("s")
    await trio.sleep(98)
    session.log.expire(hub.clock.now())

    assert ["short", "long"] == retained(session)

    await trio.sleep(4)
    session.log.expire(hub.clock.now())

    assert ["long"] == retained(session)

    await trio.sleep(296)
    session.log.expire(hub.clock.now())

    assert ["long"] == retained(session)

    await trio.sleep(4)
    session.log.expire(hub.clock.now())

    assert [] == retained(session)
    assert not session.has_expired(hub.clock.now())

    await trio.sleep(3600)

    assert session.has_expired(hub.clock.now())


async def test_who_comes_back_to_a_closed_session_is_still_told_to_stop(
    nursery: trio.Nursery, shelf: Shelf
) -> None:
    hub = await start_hub(nursery)
    hub.open("s")
    hub.end("s")
    hub = await moved(hub, shelf, nursery)

    assert hub.was_ended("s")
    with pytest.raises(NoSuchSession):
        hub.find("s")


async def test_tighter_settings_hold_for_what_was_left(nursery: trio.Nursery, shelf: Shelf) -> None:
    hub = await start_hub(nursery)
    await hub.open("s").publish(drafts(*"abcdef"))
    hub = await moved(hub, shelf, nursery, max_history_events=2)

    assert ["e", "f"] == retained(hub.find("s"))


async def test_nothing_stays_behind(nursery: trio.Nursery, shelf: Shelf, connect: Connect) -> None:
    hub = await start_hub(nursery)
    await hub.open("s").publish(drafts("a"))
    attach(hub.open("s"), connect().theirs, start=Now())
    left = hub.counted_bytes
    result = await hand_over(hub, shelf)
    await settle()

    assert (1, 1, 1) == (result.sessions, result.events, result.streams)
    assert 0 == hub.accounted_bytes < left
    assert {} == hub.subscribers.ended_by_reason, "no stream has ended"

    following = await start_hub(nursery)
    await restore(following, shelf, Arrivals())

    assert left == following.counted_bytes


async def test_an_empty_hub_is_left_and_taken_up(nursery: trio.Nursery, shelf: Shelf) -> None:
    hub = await moved(await start_hub(nursery), shelf, nursery)

    assert {} == hub.sessions


async def test_it_can_be_handed_over_again_and_again(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    client = connect()
    attach(hub.open("s"), client.theirs)
    for number in range(5):
        await hub.open("s").publish(drafts(str(number)))
        shelf = Shelf()
        hub = await moved(hub, shelf, nursery)

    assert [str(number) for number in range(5)] == client.data


# --- when it cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["unknown version", "cut short", "first missing", "two mixed"])
async def test_of_what_cannot_be_read_nothing_is_taken_and_clients_come_back(
    damage: str, nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    client = connect()
    attach(hub.open("s"), client.theirs)
    await hub.open("s").publish(drafts("a"))
    await hand_over(hub, shelf)
    if damage == "unknown version":
        shelf.kept[0] = shelf.kept[0].replace(b"handover 1", b"handover 9")
    elif damage == "cut short":
        shelf.kept[0] = shelf.kept[0][:-10]
    elif damage == "first missing":
        shelf.kept[1] = shelf.kept.pop(0)
    else:
        other = Shelf()
        await hand_over(await start_hub(nursery), other)
        shelf.kept[1] = other.kept[0]
    following = await start_hub(nursery)
    with pytest.raises(HandoverError):
        await restore(following, shelf, Arrivals())
    await settle()

    assert {} == following.sessions
    assert {} == following.subscribers.by_id
    assert 0 == following.accounted_bytes
    assert client.hung_up_on


async def test_a_socket_that_nothing_is_known_of_is_closed(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    await hand_over(hub, shelf)
    stray = connect()
    shelf.sockets.append(stray.theirs)
    await restore(await start_hub(nursery), shelf, Arrivals())

    assert stray.hung_up_on


async def test_a_keeper_that_fails_costs_the_streams_and_no_descriptor(
    nursery: trio.Nursery, shelf: Shelf, connect: Connect
) -> None:
    hub = await start_hub(nursery)
    client = connect()
    attach(hub.open("s"), client.theirs)
    shelf.breaks_down = True
    with pytest.raises(TimeoutError):
        await hand_over(hub, shelf)

    assert client.hung_up_on


def test_the_framing_is_whole() -> None:
    """What the tests above rely on: a chunk that was cut short fails."""
    with pytest.raises(AssertionError, match="cut short"):
        dechunk(b"5\r\nabc")


# --- histories of several segments ---------------------------------------------------------------


def of_several_segments() -> list[EncodedEvent]:
    """Return events that fill several segments, some with keys and ttls of their own."""
    return [
        draft(
            f"{number} ".ljust(500, "x"),
            key=f"key {number}" if number % 7 == 0 else None,
            ttl=100 if number % 5 == 0 else None,
        )
        for number in range(400)
    ]


async def test_sealed_segments_go_as_they_are(
    nursery: trio.Nursery, shelf: Shelf, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start_hub(nursery)
    session = hub.open("s")
    await session.publish(of_several_segments())
    before, floor = session.log.since(0, max_bytes=1 << 40), session.log.floor
    assert len(session.log.segments) > 3
    hub = await moved(hub, shelf, nursery)
    after = hub.open("s").log

    entries = after.since(0, max_bytes=1 << 40)
    assert [(e.seq, e.frame, e.ttl, e.key) for e in before] == [
        (e.seq, e.frame, e.ttl, e.key) for e in entries
    ]
    assert [e.appended_at for e in before] == pytest.approx([e.appended_at for e in entries], abs=1)
    assert (floor, sum(e.cost for e in before)) == (after.floor, after.bytes)
    assert after.duplicate_of("key 49") == 50
    assert after.accounted == hub.logs.bytes
    records = [record for index in shelf.kept for record in unpack(shelf.kept[index])]
    assert sum(isinstance(record, EventLeft) for record in records) < 400 / 2

    await trio.sleep(100)
    await hub.sweep()
    assert len(after) == 400 - 400 / 5


async def test_a_release_before_segments_takes_the_oldest_events_for_evicted(
    nursery: trio.Nursery, shelf: Shelf
) -> None:
    hub = await start_hub(nursery)
    await hub.open("s").publish(of_several_segments())
    await hand_over(hub, shelf)
    [left] = [r for r in unpack(shelf.kept[0]) if isinstance(r, SessionLeft)]
    kept = [r.seq for r in unpack(shelf.kept[0]) if isinstance(r, EventLeft)]

    assert left.sealed
    assert left.floor_below == 0
    assert list(range(left.floor + 1, 401)) == kept


async def test_a_handover_of_a_release_before_segments_is_read(
    nursery: trio.Nursery, shelf: Shelf
) -> None:
    older = [
        ["segment", "handover", 0, 1.7e9],
        ["session", "s", "7f3c", 3, 5, 60.0, 1.0, 2.0],
        ["event", 4, encode_frame("7f3c-4", b"data: a\n\n"), 2.0],
        ["event", 5, encode_frame("7f3c-5", b"data: b\n\n"), 1.0, 30.0, "key"],
        ["done"],
    ]
    packed = [msgspec.msgpack.encode(record) for record in older]
    shelf.kept[0] = MAGIC + b"".join(len(record).to_bytes(4) + record for record in packed)
    hub = await start_hub(nursery)
    await restore(hub, shelf, Arrivals())
    log = hub.open("s").log

    assert ["a", "b"] == retained(hub.open("s"))
    assert (3, 5, 5) == (log.floor, log.last, log.duplicate_of("key"))
