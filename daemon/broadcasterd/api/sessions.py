"""Looking at sessions, and closing them."""

from __future__ import annotations

from itertools import islice

from broadcasterd.api.request import Head
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session

MAX_LISTED = 1000


def list_sessions(head: Head, hub: Hub) -> dict[str, object]:
    """Return a page of the open sessions by name; ``next`` is the cursor to go on from.

    Raises:
        BadRequest: ``limit`` is no number in its bounds.

    """
    limit = head.number("limit", default=100, low=1, high=MAX_LISTED)
    cursor = head.parameter("cursor") or ""
    names = sorted(name for name in hub.sessions if name > cursor)
    shown = [describe(hub.sessions[name]) for name in islice(names, limit)]
    return {
        "sessions": shown,
        "next": names[limit - 1] if len(names) > limit else None,
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
