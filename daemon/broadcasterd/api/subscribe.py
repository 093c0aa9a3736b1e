"""Subscribing: who may listen from where, and the bytes that a stream opens with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from broadcasterd.access.grants import Grant
from broadcasterd.api.auth import token_expired
from broadcasterd.api.request import Head
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.response_subscriber import ResponseSubscriber
from broadcasterd.broadcast.session import Session
from broadcasterd.core.position import ById, First, Start, parse_start
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import Entry, Gap, Position
from broadcasterd.core.wire import (
    HEARTBEAT,
    decode,
    encode_end,
    encode_opening,
    encode_priming,
    unchunk,
)
from broadcasterd.errors import RETRY_AFTER_S, BadRequest, Problem, Unavailable, UsedUp

STREAM_TYPE = "text/event-stream"
STREAM_HEADERS = {
    "Content-Type": STREAM_TYPE,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back to fill its buffers
}

MAX_ID_CHARS = 256
"""Ours have fewer than 30. A longer one is somebody's mistake, and would be echoed in the gap."""

MAX_PAGE_EVENTS = 1000
MAX_PAGE_BYTES = 1024 * 1024
"""A page is built in memory: its events, and so its bytes, are bounded."""

MAX_WAIT_S = 30
"""Proxies cut an answer that takes a minute; half of that is safe everywhere."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that gets a stream: of which session, from where, and its first bytes.

    ``expires_at`` is the moment at which what lets it listen expires.
    """

    session: Session
    position: Position
    stream_id: str
    opening: bytes
    subject: str | None
    expires_at: float


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A request that may listen, but not now: the reason as a stream that ends at once.

    An EventSource never comes back from an answer other than 200, so that is no error.
    """

    body: bytes


@dataclass(frozen=True, slots=True)
class Over:
    """The session was closed: 204, which tells an EventSource to stop."""


def admit(head: Head, name: str, grant: Grant, hub: Hub) -> Admission | TurnedAway | Over:
    """Decide what a request to listen gets, whose ``grant`` covers it.

    Raises:
        BadRequest: the starting point has no form that it can have.
        Unavailable: a bad moment, and the request asked for ``overload=status``.
        TooMany: likewise, and it is the client or the subject that has its share.

    """
    start = _start(head)
    if hub.was_ended(name):
        return Over()
    session = _room(head, name, grant, hub)
    if isinstance(session, _NoRoom):
        if head.parameter("overload") == "status":
            raise session.problem
        return TurnedAway(encode_end(session.reason, retry_ms=hub.subscribers.jittered_retry_ms()))
    position = session.resolve(start)
    stream_id = new_stream_id()
    opening = encode_opening(stream_id, retry_ms=hub.settings.sessions.retry_ms)
    if not isinstance(start, First | ById):
        # A client that is cut before its first event shall resume here, not at the start.
        opening += encode_priming(session.log.id_of(position.cursor))
    return Admission(
        session=session,
        position=position,
        stream_id=stream_id,
        opening=opening,
        subject=grant.subject,
        expires_at=hub.clock.moment(grant.expires_at),
    )


@dataclass(frozen=True, slots=True)
class _NoRoom:
    """Why there is none, as a stream tells it and as an answer does."""

    reason: EndReason
    problem: Problem


def _room(head: Head, name: str, grant: Grant, hub: Hub) -> Session | _NoRoom:
    """Return the session if there is room for a stream."""
    if hub.draining:
        return _no_room(EndReason.DRAINING)
    if hub.pressure.refuses_subscriber():
        return _no_room(EndReason.MEMORY)
    quotas, is_new = hub.quotas, name not in hub.sessions
    if (setting := quotas.used_up_by_streams(head.peer, grant.subject)) or (
        is_new and (setting := quotas.used_up_by_sessions(grant.subject))
    ):
        return _NoRoom(EndReason.MEMORY, UsedUp(setting))
    if hub.subscribers.are_full or (is_new and hub.is_full):
        return _no_room(EndReason.MEMORY)
    session = hub.open(name, grant.subject)
    if len(session.subscribers) >= hub.settings.sessions.max_subscribers_per_session:
        return _no_room(EndReason.MEMORY)
    return session


def _no_room(reason: EndReason) -> _NoRoom:
    msg = f"no stream can be opened now ({reason})"
    return _NoRoom(reason, Unavailable(msg, retry_after=RETRY_AFTER_S))


def _start(head: Head) -> Start:
    # Header values arrive as Latin-1, but this one is UTF-8 (WHATWG HTML §9.2.2).
    header = head.headers.get("last-event-id", "").encode("latin-1").decode(errors="replace")
    start = parse_start(header, head.query)
    if isinstance(start, ById) and len(start.event_id) > MAX_ID_CHARS:
        msg = f"an event id has at most {MAX_ID_CHARS} characters"
        raise BadRequest(msg)
    return start


def new_stream_id() -> str:
    """Return a name for a stream that nobody can guess."""
    return secrets.token_hex(8)


def wants_page(head: Head) -> bool:
    """Whether the request asks for JSON rather than a stream."""
    accept = head.headers.get("accept", "")
    return "application/json" in accept and STREAM_TYPE not in accept


async def page(head: Head, name: str, grant: Grant, hub: Hub) -> dict[str, object] | None:
    """Return a page of a session's log, oldest first; ``None`` if the session was closed.

    ``limit`` bounds it; ``next`` is the id to go on from; ``wait`` holds the answer back for up
    to so many seconds until there is an event. ``gap`` is there when events were lost.

    Raises:
        BadRequest: a query field has no form that it can have.
        Unavailable: a bad moment.
        TooMany: the client or the subject has its share.
        Problem: 401, the grant expired while the answer was held back.

    """
    limit = head.number("limit", default=100, low=1, high=MAX_PAGE_EVENTS)
    wait = head.number("wait", default=0, low=0, high=MAX_WAIT_S)
    start = _start(head)
    if hub.was_ended(name):
        return None
    if not wait and name not in hub.sessions:  # only to look makes no session
        asked = Gap(start.event_id, None) if isinstance(start, ById) else None
        return _page(name, [], next_id=None, gap=asked)
    session = _room(head, name, grant, hub)
    if isinstance(session, _NoRoom):
        raise session.problem
    position = session.resolve(start)
    if wait and position.gap is None and position.cursor == session.log.last:
        await _wait_for_news(head, session, grant, hub, wait)
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
    if granted.cancel_called:  # the stream may have been told first
        raise token_expired()


def _page(
    name: str, events: list[dict[str, object]], *, next_id: str | None, gap: Gap | None
) -> dict[str, object]:
    answer: dict[str, object] = {"session": name, "events": events, "next": next_id}
    return answer | {"gap": {"asked": gap.asked, "oldest": gap.oldest}} if gap else answer


def _as_json(entry: Entry, *, at: float) -> dict[str, object]:
    """Return an event as a client would see it on the stream, and when it was accepted."""
    [event] = decode([unchunk(entry.frame)])
    return {
        "id": event.last_event_id,
        "event": event.event,
        "data": event.data,
        "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
    }
