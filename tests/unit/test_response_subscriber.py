"""A stream that is asked for its bytes: the same events, framed by somebody else."""

from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing

from broadcasterd.broadcast.response_subscriber import LAST_WORDS_TIMEOUT_S, ResponseSubscriber
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.subscriber import LAGGING_S, MAX_WRITE_BYTES
from broadcasterd.core.position import ById, Start
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.wire import HEARTBEAT, encode_end, encode_gap, unchunk
from tests.support.broadcast import ALL, FIRST, draft, drafts, hub_of, pass_time, start_hub
from tests.support.sse import parse


class Body:
    """The response body: comes for bytes when the test says so."""

    def __init__(self, session: Session, start: Start = FIRST) -> None:
        self.response = trio.CancelScope()
        self.subscriber = ResponseSubscriber(
            session,
            self.response,
            stream_id=f"response-{id(self)}",
            peer="127.0.0.1",
            position=session.resolve(start),
        )
        session.attach(self.subscriber)

    async def next(self) -> bytes | None:
        with trio.fail_after(10):
            return await self.subscriber.next_bytes()

    @property
    def aborted(self) -> bool:
        return self.response.cancel_called


@pytest.fixture
async def session(nursery: trio.Nursery) -> Session:
    """Open a session of a hub with the default settings."""
    return (await start_hub(nursery)).open("s")


def unframed(session: Session, *, after: int = 0) -> bytes:
    """Return what is retained after a cursor, without the chunk framing."""
    return b"".join(unchunk(entry.frame) for entry in session.log.since(after, max_bytes=ALL))


async def test_it_is_given_what_is_retained_and_then_what_comes(session: Session) -> None:
    await session.publish(drafts("a", "b"))
    body = Body(session)

    assert await body.next() == unframed(session)

    await session.publish(drafts("c"))

    assert await body.next() == unframed(session, after=2)
    assert body.subscriber.sent_bytes == len(unframed(session))
    assert body.subscriber.sent_events == 3


async def test_it_waits_for_what_is_not_there_yet(session: Session, nursery: trio.Nursery) -> None:
    body = Body(session)
    received: list[bytes | None] = []

    async def receive() -> None:
        received.append(await body.next())

    nursery.start_soon(receive)
    await trio.testing.wait_all_tasks_blocked()

    assert received == []

    await session.publish(drafts("a"))
    await trio.testing.wait_all_tasks_blocked()

    assert received == [unframed(session)]


async def test_a_long_history_comes_in_pieces(session: Session) -> None:
    await session.publish(drafts(*["x" * 10_000] * 20))
    body = Body(session)
    received = b""
    pieces = 0
    while len(received) < len(unframed(session)):
        received += await body.next() or b""
        pieces += 1

    assert received == unframed(session)
    assert pieces > 20 * 10_000 / MAX_WRITE_BYTES


async def test_a_gap_comes_first_and_once(session: Session) -> None:
    await session.publish(drafts("a"))
    body = Body(session, ById("0-lost"))

    assert await body.next() == encode_gap(asked="0-lost", oldest=session.log.id_of(1))
    assert await body.next() == unframed(session)


async def test_heartbeats_come_only_where_there_is_nothing_else(session: Session) -> None:
    body = Body(session)
    body.subscriber.heartbeat()
    await session.publish(drafts("a"))

    assert await body.next() == unframed(session)

    body.subscriber.heartbeat()
    body.subscriber.heartbeat()

    assert await body.next() == HEARTBEAT


async def test_it_goes_on_behind_events_that_expired(
    session: Session, autojump_clock: trio.testing.MockClock
) -> None:
    body = Body(session)
    await session.publish([draft("short-lived", ttl=1)])
    await trio.sleep(2)
    session.log.expire(session.now())
    await session.publish(drafts("next"))

    assert await body.next() == unframed(session)


async def test_past_the_lag_limit_it_is_told_why_and_ends(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_lag_events=2)
    session = hub.open("s")
    body = Body(session)
    for data in "abcd":  # of the last one it could not have taken anything yet
        await session.publish(drafts(data))

    assert await body.next() == encode_end(EndReason.SLOW_CONSUMER)
    assert await body.next() is None
    assert hub.subscribers.ended_by_reason == {EndReason.SLOW_CONSUMER: 1}
    assert not body.aborted


async def test_who_had_everything_is_not_behind_however_much_comes_at_once(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery, max_lag_events=2)
    session = hub.open("s")
    body = Body(session)
    received = b""

    async def receive() -> None:
        nonlocal received
        while piece := await body.next():
            received += piece

    nursery.start_soon(receive)
    await trio.testing.wait_all_tasks_blocked()
    await session.publish(drafts(*map(str, range(2000))))  # more than is retained
    await trio.testing.wait_all_tasks_blocked()

    events = list(parse(received.decode().split("\n")))
    assert [str(number) for number in range(2000)] == [event.data for event in events]
    assert not hub.subscribers.ended_by_reason


async def test_past_the_lag_limit_one_that_may_skip_is_told_of_the_gap(
    nursery: trio.Nursery,
) -> None:
    session = (await start_hub(nursery, max_lag_events=2, slow_consumer="skip")).open("s")
    body = Body(session)
    for data in "abcdef":
        await session.publish(drafts(data))
    gap = await body.next()
    rest = await body.next() or b""
    events = list(parse(rest.decode().split("\n")))

    assert gap == encode_gap(asked=session.log.id_of(0), oldest=events[0].id)
    assert unframed(session).endswith(rest)
    assert events[-1].data == "f"


async def test_one_that_finishes_is_given_what_it_is_owed_first(session: Session) -> None:
    body = Body(session)
    await session.publish(drafts("a"))
    body.subscriber.finish(EndReason.DRAINING, retry_ms=1234)
    body.subscriber.finish(EndReason.SESSION_CLOSED)

    assert await body.next() == unframed(session)
    assert await body.next() == encode_end(EndReason.DRAINING, retry_ms=1234)
    assert await body.next() is None
    assert hub_of(session).subscribers.ended_by_reason == {EndReason.DRAINING: 1}


async def test_one_that_is_cut_is_told_only_why(session: Session) -> None:
    body = Body(session)
    await session.publish(drafts("a"))
    body.subscriber.disconnect(EndReason.MEMORY)

    assert await body.next() == encode_end(EndReason.MEMORY)
    assert await body.next() is None


async def test_a_response_that_does_not_come_for_its_last_bytes_is_cancelled(
    session: Session, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    body = Body(session)
    ended_at: list[float] = []

    async def send_to_one_that_reads_nothing() -> None:
        try:
            with body.response:
                await trio.sleep_forever()
        finally:
            body.subscriber.close(EndReason.CLIENT_GONE)
            ended_at.append(trio.current_time())

    nursery.start_soon(send_to_one_that_reads_nothing)
    began = trio.current_time()
    body.subscriber.disconnect(EndReason.MEMORY)
    await trio.sleep(2 * LAST_WORDS_TIMEOUT_S)

    assert [began + LAST_WORDS_TIMEOUT_S] == ended_at
    assert hub_of(session).subscribers.ended_by_reason == {EndReason.MEMORY: 1}


async def test_a_response_that_came_for_its_last_bytes_may_take_its_time_to_send_them(
    session: Session,
) -> None:
    body = Body(session)
    body.subscriber.disconnect(EndReason.MEMORY)
    await body.next()

    assert body.response.deadline == inf


async def test_closing_ends_a_body_that_waits(session: Session, nursery: trio.Nursery) -> None:
    body = Body(session)
    received: list[bytes | None] = []

    async def receive() -> None:
        received.append(await body.next())

    nursery.start_soon(receive)
    await trio.testing.wait_all_tasks_blocked()
    body.subscriber.close(EndReason.CLIENT_GONE)
    body.subscriber.close(EndReason.CRASHED)
    await trio.testing.wait_all_tasks_blocked()

    assert received == [None]
    assert not body.aborted
    assert hub_of(session).subscribers.ended_by_reason == {EndReason.CLIENT_GONE: 1}


async def test_closing_aborts_a_body_that_is_busy_sending(session: Session) -> None:
    body = Body(session)
    await session.publish(drafts("a"))
    await body.next()
    body.subscriber.close(EndReason.CRASHED)

    assert body.aborted
    assert await body.next() is None


async def test_what_a_body_is_busy_sending_is_accounted_for(session: Session) -> None:
    body = Body(session)
    await session.publish(drafts("a"))
    taken = await body.next() or b""

    assert body.subscriber.pending_bytes == len(taken) > 0
    assert not body.subscriber.is_behind

    await session.publish(drafts("b"))
    pass_time(hub_of(session), LAGGING_S)

    assert body.subscriber.is_behind


async def test_a_body_that_is_cut_gets_nothing_that_is_published_after(session: Session) -> None:
    body = Body(session)
    await session.publish(drafts("a"))
    await body.next()
    body.subscriber.disconnect(EndReason.TOKEN_EXPIRED)
    body.subscriber.disconnect(EndReason.TOKEN_EXPIRED)
    await session.publish(drafts("b"))

    assert await body.next() == encode_end(EndReason.TOKEN_EXPIRED)
    assert await body.next() is None
    assert hub_of(session).subscribers.ended_by_reason == {EndReason.TOKEN_EXPIRED: 1}
