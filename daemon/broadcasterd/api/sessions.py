"""Looking at sessions and their streams, and ending them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest, nsmallest
from http import HTTPStatus
from typing import TypeVar

from broadcasterd.api.request import Head
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.subscriber import Subscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import BadRequest, Problem

MAX_LISTED = 1000
MAX_OFFSET = 1_000_000

FEW = 20
"""Fewer than one in so many are found without sorting all: in half the time."""

T = TypeVar("T")
Order = Mapping[str, Callable[[T], float]]

SESSION_ORDER: Order[Session] = {
    "subscribers": lambda session: len(session.subscribers),
    "retained_events": lambda session: len(session.log),
    "retained_bytes": lambda session: session.log.bytes,
    "age_s": lambda session: -session.opened_at,
    "idle_s": lambda session: -session.active_at if not session.subscribers else float("-inf"),
}
"""What sessions can be sorted by, beside their names."""

STREAM_ORDER: Order[Subscriber] = {
    "age_s": lambda stream: -stream.opened_at,
    "lag_events": lambda stream: stream.feed.log.last - stream.cursor,
    "sent_events": lambda stream: stream.sent_events,
    "sent_bytes": lambda stream: stream.sent_bytes,
    "pending_bytes": lambda stream: stream.pending_bytes,
}
"""What streams can be sorted by, beside the order in which they came."""


def list_sessions(head: Head, hub: Hub) -> dict[str, object]:
    """Return a page of the open sessions by name; ``next`` is the cursor to go on from.

    ``q`` leaves those whose names have it, in capitals or not. ``sort`` is another order, largest
    first with a minus; there ``offset`` leads to the next page, for a figure is no cursor.

    Raises:
        BadRequest: a query field has no known form.

    """
    limit = head.number("limit", default=100, low=1, high=MAX_LISTED)
    offset = head.number("offset", default=0, low=0, high=MAX_OFFSET)
    wanted = (head.parameter("q") or "").lower()
    cursor = head.parameter("cursor") or ""
    key, falling = _order(head, {"session": None, **SESSION_ORDER})
    names = [name for name in hub.sessions if not wanted or wanted in name.lower()]
    found = len(names)
    if cursor:
        names = [name for name in names if name > cursor]
    end = offset + limit
    if key is None:
        names.sort(reverse=falling)
    else:  # of ten thousand, mostly fifty are shown
        names = _first(end + 1, names, lambda name: key(hub.sessions[name]), falling=falling)
    is_by_name = key is None and not falling
    return {
        "sessions": [describe(hub.sessions[name]) for name in names[offset:end]],
        "next": names[end - 1] if is_by_name and len(names) > end else None,
        "found": found,
        "total": len(hub.sessions),
    }


def describe(session: Session) -> dict[str, object]:
    """Return a session's figures for an operator; ages in seconds."""
    statistics = session.statistics()
    oldest_at = statistics.log.oldest_at
    return {
        "session": statistics.name,
        "subscribers": statistics.subscribers,
        "retained_events": statistics.log.events,
        "retained_bytes": statistics.log.bytes,
        "oldest_id": statistics.log.oldest_id,
        "last_id": statistics.log.last_id,
        "oldest_age_s": None if oldest_at is None else round(session.now() - oldest_at, 3),
        "age_s": round(statistics.age, 3),
        "idle_s": round(statistics.idle, 3),
    }


def list_streams(head: Head, session: Session) -> dict[str, object]:
    """Return a page of a session's streams, oldest first, or as ``sort`` says.

    Raises:
        BadRequest: a query field has no known form.

    """
    limit = head.number("limit", default=100, low=1, high=MAX_LISTED)
    offset = head.number("offset", default=0, low=0, high=MAX_OFFSET)
    key, falling = _order(head, STREAM_ORDER)
    streams: list[Subscriber] = [*session.subscribers]
    total = len(streams)
    if key is not None:
        streams = _first(offset + limit, streams, key, falling=falling)
    return {
        "session": session.name,
        "streams": [_describe_stream(stream) for stream in streams[offset : offset + limit]],
        "total": total,
    }


def end_stream(stream_id: str, hub: Hub) -> None:
    """End one stream; its client is told not to come back, and its token stays good.

    Raises:
        Problem: 404, no such stream is open.

    """
    stream = hub.subscribers.by_id.get(stream_id)
    if stream is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no open stream has this id")
    stream.disconnect(EndReason.REVOKED)


def _describe_stream(stream: Subscriber) -> dict[str, object]:
    """Return a stream's figures for an operator. A lag is events that it was not sent whole yet."""
    return {
        "stream": stream.stream_id,
        "peer": stream.peer,
        "subject": stream.subject,
        "age_s": round(stream.feed.now() - stream.opened_at, 3),
        "lag_events": max(0, stream.feed.log.last - stream.cursor),
        "sent_events": stream.sent_events,
        "sent_bytes": stream.sent_bytes,
        "pending_bytes": stream.pending_bytes,
    }


def _order(head: Head, known: Mapping[str, T]) -> tuple[T | None, bool]:
    """Return what to sort by, if anything, and whether from the largest on."""
    asked = head.parameter("sort")
    if asked is None:
        return None, False
    name = asked.removeprefix("-")
    if name not in known:
        raise BadRequest(f"sort: expected one of {names_of(known)}, or one with a minus before it")
    return known[name], asked != name


def _first(count: int, of: list[T], key: Callable[[T], float], *, falling: bool) -> list[T]:
    """Return the first in an order; those that are equal stay as they were."""
    if count * FEW < len(of):
        return (nlargest if falling else nsmallest)(count, of, key=key)
    return sorted(of, key=key, reverse=falling)


def names_of(known: Iterable[str]) -> str:
    """Return names as a list for people."""
    return ", ".join(known)
