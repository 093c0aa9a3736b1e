"""A stream of HTTP/1.0: the bytes of the stream in chunks without the chunks, however it is cut."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from typing_extensions import override

from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.unchunked_subscriber import UnchunkedSubscriber
from broadcasterd.core.position import ById
from broadcasterd.core.segment import LARGE_BYTES
from tests.support.broadcast import (
    ALL,
    ThrottledSocket,
    attach,
    dechunk,
    drafts,
    hub_of,
    start_hub,
    taken,
)


@pytest.fixture
async def session(nursery: trio.Nursery) -> Session:
    """Open a session of a hub with the default settings."""
    return (await start_hub(nursery)).open("s")


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def bodies(
    session: Session, sock: ThrottledSocket, *, allowance: int, size: int = LARGE_BYTES
) -> tuple[bytes, bytes]:
    """Send a gap, history, live events, a heartbeat and an end: in chunks, and through ``sock``.

    Returns the bodies of both.
    """
    await session.publish(drafts("first", "second\nline", "x" * size, "é"))
    chunked = attach(session, start=ById("0-unknown"))
    unchunked = attach(session, sock, start=ById("0-unknown"), kind=UnchunkedSubscriber)
    for data in ("live", "y" * 30):
        await session.publish(drafts(data, data))
        sock.allow(allowance)
        await settle()
    sock.allow()
    await settle()
    chunked.heartbeat()
    unchunked.heartbeat()
    await session.publish(drafts("last"))
    hub_of(session).end("s")
    await settle()
    body, is_whole = dechunk(taken(chunked))

    assert is_whole
    assert unchunked.closed
    return body, bytes(sock.taken)


async def test_it_is_the_body_of_the_same_stream_and_ends_with_the_close(session: Session) -> None:
    chunked, unchunked = await bodies(session, ThrottledSocket(), allowance=0)

    assert chunked == unchunked


@pytest.mark.parametrize("first", range(8))
async def test_a_socket_that_is_full_at_any_byte_goes_on_right_there(
    first: int, nursery: trio.Nursery
) -> None:
    for window in range(first, 420, 8):
        session = (await start_hub(nursery)).open("s")
        sock = ThrottledSocket(window=window)
        chunked, unchunked = await bodies(session, sock, allowance=window % 50, size=20)

        assert chunked == unchunked


@pytest.mark.parametrize("per_write", [7, 64, LARGE_BYTES - 1, LARGE_BYTES + 60])
async def test_writes_of_any_size_add_up_to_the_same_bytes(
    per_write: int, session: Session
) -> None:
    sock = ThrottledSocket(per_write=per_write)
    chunked, unchunked = await bodies(session, sock, allowance=0)

    assert chunked == unchunked


async def test_what_is_live_is_encoded_once_for_all(session: Session) -> None:
    written: list[object] = []

    class Noting(ThrottledSocket):
        @override
        def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
            written.append(data)
            return super().send(data, flags)

    for _ in range(2):
        attach(session, Noting(), kind=UnchunkedSubscriber)
    await session.publish(drafts("a", "b"))
    await settle()

    assert 2 == len(written)
    assert written[0] is written[1]


async def test_its_progress_counts_what_was_sent(session: Session) -> None:
    sock = ThrottledSocket(window=5)
    subscriber = attach(session, sock, kind=UnchunkedSubscriber)
    await session.publish(drafts("a", "b"))
    await settle()

    assert (1, 1, 5) == (subscriber.cursor, subscriber.sent_events, subscriber.sent_bytes)
    sock.allow(ALL)
    await settle()
    assert (2, 2) == (subscriber.cursor, subscriber.sent_events)
    assert len(sock.taken) == subscriber.sent_bytes
