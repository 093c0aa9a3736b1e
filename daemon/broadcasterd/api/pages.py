"""Pages: a session's log as JSON, for clients that cannot stream. They may wait for news."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

import trio

from broadcasterd.access.grants import Grant
from broadcasterd.api.auth import token_expired
from broadcasterd.api.fields import prefers
from broadcasterd.api.formats import JSON_TYPE, STREAM_TYPE
from broadcasterd.api.request import Head
from broadcasterd.api.subscribe import NoRoom, find_room, new_stream_id, start_of
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.response_subscriber import ResponseSubscriber
from broadcasterd.broadcast.session import Session
from broadcasterd.core.decoder import read_frame
from broadcasterd.core.position import ById
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Gap, Position
from broadcasterd.core.segment import Entry
from broadcasterd.core.wire import HEARTBEAT

MAX_PAGE_EVENTS = 1000
MAX_PAGE_BYTES = 1024 * 1024
"""A page is built in memory: its events, and so its bytes, are bounded."""

MAX_WAIT_S = 30
"""Proxies cut an answer that takes a minute; half of that is safe everywhere."""


def wants_page(head: Head) -> bool:
    """Whether the request asks for JSON rather than a stream."""
    accept = head.headers.get("accept")
    return accept is not None and prefers(accept, JSON_TYPE, STREAM_TYPE)


async def page(
    head: Head,
    name: str,
    grant: Grant,
    hub: Hub,
    until_gone: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, object] | None:
    """Return a page of a session's log, oldest first; ``None`` if the session was closed.

    ``limit`` bounds it; ``next`` is the id to go on from, always; ``wait`` holds the answer back
    for up to so many seconds until there is an event, or the client says that it will send no
    more. ``gap`` is there when events were lost.

    Raises:
        BadRequest: a query field has no known form.
        Unavailable: a bad moment.
        TooMany: the client or the subject has used up its quota.
        Problem: 401, the grant expired while the answer was held back.

    """
    limit = head.number("limit", default=100, low=1, high=MAX_PAGE_EVENTS)
    wait = head.number("wait", default=0, low=0, high=MAX_WAIT_S)
    start = start_of(head)
    if hub.was_ended(name):
        return None
    if not wait and name not in hub.sessions:  # a mere look opens no session
        beginning = hub.beginning_of(name)
        gap = None
        if isinstance(start, ById) and start.event_id != beginning:
            gap = Gap(start.event_id, None)
        return _page(name, [], next_id=beginning, gap=gap)
    session = find_room(head, name, grant, hub)
    if isinstance(session, NoRoom):
        raise session.problem
    position = session.resolve(start)
    if wait and position.gap is None and not session.log.since(position.cursor, max_bytes=0):
        with until_gone():
            await _wait_for_news(head, session, grant, hub, wait)
        if hub.was_ended(name):
            return None
        if hub.sessions.get(name) is not session:  # lost meanwhile: the next page tells the gap
            return _page(name, [], next_id=session.log.id_of(position.cursor), gap=None)
        position = session.log.renewed(position)
    entries = session.log.since(position.cursor, max_bytes=MAX_PAGE_BYTES, max_events=limit)
    now, unix_now = session.now(), hub.clock.unix_now()
    return _page(
        name,
        [_as_json(entry, at=unix_now - (now - entry.appended_at)) for entry in entries],
        next_id=session.log.id_of(entries[-1].seq if entries else position.cursor),
        gap=position.gap,
    )


async def _wait_for_news(head: Head, session: Session, grant: Grant, hub: Hub, wait: float) -> None:
    with trio.move_on_after(wait) as waiting, hub.interrupts.until_expired(grant) as granted:
        waiter = ResponseSubscriber(
            session,
            waiting,
            stream_id=new_stream_id(),
            peer=head.peer,
            position=Position(session.log.last),
            subject=grant.subject,
            expires_at=hub.clock.moment(grant.expires_at),
        )
        try:
            session.attach(waiter)
            while await waiter.next_bytes() == HEARTBEAT:
                pass
        finally:
            waiter.close(EndReason.CLIENT_GONE)
    if granted.cancel_called:  # the waiter may have been ended first
        raise token_expired()


def _page(
    name: str, events: list[dict[str, object]], *, next_id: str, gap: Gap | None
) -> dict[str, object]:
    answer: dict[str, object] = {"session": name, "events": events, "next": next_id}
    return answer | {"gap": {"asked": gap.asked, "oldest": gap.oldest}} if gap else answer


def _as_json(entry: Entry, *, at: float) -> dict[str, object]:
    """Return an event as a client would see it on the stream, and when it was accepted."""
    event = read_frame(entry.frame)
    return {
        "id": event.last_event_id,
        "event": event.event,
        "data": event.data,
        "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
    }
