"""What is counted, and where; without a reader it is counted all the same."""

from __future__ import annotations

import logging
import queue
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

from broadcasterd.api.auth import unauthorized
from broadcasterd.api.formats import format_of
from broadcasterd.api.request import Head
from broadcasterd.broadcast.batch import Batch
from broadcasterd.broadcast.socket_subscriber import Progress, SocketSubscriber
from broadcasterd.config import Limits
from broadcasterd.core.position import ById
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import (
    BadRequest,
    Draining,
    NoSuchSession,
    Problem,
    ShortOfMemory,
    TooLarge,
    TooMany,
    TooSlow,
    Unavailable,
    UsedUp,
)
from broadcasterd.figures.counts import Cause, Counts, Format
from broadcasterd.observe.journal import JournalHandler
from broadcasterd.observe.log import DroppingQueueHandler
from tests.support.broadcast import (
    Recorder,
    ThrottledSocket,
    attach,
    draft,
    drafts,
    in_force,
    make_hub,
    pass_time,
    start_hub,
    taken,
)

# --- events and streams ----------------------------------------------------------------------


async def test_an_event_counts_once_and_is_delivered_to_each_who_listens(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery)
    session = hub.open("a")
    streams = [attach(session) for _ in range(3)]
    await session.publish(drafts("x", "y"))
    await session.publish(drafts("z"))
    await trio.testing.wait_all_tasks_blocked()
    counts = hub.counts

    assert 3 == counts.events
    assert (9, sum(len(taken(stream)) for stream in streams)) == hub.subscribers.sent
    assert (3, 2) == (counts.streams_opened, sum(counts.fan_out.counts))


async def test_a_fan_out_to_nobody_has_no_duration(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery)
    await hub.open("a").publish(drafts("x"))
    await trio.testing.wait_all_tasks_blocked()

    assert (1, 0) == (hub.counts.events, sum(hub.counts.fan_out.counts))


async def test_what_was_sent_stays_counted_when_a_stream_has_ended(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery)
    session = hub.open("a")
    stream = attach(session)
    await session.publish(drafts("x", "y"))
    await trio.testing.wait_all_tasks_blocked()
    before = hub.subscribers.sent
    stream.close(EndReason.CLIENT_GONE)

    assert (2, len(taken(stream))) == before == hub.subscribers.sent


async def test_what_an_earlier_process_sent_is_not_counted_again(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery)
    session = hub.open("a")
    progress = Progress(
        cursor=0, pending=b"", asked=None, max_lag=500, opened_s=9, sent_bytes=4000, sent_events=70
    )
    stream = SocketSubscriber.restored(
        session,
        ThrottledSocket(),
        hub.poller,
        stream_id="s",
        peer="127.0.0.1",
        progress=progress,
        subject=None,
        expires_at=float("inf"),
    )
    session.attach(stream)

    assert (0, 0) == hub.subscribers.sent

    await session.publish(drafts("x"))
    await trio.testing.wait_all_tasks_blocked()
    stream.close(EndReason.CLIENT_GONE)

    assert (1, len(taken(stream))) == hub.subscribers.sent


async def test_only_what_a_slow_socket_took_is_sent(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery)
    session = hub.open("a")
    stream = attach(session, ThrottledSocket(window=10))
    await session.publish(drafts("x" * 100, "y"))
    await trio.testing.wait_all_tasks_blocked()

    assert 10 == hub.subscribers.sent.bytes
    assert 10 == len(taken(stream))


async def test_duplicates_are_no_events(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery)
    session = hub.open("a")
    for _ in range(3):
        await session.publish([draft("x", key="k")])

    assert (1, 2) == (hub.counts.events, hub.counts.duplicates)


async def test_a_gap_counts_when_it_is_told(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery)
    session = hub.open("a")
    await session.publish(drafts("x"))
    attach(session, start=ById("another-7"))
    attach(session)

    assert 1 == hub.counts.gaps


# --- time, and failures ----------------------------------------------------------------------


async def test_what_expires_counts_by_kind(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, event_ttl=10, session_ttl=100)
    await hub.open("a").publish(drafts("x", "y"))
    pass_time(hub, 11)
    await hub.sweep()

    assert (2, 0) == (hub.counts.expired_events, hub.counts.expired_sessions)

    pass_time(hub, 100)
    await hub.sweep()

    assert (2, 1) == (hub.counts.expired_events, hub.counts.expired_sessions)


async def test_what_a_bound_evicts_has_not_expired(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_history_events=1)
    await hub.open("a").publish(drafts("x", "y", "z"))

    assert 0 == hub.counts.expired_events


async def test_a_stream_and_a_session_that_fail_are_counted(nursery: trio.Nursery) -> None:
    def fail(_: Batch) -> NoReturn:
        raise RuntimeError("a defect")

    hub = await start_hub(nursery)
    session = hub.open("a")
    Recorder(session, on_delivery=fail)
    await session.publish(drafts("x"))
    await trio.testing.wait_all_tasks_blocked()

    assert (1, 0) == (hub.counts.failed_streams, hub.counts.failed_sessions)

    del session.log.__dict__["_history"]
    with pytest.raises(Unavailable):
        await session.publish(drafts("y"))
    await trio.testing.wait_all_tasks_blocked()

    assert 1 == hub.counts.failed_sessions


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "cause"),
    [
        (unauthorized("it is bad"), Cause.TOKEN),
        (TooMany("too fast", retry_after=1), Cause.RATE),
        (UsedUp("max_sessions_per_subject"), Cause.LIMITS),
        (Unavailable("full", retry_after=1), Cause.LIMITS),
        (TooLarge("too many bytes"), Cause.LIMITS),
        (TooSlow("too long"), Cause.LIMITS),
        (ShortOfMemory(), Cause.BREAKER),
        (Draining(), Cause.DRAINING),
        (BadRequest("no"), None),
        (NoSuchSession("a"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Problem) else str(value),
)
def test_a_problem_has_the_cause_that_it_is_counted_under(
    problem: Problem, cause: Cause | None
) -> None:
    counts = Counts()
    counts.turned_away(problem.cause)

    assert ({} if cause is None else {cause: 1}) == counts.refused


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/json", Format.JSON),
        ("Application/JSON; charset=utf-8", Format.JSON),
        ("application/x-ndjson", Format.NDJSON),
        ("text/event-stream", Format.EVENT_STREAM),
        ("text/plain", Format.TEXT),
        ("text/markdown;charset=utf-8", Format.TEXT),
        ("image/png", Format.OTHER),
        ("x" * 5000, Format.OTHER),
        (None, Format.OTHER),
    ],
)
def test_a_body_counts_under_one_of_few_formats(media_type: str | None, expected: Format) -> None:
    headers = {} if media_type is None else {"content-type": media_type}

    assert expected is format_of(Head("POST", "/", (), headers, "", "1.1"))


async def test_a_stream_that_ends_for_want_of_room_is_no_refusal_of_a_request(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery, make_hub(in_force(Limits(), max_subscribers=1)))
    session = hub.open("a")
    attach(session)
    attach(session)

    assert {EndReason.MEMORY: 1} == hub.subscribers.ended_by_reason
    assert {} == hub.counts.refused


# --- records ---------------------------------------------------------------------------------


def test_records_that_find_the_queue_full_are_counted() -> None:
    counts = Counts()
    handler = DroppingQueueHandler(queue.Queue(1), counts)
    for text in "abc":
        handler.emit(logging.makeLogRecord({"msg": text}))

    assert 2 == counts.dropped_records


def test_records_that_are_left_out_are_counted() -> None:
    counts = Counts()
    handler = DroppingQueueHandler(queue.Queue(), counts)
    for _ in range(8):
        handler.handle(logging.makeLogRecord({"msg": {"event": "token refused"}}))
    handler.tell_left_out(is_over=True)

    assert 0 < counts.left_out_records <= 3


def test_records_that_journald_does_not_take_are_counted(tmp_path: Path) -> None:
    counts = Counts()
    handler = JournalHandler(tmp_path / "nobody", counts)
    for _ in range(2):
        handler.emit(logging.makeLogRecord({"levelno": 20, "msg": {"event": "x"}}))
    handler.close()

    assert 2 == counts.unwritten_records
