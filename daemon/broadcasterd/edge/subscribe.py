"""Subscribing: who may listen from where, and the bytes that a stream opens with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from broadcasterd.broadcast.hub import RETRY_AFTER_S, Hub
from broadcasterd.broadcast.pull_subscriber import PullSubscriber
from broadcasterd.broadcast.session import Session
from broadcasterd.core.replaylog import Entry, Gap, Position
from broadcasterd.core.start import ById, First, Start, parse_start
from broadcasterd.core.wire import (
    HEARTBEAT,
    decode,
    encode_end,
    encode_opening,
    encode_priming,
    unchunk,
)
from broadcasterd.edge.request import Head
from broadcasterd.errors import BadRequest, Unavailable
from broadcasterd.reasons import EndReason

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
    """A request that gets a stream: of which session, from where, and its first bytes."""

    session: Session
    position: Position
    stream_id: str
    opening: bytes


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A request that may listen, but not now: the reason as a stream that ends at once.

    An EventSource never comes back from an answer other than 200, so that is no error.
    """

    body: bytes


@dataclass(frozen=True, slots=True)
class Over:
    """The session was closed: 204, which tells an EventSource to stop."""


def admit(head: Head, name: str, hub: Hub) -> Admission | TurnedAway | Over:
    """Decide what a subscribe request gets.

    Raises:
        BadRequest: the starting point has no form that it can have.
        Unavailable: a bad moment, and the request asked for ``overload=status``.

    """
    start = _start(head)
    if hub.was_ended(name):
        return Over()
    reason, session = _room(name, hub)
    if session is None:
        if head.parameter("overload") == "status":
            raise _unavailable(reason)
        return TurnedAway(encode_end(reason, retry_ms=hub.jittered_retry_ms()))
    position = session.resolve(start)
    stream_id = new_stream_id()
    opening = encode_opening(stream_id, retry_ms=hub.limits.retry_ms)
    if not isinstance(start, First | ById):
        # A client that is cut before its first event shall resume here, not at the start.
        opening += encode_priming(session.log.id_of(position.cursor))
    return Admission(session, position, stream_id, opening)


def _room(name: str, hub: Hub) -> tuple[EndReason, Session | None]:
    """Return the session if there is room for a stream, else ``None`` and the reason."""
    if hub.draining:
        return EndReason.DRAINING, None
    if hub.pressure.refuses_subscriber():
        return EndReason.MEMORY, None
    full = len(hub.streams) >= hub.limits.max_subscribers or (
        name not in hub.sessions and len(hub.sessions) >= hub.limits.max_sessions
    )
    if full:
        return EndReason.MEMORY, None
    session = hub.open(name)
    if len(session.subscribers) >= hub.limits.max_subscribers_per_session:
        return EndReason.MEMORY, None
    return EndReason.MEMORY, session


def _unavailable(reason: EndReason) -> Unavailable:
    return Unavailable(f"no stream can be opened now ({reason})", retry_after=RETRY_AFTER_S)


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


async def page(head: Head, name: str, hub: Hub) -> dict[str, object] | None:
    """Return a page of a session's log, oldest first; ``None`` if the session was closed.

    ``limit`` bounds it; ``next`` is the id to go on from; ``wait`` holds the answer back for up
    to so many seconds until there is an event. ``gap`` is there when events were lost.

    Raises:
        BadRequest: a query field has no form that it can have.
        Unavailable: a bad moment.

    """
    limit = head.number("limit", default=100, low=1, high=MAX_PAGE_EVENTS)
    wait = head.number("wait", default=0, low=0, high=MAX_WAIT_S)
    start = _start(head)
    if hub.was_ended(name):
        return None
    if not wait and name not in hub.sessions:  # only to look makes no session
        asked = Gap(start.event_id, None) if isinstance(start, ById) else None
        return _page(name, [], next_id=None, gap=asked)
    reason, session = _room(name, hub)
    if session is None:
        raise _unavailable(reason)
    position = session.resolve(start)
    if wait and position.gap is None and position.cursor == session.log.last:
        await _wait_for_news(head, session, wait)
    entries = session.log.since(position.cursor, max_bytes=MAX_PAGE_BYTES, max_events=limit)
    now, unix_now = session.now(), hub.wall_clock()
    return _page(
        name,
        [_as_json(entry, at=unix_now - (now - entry.appended_at)) for entry in entries],
        next_id=session.log.id_of(entries[-1].seq if entries else position.cursor),
        gap=position.gap,
    )


async def _wait_for_news(head: Head, session: Session, wait: float) -> None:
    waiter = PullSubscriber(
        session,
        stream_id=new_stream_id(),
        peer=head.peer,
        position=Position(session.log.last),
        abort=lambda: None,
    )
    try:
        session.attach(waiter)
        with trio.move_on_after(wait):
            while await waiter.next_bytes() == HEARTBEAT:
                pass
    finally:
        waiter.close(EndReason.CLIENT_GONE)


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
