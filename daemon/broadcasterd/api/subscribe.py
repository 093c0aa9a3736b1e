"""Subscribing: whether a request gets a stream, from which position, and its first bytes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from broadcasterd.access.grants import Grant
from broadcasterd.api.formats import STREAM_TYPE
from broadcasterd.api.request import Head
from broadcasterd.api.room import NoRoom, TurnedAway, find_room, turn_away
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.core.position import ById, First, Start, parse_start
from broadcasterd.core.replaylog import Position
from broadcasterd.core.wire import (
    encode_opening,
    encode_priming,
)
from broadcasterd.errors import BadRequest

STREAM_HEADERS = {
    # By the standard it is UTF-8 anyway; but clients that know only HTTP take text for Latin-1.
    "Content-Type": f"{STREAM_TYPE}; charset=utf-8",
    # Proxies that compress would hold events back to fill their buffers, as nginx would below.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}

MAX_ID_CHARS = 256
"""Our ids have fewer than 30. A longer one is somebody's mistake, and the gap would echo it."""


class Admission(msgspec.Struct, frozen=True):
    """A request that gets a stream: its session, its position, and its first bytes.

    ``expires_at`` is the moment at which its grant expires.
    """

    session: Session
    position: Position
    stream_id: str
    opening: bytes
    subject: str | None
    expires_at: float


@dataclass(frozen=True, slots=True)
class Over:
    """The session was closed: 204, which tells an EventSource to stop."""


def admit(head: Head, name: str, grant: Grant, hub: Hub) -> Admission | TurnedAway | Over:
    """Decide the response to a request to listen, which ``grant`` covers.

    Raises:
        BadRequest: the starting point has no known form.
        Unavailable: a bad moment, and the request asked for ``overload=status``.
        TooMany: the client or the subject has its share, and the request asked for that status.

    """
    start = start_of(head)
    if hub.was_ended(name):
        return Over()
    session = find_room(head, name, grant, hub)
    if isinstance(session, NoRoom):
        return turn_away(head, hub, session)
    return admit_from(start, session, grant, hub)


def admit_from(start: Start, session: Session, grant: Grant, hub: Hub) -> Admission:
    """Return the admission of a stream that starts somewhere in a session."""
    position = session.resolve(start)
    opening = b""
    if not isinstance(start, First | ById):
        # A client that is cut before its first event shall resume here, not at the start. One that
        # is to be told of a gap first has an id from before all that is lost.
        here = position.cursor if position.gap is None else 0
        opening = encode_priming(session.log.id_of(here))
    return admit_to(session, position, grant, hub, opening=opening)


def admit_to(
    session: Session, position: Position, grant: Grant, hub: Hub, *, opening: bytes
) -> Admission:
    """Return the admission of a new stream; ``opening`` follows what names it."""
    stream_id = hub.subscribers.new_id()
    named = encode_opening(stream_id, retry_ms=hub.settings.sessions.retry_ms)
    return Admission(
        session=session,
        position=position,
        stream_id=stream_id,
        opening=named + opening,
        subject=grant.subject,
        expires_at=hub.clock.moment(grant.expires_at),
    )


def start_of(head: Head) -> Start:
    """Return where a request wants to start.

    Raises:
        BadRequest: the starting point has no known form.

    """
    header = head.headers.get("last-event-id")
    if header is not None:
        # Header values arrive as Latin-1, but this one is UTF-8 (WHATWG HTML §9.2.2).
        header = header.encode("latin-1").decode(errors="replace")
    start = parse_start(header, head.query)
    if isinstance(start, ById) and len(start.event_id) > MAX_ID_CHARS:
        msg = f"an event id has at most {MAX_ID_CHARS} characters"
        raise BadRequest(msg)
    return start
