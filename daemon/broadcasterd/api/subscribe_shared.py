"""Subscribing where an engine that others share has to be asked first what a session has."""

from __future__ import annotations

from broadcasterd.access.grants import Grant
from broadcasterd.api.request import Head
from broadcasterd.api.room import NoRoom, TurnedAway, find_room, turn_away
from broadcasterd.api.subscribe import Admission, Over, admit_from, start_of
from broadcasterd.broadcast.hub import Hub
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import SessionEnded, Unavailable


async def admit_when_ready(
    head: Head, name: str, grant: Grant, hub: Hub
) -> Admission | TurnedAway | Over:
    """Decide as :func:`.subscribe.admit` does, once it is known what the session has.

    Raises:
        Problem: as there.

    """
    start = start_of(head)
    session = find_room(head, name, grant, hub)
    if isinstance(session, NoRoom):
        return turn_away(head, hub, session)
    try:
        await session.ready()
    except SessionEnded:
        return Over()
    except Unavailable as problem:
        return turn_away(head, hub, NoRoom(EndReason.UNAVAILABLE, problem))
    return admit_from(start, session, grant, hub)
