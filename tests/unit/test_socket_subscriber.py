"""A stream on a socket: exactly the bytes of its events, however little the socket takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.socket_subscriber import MAX_HEARD_BYTES
from broadcasterd.broadcast.subscriber import MAX_WRITE_BYTES
from broadcasterd.core.position import ById, Now
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.wire import HEARTBEAT, LAST_CHUNK, chunk, encode_end, encode_gap
from tests.support.broadcast import (
    ALL,
    ThrottledSocket,
    attach,
    data_of,
    dechunk,
    draft,
    drafts,
    hub_of,
    start_hub,
    taken,
)

END = chunk(encode_end(EndReason.SESSION_CLOSED)) + LAST_CHUNK
SLOW = chunk(encode_end(EndReason.SLOW_CONSUMER)) + LAST_CHUNK


@pytest.fixture
async def session(nursery: trio.Nursery) -> Session:
    """Open a session of a hub with the default settings."""
    return (await start_hub(nursery)).open("s")


async def settle() -> None:
    """Let every task run until it waits for something that only the test can bring."""
    await trio.testing.wait_all_tasks_blocked()


def frames(session: Session, *, after: int = 0) -> bytes:
    """Return the frames that the log retains after a cursor."""
    return b"".join(entry.frame for entry in session.log.since(after, max_bytes=ALL))


# --- what it is sent -------------------------------------------------------------------------


async def test_it_is_sent_what_is_retained_and_then_what_comes(session: Session) -> None:
    await session.publish(drafts("a", "b"))
    subscriber = attach(session)
    await session.publish(drafts("c"))
    await settle()

    assert frames(session) == taken(subscriber)
    assert ["a", "b", "c"] == data_of(subscriber)
    assert len(taken(subscriber)) == subscriber.sent_bytes
    assert 3 == subscriber.cursor == subscriber.sent_events


async def test_what_it_was_sent_is_counted_whether_it_is_live_or_not(session: Session) -> None:
    sock = ThrottledSocket()
    subscriber = attach(session, sock)
    for step in range(1, 9):
        match step:
            case 3:
                subscriber.heartbeat()
            case 5:
                sock.per_write = 7
            case 7:
                sock.per_write = ALL
        await session.publish(drafts("a", "b"))
        await settle()

        assert 2 * step == subscriber.sent_events == len(data_of(subscriber))
        assert len(sock.taken) == subscriber.sent_bytes
    subscriber.close(EndReason.CLIENT_GONE)

    assert (16, len(sock.taken)) == (subscriber.sent_events, subscriber.sent_bytes)


async def test_a_stream_that_is_closed_while_others_are_served_is_sent_nothing(
    session: Session,
) -> None:
    class Closing(ThrottledSocket):
        @override
        def send(self, data: bytes, flags: int = 0, /) -> int:  # type: ignore[override]
            if b"data: b" in data:
                second.close(EndReason.CLIENT_GONE)
            return super().send(data, flags)

    first = attach(session, Closing())
    second = attach(session)
    for data in "ab":
        await session.publish(drafts(data))
        await settle()

    assert ["a", "b"] == data_of(first)
    assert ["a"] == data_of(second)
    assert 1 == second.sent_events


async def test_an_event_that_is_sent_in_pieces_counts_once(session: Session) -> None:
    sock = ThrottledSocket(per_write=7)
    subscriber = attach(session, sock)
    for _ in range(3):
        await session.publish(drafts("a", "b"))
        await settle()

    assert [*"ababab"] == data_of(subscriber)
    assert 6 == subscriber.sent_events


async def test_a_batch_is_one_write(session: Session) -> None:
    writes = []

    class Counting(ThrottledSocket):
        @override
        def send(self, data: bytes, flags: int = 0, /) -> int:  # type: ignore[override]
            writes.append(len(data))
            return super().send(data, flags)

    subscriber = attach(session, Counting())
    await session.publish(drafts("a", "b", "c"))
    await settle()

    assert [len(frames(session))] == writes
    assert ["a", "b", "c"] == data_of(subscriber)


async def test_a_history_of_many_writes_arrives_whole(session: Session) -> None:
    await session.publish(drafts(*["x" * 10_000] * 50))
    subscriber = attach(session)
    await settle()

    assert frames(session) == taken(subscriber)
    assert len(taken(subscriber)) > 5 * MAX_WRITE_BYTES


async def test_a_subscriber_has_no_task_of_its_own(session: Session) -> None:
    await settle()
    before = trio.lowlevel.current_statistics().tasks_living
    subscriber = attach(session)
    for data in "abc":
        await session.publish(drafts(data))
    subscriber.heartbeat()

    assert before == trio.lowlevel.current_statistics().tasks_living


async def deliver_everything(*, window: int, per_write: int, allowances: Iterator[int]) -> None:
    """Send a gap, history, live events, a heartbeat and an end through a narrow socket."""
    async with trio.open_nursery() as nursery:
        hub = await start_hub(nursery)
        session = hub.open("s")
        await session.publish(drafts("first", "second\nline", "third"))
        sock = ThrottledSocket(window=window, per_write=per_write)
        subscriber = attach(session, sock, start=ById("0-unknown"))
        oldest = session.log.id_of(1)
        expected = chunk(encode_gap(asked="0-unknown", oldest=oldest)) + frames(session)
        for data in ("é", "x" * 30):
            await session.publish(drafts(data, data))
            sock.allow(next(allowances))
            await settle()
        expected += frames(session, after=3)
        sock.allow()
        await settle()
        subscriber.heartbeat()
        await settle()
        expected += chunk(HEARTBEAT)
        await session.publish(drafts("last"))
        expected += frames(session, after=7)
        hub.end("s")
        await settle()

        assert expected + END == bytes(sock.taken)
        assert len(sock.taken) == subscriber.sent_bytes
        assert subscriber.sent_events == 8
        assert subscriber.closed
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first", range(8))
async def test_writes_of_any_size_add_up_to_the_same_bytes(
    first: int, autojump_clock: trio.testing.MockClock
) -> None:
    for size in range(1 + first, 420, 8):
        await deliver_everything(window=ALL, per_write=size, allowances=iter((0, 0)))


@pytest.mark.parametrize("first", range(8))
async def test_a_socket_that_is_full_at_any_byte_goes_on_right_there(
    first: int, autojump_clock: trio.testing.MockClock
) -> None:
    for window in range(first, 420, 8):
        await deliver_everything(window=window, per_write=ALL, allowances=iter((0, 0)))


@given(
    window=st.integers(0, 100),
    per_write=st.integers(1, 100),
    allowances=st.tuples(st.integers(0, 100), st.integers(0, 100)),
)
async def test_a_socket_that_fills_and_drains_as_it_likes_loses_nothing(
    window: int, per_write: int, allowances: tuple[int, int]
) -> None:
    await deliver_everything(window=window, per_write=per_write, allowances=iter(allowances))


# --- events that leave the log early ---------------------------------------------------------


async def test_it_goes_on_behind_events_that_expired_before_it_came(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    await session.publish([draft("short-lived", ttl=1)])
    await trio.sleep(2)
    subscriber = attach(session)
    await session.publish(drafts("next"))
    await settle()

    assert ["next"] == data_of(subscriber)


async def test_it_goes_on_behind_events_that_expired_while_it_was_full(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    sock = ThrottledSocket(window=1)
    subscriber = attach(session, sock)
    await session.publish(drafts("kept"))
    await session.publish([draft("short-lived", ttl=1)])
    await trio.sleep(2)
    session.log.expire(session.now())
    sock.allow()
    await settle()
    await session.publish(drafts("next"))
    await settle()

    assert ["kept", "next"] == data_of(subscriber)


async def test_many_events_that_expired_are_no_lag(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    session = (await start_hub(nursery, max_lag_events=2)).open("s")
    await session.publish([draft(str(number), ttl=1) for number in range(10)])
    await trio.sleep(2)
    subscriber = attach(session)
    await session.publish(drafts("next"))
    await settle()

    assert ["next"] == data_of(subscriber)
    assert not subscriber.closed


async def test_a_frame_that_was_sent_is_not_kept(session: Session) -> None:
    await session.publish(drafts("x" * 100_000))
    subscriber = attach(session)
    await settle()

    assert b"" == subscriber._pending.obj


# --- slow readers ----------------------------------------------------------------------------


async def lagging(hub: Hub, lag: int) -> tuple[Session, ThrottledSocket]:
    """Return a session and the socket of a subscriber that is behind by so many events.

    Of the first event it has two bytes, which count as the whole.
    """
    session = hub.open("s")
    sock = ThrottledSocket(window=2)
    attach(session, sock)
    for number in range(lag + 1):
        await session.publish(drafts(str(number)))
        await settle()
    return session, sock


async def test_at_the_limit_a_slow_reader_is_still_served(nursery: trio.Nursery) -> None:
    session, sock = await lagging(await start_hub(nursery, max_lag_events=5), 5)
    sock.allow()
    await settle()

    assert frames(session) == bytes(sock.taken)


async def test_past_the_limit_a_slow_reader_is_ended_and_told_why(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_lag_events=5)
    session, sock = await lagging(hub, 5)
    quick = attach(session)
    await session.publish(drafts("too much"))
    await settle()
    assert not hub.subscribers.ended_by_reason, "what comes now it could not have taken before"
    await session.publish(drafts("more"))
    await settle()

    assert session.log.since(0, max_bytes=0)[0].frame + SLOW == bytes(sock.taken)
    assert 1 == hub.subscribers.ended_by_reason[EndReason.SLOW_CONSUMER]
    assert ["too much", "more"] == data_of(quick)[-2:]


async def test_past_the_limit_a_slow_reader_that_may_skip_is_told_of_the_gap(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery, max_lag_events=5, slow_consumer="skip")
    session, sock = await lagging(hub, 8)
    sock.allow()
    await settle()
    await session.publish(drafts("next"))
    await settle()
    first = session.log.since(0, max_bytes=0)[0].frame
    resumed_at = numbers_after(sock)[0]
    gap = encode_gap(asked=session.log.id_of(1), oldest=session.log.id_of(resumed_at))

    assert first + chunk(gap) + frames(session, after=resumed_at - 1) == bytes(sock.taken)
    assert 2 < resumed_at <= 5
    assert not hub.subscribers.ended_by_reason


def numbers_after(sock: ThrottledSocket) -> list[int]:
    """Return the numbers of the events that followed a gap."""
    body = dechunk(bytes(sock.taken))[0].decode()
    after = body.partition("event: broadcaster.gap\n")[2].split("\n")
    return [int(line.rpartition("-")[2]) for line in after if line.startswith("id: ")]


async def test_two_gaps_that_were_not_told_yet_become_one(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_lag_events=2, slow_consumer="skip")
    session, sock = await lagging(hub, 20)
    sock.allow()
    await settle()
    body = dechunk(bytes(sock.taken))[0]

    assert 1 == body.count(b"event: broadcaster.gap")
    assert f'"asked":"{session.log.id_of(1)}"'.encode() in body
    assert frames(session, after=21 - 2).endswith(bytes(sock.taken)[-30:])


@pytest.mark.parametrize("slow_consumer", ["end", "skip"])
async def test_a_reader_whose_next_event_was_evicted_is_told(
    slow_consumer: str, nursery: trio.Nursery
) -> None:
    hub = await start_hub(nursery, max_history_events=3, slow_consumer=slow_consumer)
    session, sock = await lagging(hub, 0)
    first = session.log.since(0, max_bytes=0)[0].frame
    session.log.append(draft("never broadcast").block, now=session.now())
    for number in range(5):
        session.log.append(draft(str(number)).block, now=session.now())
    sock.allow()
    await settle()
    gap = chunk(encode_gap(asked=session.log.id_of(1), oldest=session.log.id_of(5)))
    skipped = gap + b"".join(e.frame for e in session.log.since(0, max_bytes=ALL))

    assert first + (SLOW if slow_consumer == "end" else skipped) == bytes(sock.taken)


async def test_a_replay_longer_than_the_lag_limit_is_no_lag(nursery: trio.Nursery) -> None:
    session = (await start_hub(nursery, max_lag_events=5)).open("s")
    await session.publish(drafts(*map(str, range(100))))
    sock = ThrottledSocket(window=100)
    subscriber = attach(session, sock)
    await session.publish(drafts("while it replays"))
    sock.allow()
    await settle()

    assert frames(session) == bytes(sock.taken)
    assert not subscriber.closed


# --- heartbeats ------------------------------------------------------------------------------


async def test_a_heartbeat_is_a_comment_without_a_blank_line(session: Session) -> None:
    subscriber = attach(session)
    subscriber.heartbeat()

    assert b"2\r\n:\n\r\n" == taken(subscriber)


async def test_a_reader_that_catches_up_gets_no_heartbeat(session: Session) -> None:
    sock = ThrottledSocket(window=10)
    subscriber = attach(session, sock)
    await session.publish(drafts("x" * 100))
    subscriber.heartbeat()
    subscriber.heartbeat()
    sock.allow()
    await settle()

    assert frames(session) == bytes(sock.taken)


async def test_heartbeats_do_not_pile_up_before_a_full_socket(session: Session) -> None:
    sock = ThrottledSocket(window=1)
    subscriber = attach(session, sock)
    for _ in range(10):
        subscriber.heartbeat()
    sock.allow()
    await settle()

    assert chunk(HEARTBEAT) == bytes(sock.taken)


# --- the end ---------------------------------------------------------------------------------


async def test_a_stream_that_finishes_gets_what_it_is_owed_first(session: Session) -> None:
    sock = ThrottledSocket(window=5)
    subscriber = attach(session, sock)
    await session.publish(drafts("a", "b"))
    await settle()
    subscriber.finish(EndReason.DRAINING, retry_ms=4321)
    subscriber.finish(EndReason.SESSION_CLOSED)
    sock.allow()
    await settle()
    last_words = chunk(encode_end(EndReason.DRAINING, retry_ms=4321))

    assert frames(session) + last_words + LAST_CHUNK == bytes(sock.taken)
    assert 1 == hub_of(session).subscribers.ended_by_reason[EndReason.DRAINING]


async def test_a_live_stream_that_finishes_gets_what_the_fan_out_has_not_brought_yet(
    session: Session,
) -> None:
    subscriber = attach(session)
    session.log.append(draft("on its way").block, now=session.now())
    subscriber.finish(EndReason.SESSION_CLOSED)
    await settle()

    assert frames(session) + END == taken(subscriber)


async def test_a_stream_that_is_cut_gets_the_rest_of_its_frame_and_the_reason(
    session: Session,
) -> None:
    sock = ThrottledSocket(window=5)
    subscriber = attach(session, sock)
    await session.publish(drafts("a", "b"))
    await settle()
    subscriber.disconnect(EndReason.SESSION_CLOSED)
    subscriber.disconnect(EndReason.MEMORY)
    subscriber.close(EndReason.MEMORY)

    assert session.log.since(0, max_bytes=0)[0].frame + END == bytes(sock.taken)
    assert {EndReason.SESSION_CLOSED: 1} == hub_of(session).subscribers.ended_by_reason


async def test_a_stream_that_is_closed_gets_nothing_more(session: Session) -> None:
    subscriber = attach(session)
    subscriber.close(EndReason.CLIENT_GONE)
    subscriber.finish(EndReason.DRAINING)
    subscriber.disconnect(EndReason.DRAINING)
    await session.publish(drafts("late"))

    assert b"" == taken(subscriber)
    assert {EndReason.CLIENT_GONE: 1} == hub_of(session).subscribers.ended_by_reason
    assert not session.subscribers
    assert not hub_of(session).subscribers.by_id


async def test_a_hang_up_is_noticed(session: Session) -> None:
    sock = ThrottledSocket()
    subscriber = attach(session, sock)
    await settle()
    sock.hang_up()
    await settle()

    assert subscriber.closed
    assert {EndReason.CLIENT_GONE: 1} == hub_of(session).subscribers.ended_by_reason


async def test_a_hang_up_is_noticed_while_it_catches_up(session: Session) -> None:
    sock = ThrottledSocket(window=1)
    subscriber = attach(session, sock)
    await session.publish(drafts("a"))
    await settle()
    sock.hang_up()
    await settle()

    assert subscriber.closed
    assert {EndReason.CLIENT_GONE: 1} == hub_of(session).subscribers.ended_by_reason
    assert 0 == subscriber.pending_bytes


async def test_a_write_that_fails_is_a_hang_up(session: Session) -> None:
    class Broken(ThrottledSocket):
        @override
        def send(self, data: bytes, flags: int = 0, /) -> int:  # type: ignore[override]
            raise ConnectionResetError

    subscriber = attach(session, Broken())
    other = attach(session)
    await session.publish(drafts("a"))
    await settle()

    assert subscriber.closed
    assert {EndReason.CLIENT_GONE: 1} == hub_of(session).subscribers.ended_by_reason
    assert ["a"] == data_of(other)


async def test_what_the_client_says_is_not_listened_to_up_to_a_limit(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    sock = ThrottledSocket()
    subscriber = attach(session, sock)
    sock.peer.send(b"GET / HTTP/1.1\r\n\r\n")
    await trio.sleep(1)

    assert not subscriber.closed

    sock.peer.send(b"x" * MAX_HEARD_BYTES)
    await trio.sleep(1)

    assert {EndReason.CLIENT_SPOKE: 1} == hub_of(session).subscribers.ended_by_reason


async def test_what_is_left_of_a_write_is_accounted_for(session: Session) -> None:
    sock = ThrottledSocket(window=10)
    subscriber = attach(session, sock)
    await session.publish(drafts("x" * 1000))
    await settle()
    size = len(frames(session))

    assert size - 10 == subscriber.pending_bytes == session.statistics().pending_bytes


# --- a real connection -----------------------------------------------------------------------


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a loopback connection, with send and receive buffers that are small."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    server.settimeout(0)
    client.settimeout(5)
    return server, client


def read_all(client: socket.socket) -> bytes:
    """Read until the end; a reset fails the test."""
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


async def test_a_reader_that_is_stuck_finds_the_reason_when_it_reads_on(
    nursery: trio.Nursery,
) -> None:
    session = (await start_hub(nursery, max_lag_events=3)).open("s")
    server, client = tcp_pair()
    subscriber = attach(session, server)
    with client, trio.fail_after(5):
        while not subscriber.closed:
            await session.publish(drafts("x" * 50_000))
            await trio.lowlevel.checkpoint()
        received = await trio.to_thread.run_sync(read_all, client)
    body, ended = dechunk(received)

    assert ended
    assert body.endswith(encode_end(EndReason.SLOW_CONSUMER))
    assert frames(session).startswith(received.removesuffix(SLOW))


async def test_nothing_is_lost_on_a_connection_that_is_read_slowly(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_history_bytes=16 * 1024 * 1024)
    session = hub.open("s")
    server, client = tcp_pair()
    attach(session, server, start=Now())
    with client, trio.fail_after(10):
        for number in range(60):
            await session.publish(drafts(f"{number}" * 10_000))
        expected = frames(session)
        hub.end("s")
        received = await trio.to_thread.run_sync(read_all, client)

    assert expected + END == received
