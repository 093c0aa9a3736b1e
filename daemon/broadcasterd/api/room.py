"""Whether there is room for another stream, and how a client is told that there is none."""

from __future__ import annotations

from dataclasses import dataclass

from broadcasterd.access.grants import Grant
from broadcasterd.api.request import Head
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.wire import encode_end
from broadcasterd.errors import RETRY_AFTER_S, Problem, Unavailable, UsedUp
from broadcasterd.figures.counts import Cause


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A request that may listen, but not now: the reason as a stream that ends at once.

    An EventSource never comes back after an answer other than 200, so this is no error.
    """

    body: bytes


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The reason why there is no room, as a stream tells it and as an answer does."""

    reason: EndReason
    problem: Problem


def find_room(head: Head, name: str, grant: Grant, hub: Hub) -> Session | NoRoom:
    """Return the session if it has room for a stream, or for a page that waits like one."""
    if hub.draining:
        return no_room(EndReason.DRAINING, Cause.DRAINING)
    if hub.pressure.refuses_subscriber():
        return no_room(EndReason.MEMORY, Cause.BREAKER)
    quotas, is_new = hub.quotas, name not in hub.sessions
    if (setting := quotas.used_up_by_streams(head.peer, grant.subject)) or (
        is_new and (setting := quotas.used_up_by_sessions(grant.subject))
    ):
        return no_room(EndReason.MEMORY, setting=setting)
    if hub.subscribers.are_full or (is_new and hub.is_full and not hub.make_room()):
        return no_room(EndReason.MEMORY)
    session = hub.open(name, grant.subject)
    if len(session.subscribers) >= hub.settings.sessions.max_subscribers_per_session:
        return no_room(EndReason.MEMORY)
    return session


def no_room(
    reason: EndReason, cause: Cause = Cause.LIMITS, *, setting: str | None = None
) -> NoRoom:
    """Return why there is no room; ``setting`` is the limit that is reached."""
    if setting is not None:
        return NoRoom(reason, UsedUp(setting))
    msg = f"no stream can be opened now ({reason})"
    return NoRoom(reason, Unavailable(msg, retry_after=RETRY_AFTER_S, cause=cause))


def turn_away(head: Head, hub: Hub, why: NoRoom) -> TurnedAway:
    """Return the stream that tells why there is none, and count it.

    Raises:
        Problem: the request asked for that instead (``overload=status``).

    """
    if head.parameter("overload") == "status":
        raise why.problem
    hub.counts.turned_away(why.problem.cause)
    return TurnedAway(encode_end(why.reason, retry_ms=hub.subscribers.jittered_retry_ms()))
